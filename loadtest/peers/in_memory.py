"""What messages of each peer cost in memory: one process, one JSON object of ns per case.

``python -m capnp_rig.loadtest.peers.in_memory [PEER…]``, by default all of
`peers.frames`, and ours in any case.

`call` is received bytes in, bytes to send out, the text reversed in between; per call there is the
Finish that the peer sends, for the calls of the read before. A size that comes for the first time
on its connection has a layout that is not known. `reply` is what the generator spends:
a call to send, its reply matched and compared, and a Finish where the server needs that. All cases
take turns, so that what changes with time falls on all.
"""

import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from capnp_rig.loadtest.peers.frames import (
    BOOTSTRAP_QUESTION,
    OURS,
    PEERS,
    Peer,
    bootstrap,
    release,
)
from capnp_rig.loadtest.peers.tutorial_call import (
    INLINE,
    READ,
    TEXT,
    params_of,
    results_of,
)
from capnp_rig.loadtest.protocols.capnp_exchange import Exchange
from capnp_rig.loadtest.workload import WorkloadConfig, load_workload
from capnp_rig.wire.rpc.server_connection import ServerConnection

BATCH, IN_FLIGHT, SIZES = 16, 64, 500
_TURNS = 9
_TURN_S = 0.01
# A pass over a case: what to do, and how many messages that is.
_Case = tuple[Callable[[], object], int]


def _texts() -> list[str]:
    """Return texts of `SIZES` lengths in words, in shuffled order."""
    lengths = random.Random(1).sample(range(SIZES), SIZES)
    return [(TEXT * (length // 4 + 1))[: 8 * length + 3] for length in lengths]


def _server(peer: Peer) -> ServerConnection:
    server = ServerConnection()
    server.receive_data(bootstrap() + peer.settled())
    server.data_to_send()
    return server


def _calling(peer: Peer, texts: Sequence[str], batch: int, *, are_new: bool = False) -> _Case:
    """Serve calls with these texts, `batch` of them in a read; `are_new` to a new connection."""
    known = _server(peer)
    first = BOOTSTRAP_QUESTION + 1
    ids = range(first, first + len(texts))
    calls = [
        peer.call(number, READ, params_of(text)) for number, text in zip(ids, texts, strict=True)
    ]
    reads = []
    for start in range(0, len(ids), batch):
        # Of the read before, and of the last one for the first.
        done = ids[start - batch : start] if start else ids[-batch:]
        finishes = [peer.finish(number) for number in done] if peer.finishes else []
        reads.append(b"".join([*finishes, *calls[start : start + batch]]))

    def serve() -> list[bytes]:
        sent, server = [], _server(peer) if are_new else known
        for data in reads:
            for event in server.events(data, INLINE):
                raise AssertionError(event)
            sent.append(server.data_to_send())
        return sent

    replies = b"".join(serve())
    assert all(text[::-1].encode() in replies for text in texts), peer.name
    return serve, len(texts)


def _ending(frames: Sequence[bytes]) -> _Case:
    """Take messages that need no answer, all in one read."""
    server, data = _server(OURS), b"".join(frames)

    def take() -> bytes:
        for event in server.events(data, INLINE):
            raise AssertionError(event)
        return server.data_to_send()

    assert take() == b""
    return take, len(frames)


def _replying(peer: Peer) -> _Case:
    """Send calls, and take their replies, all in one read."""
    params = json.dumps({"request": {"content": TEXT}})
    answered = 0

    def count(_due: int, _sent: int, _received: int) -> None:
        nonlocal answered
        answered += 1

    def fail(error: Exception, _sent: int, _received: int) -> None:
        raise error

    workload = load_workload(WorkloadConfig(params=params))
    exchange = Exchange(workload, 0, IN_FLIGHT, answered=count, failed=fail)
    exchange.output()
    exchange.receive(peer.bootstrap_results(), 0)
    # Its slots are the question ids, each for good.
    results = results_of(TEXT[::-1])
    replies = b"".join(peer.results(1 + slot, results) for slot in range(IN_FLIGHT))

    def call() -> None:
        for _ in range(IN_FLIGHT):
            exchange.send(0, 0)
        exchange.output()
        exchange.receive(replies, 0)

    call()
    assert answered == IN_FLIGHT, peer.name
    return call, IN_FLIGHT


def cases(peers: Sequence[Peer]) -> Iterator[tuple[str, _Case]]:
    """Yield the cases of all peers; each is named ``what: peer``."""
    mixed = _texts()
    for peer in peers:
        yield f"call, {BATCH} in a read: {peer.name}", _calling(peer, [TEXT] * BATCH, BATCH)
        yield f"call, alone in its read: {peer.name}", _calling(peer, [TEXT], 1)
        yield f"call, {SIZES} mixed sizes: {peer.name}", _calling(peer, mixed, BATCH)
        new = _calling(peer, mixed, BATCH, are_new=True)
        yield f"call, {SIZES} sizes for the first time: {peer.name}", new
        if peer.serves:
            yield f"reply, {IN_FLIGHT} in a read: {peer.name}", _replying(peer)
    # Alike for all of them.
    yield f"Finish: {OURS.name}", _ending([OURS.finish(number) for number in range(BATCH)])
    # Of nothing, so that there is no end of them.
    yield f"Release: {OURS.name}", _ending([release(0, 0)] * BATCH)


def main(names: Sequence[str]) -> None:
    """Time every case and print the medians."""
    peers = [OURS, *(peer for peer in PEERS if peer.name in names or not names)]
    timed = dict(cases(peers))
    counts, times_ns = {}, {name: list[float]() for name in timed}
    for name, (work, _) in timed.items():
        started_s = time.perf_counter()
        work()
        counts[name] = max(1, round(_TURN_S / (time.perf_counter() - started_s)))
    for turn in range(_TURNS):
        for name in random.Random(turn).sample(list(timed), len(timed)):
            work, messages = timed[name]
            count = counts[name]
            started_ns = time.perf_counter_ns()
            for _ in range(count):
                work()
            times_ns[name].append((time.perf_counter_ns() - started_ns) / count / messages)
    medians = {name: statistics.median(each) for name, each in times_ns.items()}
    sys.stdout.write(json.dumps(medians) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

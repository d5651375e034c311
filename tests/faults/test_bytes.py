"""Bytes that are no valid frames, or are valid and hostile (faults.md, C; B8, B13)."""

import random
import struct
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
from deadline import eventually
from fault_services import PROBE
from raw_peer import (
    STREAM_ID,
    RawPeer,
    assert_serves,
    bootstrap,
    call,
    call_builder,
    call_head,
    call_words,
    encoded,
    raw_peer,
    read_words,
    segments,
    to_far,
    to_list,
    to_struct,
    words,
)
from running_server import Running, run_to_end, running_server

from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT, EncodedStruct
from capnp_rig.wire.encoding.frames import FrameLimits
from capnp_rig.wire.encoding.pointers import StructTuple
from capnp_rig.wire.rpc.connection import Answers, Ended, Limits
from capnp_rig.wire.rpc.server_connection import ServerConnection

TESTS = Path(__file__).resolve().parent.parent
MAX_WORDS = 524_288
SEED = 20260731
MIB = 1 << 20
DEPTH = PROBE.schema.methods["depth"]
LENGTHS = PROBE.schema.methods["lengths"]
PROBE_ID: int = PROBE.schema.node.id


@pytest.fixture(scope="module", params=["wire", "pycapnp"])
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def server(engine: str) -> Iterator[Running]:
    """The tutorial's service, in two workers."""
    with running_server("--workers", "2", "--engine", engine) as running:
        yield running


@pytest.fixture(scope="module")
def probe(engine: str) -> Iterator[Running]:
    """The service of the fault tests, in one worker."""
    args = ["--service", "fault_services:Probe", "--workers", "1", "--engine", engine]
    with running_server(*args, cwd=TESTS) as running:
        yield running


@pytest.fixture(autouse=True)
def unhurt(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check that every test leaves the workers alive and serving."""
    names = [name for name in ("server", "probe") if name in request.fixturenames]
    before = [(request.getfixturevalue(name), name) for name in names]
    pids = [running.workers() for running, _ in before]
    yield
    for (running, _), workers in zip(before, pids, strict=True):
        assert_serves(running, workers)


def rss_bytes(server: Running) -> int:
    return sum(psutil.Process(pid).memory_info().rss for pid in server.workers())


def cpu_s(server: Running) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in server.workers()]
    return sum(one.user + one.system for one in times)


def kinds_call(question_id: int, method: str, fill: Callable[[Any], object]) -> bytes:
    """Return a call of a method of Probe whose `kinds` are filled by `fill`."""
    number = list(PROBE.schema.methods).index(method)
    build = call_builder(question_id, interface_id=PROBE_ID, method_id=number)
    params = build.call.params.content.as_struct(PROBE.schema.methods[method].param_type)
    fill(params.init("kinds"))
    return encoded(build)


# --- C: frames ---------------------------------------------------------------------------


def test_c1_random_bytes_close_only_their_connection(server: Running) -> None:
    chance = random.Random(SEED)
    with raw_peer(server) as bystander:
        for number in range(1, 41):
            with RawPeer(server) as peer:
                peer.send(chance.randbytes(chance.randint(1, 4000)))
            bystander.send(call(number, f"call {number}"))
            assert bystander.receive().chunk == f"call {number}"[::-1].encode()


@pytest.mark.parametrize("end", ["fin", "rst", "silence"])
def test_c2_a_truncated_frame(server: Running, end: str) -> None:
    frame = call(1, "truncated " * 20)
    for kept in (1, 4, 7, 8, 12, len(frame) // 2, len(frame) - 1):
        with raw_peer(server) as peer:
            peer.send(frame[:kept])
            if end == "fin":
                peer.socket.shutdown(1)
                assert peer.receive().kind in {"eof", "abort"}
            elif end == "rst":
                peer.reset()
            else:
                # The rest may come as late as it likes until B7's limit.
                peer.send(frame[kept:])
                assert peer.receive().chunk == b" detacnurt" * 20


@pytest.mark.parametrize("extra", [0xFFFFFFFF, 0x7FFFFFFF, 511])
def test_c3_too_many_segments_are_refused(server: Running, extra: int) -> None:
    with raw_peer(server) as peer:
        peer.send(struct.pack("<II", extra, 1) + bytes(2056))
        abort, eof = peer.until_eof()
        assert (abort.kind, eof.kind) == ("abort", "eof")
        assert "segments, the limit is 511" in abort.text


def test_c3_511_segments_are_legal(server: Running) -> None:
    first = (*call_head(1), to_far(510, 0), 0)
    last = (to_struct(0, 0, 1), to_struct(0, 0, 1), to_list(0, 2, 4), b"abc\0")
    with raw_peer(server) as peer:
        peer.send(segments([first, *[()] * 509, last]))
        assert peer.receive().chunk == b"cba"


def test_c4_headers_that_announce_much_allocate_nothing(server: Running) -> None:
    peers = []
    before = rss_bytes(server)
    try:
        for _ in range(60):
            peer = RawPeer(server).open()
            peers.append(peer)
            peer.send(struct.pack("<II", 0, MAX_WORDS - 1) + bytes(8))
        for _ in range(4):
            # All have been read when what comes later is answered.
            assert_serves(server, server.workers())
        assert rss_bytes(server) - before < 20 * MIB
    finally:
        for peer in peers:
            peer.socket.close()


@pytest.mark.parametrize(
    "table",
    [
        struct.pack("<II", 0, MAX_WORDS + 1) + bytes(4088),
        struct.pack("<II", 0, 0xFFFFFFFF),
        struct.pack("<IIII", 1, MAX_WORDS // 2 + 1, MAX_WORDS // 2 + 1, 0) + bytes(4080),
        struct.pack("<IIII", 2, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
    ],
    ids=["one over", "4 billion", "two halves", "sum overflows"],
)
def test_c5_a_frame_over_the_limit_is_aborted_with_a_reason(server: Running, table: bytes) -> None:
    with raw_peer(server) as peer:
        peer.send(table)
        abort, eof = peer.until_eof()
        assert (abort.kind, eof.kind) == ("abort", "eof")
        assert "too large" in abort.text


def test_c5_a_call_over_the_limit_fails_alone(server: Running) -> None:
    over = one_segment_read(b"x" * (5 << 20))
    with raw_peer(server) as peer:
        peer.send(over[:4096])
        # Told before the rest has come.
        reply = peer.receive()
        assert (reply.kind, reply.id, reply.releases_params) == ("exception", 1, True)
        assert reply.text == (
            f"message is too large: {len(over)} bytes, the limit is 4194304 "
            "(--max-message of the server)"
        )
        peer.send(over[4096:], call(2, "lives"))
        assert peer.receive().chunk == b"sevil"


@pytest.mark.parametrize("text", ["", "x", "y" * 7, "z" * 8, "é" * 40_000])
def test_c6_texts_come_back_exactly(server: Running, text: str) -> None:
    with raw_peer(server) as peer:
        peer.send(call(1, text))
        assert peer.receive().chunk == text[::-1].encode()


def one_segment_read(text: bytes) -> bytes:
    return read_words(1, to_list(0, 2, len(text) + 1), text + b"\0")


def test_c6_a_frame_at_the_limit_is_answered_and_one_over_it_refused(server: Running) -> None:
    # 17 words in front of the text, the table among them.
    room = (MAX_WORDS - 17) * 8 - 1
    text = bytes(97 + at % 26 for at in range(26)) * (room // 26) + b"z" * (room % 26)
    with raw_peer(server, timeout_s=20) as peer:
        peer.send(one_segment_read(text))
        assert peer.receive().chunk == text[::-1]
        over = one_segment_read(text + b"o" * 130 * 8)
        assert len(over) > MAX_WORDS * 8
        peer.send(over)
        reply = peer.receive()
        assert (reply.kind, reply.id) == ("exception", 1)


def test_c7_bit_flips_kill_nobody_and_touch_no_other_connection(server: Running) -> None:
    chance = random.Random(SEED)
    frames = [bootstrap(), call(1, "flip me"), call(2, "and me", promise=0)]
    stream = b"".join(frames)
    with raw_peer(server) as bystander:
        for number in range(1, 301):
            flipped = bytearray(stream)
            for _ in range(chance.randint(1, 3)):
                flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
            with RawPeer(server) as peer:
                peer.send(bytes(flipped))
            if number % 10 == 0:
                bystander.send(call(number, f"{number} ok"))
                assert bystander.receive().chunk == f"{number} ok"[::-1].encode()


def nested(levels: int) -> Callable[[Any], None]:
    def fill(kinds: Any) -> None:
        for _ in range(levels):
            kinds = kinds.init("again")

    return fill


@pytest.mark.parametrize(
    ("levels", "is_served"), [(20, True), (55, True), (62, False), (80, False)]
)
def test_c8_nesting_is_limited(probe: Running, levels: int, is_served: bool) -> None:
    with raw_peer(probe) as peer:
        peer.send(kinds_call(1, "depth", nested(levels)))
        reply = peer.receive()
        if is_served:
            assert reply.results(DEPTH.result_type) == {"depth": levels}
        else:
            assert (reply.kind, reply.type) == ("exception", "failed")
        peer.send(kinds_call(2, "depth", nested(3)))
        assert peer.receive().results(DEPTH.result_type) == {"depth": 3}


# The first pointers of Kinds: text, data, six lists, inner, again.
def kinds_words(question_id: int, method: str, slot: int, *content: int | bytes) -> bytes:
    """Return a call with a Kinds whose one pointer `slot` is the first of these words.

    The others stand behind its pointer section.
    """
    number = list(PROBE.schema.methods).index(method)
    pointer, *rest = content
    section = [pointer if at == slot else 0 for at in range(_POINTERS)]
    return call_words(
        question_id,
        *(to_struct(1, 0, 1), to_struct(0, 0, _POINTERS), *section, *rest),
        interface_id=PROBE_ID,
        method_id=number,
    )


_POINTERS = 10
_TEXT, _DATA, _LONGS, _AGAIN = 0, 1, 5, 9


def test_c9_a_cycle_of_pointers_is_cut_by_the_depth(probe: Running) -> None:
    before_s = cpu_s(probe)
    with raw_peer(probe) as peer:
        for question_id in range(1, 11):
            # Back over the pointer itself to the struct in which it stands.
            back = to_struct(-_POINTERS, 0, _POINTERS)
            peer.send(kinds_words(question_id, "depth", _AGAIN, back))
            reply = peer.receive()
            assert (reply.kind, reply.type) == ("exception", "failed")
    # 100 ms a case, as the row says, of which these are ten.
    assert cpu_s(probe) - before_s < 1.0


def test_c9_many_pointers_to_one_large_object_are_no_work(probe: Running) -> None:
    # Each level's `again` is the same struct; its data covers 4 MB that nobody reads.
    before_s = cpu_s(probe)
    body = bytes(60_000 * 8)
    head = to_struct(-_POINTERS, 60_000, 0)
    with raw_peer(probe) as peer:
        for question_id in range(1, 11):
            peer.send(kinds_words(question_id, "depth", _AGAIN, head, body))
            assert peer.receive().kind in {"exception", "results"}
    assert cpu_s(probe) - before_s < 1.0


@pytest.mark.parametrize("length", [536_870_911, 8_000_000])
@pytest.mark.parametrize("slot", [_TEXT, _DATA, _LONGS], ids=["text", "data", "longs"])
def test_c10_lists_of_nothing_announce_much_and_are_refused(
    probe: Running, slot: int, length: int
) -> None:
    before_s = cpu_s(probe)
    of_structs = (to_list(_POINTERS - slot - 1, 7, 0), length << 2)
    with raw_peer(probe) as peer:
        for question_id, content in enumerate([(to_list(0, 0, length),), of_structs], start=1):
            peer.send(kinds_words(question_id, "lengths", slot, *content))
            reply = peer.receive()
            assert (reply.kind, reply.type) == ("exception", "failed")
        peer.send(kinds_call(3, "lengths", lambda kinds: setattr(kinds, "text", "abc")))
        assert peer.receive().results(LENGTHS.result_type)["text"] == 3
    assert cpu_s(probe) - before_s < 1.0


def test_c11_a_list_of_structs_read_as_a_list_of_numbers(probe: Running) -> None:
    """The reverse of CVE-2022-46149, a list of structs read as one of pointers (test_lists.py)."""
    behind = _POINTERS - _LONGS - 1
    cases = {
        # Structs of one pointer, of no data: no number is in them.
        "pointers": (to_list(behind, 7, 2), to_struct(2, 0, 1), 0, 0),
        "list of pointers": (to_list(behind, 6, 2), 0, 0),
        # The tag overruns the list, or is none.
        "overrun": (to_list(behind, 7, 1), to_struct(2, 1, 0), 7),
        "no tag": (to_list(behind, 7, 1), to_list(0, 2, 8), 7),
    }
    with raw_peer(probe) as peer:
        for question_id, (name, content) in enumerate(cases.items(), start=1):
            peer.send(kinds_words(question_id, "lengths", _LONGS, *content))
            reply = peer.receive()
            assert (reply.kind, reply.type) == ("exception", "failed"), name


def test_c12_a_limit_above_2_gib_is_refused() -> None:
    with pytest.raises(ValueError, match="max_words must be 2 to 268435455"):
        FrameLimits(max_words=2**28)
    for size in ("513MiB", "4GiB", "32KiB"):
        done = run_to_end("run", "127.0.0.1:0", "--max-message", size)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            f"server: Invalid value for '--max-message': {size} is out of range: a message may "
            "have 64KiB to 512MiB. (see server run --help)\n"
        )


def test_c13_many_frames_in_one_read_are_all_answered(server: Running) -> None:
    texts = {number: f"call {number} " * (number % 40) for number in range(1, 251)}
    with raw_peer(server) as peer:
        peer.send(*(call(number, text) for number, text in texts.items()))
        found = {reply.id: reply.chunk for reply in (peer.receive() for _ in texts)}
    assert found == {number: text[::-1].encode() for number, text in texts.items()}


def test_c13_a_frame_cut_at_every_byte_is_answered_alike(server: Running) -> None:
    numbers = count(1)
    frame = call(1, "cut")
    with raw_peer(server) as peer:
        for place in range(1, len(frame)):
            number = next(numbers)
            frame = call(number, f"cut {number}")
            peer.send(frame[:place])
            peer.send(frame[place:])
            assert peer.receive().chunk == f"cut {number}"[::-1].encode()


def test_c14_an_async_method_keeps_its_params_while_the_buffer_refills(probe: Running) -> None:
    texts = {number: f"{number} " * 300 for number in range(1, 101)}
    with raw_peer(probe) as peer, raw_peer(probe) as other:
        for number, text in texts.items():
            peer.send(kinds_call(number, "later", lambda kinds, t=text: setattr(kinds, "text", t)))
            # Of the same length, at the same place of the worker's receive buffer.
            noise = "#" * len(text)
            other.send(kinds_call(1, "lengths", lambda kinds, t=noise: setattr(kinds, "text", t)))
            assert other.receive().kind == "results"
        schema = PROBE.schema.methods["later"].result_type
        found = {
            reply.id: reply.results(schema)["text"] for reply in (peer.receive() for _ in texts)
        }
    assert found == texts


# --- B8, B13 -----------------------------------------------------------------------------


def large_call(question_id: int, size: int, method: str = "large") -> bytes:
    number = list(PROBE.schema.methods).index(method)
    build = call_builder(question_id, interface_id=PROBE_ID, method_id=number)
    build.call.params.content.as_struct(PROBE.schema.methods[method].param_type).size = size
    return encoded(build)


def test_b8_replies_that_nobody_reads_do_not_pile_up(probe: Running) -> None:
    before = rss_bytes(probe)
    highest = before
    with raw_peer(probe) as peer:
        start_s = time.monotonic()
        peer.send(*(large_call(number, 65_536) for number in range(1, 1501)))

        def is_cut() -> bool:
            nonlocal highest
            highest = max(highest, rss_bytes(probe))
            return bool(
                probe.err.find("the peer read none") or probe.out.find("the peer read none")
            )

        eventually(is_cut, within_s=60, what="the connection cut")
        assert time.monotonic() - start_s > 9
        assert highest - before < 20 * MIB
        with pytest.raises(ConnectionResetError):
            drain(peer)


def drain(peer: RawPeer) -> None:
    while peer.socket.recv(1 << 20):
        pass


def test_b8_a_reader_that_is_slow_but_reads_gets_everything(probe: Running) -> None:
    with raw_peer(probe, timeout_s=20) as peer:
        peer.send(*(large_call(number, 65_536) for number in range(1, 301)))
        for number in range(1, 301):
            reply = peer.receive()
            assert (reply.id, reply.kind) == (number, "results")
            assert len(reply.frame) > 65_536
            if number % 100 == 0:
                time.sleep(0.2)


def test_b8_large_answers_of_async_methods_are_cut_at_32_mib(probe: Running) -> None:
    before = rss_bytes(probe)
    with raw_peer(probe) as peer:
        peer.send(*(large_call(number, 4_000_000, "largeLater") for number in range(1, 101)))
        highest = before

        def is_cut() -> bool:
            nonlocal highest
            highest = max(highest, rss_bytes(probe))
            return any("unread" in line for line in [*probe.err.lines, *probe.out.lines])

        eventually(is_cut, what="the connection cut")
        # The limit, the answer that broke it, and the copies on their way.
        assert highest - before < 100 * MIB


def test_b13_segments_of_one_byte_each_are_answered(server: Running) -> None:
    with RawPeer(server) as peer:
        for byte in bootstrap() + call(1, "one by one") + call(2, "and more"):
            peer.send(bytes([byte]))
            time.sleep(0.001)
        assert [peer.receive().kind, peer.receive().chunk, peer.receive().chunk] == [
            *("capability", b"eno yb eno", b"erom dna"),
        ]


def test_b8_calls_in_an_unusual_form_stop_a_batch_too() -> None:
    """Calls without params come as no plain call, but their answers count as others do."""
    server = ServerConnection(Limits(inline_calls=3))
    server.receive_data(bootstrap())
    server.data_to_send()
    answered = []

    def answer(params: StructTuple | None) -> EncodedStruct:
        answered.append(params)
        return EMPTY_STRUCT

    stream = b"".join(call(number, None) for number in range(1, 11))
    events = server.events(stream, {(STREAM_ID, 0): answer})
    assert isinstance(next(events), Answers)
    events.close()
    assert answered == [None] * 3


def test_c15_a_call_takes_nothing_from_the_frame_behind_it() -> None:
    """All of a call but its last pointer, with its target among its own words."""
    short = words(
        *(to_struct(0, 1, 1), 2, to_struct(0, 3, 3)),
        # Its interface and flags are the target too, export 0; the question is the params.
        *(0xFFFFFFFC, 0, 0, to_struct(-3, 1, 1), to_struct(-5, 0, 2)),
    )
    for behind in (b"", bootstrap(1)):
        server = ServerConnection()
        server.receive_data(bootstrap())
        (event,) = server.receive_data(short + behind)
        assert isinstance(event, Ended), event

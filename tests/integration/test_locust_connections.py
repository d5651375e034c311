"""Users' connections on real sockets, in gevent's hub, without Locust: it would patch pytest."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise

import gevent
import pytest
from fake_server import Behaviour, answering, fake_server, reset, until_closed

from capnp_rig.client.reverse import MESSAGE_STREAM
from capnp_rig.loadtest.engine.schedule import Arrivals, Pace
from capnp_rig.loadtest.locust_rig.call_pacer import CallPacer
from capnp_rig.loadtest.locust_rig.user_connection import CallConnection, WorkloadConnection
from capnp_rig.loadtest.protocols import make_exchange
from capnp_rig.loadtest.stats.failures import WrongReply
from capnp_rig.loadtest.stats.tally import Tally
from capnp_rig.loadtest.workload import WorkloadConfig, load_workload
from capnp_rig.objects.errors import (
    ClientError,
    DeadlineExceeded,
    Disconnected,
    ProtocolError,
)
from capnp_rig.wire.encoding.encoded import EncodedStruct
from capnp_rig.wire.rpc.connection import Called
from capnp_rig.wire.rpc.server_connection import ServerConnection

READ = MESSAGE_STREAM.methods["read"]
WITHIN_S = 10.0


class Watcher:
    """Counts what a connection tells, as a user does."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, int]] = []
        self.failures: list[Exception] = []
        self.bytes = 0
        self.readies = 0
        self.bugs: list[Exception] = []
        self.on_answer: Callable[[], None] = lambda: None

    def answered(self, due_ns: int, sent_ns: int, received_ns: int) -> None:
        self.calls.append((due_ns, sent_ns, received_ns))
        self.on_answer()

    def failed(self, error: Exception, _started_ns: int, _now_ns: int) -> None:
        self.failures.append(error)

    def received(self, size: int) -> None:
        self.bytes += size

    def ready(self, _now_ns: int, _walk_ns: int | None) -> None:
        self.readies += 1

    def bug(self, error: Exception) -> None:
        self.bugs.append(error)

    @property
    def kinds(self) -> set[str]:
        return {f"{type(error).__name__}: {error}" for error in self.failures}


@contextmanager
def connection_to(
    address: str,
    watcher: Watcher,
    *,
    in_flight: int = 1,
    payload_bytes: int = 32,
    timeout_s: float = WITHIN_S,
    pacer: CallPacer | None = None,
) -> Iterator[WorkloadConnection]:
    host, _, port = address.rpartition(":")
    connection = WorkloadConnection(
        socket.create_connection((host, int(port)), timeout=WITHIN_S),
        partial(
            make_exchange, load_workload(WorkloadConfig(payload_bytes=payload_bytes)), 1, in_flight
        ),
        counts=watcher,
        owner=watcher,
        pacer=pacer,
        timeout_s=timeout_s,
    )
    connection.start()
    try:
        with gevent.Timeout(WITHIN_S):
            yield connection
    finally:
        connection.close()


def reversing(call: Called) -> EncodedStruct:
    content: str = READ.params.open(call.params).request.content
    return READ.results.write({"chunk": content[::-1].encode()})


@pytest.mark.parametrize("in_flight", [1, 7])
@pytest.mark.parametrize("payload_bytes", [32, 200_000])
def test_a_number_of_calls_is_made_and_answered(in_flight: int, payload_bytes: int) -> None:
    watcher = Watcher()
    with (
        fake_server(answering(reversing)) as address,
        connection_to(
            address, watcher, in_flight=in_flight, payload_bytes=payload_bytes
        ) as connection,
    ):
        connection.run(30)
        assert (len(watcher.calls), watcher.readies, connection.exchange.in_flight) == (30, 1, 0)
        connection.run(12)
        assert len(watcher.calls) == 42
        assert connection.close() == 0
    assert watcher.failures == watcher.bugs == []
    # Framing and nonce included, and the bootstrap left out.
    assert 42 * payload_bytes < watcher.bytes < 42 * (payload_bytes + 200)
    assert all(due == sent < received for due, sent, received in watcher.calls)


def test_a_server_that_reads_late_gets_all_there_is() -> None:
    """What the socket does not take at once is kept, and nothing blocks meanwhile."""
    go = threading.Event()

    def behave(connection: socket.socket) -> None:
        server = ServerConnection()
        while data := connection.recv(65536):
            events = [event for event in server.receive_data(data) if isinstance(event, Called)]
            if events:
                assert go.wait(WITHIN_S)
            for event in events:
                server.send_results(event.question_id, reversing(event))
            connection.sendall(server.data_to_send())

    watcher = Watcher()
    with (
        fake_server(behave) as address,
        connection_to(address, watcher, in_flight=40, payload_bytes=400_000) as connection,
    ):
        running = gevent.spawn(connection.run, 20)
        while not connection._unsent:
            gevent.sleep(0.001)
        # The hub goes on: this greenlet is woken while the connection waits for the server. What is
        # sent meanwhile, as a pacer does, comes behind what is kept.
        for _ in range(20):
            gevent.sleep(0.001)
            connection.send(time.monotonic_ns(), time.monotonic_ns())
            connection.flush()
        assert watcher.calls == []
        go.set()
        running.get(timeout=WITHIN_S)
    assert (len(watcher.calls), watcher.failures) == (40, [])


def answering_then(count: int, end: Behaviour) -> Behaviour:
    """Answer `count` calls, then do as `end` does with the next."""

    def behave(connection: socket.socket) -> None:
        server, left = ServerConnection(), count
        while data := connection.recv(65536):
            for event in server.receive_data(data):
                if isinstance(event, Called):
                    left -= 1
                    if left < 0:
                        end(connection)
                        return
                    server.send_results(event.question_id, reversing(event))
            connection.sendall(server.data_to_send())

    return behave


def garbage(connection: socket.socket) -> None:
    connection.sendall(b"\xff" * 64)


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (lambda _: None, "Disconnected: the connection was lost: the server closed it"),
        (reset, "Disconnected: the connection was lost: Connection reset by peer"),
        (garbage, "ProtocolError: "),
    ],
)
def test_a_lost_connection_fails_what_is_in_flight(end: Behaviour, kind: str) -> None:
    watcher = Watcher()
    with (
        fake_server(answering_then(5, end)) as address,
        connection_to(address, watcher, in_flight=3) as connection,
    ):
        with pytest.raises(ClientError):
            connection.run(None)
        assert connection.lost_calls == len(watcher.failures) > 0
        assert connection.has_answered
        assert connection.close() == 0
        # A connection that has ended says so again, instead of waiting for ever.
        with pytest.raises(ClientError):
            connection.run(1)
    assert 5 <= len(watcher.calls) + len(watcher.failures) <= 8
    assert watcher.bugs == []
    (found,) = watcher.kinds
    assert found.startswith(kind)


def test_a_connection_that_never_stands_is_lost_without_calls() -> None:
    watcher = Watcher()
    with (
        fake_server(lambda _: None) as address,
        connection_to(address, watcher) as connection,
        pytest.raises(Disconnected),
    ):
        connection.run(None)
    assert (connection.is_ready, connection.lost_calls, watcher.failures) == (False, 0, [])


def test_an_overdue_call_ends_the_connection_and_the_others_are_not_overdue() -> None:
    first: list[int] = []

    def all_but_the_first(call: Called) -> EncodedStruct | None:
        first.append(call.question_id)
        return reversing(call) if len(first) > 1 else None

    watcher = Watcher()
    with (
        fake_server(answering(all_but_the_first)) as address,
        connection_to(address, watcher, in_flight=4, timeout_s=0.3) as connection,
    ):
        running = gevent.spawn(connection.run, None)
        started_s = time.monotonic()
        while connection.error is None:
            gevent.sleep(0.01)
        assert 0.3 <= time.monotonic() - started_s < 10
        with pytest.raises(DeadlineExceeded):
            running.get(timeout=WITHIN_S)
    assert sorted(watcher.kinds) == [
        "DeadlineExceeded: no answer within the deadline",
        "Disconnected: given up with another call, which was overdue",
    ]
    assert sum(isinstance(error, DeadlineExceeded) for error in watcher.failures) == 1


def test_a_server_that_says_nothing_is_given_up() -> None:
    watcher = Watcher()
    with (
        fake_server(until_closed) as address,
        connection_to(address, watcher, timeout_s=0.1) as connection,
    ):
        running = gevent.spawn(connection.run, None)
        while connection.error is None:
            gevent.sleep(0.01)
        with pytest.raises(DeadlineExceeded):
            running.get(timeout=WITHIN_S)
    assert (connection.is_ready, watcher.failures) == (False, [])


def test_a_connection_that_is_to_finish_starts_no_more_calls() -> None:
    watcher = Watcher()
    with (
        fake_server(answering(reversing)) as address,
        connection_to(address, watcher) as connection,
    ):
        watcher.on_answer = lambda: connection.finish() if len(watcher.calls) == 50 else None
        connection.run(None)
        assert (len(watcher.calls), connection.exchange.in_flight) == (50, 0)
    assert watcher.failures == []


def test_calls_given_up_are_told() -> None:
    watcher = Watcher()
    with (
        fake_server(answering(lambda _: None)) as address,
        connection_to(address, watcher, in_flight=3) as connection,
    ):
        running = gevent.spawn(connection.run, None)
        while connection.exchange.in_flight < 3:
            gevent.sleep(0.001)
        assert connection.close() == 3
        with pytest.raises(Disconnected):
            running.get(timeout=WITHIN_S)
    assert watcher.failures == []


def test_a_wrong_reply_is_counted_and_the_connection_goes_on() -> None:
    seen: list[int] = []

    def lie(call: Called) -> EncodedStruct:
        seen.append(call.question_id)
        return READ.results.write({"chunk": b"lie"}) if len(seen) == 4 else reversing(call)

    watcher = Watcher()
    with fake_server(answering(lie)) as address, connection_to(address, watcher) as connection:
        connection.run(10)
    assert len(watcher.calls) == 9
    assert [type(error) for error in watcher.failures] == [WrongReply]


def test_a_bug_does_not_vanish_in_the_hub() -> None:
    watcher = Watcher()

    def fail() -> None:
        raise KeyError("bug")

    watcher.on_answer = fail
    with (
        fake_server(answering(reversing)) as address,
        connection_to(address, watcher) as connection,
    ):
        running = gevent.spawn(connection.run, None)
        while not watcher.bugs:
            gevent.sleep(0.001)
        assert [type(error) for error in watcher.bugs] == [KeyError]
        running.kill()


def test_one_connection_does_not_keep_the_others_waiting() -> None:
    """Replies without end on one connection: another, and a timer, get their turns."""
    greedy, modest = Watcher(), Watcher()
    with (
        fake_server(answering(reversing)) as address,
        connection_to(address, greedy, in_flight=200) as first,
        connection_to(address, modest) as second,
    ):
        gevent.spawn(first.run, None)
        wakes = 0
        running = gevent.spawn(second.run, 50)
        while not running.ready():
            gevent.sleep(0.001)
            wakes += 1
        running.get()
        assert len(modest.calls) == 50
        assert wakes >= 2
        assert len(greedy.calls) > 100


# --- single calls ------------------------------------------------------------------------------


@contextmanager
def calls_to(address: str, *, timeout_s: float = WITHIN_S) -> Iterator[CallConnection]:
    host, _, port = address.rpartition(":")
    connection = CallConnection(
        socket.create_connection((host, int(port)), timeout=WITHIN_S),
        bug=lambda error: pytest.fail(str(error)),
        timeout_s=timeout_s,
        wrap=lambda reference, _interface: reference,
    )
    connection.start()
    try:
        with gevent.Timeout(WITHIN_S):
            yield connection
    finally:
        connection.close()


def read(connection: CallConnection, text: str) -> bytes:
    params = READ.params.pack({"request": {"content": text}})
    return bytes(connection.call(READ, params, time.monotonic_ns()).results.chunk)


@pytest.mark.parametrize("text", ["abc", "x" * 200_000])
def test_a_call_returns_its_results(text: str) -> None:
    with fake_server(answering(reversing)) as address, calls_to(address) as connection:
        for number in range(20):
            assert read(connection, f"{number}{text}") == f"{number}{text}"[::-1].encode()
        assert connection.close() == 0


def test_greenlets_share_a_connection() -> None:
    with fake_server(answering(reversing)) as address, calls_to(address) as connection:
        texts = [f"text {number}" for number in range(30)]
        reading = [gevent.spawn(read, connection, text) for text in texts]
        assert [each.get() for each in reading] == [text[::-1].encode() for text in texts]


def test_an_overdue_call_fails_alone_and_the_connection_lives_on() -> None:
    def all_but_the_late(call: Called) -> EncodedStruct | None:
        content: str = READ.params.open(call.params).request.content
        return None if content == "late" else reversing(call)

    with (
        fake_server(answering(all_but_the_late)) as address,
        calls_to(address, timeout_s=0.2) as connection,
    ):
        started_s = time.monotonic()
        late = gevent.spawn(read, connection, "late")
        assert read(connection, "abc") == b"cba"
        with pytest.raises(DeadlineExceeded):
            late.get()
        assert 0.2 <= time.monotonic() - started_s < 5
        assert read(connection, "def") == b"fed"
        assert connection.close() == 0


@pytest.mark.parametrize(
    ("end", "kind"),
    [(lambda _: None, Disconnected), (reset, Disconnected), (garbage, ProtocolError)],
)
def test_a_lost_connection_fails_the_calls_and_all_later_ones(
    end: Behaviour, kind: type[ClientError]
) -> None:
    with fake_server(answering_then(3, end)) as address, calls_to(address) as connection:
        for _ in range(3):
            assert read(connection, "abc") == b"cba"
        failing = [gevent.spawn(read, connection, "x") for _ in range(3)]
        for each in failing:
            with pytest.raises(kind):
                each.get()
        with pytest.raises(kind):
            read(connection, "y")
        assert isinstance(connection.error, kind)


def test_who_closes_ends_the_calls_of_others() -> None:
    with fake_server(answering(lambda _: None)) as address, calls_to(address) as connection:
        waiting = [gevent.spawn(read, connection, "x") for _ in range(2)]
        while connection.exchange.in_flight < 2:
            gevent.sleep(0.001)
        assert connection.close() == 2
        for each in waiting:
            with pytest.raises(Disconnected):
                each.get()


def test_a_greenlet_that_is_killed_in_a_call_leaves_it_unfinished() -> None:
    with fake_server(answering(lambda _: None)) as address, calls_to(address) as connection:
        waiting = gevent.spawn(read, connection, "x")
        while not connection.exchange.in_flight:
            gevent.sleep(0.001)
        waiting.kill()
        assert connection.close() == 1


def test_a_greenlet_that_no_longer_waits_is_not_woken() -> None:
    """Its reply comes while it waits for something else."""
    replies: list[float] = []

    def late(call: Called) -> EncodedStruct:
        time.sleep(0.1)
        replies.append(time.monotonic())
        return reversing(call)

    with fake_server(answering(late)) as address, calls_to(address) as connection:
        with gevent.Timeout(0.02, exception=False):
            read(connection, "x")
        started_s = time.monotonic()
        gevent.sleep(0.4)
        assert time.monotonic() - started_s >= 0.4
        assert len(replies) == 1
        assert read(connection, "abc") == b"cba"


# --- the open loop -----------------------------------------------------------------------------


def test_in_an_open_loop_the_pacer_decides() -> None:
    watcher, tally = Watcher(), Tally(open_ns=0, is_open_loop=True)
    pacer = CallPacer(
        Pace(Arrivals.FIXED, seed=0),
        tally,
        bug=lambda error: pytest.fail(str(error)),
    )
    with (
        fake_server(answering(reversing)) as address,
        connection_to(address, watcher, in_flight=4, pacer=pacer) as connection,
    ):
        running = gevent.spawn(connection.run, None)
        pacer.set_rate(500)
        while len(watcher.calls) < 100:
            gevent.sleep(0.01)
        pacer.stop()
        connection.finish()
        running.get(timeout=WITHIN_S)
    assert len(watcher.calls) == tally.scheduled
    dues = [due for due, _, _ in watcher.calls]
    assert {round((after - before) / 1e6) for before, after in pairwise(dues)} == {2}
    assert all(due <= sent <= received for due, sent, received in watcher.calls)

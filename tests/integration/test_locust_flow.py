"""`Flow` on real sockets, in gevent's hub but without Locust, whose import would patch pytest."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import gevent
import pytest
from fake_server import Behaviour, answering, fake_server, reset, until_closed

from capnp_rig.client.errors import ClientError, DeadlineExceeded, Disconnected
from capnp_rig.client.reverse import MESSAGE_STREAM
from capnp_rig.loadtest.engine.schedule import Arrivals, Pace
from capnp_rig.loadtest.locust_rig.call_pacer import Pacer
from capnp_rig.loadtest.locust_rig.user_connection import Flow
from capnp_rig.loadtest.stats.failures import WrongReply
from capnp_rig.loadtest.stats.tally import Tally
from capnp_rig.loadtest.workload import WorkloadConfig, load_workload
from capnp_rig.wire.encoding.encoded import EncodedStruct
from capnp_rig.wire.rpc.connection import Called
from capnp_rig.wire.rpc.server_connection import ServerConnection

READ = MESSAGE_STREAM.methods["read"]
WITHIN_S = 10.0


class Watcher:
    """Counts what a flow tells, as a user does."""

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

    def ready(self, _now_ns: int) -> None:
        self.readies += 1

    def bug(self, error: Exception) -> None:
        self.bugs.append(error)

    @property
    def kinds(self) -> set[str]:
        return {f"{type(error).__name__}: {error}" for error in self.failures}


@contextmanager
def flow_to(
    address: str,
    watcher: Watcher,
    *,
    in_flight: int = 1,
    payload_bytes: int = 32,
    timeout_s: float = WITHIN_S,
    pacer: Pacer | None = None,
) -> Iterator[Flow]:
    host, _, port = address.rpartition(":")
    flow = Flow(
        socket.create_connection((host, int(port)), timeout=WITHIN_S),
        load_workload(WorkloadConfig(payload_bytes=payload_bytes)),
        user=1,
        in_flight=in_flight,
        counts=watcher,
        owner=watcher,
        pacer=pacer,
        timeout_s=timeout_s,
    )
    flow.start()
    try:
        with gevent.Timeout(WITHIN_S):
            yield flow
    finally:
        flow.close()


def reversing(call: Called) -> EncodedStruct:
    content: str = READ.params.open(call.params).request.content
    return READ.results.write({"chunk": content[::-1].encode()})


@pytest.mark.parametrize("in_flight", [1, 7])
@pytest.mark.parametrize("payload_bytes", [32, 200_000])
def test_a_number_of_calls_is_made_and_answered(in_flight: int, payload_bytes: int) -> None:
    watcher = Watcher()
    with (
        fake_server(answering(reversing)) as address,
        flow_to(address, watcher, in_flight=in_flight, payload_bytes=payload_bytes) as flow,
    ):
        flow.run(30)
        assert (len(watcher.calls), watcher.readies, flow.exchange.in_flight) == (30, 1, 0)
        flow.run(12)
        assert len(watcher.calls) == 42
        assert flow.close() == 0
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
        flow_to(address, watcher, in_flight=40, payload_bytes=400_000) as flow,
    ):
        running = gevent.spawn(flow.run, 20)
        while not flow._unsent:
            gevent.sleep(0.001)
        # The hub goes on: this greenlet is woken while the flow waits for the server. What is
        # sent meanwhile, as a pacer does, comes behind what is kept.
        for _ in range(20):
            gevent.sleep(0.001)
            flow.send(time.monotonic_ns(), time.monotonic_ns())
            flow.flush()
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
        flow_to(address, watcher, in_flight=3) as flow,
    ):
        with pytest.raises(ClientError):
            flow.run(None)
        assert flow.lost_calls == len(watcher.failures) > 0
        assert flow.has_answered
        assert flow.close() == 0
        # A flow that has ended says so again, instead of waiting for ever.
        with pytest.raises(ClientError):
            flow.run(1)
    assert 5 <= len(watcher.calls) + len(watcher.failures) <= 8
    assert watcher.bugs == []
    (found,) = watcher.kinds
    assert found.startswith(kind)


def test_a_connection_that_never_stands_is_lost_without_calls() -> None:
    watcher = Watcher()
    with (
        fake_server(lambda _: None) as address,
        flow_to(address, watcher) as flow,
        pytest.raises(Disconnected),
    ):
        flow.run(None)
    assert (flow.is_ready, flow.lost_calls, watcher.failures) == (False, 0, [])


def test_an_overdue_call_ends_the_flow_and_the_others_are_not_overdue() -> None:
    first: list[int] = []

    def all_but_the_first(call: Called) -> EncodedStruct | None:
        first.append(call.question_id)
        return reversing(call) if len(first) > 1 else None

    watcher = Watcher()
    with (
        fake_server(answering(all_but_the_first)) as address,
        flow_to(address, watcher, in_flight=4, timeout_s=0.3) as flow,
    ):
        running = gevent.spawn(flow.run, None)
        started_s = time.monotonic()
        while flow.error is None:
            gevent.sleep(0.01)
            flow.expire(time.monotonic_ns())
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
        flow_to(address, watcher, timeout_s=0.1) as flow,
    ):
        running = gevent.spawn(flow.run, None)
        while flow.error is None:
            gevent.sleep(0.01)
            flow.expire(time.monotonic_ns())
        with pytest.raises(DeadlineExceeded):
            running.get(timeout=WITHIN_S)
    assert (flow.is_ready, watcher.failures) == (False, [])


def test_a_flow_that_is_to_finish_starts_no_more_calls() -> None:
    watcher = Watcher()
    with fake_server(answering(reversing)) as address, flow_to(address, watcher) as flow:
        watcher.on_answer = lambda: flow.finish() if len(watcher.calls) == 50 else None
        flow.run(None)
        assert (len(watcher.calls), flow.exchange.in_flight) == (50, 0)
    assert watcher.failures == []


def test_calls_given_up_are_told() -> None:
    watcher = Watcher()
    with (
        fake_server(answering(lambda _: None)) as address,
        flow_to(address, watcher, in_flight=3) as flow,
    ):
        running = gevent.spawn(flow.run, None)
        while flow.exchange.in_flight < 3:
            gevent.sleep(0.001)
        assert flow.close() == 3
        with pytest.raises(Disconnected):
            running.get(timeout=WITHIN_S)
    assert watcher.failures == []


def test_a_wrong_reply_is_counted_and_the_flow_goes_on() -> None:
    seen: list[int] = []

    def lie(call: Called) -> EncodedStruct:
        seen.append(call.question_id)
        return READ.results.write({"chunk": b"lie"}) if len(seen) == 4 else reversing(call)

    watcher = Watcher()
    with fake_server(answering(lie)) as address, flow_to(address, watcher) as flow:
        flow.run(10)
    assert len(watcher.calls) == 9
    assert [type(error) for error in watcher.failures] == [WrongReply]


def test_a_bug_does_not_vanish_in_the_hub() -> None:
    watcher = Watcher()

    def fail() -> None:
        raise KeyError("bug")

    watcher.on_answer = fail
    with fake_server(answering(reversing)) as address, flow_to(address, watcher) as flow:
        running = gevent.spawn(flow.run, None)
        while not watcher.bugs:
            gevent.sleep(0.001)
        assert [type(error) for error in watcher.bugs] == [KeyError]
        running.kill()


def test_one_flow_does_not_keep_the_others_waiting() -> None:
    """Replies without end on one connection: another, and a timer, get their turns."""
    greedy, modest = Watcher(), Watcher()
    with (
        fake_server(answering(reversing)) as address,
        flow_to(address, greedy, in_flight=200) as first,
        flow_to(address, modest) as second,
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


def test_in_an_open_loop_the_pacer_decides() -> None:
    watcher, tally = Watcher(), Tally(is_open_loop=True)
    pacer = Pacer(
        Pace(Arrivals.FIXED, seed=0),
        tally,
        not_sent=lambda *_: pytest.fail("not sent"),
        bug=lambda error: pytest.fail(str(error)),
    )
    with (
        fake_server(answering(reversing)) as address,
        flow_to(address, watcher, in_flight=4, pacer=pacer) as flow,
    ):
        running = gevent.spawn(flow.run, None)
        pacer.set_rate(500)
        while len(watcher.calls) < 100:
            gevent.sleep(0.01)
        pacer.stop()
        flow.finish()
        running.get(timeout=WITHIN_S)
    assert len(watcher.calls) == tally.scheduled
    dues = [due for due, _, _ in watcher.calls]
    assert {round((after - before) / 1e6) for before, after in pairwise(dues)} == {2}
    assert all(due <= sent <= received for due, sent, received in watcher.calls)

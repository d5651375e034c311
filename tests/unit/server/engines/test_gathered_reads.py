"""When the wire engine serves small reads together, and that no call is lost or late for it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fake_transport import Transport
from fuzz.mutate import split
from raw_peer import bootstrap, call, decoded, finish

from capnp_rig.schema import message
from capnp_rig.server.config import ConnectionLimits
from capnp_rig.server.control.call_stamp import unwatched
from capnp_rig.server.engines import wire_engine
from capnp_rig.server.engines.wire_engine import _Connection, _WireEngine


class Service:
    interface = message.MessageStream

    def __init__(self, steps: list[str]) -> None:
        self.steps = steps
        # How long the next calls take.
        self.take_s: list[float] = []

    def read(self, params: Any) -> dict[str, bytes]:
        text: str = params.request.content
        self.steps.append(f"call {text[:9]}")
        if self.take_s:
            time.sleep(self.take_s.pop())
        return {"chunk": text[:9].encode()}


class LoggingTransport(Transport):
    def __init__(self, steps: list[str]) -> None:
        super().__init__()
        self.steps = steps

    def write(self, data: bytes) -> None:
        assert not self.is_closing()
        super().write(data)
        for frame in split(data):
            reply = decoded(frame)
            self.steps.append(f"write {reply.text or reply.chunk.decode()}")


class Peer:
    """A connection that has its bootstrap, on a transport without a socket."""

    def __init__(self, engine: _WireEngine, steps: list[str]) -> None:
        self.transport = LoggingTransport(steps)
        self.connection = _Connection(engine, lambda _fault: None)
        self.transport.protocol = self.connection
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]
        self.connection.serve(bootstrap())
        self.transport.read()
        self.connection._wire.data_to_send()

    def receive(self, data: bytes) -> None:
        """Do what a transport does that has read `data`."""
        with memoryview(self.connection.get_buffer(-1)) as room:
            room[: len(data)] = data
        self.connection.buffer_updated(len(data))


@pytest.fixture(autouse=True)
def a_call_never_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is."""
    monkeypatch.setattr(wire_engine, "_GATHER_S", 60)


Check = Callable[[_WireEngine, Service, list[Peer], list[str]], Awaitable[None]]


def run(check: Check) -> None:
    async def body() -> None:
        steps: list[str] = []
        service = Service(steps)
        engine = _WireEngine(service, logger, unwatched(), ConnectionLimits())
        peers = [Peer(engine, steps) for _ in range(3)]
        await check(engine, service, peers, steps)
        for peer in peers:
            if not peer.connection._is_over:
                peer.connection.connection_lost(None)
        await asyncio.sleep(0)
        assert not engine.received

    logger: Any = None
    asyncio.run(asyncio.wait_for(body(), 10))


def test_the_calls_of_a_turn_are_all_served_before_any_answer_is_written() -> None:
    async def check(_: _WireEngine, __: Service, peers: list[Peer], steps: list[str]) -> None:
        for peer, text in zip(peers, "abc", strict=True):
            peer.receive(call(1, text))
        assert steps == []
        await asyncio.sleep(0)
        assert steps == ["call a", "call b", "call c", "write a", "write b", "write c"]

    run(check)


def test_answers_do_not_wait_for_a_call_that_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(_: _WireEngine, service: Service, peers: list[Peer], steps: list[str]) -> None:
        service.take_s = [0.004] * 3
        for peer, text in zip(peers, "abc", strict=True):
            peer.receive(call(1, text))
        await asyncio.sleep(0)
        assert steps == ["call a", "write a", "call b", "write b", "call c", "write c"]

    monkeypatch.setattr(wire_engine, "_GATHER_S", 0.002)
    run(check)


def test_after_a_call_that_others_waited_for_reads_are_served_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def check(
        engine: _WireEngine, service: Service, peers: list[Peer], steps: list[str]
    ) -> None:
        service.take_s = [0.004] * 3
        for peer in peers:
            peer.receive(call(1, "slow"))
        await asyncio.sleep(0)
        assert engine.lone_reads == wire_engine._READS_AFTER_SLOW
        steps.clear()
        peers[0].receive(call(1, "next"))
        assert steps == ["call next", "write next"]

    monkeypatch.setattr(wire_engine, "_GATHER_S", 0.001)
    monkeypatch.setattr(_WireEngine, "_was_preempted", lambda _: False)
    run(check)


def test_a_call_that_lasts_because_others_had_the_cpu_is_not_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def check(
        engine: _WireEngine, service: Service, peers: list[Peer], steps: list[str]
    ) -> None:
        service.take_s = [0.004]
        # More than there were when this was last looked at.
        engine._preemptions = -1
        for peer in peers[:2]:
            peer.receive(call(1, "preempted"))
        await asyncio.sleep(0)
        assert steps.count("write preempted") == 2
        assert engine.lone_reads == 0

    monkeypatch.setattr(wire_engine, "_GATHER_S", 0.001)
    run(check)


def test_after_a_read_that_came_alone_some_are_served_at_once() -> None:
    async def check(_: _WireEngine, __: Service, peers: list[Peer], steps: list[str]) -> None:
        peers[0].receive(call(1, "alone"))
        await asyncio.sleep(0)
        for number in range(wire_engine._LONE_READS):
            steps.clear()
            peers[number % 3].receive(call(1, "at once"))
            assert steps == ["call at once", "write at once"]
        steps.clear()
        peers[0].receive(call(1, "gathered"))
        assert steps == []
        await asyncio.sleep(0)
        assert steps == ["call gathered", "write gathered"]

    run(check)


def test_a_large_read_comes_after_the_small_one_before_it() -> None:
    async def check(_: _WireEngine, __: Service, peers: list[Peer], steps: list[str]) -> None:
        large = call(2, "large" + "." * 2_000)
        # The first read ends within the second call.
        stream = call(1, "small") + large
        peers[0].receive(stream[:200])
        peers[0].receive(stream[200:])
        assert [step.rstrip(".") for step in steps] == [
            "call small",
            "write small",
            "call large",
            "write large",
        ]

    run(check)


def test_what_was_gathered_is_served_before_the_end_of_the_stream() -> None:
    async def check(_: _WireEngine, __: Service, peers: list[Peer], steps: list[str]) -> None:
        peers[0].receive(call(1, "last"))
        peers[0].connection.eof_received()
        assert steps == ["call last", "write last"]

    run(check)


def test_a_connection_that_is_lost_with_its_call_costs_the_others_nothing() -> None:
    async def check(_: _WireEngine, __: Service, peers: list[Peer], steps: list[str]) -> None:
        for peer, text in zip(peers, "abc", strict=True):
            peer.receive(call(1, text))
        peers[0].connection.connection_lost(ConnectionResetError())
        # A call that ran was cancelled; what a transport does then.
        peers[0].connection._wire._out.append(b"cancelled")
        peers[0].transport.is_ended = True
        await asyncio.sleep(0)
        assert steps == ["call b", "call c", "write b", "write c"]

    run(check)


def test_a_fault_of_ours_costs_no_other_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(_: _WireEngine, __: Service, peers: list[Peer], steps: list[str]) -> None:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

        def serve(*_: object) -> None:
            raise RuntimeError("ours")

        monkeypatch.setattr(peers[0].connection, "serve", serve)
        for peer, text in zip(peers, "abc", strict=True):
            peer.receive(call(1, text))
        await asyncio.sleep(0)
        assert steps == ["call b", "call c", "write b", "write c"]
        assert [peer.transport.is_aborted for peer in peers] == [True, False, False]
        assert [str(context["exception"]) for context in told] == ["ours"]

    run(check)


def test_calls_that_came_before_a_drain_are_answered() -> None:
    async def check(engine: _WireEngine, __: Service, peers: list[Peer], steps: list[str]) -> None:
        draining = asyncio.create_task(engine.drain())
        await asyncio.sleep(0)
        # Read in the turn that the drain waits for.
        peers[0].receive(call(1, "in time"))
        await asyncio.sleep(0)
        assert "write in time" in steps
        for peer in peers:
            peer.connection.connection_lost(None)
        await draining

    run(check)


def test_what_was_read_before_a_connection_finishes_is_answered() -> None:
    async def check(_: _WireEngine, __: Service, peers: list[Peer], steps: list[str]) -> None:
        finishing = asyncio.create_task(peers[0].connection.finish())
        peers[0].receive(call(1, "last"))
        while not steps:
            await asyncio.sleep(0)
        assert steps == ["call last", "write last"]
        peers[0].connection.connection_lost(None)
        await finishing

    run(check)


def test_a_finish_and_two_calls_of_one_connection_keep_their_order() -> None:
    async def check(_: _WireEngine, __: Service, peers: list[Peer], steps: list[str]) -> None:
        peers[0].receive(call(1, "first") + finish(1))
        peers[1].receive(call(1, "other"))
        peers[0].receive(call(1, "second"))
        await asyncio.sleep(0)
        assert [step for step in steps if step.startswith("call")] == [
            "call first",
            "call other",
            "call second",
        ]
        assert [step for step in steps if "other" not in step][-2:] == [
            "write first",
            "write second",
        ]

    run(check)

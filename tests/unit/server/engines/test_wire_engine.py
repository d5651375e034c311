"""What a connection of the wire engine does at its limits, on a transport that keeps everything."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fake_transport import Transport
from fuzz.mutate import split
from raw_peer import bootstrap, call, decoded, finish, read_words, to_list

from capnp_rig.schema import message
from capnp_rig.server.config import ConnectionLimits
from capnp_rig.server.control.call_stamp import unwatched
from capnp_rig.server.engines import wire_engine
from capnp_rig.server.engines.wire_engine import _Connection, _WireEngine


class Service:
    """Answers when the test says so, with as much as it says."""

    interface = message.MessageStream

    def __init__(self) -> None:
        self.started = 0
        self.go = asyncio.Event()
        self.size = 0

    async def read(self, params: Any) -> dict[str, bytes]:
        self.started += 1
        text: str = params.request.content
        await self.go.wait()
        return {"chunk": text.encode() + bytes(self.size)}


Check = Callable[[_Connection, Transport, Service], Awaitable[None]]


def run(check: Check) -> str | None:
    """Run a check on a new connection; return why that was cut, if it was."""

    errors: list[Any] = []

    async def body() -> str | None:
        asyncio.get_running_loop().set_exception_handler(lambda _, error: errors.append(error))
        service, transport = Service(), Transport()
        log: Any = logging.getLogger("test")
        connection = _Connection(
            _WireEngine(service, log, unwatched(), ConnectionLimits()), lambda _fault: None
        )
        transport.protocol = connection
        connection.connection_made(transport)  # type: ignore[arg-type]
        receive(connection, bootstrap())
        transport.read()
        await check(connection, transport, service)
        connection.connection_lost(None)
        await turns()
        return connection._fault

    fault = asyncio.run(asyncio.wait_for(body(), 10))
    assert not errors
    return fault


def receive(connection: _Connection, data: bytes) -> None:
    connection.serve(data)
    connection.flush()


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_call_that_is_finished_before_its_first_step_frees_its_slot() -> None:
    async def check(connection: _Connection, transport: Transport, service: Service) -> None:
        receive(connection, call(1) + finish(1))
        await turns()
        assert service.started == 0
        assert connection.calls_in_flight == 0
        assert [decoded(frame).kind for frame in split(transport.read())] == ["canceled"]

    assert run(check) is None


def test_an_id_that_comes_again_before_its_answer_has_left_is_another_call() -> None:
    async def check(connection: _Connection, transport: Transport, service: Service) -> None:
        receive(connection, call(1, "first"))
        await turns()
        service.go.set()
        # The first task ends, and is still in the table when the second call comes.
        while connection.calls_in_flight:
            await asyncio.sleep(0)
        assert connection.runs_calls
        receive(connection, call(1, "second"))
        await turns(20)
        assert not connection.runs_calls
        replies = [decoded(frame) for frame in split(transport.read())]
        assert [reply.chunk for reply in replies] == [b"first", b"second"]

    assert run(check) is None


def test_b8_what_running_calls_add_is_no_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_engine, "STALL_LIMIT_S", 0.05)

    async def check(connection: _Connection, transport: Transport, service: Service) -> None:
        receive(connection, b"".join(call(number) for number in range(1, 11)))
        await turns()
        transport.high = 100
        connection._flush()
        service.size = 1000
        service.go.set()
        await turns(10)
        assert connection._stall_timer is not None
        # The peer reads, but less than comes.
        for _ in range(5):
            transport.read(50)
            transport.protocol._wire._out.append(bytes(500))
            connection._flush()
            await asyncio.sleep(0.05)
        assert not transport.is_aborted
        # And now it does not.
        await asyncio.sleep(0.15)
        assert transport.is_aborted

    assert run(check) == "the peer read none of its replies for 0.05 s"


def test_b8_running_calls_cannot_pile_up_answers_without_end() -> None:
    async def check(connection: _Connection, transport: Transport, service: Service) -> None:
        receive(connection, b"".join(call(number) for number in range(1, 101)))
        await turns()
        service.size = 1_000_000
        service.go.set()
        await turns(10)
        assert transport.is_aborted
        assert len(transport.unread) < 35_000_000

    assert run(check) == "the peer left 32 MiB of its replies unread"


def test_a_small_call_does_not_keep_the_large_buffer_it_came_in() -> None:
    async def check(connection: _Connection, _transport: Transport, _service: Service) -> None:
        stream = call(1, "x" * 100_000) + call(2) + call(3)
        receive(connection, stream[:10])
        receive(connection, stream[10:])
        await turns()
        # All came in one carried buffer of 100 kB, counted once.
        assert connection._calls.params_bytes < 110_000

    assert run(check) is None


@pytest.mark.parametrize("is_whole", [False, True])
def test_c5_the_rest_of_a_message_over_the_limit_is_not_awaited_for_ever(
    monkeypatch: pytest.MonkeyPatch, *, is_whole: bool
) -> None:
    monkeypatch.setattr(wire_engine, "SKIP_LIMIT_S", 0.05)
    over = read_words(1, to_list(0, 2, 5 << 20), b"x" * (5 << 20))

    async def check(connection: _Connection, transport: Transport, _service: Service) -> None:
        receive(connection, over if is_whole else over[:5000])
        (reply,) = map(decoded, split(transport.read()))
        assert (reply.kind, reply.id) == ("exception", 1)
        await asyncio.sleep(0.2)
        assert [decoded(each).kind for each in split(transport.read())] == (
            [] if is_whole else ["abort"]
        )

    expected = None if is_whole else f"protocol error: {wire_engine.SKIPPED_TOO_LONG}"
    assert run(check) == expected

"""Streaming methods: order, errors, and how much of a stream may be on its way."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from capnp_rig import AsyncClient, RemoteError, ServiceError, load_schema
from capnp_rig.client.asyncio_client import _Protocol
from capnp_rig.client.connecting import adopt
from capnp_rig.server.config import ConnectionLimits
from capnp_rig.server.control.call_stamp import unwatched
from capnp_rig.server.engines.wire_engine import open_wire_engine
from capnp_rig.wire.rpc.interfaces import compile_interface

DATA = Path(__file__).parents[3] / "data"
STREAMS = load_schema(DATA / "streams.capnp")
# More than a connection may have of other calls in flight.
MANY = 400


class Log:
    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def run(service: Any, body: Callable[[AsyncClient], Awaitable[None]]) -> None:
    async def work() -> None:
        async with AsyncExitStack() as stack:
            log: Any = Log()
            engine = await stack.enter_async_context(
                open_wire_engine(service, log, unwatched(), ConnectionLimits())
            )
            theirs, ours = socket.socketpair()
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(lambda: engine.protocol(lambda _: None), theirs)
            protocol = _Protocol(compile_interface(service.interface), ours, 10, 65_536)
            await adopt(ours, protocol)
            async with AsyncClient(protocol) as client:
                await body(client)

    asyncio.run(asyncio.wait_for(work(), 20))


class Plain:
    interface = STREAMS.Upload

    def __init__(self) -> None:
        self.chunks = list[bytes]()

    def write(self, params: Any) -> None:
        if not params.chunk:
            raise ServiceError("an empty chunk")
        self.chunks.append(bytes(params.chunk))

    def end(self, _params: Any) -> None:
        """Nothing more comes."""


class Slow(Plain):
    """Each chunk waits for the `gate`."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def write(self, params: Any) -> None:  # type: ignore[override]
        await self.gate.wait()
        super().write(params)


class PlainWrites(Plain):
    async def end(self, _params: Any) -> None:  # type: ignore[override]
        """Nothing more comes."""


class SlowWrites(Slow):
    def __init__(self) -> None:
        super().__init__()
        self.gate.set()


@pytest.mark.parametrize("service", [Plain, PlainWrites, SlowWrites])
def test_what_a_streaming_call_failed_with_all_later_ones_fail_with(
    service: Callable[[], Any],
) -> None:
    async def check(client: AsyncClient) -> None:
        await client.call("write", {"chunk": b"1"})
        # Sent in one write, before any answer.
        writes = [client.call("write", {"chunk": chunk}) for chunk in (b"", b"2")]
        await asyncio.gather(*writes, return_exceptions=True)
        with pytest.raises(RemoteError, match="an empty chunk"):
            await client.call("end")
        assert served.chunks == [b"1"]

    served = service()
    run(served, check)


def test_a_cancelled_call_of_a_stream_lets_nobody_overtake() -> None:
    async def check(client: AsyncClient) -> None:
        protocol: Any = client._protocol
        for chunk in (b"1", b"2", b"3"):
            await client.call("write", {"chunk": chunk})
        await asyncio.sleep(0.01)
        _, second, _ = protocol._caller._windows
        protocol._caller._windows.pop(second)
        protocol.session.cancel(second)
        end = asyncio.create_task(client.call("end"))
        await asyncio.sleep(0.01)
        assert not end.done()
        served.gate.set()
        await end
        assert served.chunks == [b"1", b"3"]

    served = Slow()
    run(served, check)


class Gate:
    """An object that lets a stream go on, or counts what has."""

    interface = STREAMS.Gate

    def __init__(self, event: asyncio.Event) -> None:
        self.event = event
        self.opened = 0

    def open(self, _params: Any) -> None:
        self.opened += 1
        self.event.set()


class Pipe(Slow):
    interface = STREAMS.Pipe

    def __init__(self) -> None:
        super().__init__()
        self.follower: Any = None

    async def write(self, params: Any) -> None:  # type: ignore[override]
        if self.follower is None:
            await super().write(params)
        else:
            await self.follower.call("open")
            self.chunks.append(bytes(params.chunk))

    def getGate(self, _params: Any) -> dict[str, Any]:
        return {"gate": Gate(self.gate)}

    def follow(self, params: Any) -> None:
        self.follower = params.gate


def test_what_lets_a_stream_go_on_is_read_while_small_messages_wait() -> None:
    async def check(client: AsyncClient) -> None:
        gate = (await client.call("getGate")).gate
        for _ in range(MANY):
            await client.call("write", {"chunk": b"x"})
        await gate.call("open")
        await client.call("end")
        assert len(served.chunks) == MANY

    served = Pipe()
    run(served, check)


def test_small_messages_of_a_stream_that_calls_back_are_not_refused() -> None:
    async def check(client: AsyncClient) -> None:
        follower = Gate(asyncio.Event())
        await client.call("follow", {"gate": follower})
        for _ in range(MANY):
            await client.call("write", {"chunk": b"x"})
        await client.call("end")
        assert follower.opened == len(served.chunks) == MANY

    served = Pipe()
    run(served, check)


def test_the_window_counts_whole_messages() -> None:
    async def check(client: AsyncClient) -> None:
        call = asyncio.create_task(_write_all(client))
        await asyncio.sleep(0.05)
        assert not call.done()
        served.gate.set()
        await call
        await client.call("end")

    async def _write_all(client: AsyncClient) -> None:
        for _ in range(65_536 // 128 + 100):
            await client.call("write", {"chunk": b"12345678"})

    served = Slow()
    run(served, check)

"""A drained connection takes no answer with it that the peer has not got yet (C5)."""

import asyncio
import logging
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, closing
from typing import Any

import pytest
import uvloop

from capnp_rig.server.config import ConnectionLimits
from capnp_rig.server.connections.lingering import is_settled
from capnp_rig.server.control.call_stamp import unwatched
from capnp_rig.server.engines.engine import Engine
from capnp_rig.server.engines.pycapnp_engine import open_pycapnp_engine
from capnp_rig.server.engines.wire_engine import open_wire_engine
from capnp_rig.server.services.binary import Binary
from capnp_rig.server.stacks.echo import Echo
from capnp_rig.server.stacks.streams import StreamEngine
from capnp_rig.wire.rpc.client_connection import ClientConnection
from capnp_rig.wire.rpc.interfaces import compile_interface

LOG: Any = logging.getLogger("test")
SIZE = 600_000
METHOD = compile_interface(Binary.interface).methods["reverse"]


async def open_engine(name: str, stack: AsyncExitStack) -> Engine:
    if name == "echo":
        return StreamEngine(Echo, None, ConnectionLimits())
    opened = open_wire_engine if name == "wire" else open_pycapnp_engine
    return await stack.enter_async_context(opened(Binary(), LOG, unwatched(), ConnectionLimits()))


def request_of(name: str, size: int) -> bytes:
    """Return what such an engine answers with `size` bytes and more."""
    if name == "echo":
        return bytes(size)
    client = ClientConnection()
    client.call(METHOD.interface_id, METHOD.method_id, METHOD.params.pack({"data": bytes(size)}))
    return client.data_to_send()


class Drained:
    """An engine with one connection over TCP, whose peer is a blocking socket."""

    def __init__(self, name: str, engine: Engine, transport: Any, peer: socket.socket) -> None:
        self.name, self.engine, self.transport, self.peer = name, engine, transport, peer
        self.loop = asyncio.get_running_loop()

    async def receive(self, size: int) -> int:
        received = 0
        while received < size and (data := await self.loop.sock_recv(self.peer, 65_536)):
            received += len(data)
        return received


def drained(
    name: str, runner: Callable[..., Any], check: Callable[[Drained], Awaitable[None]]
) -> None:
    async def body() -> None:
        async with AsyncExitStack() as stack:
            engine = await open_engine(name, stack)
            loop = asyncio.get_running_loop()
            with closing(socket.create_server(("127.0.0.1", 0))) as listener:
                peer = stack.enter_context(closing(socket.socket()))
                # So that a large answer stays in the server's kernel.
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                peer.connect(listener.getsockname())
                theirs, _ = listener.accept()
            peer.settimeout(0)
            ended: list[str | None] = []
            transport, _ = await loop.connect_accepted_socket(
                lambda: engine.protocol(ended.append), theirs
            )
            await check(Drained(name, engine, transport, peer))
            assert ended == [None]

    async def bounded() -> None:
        await asyncio.wait_for(body(), 20)

    runner(bounded())


ENGINES = pytest.mark.parametrize("name", ["wire", "pycapnp", "echo"])
LOOPS = pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


@LOOPS
@ENGINES
def test_c5_a_drain_delivers_its_answers_while_the_peer_still_sends(
    name: str, runner: Callable[..., Any]
) -> None:
    async def check(it: Drained) -> None:
        await it.loop.sock_sendall(it.peer, request_of(name, SIZE))
        # The answer is under way, and most of it still in the server's buffers.
        received = await it.receive(500)
        assert not is_settled(it.transport)
        # The beginning of a large message.
        more = struct.pack("<II", 0, 50_000)
        draining = asyncio.create_task(it.engine.drain())
        for _ in range(20):
            await it.loop.sock_sendall(it.peer, more)
            more = bytes(8)
            received += await it.receive(1)
            await asyncio.sleep(0.005)
        # All of it, and then the end, not a reset.
        received += await asyncio.wait_for(it.receive(1 << 30), 10)
        assert received >= SIZE
        it.peer.close()
        await asyncio.wait_for(draining, 5)

    drained(name, runner, check)


@LOOPS
@ENGINES
def test_c5_an_idle_connection_is_drained_at_once(name: str, runner: Callable[..., Any]) -> None:
    async def check(it: Drained) -> None:
        await it.loop.sock_sendall(it.peer, request_of(name, 100))
        assert await it.receive(200 if name != "echo" else 100)
        await asyncio.sleep(0.05)
        start_s = time.monotonic()
        # The peer does not close.
        await asyncio.wait_for(it.engine.drain(), 10)
        assert time.monotonic() - start_s < 1
        while await it.receive(1):
            pass

    drained(name, runner, check)

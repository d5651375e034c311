"""Answers that only the transport below TLS holds: a drain delivers them, a slow reader moves."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, closing, suppress
from typing import Any

import pytest
import uvloop
from deadline import WITHIN_S
from throwaway_ca import ThrowawayCa

from capnp_rig.server.config import ConnectionLimits
from capnp_rig.server.connections import lingering
from capnp_rig.server.connections.lingering import taken_bytes
from capnp_rig.server.connections.tls import Secured
from capnp_rig.server.control.call_stamp import unwatched
from capnp_rig.server.engines.engine import Engine
from capnp_rig.server.engines.pycapnp_engine import open_pycapnp_engine
from capnp_rig.server.engines.wire_engine import open_wire_engine
from capnp_rig.server.services.binary import Binary
from capnp_rig.wire.rpc.client_connection import ClientConnection
from capnp_rig.wire.rpc.interfaces import compile_interface

LOG: Any = logging.getLogger("test")
SIZE = 3_000_000
METHOD = compile_interface(Binary.interface).methods["reverse"]


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> ThrowawayCa:
    return ThrowawayCa(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering, "LINGER_S", 0.1)


def server_side(ca: ThrowawayCa) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca.server.cert, ca.server.key)
    return context


class Unread:
    """An engine with a connection over TLS, whose peer has asked for much and reads nothing."""

    def __init__(self, engine: Engine, transport: Any, protocol: Any, reader: Any) -> None:
        self.engine, self.transport, self.protocol = engine, transport, protocol
        self.reader: asyncio.StreamReader = reader


def unread(
    ca: ThrowawayCa,
    name: str,
    runner: Callable[..., Any],
    check: Callable[[Unread], Awaitable[None]],
) -> None:
    opened = open_wire_engine if name == "wire" else open_pycapnp_engine

    async def body() -> None:
        async with AsyncExitStack() as stack:
            engine = await stack.enter_async_context(
                opened(Binary(), LOG, unwatched(), ConnectionLimits())
            )
            loop = asyncio.get_running_loop()
            with closing(socket.create_server(("127.0.0.1", 0))) as listener:
                peer = stack.enter_context(closing(socket.socket()))
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                peer.connect(listener.getsockname())
                theirs, _ = listener.accept()
            # So that a large answer is in neither kernel.
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
            protocols: list[Any] = []
            ended: asyncio.Future[str | None] = loop.create_future()

            def make() -> asyncio.BaseProtocol:
                protocols.append(engine.protocol(ended.set_result))
                return protocols[0]  # type: ignore[no-any-return]

            (transport, _), (reader, writer) = await asyncio.gather(
                loop.connect_accepted_socket(
                    lambda: Secured(make), theirs, ssl=server_side(ca), ssl_shutdown_timeout=1
                ),
                asyncio.open_connection(
                    sock=peer, ssl=ca.client_context(), server_hostname="localhost", limit=4096
                ),
            )
            client = ClientConnection()
            client.call(
                METHOD.interface_id, METHOD.method_id, METHOD.params.pack({"data": bytes(SIZE)})
            )
            writer.write(client.data_to_send())
            await writer.drain()
            it = Unread(engine, transport, protocols[0], reader)
            while it.protocol.traffic.bytes_out < SIZE:
                await asyncio.sleep(0.005)
            await check(it)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            await ended

    async def bounded() -> None:
        await asyncio.wait_for(body(), WITHIN_S)

    runner(bounded())


ENGINES = pytest.mark.parametrize("name", ["wire", "pycapnp"])
LOOPS = pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


@LOOPS
@ENGINES
def test_c5_a_drain_waits_for_a_peer_that_reads_late(
    ca: ThrowawayCa, quick: None, name: str, runner: Callable[..., Any]
) -> None:
    async def check(it: Unread) -> None:
        draining = asyncio.create_task(it.engine.drain())
        # Several looks at how it goes, in which nothing moves.
        await asyncio.sleep(0.35)
        assert len(await it.reader.read()) >= SIZE
        await draining

    unread(ca, name, runner, check)


@LOOPS
@ENGINES
def test_b8_a_peer_that_reads_what_waits_below_tls_does_not_stall(
    ca: ThrowawayCa, name: str, runner: Callable[..., Any]
) -> None:
    async def check(it: Unread) -> None:
        written = it.protocol.traffic.bytes_out
        # All of it is out of the sight of the transport that the engine has.
        while it.transport.get_write_buffer_size():
            await asyncio.sleep(0.005)
        before = taken_bytes(it.transport, written)
        assert before < SIZE / 2
        await it.reader.readexactly(SIZE)
        assert taken_bytes(it.transport, written) >= SIZE

    unread(ca, name, runner, check)

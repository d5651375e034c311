"""A pycapnp client for tests, behind the same gate as the server (one early byte kills it else)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import capnp
import uvloop
from running_server import Running

from capnp_rig.schema import message
from capnp_rig.server.engines.kj_gate import Gate

Work = Callable[[Any], Awaitable[Any]]


@asynccontextmanager
async def connected(
    port: int | None = None,
    *,
    host: str = "127.0.0.1",
    path: str | None = None,
    interface: Any = message.MessageStream,
) -> AsyncIterator[Any]:
    """Connect inside a running KJ loop and yield the bootstrap capability."""
    loop = asyncio.get_running_loop()
    made: asyncio.Future[Any] = loop.create_future()
    if path is None:
        await loop.create_connection(lambda: Gate(made.set_result), host, port)
    else:
        await loop.create_unix_connection(lambda: Gate(made.set_result), path)
    stream = await made
    client = capnp.TwoPartyClient(stream)
    try:
        yield client.bootstrap().cast_as(interface)
    finally:
        client.close()
        stream.close()


def run(work: Callable[[], Awaitable[Any]], deadline_s: float = 20.0) -> Any:
    """Run `work` on a fresh uvloop with a KJ loop, within a deadline."""

    async def body() -> Any:
        async with capnp.kj_loop():
            return await asyncio.wait_for(work(), deadline_s)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(body())


def reversed_by(server: Running, text: str = "Hello") -> bytes:
    """Make one call on a connection of its own and return the chunk."""

    async def work() -> bytes:
        where = {"path": server.path} if server.path else {"port": server.port, "host": server.host}
        async with connected(**where) as stream:
            return bytes((await stream.read({"content": text})).chunk)

    result: bytes = run(work)
    return result

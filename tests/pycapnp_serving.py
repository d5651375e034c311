"""Serves an object of pycapnp's, as a script: `running_peer` starts such ones."""

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any

import capnp


def serve_forever(bootstrap: Callable[[], Any]) -> None:
    """Serve a new object on each connection to a free port, which is printed."""

    async def serve(stream: Any) -> None:
        await capnp.TwoPartyServer(stream, bootstrap=bootstrap()).on_disconnect()

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        server = await capnp.AsyncIoStream.create_server(serve, "127.0.0.1", port)
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        async with server:
            await server.serve_forever()

    asyncio.run(capnp.run(main()))

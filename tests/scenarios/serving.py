"""A side as a command: it prints its port, and ends with its standard input."""

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable


async def serve(connected: Callable[[socket.socket], Awaitable[object]]) -> None:
    """Serve each connection until the standard input ends."""
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        sys.stdout.write(f"{listening.getsockname()[1]}\n")
        sys.stdout.flush()

        async def accept() -> None:
            while True:
                accepted, _ = await asyncio.get_running_loop().sock_accept(listening)
                connections.append(asyncio.ensure_future(connected(accepted)))

        accepting = asyncio.create_task(accept())
        await asyncio.to_thread(sys.stdin.read)
        accepting.cancel()

"""A side as a command: it prints its port, and ends with its standard input."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1]


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


@contextmanager
def serving(command: Sequence[str | Path]) -> Iterator[int]:
    """Run such a command; yield its port."""
    with subprocess.Popen(
        command, cwd=_TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.communicate(timeout=20)


def module(name: str) -> list[str]:
    """Return the command that a side is."""
    return [sys.executable, "-m", f"scenarios.{name}"]

"""A parent that calls, and children that do what they may not: ``forking_client.py ADDR LOOP``.

Says how each child ended, and then how many calls of the parent were answered wrong.
"""

import asyncio
import functools
import gc
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from capnp_rig.client import AsyncReverseClient, UsedAfterFork

CALLS = 100
RUNS: dict[str, Callable[[Coroutine[Any, Any, Any]], Any]] = {
    "asyncio": asyncio.run,
    "uvloop": uvloop.run,
}


def call(client: AsyncReverseClient, run: Callable[..., Any]) -> int:
    """Call, with a loop of the child's own."""
    wrong = 0
    for _ in range(20):
        try:
            run(client.read("child", timeout_s=5))
        except UsedAfterFork:
            continue
        wrong += 1
    return wrong


def close(client: AsyncReverseClient, run: Callable[..., Any]) -> int:
    async def leave() -> None:
        async with client:
            pass
        await client.close()

    run(leave())
    return int(client.is_open)


def collect(client: AsyncReverseClient, run: Callable[..., Any]) -> int:
    """Let go of the transport as the collector would, and as a transport is let go of."""
    transport = client._protocol._transport
    assert transport is not None
    del client
    gc.collect()
    # Each of these would take the socket out of the set that parent and child wait on.
    transport.pause_reading()
    transport.close()
    transport.abort()
    del transport
    gc.collect()
    return 0


def shut_down(client: AsyncReverseClient, run: Callable[..., Any]) -> int:
    """Do the worst to the descriptor itself."""
    sock = client._protocol._socket
    try:
        os.write(sock.fileno(), b"\xff" * 64)
        sock.shutdown(2)
    except OSError:
        pass
    else:
        return 1
    return int(sock.recv(1) != b"")


CHILDREN = [call, close, collect, shut_down]


async def ask(client: AsyncReverseClient, name: str) -> int:
    wrong = 0
    for number in range(CALLS):
        text = f"{name} {number}"
        wrong += await client.read(text, timeout_s=20) != text[::-1].encode()
    return wrong


def fork(children: dict[int, str], child: Callable[[], int], name: str) -> None:
    """Let `child` run in a process of its own, which ends with what it returns."""
    pid = os.fork()
    if pid:
        children[pid] = name
        return
    status = 99
    try:
        status = child()
    finally:
        os._exit(status)


def reap(children: dict[int, str]) -> bool:
    """Say which children have ended; return whether some have not."""
    for pid, name in tuple(children.items()):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            del children[pid]
            sys.stdout.write(f"{name} {os.waitstatus_to_exitcode(status)}\n")
    return bool(children)


async def main(address: str, run: Callable[..., Any]) -> None:
    client = await AsyncReverseClient.connect(address, connect_timeout_s=10)
    asking = [asyncio.create_task(ask(client, f"task {n}")) for n in range(4)]
    children: dict[int, str] = {}
    for child in CHILDREN:
        # In the middle of calls: some are in flight.
        await asyncio.sleep(0)
        fork(children, functools.partial(child, client, run), child.__name__)
    pid = os.fork()
    if pid == 0:
        # Unwinds through the parent's tasks and loop, which is closed and collected.
        sys.exit(0)
    children[pid] = "unwind"
    wrong = 0
    while reap(children):
        wrong += await ask(client, "meanwhile")
    wrong += await ask(client, "after")
    wrong += sum(await asyncio.gather(*asking))
    await client.close()
    sys.stdout.write(f"wrong {wrong}\n")


if __name__ == "__main__":
    chosen = RUNS[sys.argv[2]]
    chosen(main(sys.argv[1], chosen))

"""What a server shares with the benchmark: how often it was called, and what is to go wrong in it.

It is a file that both map, so the count outlives a server that is killed.

What a call takes is exponential, as in the models of queues: 1 % of the calls take 4.6 times the
mean. Were it constant, the p99 of healthy servers would be their p50, which is nobody's service.
"""

import asyncio
import ctypes
import mmap
import os
import random
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Self

ENVIRONMENT_NAME = "CAPNP_RIG_FAULT_PAGE"
# Executions, the µs that a call takes in the mean, resets.
_LAYOUT = struct.Struct("=3Q")
# How often to look whether connections are to be reset.
_LOOK_S = 0.005
# In place of an address: Linux then drops the connection of a TCP socket, and sends a RST.
_NO_ADDRESS = struct.pack("=H14x", socket.AF_UNSPEC)


class FaultPage:
    """The shared numbers; the server counts the `executions`, the benchmark sets the others.

    `call_us` is what a call takes in the mean, `resets` how often all connections were to be reset
    so far.
    """

    def __init__(self, file: Path) -> None:
        """Map a file that `create` has made."""
        with file.open("r+b") as stream:
            self._numbers = memoryview(mmap.mmap(stream.fileno(), _LAYOUT.size)).cast("Q")

    @classmethod
    def create(cls, file: Path, call_us: int) -> Self:
        """Make the file of a server whose calls take `call_us` in the mean, and map it."""
        file.write_bytes(_LAYOUT.pack(0, call_us, 0))
        return cls(file)

    @property
    def executions(self) -> int:
        """How often a method was called."""
        return self._numbers[0]

    @executions.setter
    def executions(self, count: int) -> None:
        self._numbers[0] = count

    @property
    def call_us(self) -> int:
        """What a call takes in the mean, in µs."""
        return self._numbers[1]

    @call_us.setter
    def call_us(self, value: int) -> None:
        self._numbers[1] = value

    @property
    def resets(self) -> int:
        """How often all connections were to be reset so far."""
        return self._numbers[2]

    @resets.setter
    def resets(self, count: int) -> None:
        self._numbers[2] = count


class FaultyPart:
    """What a server does before it answers: count the call, and wait; resets come in between."""

    def __init__(self) -> None:
        """Map the page that the environment names."""
        file = Path(os.environ[ENVIRONMENT_NAME])
        self._page = FaultPage(file)
        self._chance = random.Random(file.name)
        self._watch: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Return when the answer may leave."""
        self._page.executions += 1
        if self._watch is None:
            self._watch = asyncio.create_task(self._reset_when_told())
        await asyncio.sleep(self._page.call_us / 1e6 * self._chance.expovariate(1.0))

    async def _reset_when_told(self) -> None:
        # Not with the next call: a client that has left this server alone would meet all resets
        # that it has been spared at its return.
        done = self._page.resets
        while True:
            await asyncio.sleep(_LOOK_S)
            if self._page.resets != done:
                done = self._page.resets
                reset_connections()


def reset_connections() -> None:
    """Reset every TCP connection of this process: the peers' calls in flight are lost (Linux)."""
    connect = ctypes.CDLL(None).connect
    for entry in Path("/proc/self/fd").iterdir():
        if not entry.is_socket():
            continue
        # One that listens, or is lost already, has no peer.
        with suppress(OSError), socket.socket(fileno=os.dup(int(entry.name))) as sock:
            if sock.family in {socket.AF_INET, socket.AF_INET6} and sock.getpeername():
                connect(sock.fileno(), _NO_ADDRESS, len(_NO_ADDRESS))

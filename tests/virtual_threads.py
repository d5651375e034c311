"""Threads of a blocking client that run in one order only, on a clock that a test moves.

Each place where `client` blocks is replaced: its lock, its poll, its clock. A thread that blocks
says so, with what it waits for; `World.settle` returns when every thread is idle or waits for
what has not happened. So between two steps of a test nothing moves, and nothing sleeps.
"""

import queue
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar
from unittest.mock import patch

from capnp_rig.client import blocking_client, duplex

# Only a deadlock takes so long.
_HANGS_AFTER_S = 20.0

T = TypeVar("T")


class _Block(NamedTuple):
    is_over: Callable[[], object]
    end_s: float


class World:
    """The clock, and what every thread waits for."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.changed = threading.Condition()
        self._busy: set[int] = set()
        self._blocks: dict[int, _Block] = {}
        self._interrupts: set[int] = set()

    def monotonic(self) -> float:
        return self.now_s

    def monotonic_ns(self) -> int:
        return round(self.now_s * 1e9)

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds

    def block(self, is_over: Callable[[], object], timeout_s: float) -> bool:
        """Wait until `is_over`, or return False when the time is."""
        thread = threading.get_ident()
        with self.changed:
            self._blocks[thread] = _Block(is_over, self.now_s + timeout_s)
            self.changed.notify_all()
            self.changed.wait_for(lambda: self._wakes(thread))
            del self._blocks[thread]
            if thread in self._interrupts:
                self._interrupts.remove(thread)
                raise KeyboardInterrupt
            return bool(is_over())

    def interrupt(self, thread: int) -> bool:
        """Let a thread's wait end in KeyboardInterrupt; return whether it waits."""
        with self.changed:
            if thread in self._blocks:
                self._interrupts.add(thread)
            return thread in self._blocks

    def begin(self, thread: int) -> None:
        with self.changed:
            self._busy.add(thread)

    def end(self, thread: int) -> None:
        with self.changed:
            self._busy.remove(thread)
            self.changed.notify_all()

    def settle(self) -> None:
        """Return when nothing moves any more."""
        with self.changed:
            self.changed.notify_all()
            assert self.changed.wait_for(self._is_settled, _HANGS_AFTER_S), "a thread hangs"

    def _is_settled(self) -> bool:
        return all(
            thread in self._blocks and not self._may_wake(thread) for thread in list(self._busy)
        )

    def _wakes(self, thread: int) -> bool:
        # One at a time, in the order in which they began to wait: what they do next depends on it.
        if any(each not in self._blocks for each in self._busy):
            return False
        return thread == next(filter(self._may_wake, self._blocks), None)

    def _may_wake(self, thread: int) -> bool:
        block = self._blocks[thread]
        return bool(thread in self._interrupts or self.now_s >= block.end_s or block.is_over())


class Lock:
    """A `threading.RLock` of the world: first come, first served."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._owner: int | None = None
        self._count = 0
        self._waiting: list[int] = []

    @property
    def owner(self) -> int | None:
        return self._owner

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        thread = threading.get_ident()
        with self._world.changed:
            if self._owner == thread or (self._owner is None and not self._waiting):
                return self._take(thread)
            if not blocking:
                return False
            self._waiting.append(thread)
            try:
                mine = self._world.block(lambda: self._is_next(thread), timeout)
                return mine and self._take(thread)
            finally:
                self._waiting.remove(thread)
                self._world.changed.notify_all()

    def release(self) -> None:
        with self._world.changed:
            if self._owner != threading.get_ident():
                raise RuntimeError("not owned")
            self._count -= 1
            if not self._count:
                self._owner = None
            self._world.changed.notify_all()

    def _is_next(self, thread: int) -> bool:
        return self._owner is None and self._waiting[0] == thread

    def _take(self, thread: int) -> bool:
        self._owner = thread
        self._count += 1
        return True


class _Poll:
    def __init__(self, world: World) -> None:
        self._world = world
        self._real = select.poll()
        self.register = self._real.register

    def poll(self, timeout_ms: float) -> list[tuple[int, int]]:
        self._world.block(lambda: self._real.poll(0), timeout_ms / 1000)
        return self._real.poll(0)


class Socket:
    """A socket whose next `recv` or `send` can be interrupted after it moved bytes."""

    def __init__(self, sock: socket.socket) -> None:
        self._real = sock
        self.interrupts_next = False
        self.was_interrupted = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def recv(self, size: int) -> bytes:
        return self._moved(self._real.recv(size))

    def send(self, data: memoryview) -> int:
        return self._moved(self._real.send(data))

    def _moved(self, result: T) -> T:
        if self.interrupts_next:
            self.interrupts_next, self.was_interrupted = False, True
            raise KeyboardInterrupt
        return result


class Worker:
    """A thread that does one piece of work after the other."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def ident(self) -> int:
        assert self._thread.ident is not None
        return self._thread.ident

    def start(self, work: Callable[[], None]) -> None:
        self._world.begin(self.ident)
        self._work.put(work)

    def stop(self) -> None:
        self._work.put(None)
        self._thread.join(_HANGS_AFTER_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            finally:
                self._world.end(self.ident)


@contextmanager
def virtual(world: World) -> Iterator[None]:
    """Let the blocking client run in `world`; give it a `Lock` as well."""
    clock = SimpleNamespace(monotonic=world.monotonic, monotonic_ns=world.monotonic_ns)
    polls = SimpleNamespace(POLLIN=select.POLLIN, POLLOUT=select.POLLOUT, poll=lambda: _Poll(world))
    with (
        patch.object(blocking_client, "time", clock),
        patch.object(duplex, "time", clock),
        patch.object(duplex, "select", polls),
    ):
        yield

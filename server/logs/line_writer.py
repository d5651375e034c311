"""Writes log lines to a descriptor that may be slow, full or gone, and never waits for it.

A pipe that nobody reads must not stop the server, so its lines are dropped and counted. The
descriptor is shared with the process that started the server, so it is not made non-blocking. A
pipe or a terminal is opened a second time instead, which gives a file description of our own.
"""

import contextlib
import os
import select
import socket
import stat
from collections.abc import Callable

# Takes bytes, returns how many were written, and raises OSError rather than wait.
Sink = Callable[[bytes], int]


def dropped(count: int) -> str:
    """Return the line that tells of lost ones."""
    return f"{count} log lines dropped"


class LineWriter:
    """Writes each line with one system call, or drops it; `notice` words the drops."""

    def __init__(self, sink: Sink, notice: Callable[[int], str] = dropped) -> None:
        self._sink = sink
        self._notice = notice
        self._torn = False
        self.dropped = 0

    def write(self, line: str) -> None:
        """Write one line, preceded by the number of lines lost before it."""
        lines = [self._notice(self.dropped), line] if self.dropped else [line]
        data = "".join(f"{text}\n" for text in lines).encode(errors="backslashreplace")
        if self._torn:
            data = b"\n" + data
        try:
            written = self._sink(data)
        except OSError:
            # Full, closed, or out of disk: the server serves on, and the count tells later.
            self.dropped += 1
            return
        # A line cut short is ended before the next one starts.
        self._torn = written < len(data)
        self.dropped = 1 if self._torn else 0


def open_sink(fd: int) -> Sink:
    """Return the way to write to `fd` that cannot block."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        # Closed: the lines go nowhere.
        return len
    if stat.S_ISSOCK(mode):
        return _socket_sink(fd)
    if stat.S_ISFIFO(mode) or os.isatty(fd):
        return _reopened_sink(fd)
    return lambda data: os.write(fd, data)


def _socket_sink(fd: int) -> Sink:
    def send(data: bytes) -> int:
        # Only borrowed: a socket object that owned the descriptor would close it in the end.
        sock = socket.socket(fileno=fd)
        try:
            return sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        finally:
            sock.detach()

    return send


def _reopened_sink(fd: int) -> Sink:
    with contextlib.suppress(OSError):
        own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        return lambda data: os.write(own, data)
    # Not ours to open again (no /proc, another user's terminal): look before writing.
    return _polled_sink(fd)


def _polled_sink(fd: int) -> Sink:
    ready = select.poll()
    ready.register(fd, select.POLLOUT)

    def write(data: bytes) -> int:
        if not any(events & select.POLLOUT for _, events in ready.poll(0)):
            raise BlockingIOError
        # A pipe that polls writable has room for this much, so the write cannot block.
        return os.write(fd, data[: select.PIPE_BUF])

    return write

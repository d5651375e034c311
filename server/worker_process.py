"""The supervisor's side of one worker: its process, its control socket, what is known of it.

Nothing here needs an event loop, so that the first workers can start before asyncio is imported.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rigcli.heap import keeping_heap
from server.channel import Channel, ChannelClosedError
from server.dispatch import Slot
from server.messages import (
    Drain,
    Ended,
    Failed,
    Hand,
    Left,
    Message,
    Ping,
    Pong,
    Ready,
    Refused,
    Setup,
    Stop,
    Taken,
)

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Connection:
    """An accepted connection on its way to a worker."""

    number: int
    sock: socket.socket
    peer: str


class WorkerProcess:
    """One started worker. Whoever sees it end calls `close`."""

    def __init__(self, setup: Setup) -> None:
        self.index = setup.worker
        self.ready = False
        self.blocked = False
        self.missed_beats = 0
        # How many connections it serves now.
        self.serving = 0
        self.failure: str | None = None
        self.failure_trace: str | None = None
        self.cancelled: int | None = None
        # The copies kept until the worker has its own: it may die with them in transit.
        self._in_transit: dict[int, Connection] = {}
        self._beat = 0
        self._awaiting_pong = False
        self.channel, theirs = Channel.pair()
        with theirs:
            self._process = _launch(theirs.fileno())
        self.channel.send(setup)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def slot(self) -> Slot:
        """What a dispatch decision needs to know."""
        return Slot(
            ready=self.ready,
            blocked=self.blocked,
            unacknowledged=len(self._in_transit),
            missed_beats=self.missed_beats,
        )

    @property
    def load(self) -> int:
        """The connections served and on their way."""
        return self.serving + len(self._in_transit)

    def hand(self, connection: Connection) -> bool:
        """Send a connection, or return False if the worker does not keep up."""
        message = Hand(connection=connection.number, peer=connection.peer)
        if not self._send(message, connection.sock.fileno()):
            return False
        self._in_transit[connection.number] = connection
        return True

    def beat(self) -> None:
        """Ask for a sign of life; a beat that finds the last one unanswered counts as missed.

        Beats are counted, not timed: a supervisor that was itself stopped blames nobody.
        """
        if self._awaiting_pong:
            self.missed_beats += 1
            return
        self._beat += 1
        self._awaiting_pong = True
        self._send(Ping(self._beat))

    def drain(self) -> None:
        """Tell it to finish its calls and leave."""
        self._send(Drain())

    def stop(self) -> None:
        """Tell it to cancel its calls and leave."""
        self._send(Stop())

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def read(self) -> Iterator[Message]:
        """Yield what the worker said, after noting it here."""
        while True:
            try:
                received = self.channel.receive()
            except ChannelClosedError:
                return
            if received is None:
                return
            self._note(received[0])
            yield received[0]

    def poll(self) -> str | None:
        """Return how the process ended, in words, or None while it runs."""
        status = self._process.poll()
        if status is None:
            return None
        return exit_words(status)

    def close(self) -> list[Connection]:
        """Reap the process and return the connections it never took, oldest first."""
        self._process.wait()
        self.channel.close()
        orphans, self._in_transit = list(self._in_transit.values()), {}
        return orphans

    def _send(self, message: Message, fd: int | None = None) -> bool:
        try:
            sent = self.channel.send(message, fd)
        except ChannelClosedError:
            sent = False
        self.blocked = not sent
        return sent

    def _note(self, message: Message) -> None:
        match message:
            case Ready():
                self.ready = True
            case Taken() | Refused():
                self._in_transit.pop(message.connection).sock.close()
                self.serving += isinstance(message, Taken)
            case Ended():
                self.serving -= 1
            case Pong():
                self._awaiting_pong = False
                self.missed_beats = 0
            case Failed():
                self.failure, self.failure_trace = message.cause, message.trace
            case Left():
                self.cancelled = message.cancelled
            case _:
                raise AssertionError(message)


def exit_words(status: int) -> str:
    """Return how a process ended: `status` is its exit status, or minus a signal's number."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def _launch(control_fd: int) -> subprocess.Popen[bytes]:
    # -P: our packages have everyday names, and a folder of the user's must not stand in for one.
    command = [sys.executable, "-P", "-m", "server.worker", str(control_fd), str(os.getpid())]
    # Blocked until the worker ignores them: Ctrl-C reaches the whole group.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        return subprocess.Popen(  # noqa: S603 - our own command
            command, pass_fds=[control_fd], stdin=subprocess.DEVNULL, env=_environment()
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _environment() -> dict[str, str]:
    """Return the environment in which a worker imports the very package we run from.

    The C library of a worker keeps what it frees.
    """
    kept = keeping_heap(os.environ)
    root = str(Path(__file__).resolve().parent.parent)
    known = os.environ.get("PYTHONPATH", "")
    # An installed package is found by itself; put in front, its neighbours would hide the standard
    # library. A checkout is found only if somebody says where it is.
    if root.endswith(("site-packages", "dist-packages")) or root in known.split(os.pathsep):
        return kept
    return {**kept, "PYTHONPATH": f"{known}{os.pathsep}{root}" if known else root}

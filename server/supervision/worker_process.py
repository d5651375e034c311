"""The supervisor's side of one worker: its process, its control socket, what is known of it.

Nothing here needs an event loop, so that the first workers can start before asyncio is imported.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from capnp_rig.rigcli.malloc_settings import with_malloc_settings
from capnp_rig.rigcli.source_path import importing
from capnp_rig.server.control import messages
from capnp_rig.server.control.call_stamp import StampPage, Work
from capnp_rig.server.control.channel import Channel, ChannelClosedError
from capnp_rig.server.control.counts import WorkerCounts
from capnp_rig.server.control.signals import HANDLED
from capnp_rig.server.supervision.call_watch import Standing
from capnp_rig.server.supervision.slots import Slot


@dataclass(frozen=True, slots=True)
class Connection:
    """An accepted connection on its way to a worker."""

    number: int
    sock: socket.socket
    peer: str
    # What a quarantine refuses: the address without its port, or the user of a Unix socket.
    origin: str
    accepted_s: float


@dataclass(frozen=True, slots=True)
class Culprit:
    """The connection whose call a worker was in when it ended, and how often it was served."""

    peer: str
    origin: str
    reads: int


class WorkerProcess:
    """One started worker. Call `close` when it has ended.

    Raises:
        OSError: The system starts no process.
    """

    def __init__(self, setup: messages.Setup) -> None:
        self.setup = setup
        self.index = setup.worker
        self.ready = False
        # It was told to finish its calls and to leave.
        self.leaving = False
        self.age_beats = 0
        # When it became ready.
        self.ready_s = 0.0
        self.blocked = False
        self.missed_beats = 0
        self.standing = Standing()
        self.was_killed = False
        # The peers and origins of the connections that it serves now.
        self._served: dict[int, tuple[str, str]] = {}
        # How many of each origin are served or on their way.
        self._of_origin: Counter[str] = Counter()
        self.failure: str | None = None
        self.failure_trace: str | None = None
        self.cancelled: int | None = None
        # Of one that has ended.
        self.last_counts = WorkerCounts()
        # The copies kept until the worker has its own: it may die with them in transit.
        self._in_transit: dict[int, Connection] = {}
        self._beat = 0
        self._awaiting_pong = False
        with contextlib.ExitStack() as opened:
            self._stamp = opened.enter_context(contextlib.closing(StampPage()))
            self.channel, theirs = Channel.pair()
            opened.enter_context(contextlib.closing(self.channel))
            with theirs:
                self._process = _launch(theirs.fileno(), self._stamp.fd)
            opened.pop_all()
        self._send(setup)

    @property
    def name(self) -> str:
        """How the log names it."""
        return f"Worker {self.index} (pid {self.pid})"

    @property
    def phase(self) -> str:
        """Whether it is ``starting``, ``serving`` or ``leaving``."""
        return "leaving" if self.leaving else "serving" if self.ready else "starting"

    @property
    def counts(self) -> WorkerCounts:
        """What it has counted for the metrics."""
        return self._stamp.counts()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def serving(self) -> int:
        """How many connections it serves now."""
        return len(self._served)

    @property
    def culprit(self) -> Culprit | None:
        """Whose call an ended worker was in; None if it was in none that is known."""
        number, reads = self._stamp.read()
        if number not in self._served:
            return None
        peer, origin = self._served[number]
        return Culprit(peer, origin, reads)

    @property
    def work(self) -> Work:
        """What it is doing."""
        return self._stamp.work()

    def method(self, number: int) -> str:
        """Return the name of one of its methods."""
        return self._stamp.method(number)

    @property
    def unfinished(self) -> int | None:
        """The calls in flight; None if that is not known, as of a stack without methods."""
        if self.setup.config.stack == "capnp":
            return self.work.unfinished
        return 0 if self.setup.listen is None and not self.load else None

    @property
    def slot(self) -> Slot:
        """What a dispatch decision needs to know."""
        return Slot(
            ready=self.ready,
            blocked=self.blocked,
            unacknowledged=len(self._in_transit),
            missed_beats=self.missed_beats,
            connections=self.load,
        )

    @property
    def load(self) -> int:
        """The connections served and on their way."""
        return self.serving + len(self._in_transit)

    def load_of(self, origin: str) -> int:
        """Return how many connections of one origin are served or on their way."""
        return self._of_origin.get(origin, 0)

    def _forget_one_of(self, origin: str) -> None:
        self._of_origin[origin] -= 1
        if not self._of_origin[origin]:
            del self._of_origin[origin]

    def hand(self, connection: Connection) -> bool:
        """Send a connection, or return False if the worker does not keep up."""
        message = messages.Hand(connection=connection.number, peer=connection.peer)
        if not self._send(message, connection.sock.fileno()):
            return False
        self._in_transit[connection.number] = connection
        self._of_origin[connection.origin] += 1
        return True

    def beat(self) -> None:
        """Ask for a sign of life; a beat that finds the last one unanswered counts as missed.

        Beats are counted, not timed: a supervisor that was itself stopped blames nobody.
        """
        if self._awaiting_pong:
            self.missed_beats += 1
        else:
            self._beat += 1
            self._awaiting_pong = True
            self._send(messages.Ping(self._beat))
        self.standing = self.standing.after(self.work.step, self.missed_beats)

    def drain(self) -> bool:
        """Tell it to finish its calls and leave; return False if it does not keep up."""
        self.leaving = True
        return self._send(messages.Drain())

    def drop(self, origin: str) -> None:
        """Tell it to end the connections of one origin at once."""
        for number, (_, theirs) in self._served.items():
            if theirs == origin:
                self._send(messages.Drop(number))

    def stop(self) -> None:
        """Tell it to cancel its calls and leave."""
        self._send(messages.Stop())

    def kill(self) -> None:
        """End it at once, with what it has started."""
        self.signal_group(signal.SIGKILL)

    def discard(self) -> None:
        """End one that has served nobody."""
        self.leaving, self.cancelled = True, 0
        self.kill()

    def signal_group(self, number: int) -> None:
        """Send a signal to the worker and to the processes that it has started.

        Those that lead a session of their own (setsid) are not reached.
        """
        # Once it is reaped, its number may be another's.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def read(self) -> Iterator[messages.Message]:
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
        """Return how the process ended, in words, or None while it runs.

        What an ended worker has started is killed.
        """
        # Not reaped by this: until it is, no new group can have its number.
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        if self._process.returncode is None and os.waitid(os.P_PID, self.pid, flags) is None:
            return None
        self.kill()
        status = self._process.wait()
        self.was_killed = status == -signal.SIGKILL
        return exit_words(status)

    def close(self) -> list[Connection]:
        """Give up an ended worker; return the connections it never took, oldest first."""
        self.channel.close()
        self.last_counts = self.counts
        self._stamp.close()
        orphans, self._in_transit = list(self._in_transit.values()), {}
        return orphans

    def _send(self, message: messages.Message, fd: int | None = None) -> bool:
        try:
            sent = self.channel.send(message, fd)
        except ChannelClosedError:
            sent = False
        self.blocked = not sent
        return sent

    def _note(self, message: messages.Message) -> None:
        match message:
            case messages.Ready():
                self.ready = True
            case messages.Taken() | messages.Refused():
                connection = self._in_transit.pop(message.connection)
                connection.sock.close()
                if isinstance(message, messages.Taken):
                    self._served[message.connection] = connection.peer, connection.origin
                else:
                    self._forget_one_of(connection.origin)
            case messages.Ended():
                _, origin = self._served.pop(message.connection)
                self._forget_one_of(origin)
            case messages.Pong():
                self._awaiting_pong = False
                self.missed_beats = 0
            case messages.Failed():
                self.failure, self.failure_trace = message.cause, message.trace
            case messages.Left():
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


def _launch(control_fd: int, stamp_fd: int) -> subprocess.Popen[bytes]:
    # -P: our packages have everyday names, and a folder of the user's must not stand in for one.
    command = [sys.executable, "-P", "-m", "capnp_rig.server.worker"]
    numbers = map(str, [control_fd, stamp_fd, os.getpid()])
    # Blocked until the worker has handlers for them.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        return subprocess.Popen(  # noqa: S603 - our own command
            [*command, *numbers],
            pass_fds=[control_fd, stamp_fd],
            stdin=subprocess.DEVNULL,
            # The C library of a worker keeps what it frees.
            env=importing(with_malloc_settings(os.environ)),
            # It leads a group, so that what a service starts can be ended with it.
            process_group=0,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

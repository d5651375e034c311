"""Accepts connections, hands them to workers in turn, and keeps the workers alive.

Everything happens in callbacks on one asyncio loop, and none of them waits:

- the listener is read only while some worker can take a connection, so the kernel's backlog is the
  queue; what was accepted and not handed over waits in `_pending`. A stack whose workers listen
  by themselves has none of this: the listener only holds the port;
- a beat every 250 ms tells which workers may be sent connections, and which are to be killed;
- a worker that ends is replaced: at once if it had served for long, else after a growing delay
  (`server.supervision.restarts`). The server gives up only if no worker was ever ready;
- a peer whose calls killed workers is refused for a while (`server.supervision.quarantine`).

A drain is one way: close the listener, let every worker finish, then the rest are told to stop,
then killed. `run` returns the exit status when the last worker is gone; a line has told why it is
not 0.
"""

import asyncio
import errno
import math
import signal
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from capnp_rig.server.config import ServerConfig
from capnp_rig.server.connections.overload_replies import refusal
from capnp_rig.server.control.messages import Left, Message, Ready, Refused
from capnp_rig.server.control.signals import SUPERVISOR_SIGNALS, in_foreground, stop_like_others
from capnp_rig.server.logs.log import Log, open_log
from capnp_rig.server.supervision.dispatch import Slot, round_robin
from capnp_rig.server.supervision.listener import Listener, peer_label, peer_origin
from capnp_rig.server.supervision.quarantine import DEATHS, QUARANTINE_S, Quarantine, is_suspect
from capnp_rig.server.supervision.refused_connections import Farewells
from capnp_rig.server.supervision.restarts import Brake, FirstStarts
from capnp_rig.server.supervision.worker_process import Connection, WorkerProcess
from capnp_rig.wire.rpc.messages import ExceptionType

BEAT_INTERVAL_S = 0.25
# 5 s: uvicorn's limit.
_BEATS_BEFORE_KILL = 20
# 15 s: a service may have much to import.
_BEATS_TO_BE_READY = 60
_ACCEPTS_PER_TURN = 64
_FD_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_FD_SHORTAGE_PAUSE_S = 0.1
# Between the order to stop and SIGKILL.
_STOP_GRACE_S = 1.0
# Between a worker's last word and its exit, which threads of a service can hold up.
_EXIT_GRACE_S = 1.0
# timeout(1) signals its child, and then the group that the child is in: one order, sent twice.
_SAME_ORDER_S = 0.05

DRAINED = 0
FAILED = 1

StartWorker = Callable[[int], WorkerProcess]


class Supervisor:
    """Owns the listener and the workers."""

    def __init__(
        self,
        config: ServerConfig,
        listener: Listener,
        workers: Sequence[WorkerProcess],
        *,
        start_worker: StartWorker,
        max_connections: int,
    ) -> None:
        self._config = config
        self._listener = listener
        self._start_worker = start_worker
        self._max_connections = max_connections
        self._workers: list[WorkerProcess | None] = list(workers)
        self._ages = [0] * len(workers)
        self._ready_s = [0.0] * len(workers)
        self._pending: deque[Connection] = deque()
        self._brakes = [Brake()] * len(workers)
        self._first_starts = FirstStarts()
        self._quarantine = Quarantine()
        self._told_cause: str | None = None
        self._last_worker = -1
        self._accepted = 0
        self._listening = False
        self._accepting = False
        self._short_of_fds = False
        self._draining = False
        self._ordered_s = -math.inf
        self._status = DRAINED
        self._cancelled = 0
        self._log: Log
        self._farewells: Farewells

    async def run(self) -> int:
        """Serve until a signal, and return the exit status."""
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[int] = self._loop.create_future()
        self._loop.set_exception_handler(self._report)
        self._log = open_log(self._config.log_level, self._config.log_format)
        self._farewells = Farewells(self._loop)
        for number, handle in (
            (signal.SIGTERM, self._on_stop_signal),
            (signal.SIGINT, self._on_stop_signal),
            (signal.SIGQUIT, self._stop_now),
            (signal.SIGTSTP, self._suspend),
            (signal.SIGCHLD, self._reap),
        ):
            self._loop.add_signal_handler(number, handle)
        # The launcher blocked them until somebody could act on them.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SUPERVISOR_SIGNALS)
        for worker in self._alive():
            self._watch(worker)
        # One may have ended before its end could be signalled.
        self._reap()
        self._tick()
        return await self._done

    # Workers

    def _alive(self) -> list[WorkerProcess]:
        return [worker for worker in self._workers if worker is not None]

    def _watch(self, worker: WorkerProcess) -> None:
        self._loop.add_reader(worker.channel.fileno(), self._on_message, worker)

    def _start(self, index: int) -> None:
        if self._draining:
            return
        try:
            worker = self._start_worker(index)
        except OSError as error:
            self._after_failed_start(index, str(error.strerror))
            return
        self._workers[index] = worker
        self._ages[index] = 0
        self._watch(worker)

    def _on_message(self, worker: WorkerProcess) -> None:
        for message in worker.read():
            self._heed(worker, message)
        if worker.poll() is not None:
            self._reap()
        self._dispatch()

    def _heed(self, worker: WorkerProcess, message: Message) -> None:
        match message:
            case Ready():
                self._on_ready(worker, message)
            case Refused():
                self._warn("A worker is out of open files: a connection was closed")
            case Left():
                self._loop.call_later(_EXIT_GRACE_S, self._end_lingering, worker)

    def _on_ready(self, worker: WorkerProcess, message: Ready) -> None:
        self._first_starts = self._first_starts.succeeded()
        self._ready_s[worker.index] = self._loop.time()
        if message.pin_error is not None:
            self._log.warning(
                f"Worker {worker.index} is not pinned to its core: {message.pin_error}",
                worker=worker.index,
            )
        if not self._listening and not self._draining and all(w.ready for w in self._every_slot()):
            self._listening = True
            # At every level: it is how a program that starts us learns of the port.
            open_log("info", self._config.log_format).info(
                f"Listening on {self._listener.address} with {len(self._workers)} workers...",
                address=str(self._listener.address),
                workers=len(self._workers),
            )

    def _every_slot(self) -> list[Slot]:
        absent = Slot(ready=False)
        return [absent if worker is None else worker.slot for worker in self._workers]

    def _tick(self) -> None:
        self._loop.call_later(BEAT_INTERVAL_S, self._tick)
        for worker in self._alive():
            self._check(worker)
        self._dispatch()
        self._log.flush()

    def _check(self, worker: WorkerProcess) -> None:
        self._ages[worker.index] += 1
        if worker.ready:
            worker.beat()
            if worker.missed_beats == _BEATS_BEFORE_KILL:
                self._log.error(
                    f"Worker {worker.index} (pid {worker.pid}) does not answer: killing it",
                    worker=worker.index,
                )
                worker.kill()
        elif self._ages[worker.index] == _BEATS_TO_BE_READY:
            worker.failure = f"not ready after {_BEATS_TO_BE_READY * BEAT_INTERVAL_S:g} s"
            worker.kill()

    def _reap(self) -> None:
        for worker in self._alive():
            end = worker.poll()
            if end is not None:
                self._bury(worker, end)
        self._dispatch()

    def _bury(self, worker: WorkerProcess, end: str) -> None:
        # Its last words first: they tell which connections it took.
        for message in worker.read():
            self._heed(worker, message)
        # Both, before the descriptor is closed: its number is the next worker's.
        self._loop.remove_reader(worker.channel.fileno())
        self._loop.remove_writer(worker.channel.fileno())
        culprit = worker.culprit
        orphans = worker.close()
        self._workers[worker.index] = None
        if self._draining:
            self._after_drained(worker, end)
        elif worker.ready:
            if culprit is not None and is_suspect(culprit.reads, was_killed=worker.was_killed):
                self._blame(culprit.origin)
            self._replace(worker, end, None if culprit is None else culprit.peer)
        else:
            self._after_failed_start(worker.index, worker.failure or end, worker.failure_trace)
        self._pending.extendleft(reversed(orphans))

    def _replace(self, worker: WorkerProcess, end: str, peer: str | None) -> None:
        served_s = self._loop.time() - self._ready_s[worker.index]
        delay_s = self._slow_down(worker.index, served_s)
        cause = f" ({worker.failure})" if worker.failure else ""
        when = f" in {delay_s:.1f} s" if delay_s else ""
        call = f"; it was in a call of {peer}" if peer else ""
        self._log.error(
            f"Worker {worker.index} (pid {worker.pid}) {end}{cause}: replacing it{when}{call}",
            worker=worker.index,
            peer=peer,
        )
        self._loop.call_later(delay_s, self._start, worker.index)

    def _after_failed_start(self, index: int, cause: str, trace: str | None = None) -> None:
        self._first_starts = self._first_starts.failed(self._loop.time())
        if self._first_starts.give_up:
            count = len(self._first_starts.times_s)
            self._log.error(f"Giving up after {count} failed starts: {cause}", cause=cause)
            self._status = FAILED
            self._drain()
            return
        self._tell_failed_start(index, cause, trace)
        self._loop.call_later(self._slow_down(index, None), self._start, index)

    def _tell_failed_start(self, index: int, cause: str, trace: str | None) -> None:
        """Log why a worker could not start: in full once, however many workers try again."""
        is_new, self._told_cause = cause != self._told_cause, cause
        if is_new or self._first_starts.ever_ready:
            more = {"traceback": trace} if is_new and trace is not None else {}
            self._log.warning(
                f"Worker {index} failed to start: {cause}", worker=index, cause=cause, **more
            )

    def _slow_down(self, index: int, served_s: float | None) -> float:
        self._brakes[index] = self._brakes[index].ended(served_s)
        return self._brakes[index].delay_s

    def _end_lingering(self, worker: WorkerProcess) -> None:
        if self._workers[worker.index] is worker:
            self._log.warning(
                f"Worker {worker.index} (pid {worker.pid}) has finished and does not exit, as with "
                "a thread that is no daemon: killing it",
                worker=worker.index,
            )
            worker.kill()

    # Peers that kill workers

    def _blame(self, origin: str) -> None:
        now_s = self._loop.time()
        was_refused = self._quarantine.rest_s(origin, now_s) is not None
        if self._quarantine.blame(origin, now_s):
            self._log.error(
                f"Refusing {origin} for {QUARANTINE_S:g} s: {DEATHS} workers died in its calls",
                origin=origin,
            )
        if was_refused:
            # It goes on over connections that it had before.
            for worker in self._alive():
                worker.drop(origin)

    def _is_refused(self, connection: Connection) -> bool:
        """Refuse a connection if its origin is in quarantine."""
        rest_s = self._quarantine.rest_s(connection.origin, self._loop.time())
        if rest_s is None:
            return False
        reason = (
            f"calls from {connection.origin} killed {DEATHS} workers: it is refused for "
            f"{rest_s:.0f} s"
        )
        # Not overloaded, which invites the peer to try again.
        words = refusal(self._config.stack, reason, ExceptionType.FAILED)
        self._farewells.end(connection.sock, words)
        self._log.warning(
            f"Refusing a connection from {connection.origin}",
            kind="Refusing connections from peers in quarantine",
            origin=connection.origin,
        )
        return True

    # Connections

    def _dispatch(self) -> None:
        """Hand over what waits, and read the listener only if a worker can take more."""
        while self._pending:
            if not self._is_refused(self._pending[0]) and not self._hand_over(self._pending[0]):
                break
            self._pending.popleft()
        self._accept_when(
            self._listening
            and not self._draining
            and not self._config.workers_listen
            and not self._pending
            and not self._short_of_fds
            and any(slot.open for slot in self._every_slot())
        )

    def _hand_over(self, connection: Connection) -> bool:
        while (index := round_robin(self._every_slot(), self._last_worker)) is not None:
            worker = self._workers[index]
            assert worker is not None  # an absent worker has no open slot
            self._last_worker = index
            self._log.info(
                f"Dispatching new connection to worker {index}",
                kind="Dispatching new connections",
                worker=index,
                peer=connection.peer,
            )
            if worker.hand(connection):
                return True
            # Its slot is blocked now; the kernel says when there is room.
            self._loop.add_writer(worker.channel.fileno(), self._unblock, worker)
        return False

    def _unblock(self, worker: WorkerProcess) -> None:
        self._loop.remove_writer(worker.channel.fileno())
        worker.blocked = False
        if self._draining:
            self._drain_worker(worker)
        self._dispatch()

    def _accept_when(self, wanted: bool) -> None:
        if wanted == self._accepting:
            return
        self._accepting = wanted
        if wanted:
            self._loop.add_reader(self._listener.sock.fileno(), self._on_connections)
        else:
            self._loop.remove_reader(self._listener.sock.fileno())

    def _on_connections(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            if not self._accepting or not self._accept():
                return

    def _accept(self) -> bool:
        """Accept one connection; return False when there is none, or no descriptor for it."""
        try:
            sock, name = self._listener.sock.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _FD_SHORTAGE:
                self._pause_for_fds(error)
                return False
            # That connection broke before it was accepted; the next may be fine.
            return True
        if sum(worker.load for worker in self._alive()) >= self._max_connections:
            self._refuse(sock)
            return True
        self._accepted += 1
        label, origin = peer_label(sock, name), peer_origin(sock, name)
        self._pending.append(Connection(self._accepted, sock, label, origin))
        self._dispatch()
        return True

    def _refuse(self, sock: socket.socket) -> None:
        reason = f"{self._max_connections} connections are open: try again later"
        self._farewells.end(sock, refusal(self._config.stack, reason))
        self._warn(f"Refusing connections: {self._max_connections} are open")

    def _pause_for_fds(self, error: OSError) -> None:
        # The connection stays in the backlog, so the listener stays readable: do not spin.
        self._warn(f"Cannot accept connections: {error.strerror}")
        self._short_of_fds = True
        self._dispatch()
        self._loop.call_later(_FD_SHORTAGE_PAUSE_S, self._resume_after_fds)

    def _resume_after_fds(self) -> None:
        self._short_of_fds = False
        self._dispatch()

    def _warn(self, event: str) -> None:
        """Log a warning that peers can provoke."""
        self._log.warning(event, kind=event)

    # The end

    def _suspend(self) -> None:
        """Stop for a while, with the workers, if somebody at our terminal typed Ctrl-Z."""
        if not in_foreground():
            return
        for worker in self._alive():
            worker.signal_group(signal.SIGSTOP)
        stop_like_others()
        for worker in self._alive():
            worker.signal_group(signal.SIGCONT)

    def _on_stop_signal(self) -> None:
        now_s = self._loop.time()
        if not self._draining:
            self._ordered_s = now_s
            self._drain()
        elif now_s - self._ordered_s > _SAME_ORDER_S:
            self._stop_now()

    def _drain(self) -> None:
        self._draining = True
        self._dispatch()
        self._listener.close()
        self._drop_pending()
        for worker in self._alive():
            self._drain_worker(worker)
        self._loop.call_later(self._config.drain_timeout_s, self._on_drain_limit)
        self._finish_if_alone()

    def _drain_worker(self, worker: WorkerProcess) -> None:
        if not worker.drain():
            self._loop.add_writer(worker.channel.fileno(), self._unblock, worker)

    def _drop_pending(self) -> None:
        while self._pending:
            self._pending.popleft().sock.close()

    def _after_drained(self, worker: WorkerProcess, end: str) -> None:
        self._drop_pending()
        if worker.cancelled:
            self._cancelled += worker.cancelled
            self._status = FAILED
        elif worker.cancelled is None and worker.ready:
            self._log.error(
                f"Worker {worker.index} (pid {worker.pid}) {end} in the drain, with "
                f"{worker.serving} connections open",
                worker=worker.index,
            )
            self._status = FAILED
        self._finish_if_alone()

    def _on_drain_limit(self) -> None:
        for worker in self._alive():
            worker.stop()
        self._loop.call_later(_STOP_GRACE_S, self._kill_all)

    def _kill_all(self) -> None:
        for worker in self._alive():
            worker.kill()

    def _stop_now(self) -> None:
        self._draining = True
        self._dispatch()
        self._listener.close()
        self._drop_pending()
        self._status = FAILED
        self._log.error("Stopped at once: calls in flight were lost")
        self._kill_all()
        self._finish_if_alone()

    def _finish_if_alone(self) -> None:
        if self._alive() or self._done.done():
            return
        if self._cancelled:
            limit_s = self._config.drain_timeout_s
            self._log.error(
                f"The drain limit of {limit_s:g} s passed: {self._cancelled} calls cancelled",
                cancelled=self._cancelled,
            )
        self._log.flush(last=True)
        self._farewells.close()
        self._done.set_result(self._status)

    def _report(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what asyncio would otherwise print, blocking, on stderr."""
        self._log.error(
            f"{context.get('message')}: {context.get('exception')!r}", kind="unexpected errors"
        )

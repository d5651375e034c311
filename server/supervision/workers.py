"""The workers' lives: start, readiness, beats, end, and the start of the next one.

A beat every 250 ms tells which workers may be sent connections, and which are to be killed. A
worker that ends is replaced: at once if it had served for long, else after a growing delay
(`restarts`). The first starts are given up if no worker was ever ready.

Everything happens in callbacks on one asyncio loop, and none of them waits. The other parts of the
supervisor learn what happens through `WorkerEvents`.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from capnp_rig.server.control.messages import Left, Message, Ready, Refused, Setup
from capnp_rig.server.logs.log import Log
from capnp_rig.server.supervision.call_watch import BEAT_INTERVAL_S, Verdict
from capnp_rig.server.supervision.restarts import Brake, FirstStarts
from capnp_rig.server.supervision.slots import Slot
from capnp_rig.server.supervision.worker_process import Connection, Culprit, WorkerProcess

# 15 s: a service may have much to import.
_BEATS_TO_BE_READY = 60
# Between a worker's last word and its exit, which threads of a service can hold up.
_EXIT_GRACE_S = 1.0
_OUT_OF_FILES = "A worker is out of open files: a connection was closed"


@dataclass(frozen=True, slots=True)
class EndedWorker:
    """A worker that has ended, and `how`, in words.

    `culprit` is whose call it was in, None if none is known; `orphans` are the connections on
    their way to it that it never took, oldest first.
    """

    worker: WorkerProcess
    how: str
    culprit: Culprit | None
    orphans: list[Connection]


@dataclass(frozen=True, slots=True)
class WorkerEvents:
    """What happens to workers: `changed` says that one may take connections, or no longer."""

    changed: Callable[[], None]
    ready: Callable[[], None]
    ended: Callable[[EndedWorker], None]
    gave_up: Callable[[], None]


class Workers:
    """All workers, by their index; an absent one is about to be started again."""

    def __init__(self, first: Sequence[WorkerProcess], setups: Sequence[Setup], log: Log) -> None:
        """Take over the `first` workers, started already as `setups` say; `watch` begins."""
        self._loop = asyncio.get_running_loop()
        self._workers: list[WorkerProcess | None] = list(first)
        self._setups = setups
        self._events: WorkerEvents
        self._log = log
        self._ages = [0] * len(first)
        self._ready_s = [0.0] * len(first)
        self._brakes = [Brake()] * len(first)
        self._first_starts = FirstStarts()
        self._told_cause: str | None = None
        self._replaces = True

    def __len__(self) -> int:
        return len(self._workers)

    def __getitem__(self, index: int) -> WorkerProcess | None:
        return self._workers[index]

    def alive(self) -> list[WorkerProcess]:
        """Return the workers that have not ended."""
        return [worker for worker in self._workers if worker is not None]

    def slots(self) -> list[Slot]:
        """Return what a dispatch decision needs to know of each worker."""
        absent = Slot(ready=False)
        return [absent if worker is None else worker.slot for worker in self._workers]

    def watch(self, events: WorkerEvents) -> None:
        """Begin to listen to the workers and to beat; tell `events` what happens."""
        self._events = events
        for worker in self.alive():
            self._watch(worker)
        # One may have ended before its end could be signalled.
        self.reap()
        self._tick()

    def stop_replacing(self) -> None:
        """Start no worker any more."""
        self._replaces = False

    def when_writable(self, worker: WorkerProcess, then: Callable[[], None]) -> None:
        """Call `then` as soon as a worker that did not keep up can be sent messages again."""
        self._loop.add_writer(worker.channel.fileno(), self._unblock, worker, then)

    def _unblock(self, worker: WorkerProcess, then: Callable[[], None]) -> None:
        self._loop.remove_writer(worker.channel.fileno())
        worker.blocked = False
        then()

    # --- starts --------------------------------------------------------------------------

    def _start(self, index: int) -> None:
        if not self._replaces:
            return
        try:
            worker = WorkerProcess(self._setups[index])
        except OSError as error:
            self._after_failed_start(index, str(error.strerror))
            return
        self._workers[index] = worker
        self._ages[index] = 0
        self._watch(worker)

    def _watch(self, worker: WorkerProcess) -> None:
        self._loop.add_reader(worker.channel.fileno(), self._on_message, worker)

    def _on_message(self, worker: WorkerProcess) -> None:
        for message in worker.read():
            self._heed(worker, message)
        if worker.poll() is not None:
            self.reap()
        self._events.changed()

    def _heed(self, worker: WorkerProcess, message: Message) -> None:
        match message:
            case Ready():
                self._on_ready(worker, message)
            case Refused():
                self._log.warning(_OUT_OF_FILES, kind=_OUT_OF_FILES)
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
        self._events.ready()

    # --- beats ---------------------------------------------------------------------------

    def _tick(self) -> None:
        self._loop.call_later(BEAT_INTERVAL_S, self._tick)
        for worker in self.alive():
            self._check(worker)
        self._events.changed()
        self._log.flush()

    def _check(self, worker: WorkerProcess) -> None:
        self._ages[worker.index] += 1
        if worker.ready:
            worker.beat()
            self._judge(worker)
        elif self._ages[worker.index] == _BEATS_TO_BE_READY:
            worker.failure = f"not ready after {_BEATS_TO_BE_READY * BEAT_INTERVAL_S:g} s"
            worker.kill()

    def _judge(self, worker: WorkerProcess) -> None:
        standing, timeout_s = worker.standing, self._setups[worker.index].config.worker_timeout_s
        verdict = standing.verdict(timeout_s)
        if verdict is Verdict.NOTHING:
            return
        what = f"Worker {worker.index} (pid {worker.pid})"
        fields: dict[str, object] = {"worker": worker.index}
        if standing.step:
            method = worker.method(worker.work.method)
            what = f"{what} has been in {method} for {standing.seconds:g} s"
            fields |= {"method": method, "seconds": standing.seconds}
        if verdict is Verdict.WARN:
            self._log.warning(f"{what}: its other calls wait", kind="Busy workers", **fields)
            return
        reason = ", the limit of --worker-timeout" if standing.step else " does not answer"
        self._log.error(f"{what}{reason}: killing it", **fields)
        worker.kill()

    # --- ends ----------------------------------------------------------------------------

    def reap(self) -> None:
        """Give up the workers that have ended."""
        for worker in self.alive():
            how = worker.poll()
            if how is not None:
                self._bury(worker, how)
        self._events.changed()

    def _bury(self, worker: WorkerProcess, how: str) -> None:
        # Its last words first: they tell which connections it took.
        for message in worker.read():
            self._heed(worker, message)
        # Both, before the descriptor is closed: its number is the next worker's.
        self._loop.remove_reader(worker.channel.fileno())
        self._loop.remove_writer(worker.channel.fileno())
        culprit = worker.culprit
        ended = EndedWorker(worker, how, culprit, worker.close())
        self._workers[worker.index] = None
        self._events.ended(ended)
        if not self._replaces:
            return
        if worker.ready:
            self._replace(ended)
        else:
            self._after_failed_start(worker.index, worker.failure or how, worker.failure_trace)

    def _replace(self, ended: EndedWorker) -> None:
        worker = ended.worker
        peer = None if ended.culprit is None else ended.culprit.peer
        served_s = self._loop.time() - self._ready_s[worker.index]
        delay_s = self._slow_down(worker.index, served_s)
        cause = f" ({worker.failure})" if worker.failure else ""
        when = f" in {delay_s:.1f} s" if delay_s else ""
        call = f"; it was in a call of {peer}" if peer else ""
        what = f"Worker {worker.index} (pid {worker.pid}) {ended.how}{cause}"
        self._log.error(
            f"{what}: replacing it{when}{call}",
            worker=worker.index,
            peer=peer,
        )
        self._loop.call_later(delay_s, self._start, worker.index)

    def _after_failed_start(self, index: int, cause: str, trace: str | None = None) -> None:
        self._first_starts = self._first_starts.failed(self._loop.time())
        if self._first_starts.give_up:
            count = len(self._first_starts.times_s)
            self._log.error(f"Giving up after {count} failed starts: {cause}", cause=cause)
            self._events.gave_up()
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

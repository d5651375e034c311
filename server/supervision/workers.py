"""The workers' lives: start, readiness, beats, end, and the start of the next one.

A beat every 250 ms tells which workers may be sent connections, and which are to be killed. A
worker that ends is replaced: at once if it had served for long, else after a growing delay
(`restarts`). The first starts are given up if no worker was ever ready.

Workers that serve are replaced without a gap: others start beside them, and when these are ready
the old ones finish their calls and leave (`succession`).

Everything happens in callbacks on one asyncio loop, and none of them waits. The other parts of the
supervisor learn what happens through `WorkerEvents`.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from capnp_rig.server.control.messages import Left, Message, Ready, Refused, Setup
from capnp_rig.server.logs.log import Log
from capnp_rig.server.supervision.call_watch import BEAT_INTERVAL_S, Verdict
from capnp_rig.server.supervision.restarts import Brake, FirstStarts
from capnp_rig.server.supervision.slots import Slot
from capnp_rig.server.supervision.succession import Done, FailedStart, Succession
from capnp_rig.server.supervision.worker_process import Connection, Culprit, WorkerProcess

# 15 s: a service may have much to import.
_BEATS_TO_BE_READY = 60
# Between a worker's last word and its exit, which threads of a service can hold up.
_EXIT_GRACE_S = 1.0
# Between the order to stop and SIGKILL.
_STOP_GRACE_S = 1.0
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
    """The workers by their places; where there is none, one is about to be started again.

    Those that are to take a place, and those that had one and finish their calls, are beside them.
    """

    def __init__(self, first: Sequence[WorkerProcess], setups: Sequence[Setup], log: Log) -> None:
        """Take over the `first` workers, started already as `setups` say; `watch` begins."""
        self._loop = asyncio.get_running_loop()
        self._workers: list[WorkerProcess | None] = list(first)
        self._setups = setups
        self._events: WorkerEvents
        self._log = log
        self._retired: list[WorkerProcess] = []
        self._succession: Succession | None = None
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
        heirs = () if self._succession is None else self._succession.heirs
        return [*self.serving(), *heirs, *self._retired]

    @property
    def replaces(self) -> bool:
        """Whether workers are started still: the server does not end."""
        return self._replaces

    def serving(self) -> list[WorkerProcess]:
        """Return those that have a place."""
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
        """Start no worker any more, and end those that have no place yet."""
        self._replaces = False
        if self._succession is not None:
            for heir in self._succession.heirs:
                heir.discard()

    def when_writable(self, worker: WorkerProcess, then: Callable[[], None]) -> None:
        """Call `then` as soon as a worker that did not keep up can be sent messages again."""
        self._loop.add_writer(worker.channel.fileno(), self._unblock, worker, then)

    def _unblock(self, worker: WorkerProcess, then: Callable[[], None]) -> None:
        self._loop.remove_writer(worker.channel.fileno())
        worker.blocked = False
        then()

    # --- starts --------------------------------------------------------------------------

    def _start(self, index: int) -> None:
        if not self._replaces or index >= len(self._workers) or self._workers[index] is not None:
            return
        try:
            worker = WorkerProcess(self._setups[index])
        except OSError as error:
            self._after_failed_start(index, str(error.strerror))
            return
        self._workers[index] = worker
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
        worker.ready_s = self._loop.time()
        if message.pin_error is not None:
            self._log.warning(
                f"Worker {worker.index} is not pinned to its core: {message.pin_error}",
                worker=worker.index,
            )
        if self._succession is not None and self._succession.is_ready and self._replaces:
            self._install(self._succession)
        self._events.ready()

    # --- successions ---------------------------------------------------------------------

    def succeed(self, setups: Sequence[Setup], places: Sequence[int], done: Done) -> None:
        """Start workers for some places; when all are ready they take these, as one.

        `setups` are those of all places from then on. If one cannot start, everything stays as it
        is. Not while another succession is under way.
        """
        assert self._succession is None
        heirs: list[WorkerProcess] = []
        self._succession = Succession(setups, heirs, done)
        try:
            heirs.extend(map(WorkerProcess, (setups[place] for place in places)))
        except OSError as error:
            self._give_up(self._succession, FailedStart(str(error.strerror)))
            return
        for heir in heirs:
            self._watch(heir)
        if not heirs:
            self._install(self._succession)

    def _install(self, succession: Succession) -> None:
        self._succession, self._setups = None, succession.setups
        missing = len(succession.setups) - len(self._workers)
        self._workers.extend([None] * missing)
        self._brakes.extend([Brake()] * missing)
        old = self._workers[len(succession.setups) :]
        del self._workers[len(succession.setups) :], self._brakes[len(succession.setups) :]
        for heir in succession.heirs:
            old.append(self._workers[heir.index])
            self._workers[heir.index] = heir
        # Nothing is handed to the old ones from here on.
        for worker in old:
            if worker is not None:
                self._retired.append(worker)
                self.retire(worker, worker.setup.config.drain_timeout_s)
        succession.done(None)

    def _give_up(self, succession: Succession, failure: FailedStart) -> None:
        self._succession = None
        for heir in succession.heirs:
            # They are reaped as those that are retired are.
            self._retired.append(heir)
            heir.discard()
        succession.done(failure)

    def retire(self, worker: WorkerProcess, limit_s: float) -> None:
        """Let a worker finish its calls and leave, within a limit."""
        self._drain(worker)
        self._loop.call_later(limit_s, self._stop, worker)

    def _drain(self, worker: WorkerProcess) -> None:
        if not worker.drain():
            self.when_writable(worker, partial(self._drain, worker))

    def _stop(self, worker: WorkerProcess) -> None:
        if worker in self.alive():
            worker.stop()
            self._loop.call_later(_STOP_GRACE_S, worker.kill)

    # --- beats ---------------------------------------------------------------------------

    def _tick(self) -> None:
        self._loop.call_later(BEAT_INTERVAL_S, self._tick)
        for worker in self.alive():
            self._check(worker)
        self._events.changed()
        self._log.flush()

    def _check(self, worker: WorkerProcess) -> None:
        worker.age_beats += 1
        if worker.ready:
            worker.beat()
            self._judge(worker)
        elif worker.age_beats == _BEATS_TO_BE_READY:
            worker.failure = f"not ready after {_BEATS_TO_BE_READY * BEAT_INTERVAL_S:g} s"
            worker.kill()

    def _judge(self, worker: WorkerProcess) -> None:
        standing = worker.standing
        verdict = standing.verdict(worker.setup.config.worker_timeout_s)
        if verdict is Verdict.NOTHING:
            return
        what = worker.name
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
        failure = FailedStart(worker.failure or how, worker.failure_trace)
        succession = self._succession
        if worker in self._workers:
            self._workers[worker.index] = None
            self._events.ended(ended)
            if self._replaces and worker.ready:
                self._replace(ended)
            elif self._replaces:
                self._after_failed_start(worker.index, failure.cause, failure.trace)
        elif succession is not None and worker in succession.heirs:
            succession = self._succession = succession.without(worker)
            self._events.ended(ended)
            if self._replaces:
                self._give_up(succession, failure)
        else:
            self._retired.remove(worker)
            self._events.ended(ended)
            if self._replaces:
                self._note_retired(ended)

    def _note_retired(self, ended: EndedWorker) -> None:
        worker = ended.worker
        if worker.cancelled:
            self._log.error(
                f"{worker.name}, which was replaced, cancelled {worker.cancelled} calls at the "
                "drain limit",
                worker=worker.index,
                cancelled=worker.cancelled,
            )
        elif worker.cancelled is None and worker.ready:
            self._log.error(
                f"{worker.name}, which was replaced, {ended.how} in its drain, with "
                f"{worker.serving} connections open",
                worker=worker.index,
            )

    def _replace(self, ended: EndedWorker) -> None:
        worker = ended.worker
        peer = None if ended.culprit is None else ended.culprit.peer
        served_s = self._loop.time() - worker.ready_s
        delay_s = self._slow_down(worker.index, served_s)
        cause = f" ({worker.failure})" if worker.failure else ""
        when = f" in {delay_s:.1f} s" if delay_s else ""
        call = f"; it was in a call of {peer}" if peer else ""
        what = f"{worker.name} {ended.how}{cause}"
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
        if worker in self.alive():
            self._log.warning(
                f"{worker.name} has finished and does not exit, as with "
                "a thread that is no daemon: killing it",
                worker=worker.index,
            )
            worker.kill()

"""Looks after workers that serve: replaces those that are worn, and tells how each is."""

import asyncio
import os
import random
from contextlib import suppress
from pathlib import Path
from weakref import WeakKeyDictionary

from capnp_rig.server.logs.log import Log
from capnp_rig.server.supervision.call_watch import BEAT_INTERVAL_S
from capnp_rig.server.supervision.recycling import Wear, call_limit, worn
from capnp_rig.server.supervision.reload import Changes
from capnp_rig.server.supervision.state import ServerState, WorkerState, log_state
from capnp_rig.server.supervision.worker_process import WorkerProcess
from capnp_rig.server.supervision.workers import Workers

_LOOK_S = 1.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Upkeep:
    """Looks every second, from its start on."""

    def __init__(self, workers: Workers, changes: Changes, log: Log, address: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._workers = workers
        self._changes = changes
        self._log = log
        self._address = address
        self._started_s = self._loop.time()
        self._call_limits: WeakKeyDictionary[WorkerProcess, int] = WeakKeyDictionary()
        self._look()

    def tell(self) -> None:
        """Log the state of the server and of each worker."""
        now_s = self._loop.time()
        workers = [self._state(each, now_s) for each in self._workers.alive()]
        server = ServerState(self._address, len(self._workers), now_s - self._started_s)
        log_state(server, workers, self._log)

    def _look(self) -> None:
        self._loop.call_later(_LOOK_S, self._look)
        # The oldest first: where a fresh worker is worn within a second, the others get a turn too.
        for worker in sorted(self._workers.serving(), key=lambda each: -each.age_beats):
            # One at a time: a replacement serves before the next worker leaves.
            if worker.ready and self._changes.may_recycle:
                reason = self._reason(worker)
                if reason is not None:
                    self._changes.recycle(worker.index, reason)

    def _reason(self, worker: WorkerProcess) -> str | None:
        limits = worker.setup.config.recycling
        if not (limits.max_requests or limits.max_worker_rss):
            return None
        if worker not in self._call_limits:
            self._call_limits[worker] = call_limit(limits, random.randrange)
        wear = Wear(worker.work.calls, rss_bytes(worker.pid), self._call_limits[worker])
        return worn(wear, limits)

    def _state(self, worker: WorkerProcess, now_s: float) -> WorkerState:
        work = worker.work
        config = worker.setup.config
        knows_calls = config.stack == "capnp" or config.recycling.max_requests > 0
        return WorkerState(
            name=worker.name,
            worker=worker.index,
            pid=worker.pid,
            phase=worker.phase,
            core=worker.setup.core,
            connections=worker.load,
            calls=work.calls if knows_calls else None,
            running=work.unfinished if config.stack == "capnp" else None,
            method=worker.method(work.method) if work.step else None,
            blocked_s=worker.standing.seconds,
            age_s=worker.age_beats * BEAT_INTERVAL_S,
            missed_beats=worker.missed_beats,
            rss_bytes=rss_bytes(worker.pid),
        )


def rss_bytes(pid: int) -> int:
    """Return the memory of a process, 0 if it is gone."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    return 0

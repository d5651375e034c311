"""The server as its metrics show it: what workers have counted, and what the supervisor knows."""

import os
import platform
import time
from collections import Counter
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from capnp_rig.rigcli.gc_page import read_gc
from capnp_rig.server.config import ServerConfig
from capnp_rig.server.control.counts import WorkerCounts
from capnp_rig.server.metrics.state import ServerState, WorkerUse
from capnp_rig.server.supervision.dispatcher import Dispatcher
from capnp_rig.server.supervision.upkeep import rss_bytes
from capnp_rig.server.supervision.worker_process import WorkerProcess
from capnp_rig.server.supervision.workers import EndedWorker, Workers

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Observation:
    """Tells the state of a server whenever it is asked, and remembers the workers that are gone."""

    def __init__(self, config: ServerConfig, workers: Workers, dispatcher: Dispatcher) -> None:
        self._workers = workers
        self._dispatcher = dispatcher
        self._has_calls = config.stack == "capnp"
        self._has_connections = not config.workers_listen
        self._info = {
            "version": version("capnp-rig"),
            "python": platform.python_version(),
            "stack": config.stack,
            "engine": config.engine if self._has_calls else "",
            "loop": config.loop,
        }
        self._started_s = time.monotonic()
        self._gone = WorkerCounts()
        self._ends: Counter[str] = Counter()

    def after_end(self, ended: EndedWorker) -> None:
        """Keep what a worker has counted that has ended."""
        worker = ended.worker
        # As it was told to, or how the process ended: a signal, an exit status.
        self._ends["as ordered" if worker.cancelled is not None else ended.how] += 1
        if self._has_calls:
            self._gone += worker.last_counts

    @property
    def is_ready(self) -> bool:
        """Whether calls are taken: it listens, does not drain, and has a worker for them."""
        return self._dispatcher.is_open and any(each.ready for each in self._workers.serving())

    def state(self) -> ServerState:
        """Return how the server is now."""
        workers = self._workers.alive()
        phases = Counter({"starting": 0, "serving": 0, "leaving": 0})
        phases.update(worker.phase for worker in workers)
        counts = sum((worker.counts for worker in workers), self._gone) if self._has_calls else None
        return ServerState(
            info=self._info,
            uptime_s=time.monotonic() - self._started_s,
            is_ready=self.is_ready,
            counts=counts,
            workers=[self._use(worker) for worker in workers],
            phases=phases,
            accepted=self._dispatcher.accepted,
            # Copies: the page is written in a thread, while these go on.
            refused=dict(self._dispatcher.refusals),
            ends=dict(self._ends),
        )

    def _use(self, worker: WorkerProcess) -> WorkerUse:
        return WorkerUse(
            worker=worker.index,
            pid=worker.pid,
            connections=worker.load if self._has_connections else None,
            running=worker.work.running if self._has_calls else None,
            rss_bytes=rss_bytes(worker.pid),
            cpu_s=_cpu_s(worker.pid),
            gc=read_gc(worker.pid),
        )


def _cpu_s(pid: int) -> float | None:
    """Return the CPU time of a process, None if it is gone."""
    with suppress(OSError):
        # Behind the name, which may hold anything: utime and stime (proc(5)).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return None

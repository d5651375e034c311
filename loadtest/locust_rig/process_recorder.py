"""What a process that makes load records of a Locust run, and reports: calls, CPU, memory.

The only process and every worker has this; a master makes no load.
"""

import logging
import os
import socket
import time
from argparse import Namespace
from typing import Any

import gevent
import psutil

from capnp_rig.loadtest.engine.cpu_pin import choose_cpu, pin_process
from capnp_rig.loadtest.engine.kernel_counters import ThreadCounters
from capnp_rig.loadtest.locust_rig.live_run import ProcessReport, ResourceUse
from capnp_rig.loadtest.stats.tally import Tally
from capnp_rig.rigcli.gc_page import publish_gc

# The CPUs that there are before anything is pinned.
_CPUS = sorted(os.sched_getaffinity(0))
_SAMPLE_EVERY_S = 1.0

_logger = logging.getLogger(__name__)


class ProcessRecorder:
    """What this process has to report of the current run, or of the last one.

    The first, before any run, has no options and reports nothing. Each other one is that of a run:
    it pins this process, which is the `number`-th, and counts from now on.
    """

    def __init__(
        self, options: Namespace | None = None, *, pin: str | None = None, number: int = 0
    ) -> None:
        self.is_running = options is not None
        self._cpu = _pin(pin, number)
        is_open_loop = options is not None and options.rate is not None
        self.tally = Tally(open_ns=time.monotonic_ns(), is_open_loop=is_open_loop)
        self._process, self._threads = psutil.Process(), ThreadCounters()
        self._started_s = time.monotonic()
        self._stopped_s: float | None = None
        self._cpu_ns = time.process_time_ns()
        self._use: list[ResourceUse] = []
        if self.is_running:
            self._gc = publish_gc()
            self._sample()
            self._sampling: Any = gevent.spawn(self._sample_often)

    def stopping(self) -> None:
        """Note that the users stop now: what they do from here on takes no time of the run."""
        self._stopped_s = self._stopped_s or time.monotonic()

    def take(self, *, is_last: bool = False) -> ProcessReport:
        """Return what is new since the last `take`; nothing comes after the last one."""
        cpu_ns, now_s = time.process_time_ns(), time.monotonic()
        used_ns, self._cpu_ns = cpu_ns - self._cpu_ns, cpu_ns
        if is_last:
            self.stopping()
            self._stop_sampling()
        use, self._use = tuple(self._use), []
        return ProcessReport(
            self.tally.take(cpu_ns=used_ns, final=is_last),
            at_s=now_s - self._started_s,
            seconds=(self._stopped_s or now_s) - self._started_s,
            pid=os.getpid(),
            host=socket.gethostname(),
            cpu=self._cpu,
            use=use,
        )

    def _stop_sampling(self) -> None:
        if self.is_running:
            self.is_running = False
            self._sampling.kill()
            self._sample()
            if self._gc is not None:
                self._gc.close()

    def _sample_often(self) -> None:
        while True:
            gevent.sleep(_SAMPLE_EVERY_S)
            self._sample()

    def _sample(self) -> None:
        at_s = time.monotonic() - self._started_s
        try:
            rss_bytes = int(self._process.memory_info().rss)
        except OSError:
            # Users may hold all the files that we may open: nothing can be read meanwhile, and the
            # calls that were made are reported all the same.
            return
        gc = None if self._gc is None else self._gc.use
        kernel = self._threads.read(self._process.pid)
        self._use.append(ResourceUse(at_s, time.process_time(), rss_bytes, gc, kernel))


def _pin(pin: str | None, number: int) -> int | None:
    if pin is None:
        return None
    wanted = choose_cpu(pin, number, _CPUS)
    cpu = pin_process(wanted)
    if cpu is None:
        _logger.warning("Cannot pin worker %d to CPU %d: it runs unpinned", number, wanted)
    return cpu

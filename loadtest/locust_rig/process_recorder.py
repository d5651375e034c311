"""What a process that makes load records of a Locust run, and reports: calls, CPU, memory.

The only process and every worker has this; a master makes no load.
"""

import logging
import os
import socket
import time
from argparse import Namespace
from dataclasses import dataclass, field
from typing import Self

from capnp_rig.loadtest.engine.cpu_pin import choose_cpu, pin_process
from capnp_rig.loadtest.locust_rig.live_run import ProcessReport
from capnp_rig.loadtest.locust_rig.resource_sampler import ProcessSampler
from capnp_rig.loadtest.stats.tally import Tally

# The CPUs that there are before anything is pinned.
_CPUS = sorted(os.sched_getaffinity(0))

_logger = logging.getLogger(__name__)


@dataclass
class ProcessRecorder:
    """What this process has to report of the current run, or of the last one."""

    tally: Tally = field(default_factory=Tally)
    is_running: bool = False
    cpu: int | None = None
    _sampler: ProcessSampler | None = None
    _started_s: float = field(default_factory=time.monotonic)
    _stopped_s: float | None = None
    _cpu_ns: int = field(default_factory=time.process_time_ns)

    @classmethod
    def start(cls, options: Namespace, *, pin: str | None, number: int) -> Self:
        """Begin a run: pin this process, which is the `number`-th, and count from now on."""
        cpu = _pin(pin, number)
        tally = Tally(open_ns=time.monotonic_ns(), is_open_loop=options.rate is not None)
        return cls(tally, is_running=True, cpu=cpu, _sampler=ProcessSampler())

    def stopping(self) -> None:
        """Note that the users stop now: what they do from here on takes no time of the run."""
        self._stopped_s = self._stopped_s or time.monotonic()

    def take(self, *, is_last: bool = False) -> ProcessReport:
        """Return what is new since the last `take`; nothing comes after the last one."""
        cpu_ns, now_s = time.process_time_ns(), time.monotonic()
        used_ns, self._cpu_ns = cpu_ns - self._cpu_ns, cpu_ns
        if is_last:
            self.is_running = False
            self.stopping()
            if self._sampler is not None:
                self._sampler.stop()
        return ProcessReport(
            self.tally.take(cpu_ns=used_ns, final=is_last),
            at_s=now_s - self._started_s,
            seconds=(self._stopped_s or now_s) - self._started_s,
            pid=os.getpid(),
            host=socket.gethostname(),
            cpu=self.cpu,
            use=() if self._sampler is None else self._sampler.take(),
        )


def _pin(pin: str | None, number: int) -> int | None:
    if pin is None:
        return None
    wanted = choose_cpu(pin, number, _CPUS)
    cpu = pin_process(wanted)
    if cpu is None:
        _logger.warning("Cannot pin worker %d to CPU %d: it runs unpinned", number, wanted)
    return cpu

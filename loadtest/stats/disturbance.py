"""Whether the machine let the processes of a run do their work, as its kernel tells (no I/O).

A process that is ready to run and has no CPU waits in a run queue. The kernel counts that time for
every thread, so a window that others disturbed shows it, whatever was measured. What the kernel
does not tell is None, and nothing is claimed of it.

A closed loop has a second sign: with calls always in flight, one of the two sides is busy, or the
calls wait in the service. Calls that sleep, or wait for peers of the service, do so one by one, and
others are answered meanwhile. Where neither side is busy, no answer comes for a while from any of
many calls, and the median call took far less than the mean, a process was stopped, or waited for
something of the machine's, and no service time explains it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.process_use import KernelCounts, Usage
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode

SERVER, GENERATOR = "server", "generator"
# A window is disturbed where a process waited for a CPU for more than this share of it, and long
# enough to be more than a slice or two of another process.
WAIT_LIMIT, LEAST_WAIT_S = 0.05, 0.01
# Busier than this, a side of a closed loop is what limits it.
BUSY_LIMIT = 0.9
# Another process with less than this share of a CPU is no culprit.
_CULPRIT_CORES = 0.05
_KEPT, _NAMED = 5, 3
_ALONE = (
    "no other process used much: those of the run share the CPUs, give the server fewer workers"
)
# Of calls that were always in flight, by Little's law. A busy generator has some of them in hand,
# answered and not yet sent anew.
_ALWAYS = 0.9
# Beyond this share of the window, pauses count. Where the median call takes so much of the mean,
# calls wait alike, as in a service that answers many at once.
_PAUSE_LIMIT, _ALIKE = 0.05, 0.9


@dataclass(frozen=True, slots=True)
class ProcessWindow:
    """What a process of the run did in `seconds` of the measured window.

    `role` is ``server`` or ``generator``; `cpu_s` is the CPU time of all its threads, `kernel` what
    the kernel counted meanwhile.
    """

    role: str
    name: str
    pid: int
    seconds: float
    cpu_s: float
    kernel: KernelCounts = field(default_factory=KernelCounts)

    @property
    def busy(self) -> float:
        """The share of a CPU that it used."""
        return self.cpu_s / self.seconds if self.seconds else 0.0

    @property
    def wait_share(self) -> float | None:
        """The share of the window that it waited for a CPU; None where that is not known."""
        if self.kernel.wait_s is None or not self.seconds:
            return None
        return self.kernel.wait_s / self.seconds

    @property
    def has_waited(self) -> bool:
        """Whether it waited for a CPU longer than is allowed."""
        share, wait_s = self.wait_share, self.kernel.wait_s
        return share is not None and share > WAIT_LIMIT and (wait_s or 0.0) >= LEAST_WAIT_S

    @property
    def label(self) -> str:
        """What it is called: ``server worker 0``, ``generator engine 0``."""
        return self.name if self.name.startswith(self.role) else f"{self.role} {self.name}"


@dataclass(frozen=True, slots=True)
class OtherProcess:
    """A process that is not of the run, and how many CPUs it used meanwhile."""

    name: str
    pid: int
    cores: float


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the machine did to the processes of a run in one window.

    `others` are the busiest processes that are not of the run, the busiest first. `pressure` is
    the share of the window in which some process of the machine waited for a CPU, None where it is
    not known. `in_flight` is how many calls a closed loop had in flight at any time, None for an
    open loop, and `paused` the share of the window in which none of them was answered at all
    (`Report.paused_ns`).
    """

    processes: tuple[ProcessWindow, ...] = ()
    others: tuple[OtherProcess, ...] = ()
    pressure: float | None = None
    in_flight: int | None = None
    paused: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any] | None) -> "Surroundings":
        """Return what `to_json` wrote; nothing is known where older results have none.

        Raises:
            KeyError, TypeError: It is not as it was written.
        """
        if plain is None:
            return cls()
        processes = (
            ProcessWindow(**{**each, "kernel": KernelCounts(**each["kernel"])})
            for each in plain["processes"]
        )
        others = (OtherProcess(**each) for each in plain["others"])
        return cls(
            tuple(processes),
            tuple(others),
            plain["pressure"],
            plain["in_flight"],
            plain.get("paused", 0.0),
        )

    def busiest(self, role: str) -> float | None:
        """Return the largest share of a CPU that a process of a role used, None without any."""
        return max((each.busy for each in self.processes if each.role == role), default=None)


def process_windows(
    role: str, before: Iterable[Usage], after: Iterable[Usage], seconds: float
) -> Iterator[ProcessWindow]:
    """Yield what each process did between two readings; one that came or went is left out."""
    first = {usage.pid: usage for usage in before}
    for usage in after:
        start = first.get(usage.pid)
        if start is not None:
            kernel = usage.kernel.since(start.kernel)
            used_s = usage.cpu_s - start.cpu_s
            yield ProcessWindow(role, usage.name, usage.pid, seconds, used_s, kernel)


def busiest_others(
    before: Mapping[tuple[int, int], float],
    after: Mapping[tuple[int, int], tuple[str, float]],
    own: Iterable[int],
    seconds: float,
) -> tuple[OtherProcess, ...]:
    """Return the busiest processes that are not of the run.

    Processes go by pid and start, since pids are used again; each has its CPU seconds, and a name.
    One that has begun since has all of its CPU time from meanwhile. `own` are pids of the run.
    """
    ours = set(own)
    used = [
        OtherProcess(name, key[0], (cpu_s - before.get(key, 0.0)) / seconds)
        for key, (name, cpu_s) in after.items()
        if key[0] not in ours and seconds > 0
    ]
    busy = [each for each in used if each.cores > 0]
    return tuple(sorted(busy, key=_cores, reverse=True)[:_KEPT])


def _cores(other: OtherProcess) -> float:
    return other.cores


def pooled(windows: Iterable[Surroundings]) -> Surroundings:
    """Return several windows under one load as one: processes go by role and name, others by pid.

    A count that one of them does not have is not known of all.
    """
    windows = list(windows)
    by_name: dict[tuple[str, str], list[ProcessWindow]] = {}
    for each in windows:
        for process in each.processes:
            by_name.setdefault((process.role, process.name), []).append(process)
    others: dict[int, OtherProcess] = {}
    for other in sorted((each for one in windows for each in one.others), key=_cores):
        others[other.pid] = other
    return Surroundings(
        tuple(
            ProcessWindow(
                *(role, name, some[0].pid),
                seconds=sum(each.seconds for each in some),
                cpu_s=sum(each.cpu_s for each in some),
                kernel=KernelCounts.total(each.kernel for each in some),
            )
            for (role, name), some in by_name.items()
        ),
        tuple(sorted(others.values(), key=_cores, reverse=True)[:_KEPT]),
        in_flight=windows[0].in_flight if windows else None,
        paused=sum(each.paused for each in windows) / max(len(windows), 1),
    )


def round_disturbances(
    rounds: Iterable[Mapping[str, Any] | None],
    service: Histogram | None = None,
    calls_per_s: float = 0.0,
) -> tuple[Reason, ...]:
    """Return what the machine did to the rounds of a bench under one load, all together.

    Each is what `Surroundings.to_json` made, None in older results. `service` has the service times
    of all their calls, None where they are not known.
    """
    window = pooled(map(Surroundings.from_json, rounds))
    idle = None if service is None else idleness(window, service, calls_per_s)
    return (*disturbances([window]), *([] if idle is None else [idle]))


def disturbances(windows: Sequence[Surroundings]) -> Iterator[Reason]:
    """Yield what the machine did to a run, the worst of its windows."""
    throttled = [
        process for window in windows for process in window.processes if process.kernel.throttles
    ]
    if throttled:
        worst = max(throttled, key=lambda each: each.kernel.throttled_s or 0.0)
        yield Reason.of(
            ReasonCode.THROTTLED,
            process=worst.label,
            count=worst.kernel.throttles or 0,
            seconds=worst.kernel.throttled_s or 0.0,
        )
    waited = [
        (process.wait_share or 0.0, process, window)
        for window in windows
        for process in window.processes
        if process.has_waited
    ]
    if waited:
        share, process, window = max(waited, key=lambda each: each[0])
        yield Reason.of(
            ReasonCode.CPU_WAIT,
            process=process.label,
            share=share,
            limit=WAIT_LIMIT,
            culprit=_culprit(window),
        )


def _culprit(window: Surroundings) -> str:
    """Return who most likely had the CPUs meanwhile, in words."""
    busy = [
        f"{other.name} (pid {other.pid}) used {other.cores:.0%} of one"
        for other in window.others
        if other.cores >= _CULPRIT_CORES
    ]
    return ", ".join(busy[:_NAMED]) or _ALONE


def idleness(window: Surroundings, service: Histogram, calls_per_s: float) -> Reason | None:
    """Return that neither side of a closed loop was busy for no reason, None where all is well.

    `service` has the service times of its calls. Nothing is claimed where a side is not known, or
    where, by Little's law, calls were not always in flight.
    """
    server, generator = window.busiest(SERVER), window.busiest(GENERATOR)
    if window.in_flight is None or server is None or generator is None:
        return None
    if max(server, generator) > BUSY_LIMIT or not service.count:
        return None
    if calls_per_s * (service.mean_ns or 0) / 1e9 < (_ALWAYS - generator) * window.in_flight:
        return None
    mean_us, median_ns = (service.mean_ns or 0) / 1000, service.percentile_ns(50) or 0
    if window.paused <= _PAUSE_LIMIT or median_ns / 1000 > _ALIKE * mean_us:
        return None
    return Reason.of(
        ReasonCode.NEITHER_BUSY,
        server=server,
        generator=generator,
        in_flight=window.in_flight,
        paused=window.paused,
    )

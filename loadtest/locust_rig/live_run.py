"""A Locust run while it goes on: what its processes have reported, and what it says so far.

It belongs to the process that collects, the master or the only one. Nothing here imports Locust.
Reports come every few seconds, each with what is new since the last one. Totals are kept beside the
windows, so that reading a long run costs as little as reading a short one.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from capnp_rig.loadtest.stats.disturbance import (
    GENERATOR,
    ProcessWindow,
    Surroundings,
    process_windows,
)
from capnp_rig.loadtest.stats.endpoint_summary import (
    EndpointsOfRepeat,
    Outage,
    endpoint_summaries,
)
from capnp_rig.loadtest.stats.first_replies import compare_firsts
from capnp_rig.loadtest.stats.process_use import KernelCounts, Usage
from capnp_rig.loadtest.stats.run_summary import MeasuredRepeat, Summary, summarize
from capnp_rig.loadtest.stats.tally import (
    WARMUP,
    FirstReply,
    PackedWindows,
    Report,
    Window,
    add,
    add_windows,
)
from capnp_rig.rigcli.gc_page import GcUse


@dataclass(frozen=True, slots=True)
class ResourceUse:
    """What a generator process had used by `t_s` of its run: CPU seconds in all, and memory now.

    `gc` has its garbage collections since the run began, None where they cannot be counted;
    `kernel` is what the kernel tells of it beside.
    """

    t_s: float
    cpu_s: float
    rss_bytes: int
    gc: GcUse | None = None
    kernel: KernelCounts = field(default_factory=KernelCounts)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Return what `dataclasses.asdict` made plain."""
        gc = plain["gc"]
        kernel = KernelCounts(**plain["kernel"])
        return cls(**{**plain, "gc": None if gc is None else GcUse(**gc), "kernel": kernel})


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """A report on its way to the collector, with what is known of the process that sends it.

    `at_s` is when it was taken, `seconds` how much of the run there was to measure by then: less
    where the users have stopped since. Both count from the start of the run in that process.
    `cpu` is the CPU that it is pinned to, None for none.
    """

    report: Report
    at_s: float
    seconds: float
    pid: int = 0
    host: str = ""
    cpu: int | None = None
    use: tuple[ResourceUse, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values that JSON and msgpack keep."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        use = [asdict(sample) for sample in self.use]
        return {"report": self.report.to_json(), "use": use, **plain}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote."""
        use = tuple(ResourceUse.from_json(sample) for sample in plain["use"])
        report = Report.from_json(plain["report"])
        return cls(report, use=use, **{name: plain[name] for name in _PLAIN})


_PLAIN = ("at_s", "seconds", "pid", "host", "cpu")


@dataclass(slots=True)
class GeneratorProcess:
    """A process that makes load, as the collecting process knows it.

    `number` is its worker index; `heard_s` is when it last reported, `began_s` when its seconds
    began, both on the collecting process's clock. `busy_now` and `rate_now_hz` are those between
    its last two reports.
    """

    number: int
    heard_s: float
    began_s: float = math.inf
    pid: int = 0
    host: str = ""
    cpu: int | None = None
    at_s: float = 0.0
    seconds: float = 0.0
    busy_now: float | None = None
    rate_now_hz: float = 0.0
    total: Window = field(default_factory=Window)
    use: list[ResourceUse] = field(default_factory=list)
    # Windows go into a dict of their own: adding whole reports would copy all that there are.
    _windows: PackedWindows = field(default_factory=PackedWindows)
    _plain: Report = field(default_factory=Report)

    @property
    def report(self) -> Report:
        """All that it has reported."""
        return replace(self._plain, windows=self._windows)

    @property
    def report_so_far(self) -> Report:
        """The same, with all seconds in one."""
        return replace(self._plain, windows={0: self.total})

    @property
    def is_done(self) -> bool:
        """Whether its last report has come."""
        return self._plain.final

    @property
    def busy(self) -> float:
        """The share of a CPU that it used over the whole run."""
        return self._plain.cpu_ns / 1e9 / self.at_s if self.at_s else 0.0

    def busy_between(self, from_s: float, until_s: float) -> float:
        """Return the share of a CPU that it used in a part of the run, as far as was sampled."""
        samples = [use for use in self.use if from_s - 1 <= use.t_s <= until_s]
        if len(samples) < 2:
            return 0.0
        return (samples[-1].cpu_s - samples[0].cpu_s) / (samples[-1].t_s - samples[0].t_s)

    @property
    def windows(self) -> Iterator[ProcessWindow]:
        """What it did from its first sample to its last; nothing where it was not sampled twice."""
        if len(self.use) > 1:
            first, last = (self.usage_of(use) for use in (self.use[0], self.use[-1]))
            seconds = self.use[-1].t_s - self.use[0].t_s
            yield from process_windows(GENERATOR, [first], [last], seconds)

    def usage_of(self, use: ResourceUse) -> Usage:
        """Return a sample as that of a process with a name."""
        title = f"locust {self.number}"
        return Usage(title, self.pid, use.cpu_s, use.rss_bytes, use.gc, use.kernel)

    def take(self, sent: ProcessReport, now_s: float) -> None:
        """Add a report."""
        report, passed_s = sent.report, sent.at_s - self.at_s
        if passed_s > 0:
            self.busy_now = report.cpu_ns / 1e9 / passed_s
            self.rate_now_hz = report.calls / passed_s
        self.pid, self.host, self.cpu = sent.pid, sent.host, sent.cpu
        self.at_s, self.seconds, self.heard_s = sent.at_s, sent.seconds, now_s
        # The report that was under way for the shortest time tells best.
        self.began_s = min(self.began_s, now_s - sent.at_s)
        self.use += sent.use
        self._plain = add(self._plain, replace(report, windows={}))
        self._add_windows(report.windows)

    def compare_firsts(self, known: dict[str, FirstReply]) -> None:
        """Count first replies that are other than `known` as wrong ones; once, at the end."""
        (compared,) = compare_firsts([self._plain], known)
        self._plain = replace(compared, windows={})
        self._add_windows(compared.windows)

    def _add_windows(self, windows: Mapping[int, Window]) -> None:
        fresh = [window for second, window in windows.items() if second != WARMUP]
        self.total = add_windows([self.total, *fresh])
        for second, window in windows.items():
            self._windows.add(second, window)


class LiveRun:
    """The reports of one run, and what follows from them."""

    def __init__(self, *, is_open_loop: bool = False) -> None:
        self.is_open_loop = is_open_loop
        # By the processes' ids.
        self.generators: dict[str, GeneratorProcess] = {}
        # Calls that each of several endpoints answered, by second.
        self._answered: dict[str, Counter[int]] = {}

    def expect(self, process_id: str, number: int, now_s: float) -> None:
        """Know of a process, which is missed from now on until its last report."""
        self.generators.setdefault(process_id, GeneratorProcess(number, now_s))

    def receive(self, process_id: str, number: int, report: ProcessReport, now_s: float) -> None:
        """Take a report that arrived at `now_s`."""
        self.expect(process_id, number, now_s)
        self.generators[process_id].take(report, now_s)
        for second, window in report.report.windows.items():
            for name, part in window.endpoints.items():
                self._answered.setdefault(name, Counter())[second] += part.answered

    def endpoint_rates(self, most_s: int) -> tuple[int, dict[str, list[int]]]:
        """Return the calls that each of several endpoints answered in the last full seconds.

        There are `most_s` of them at most; the first one's number is with them.
        """
        end = math.floor(min((each.seconds for each in self.generators.values()), default=0.0))
        seconds = range(max(0, end - most_s), end)
        rates = {name: [by[second] for second in seconds] for name, by in self._answered.items()}
        return seconds.start, rates

    @property
    def outages(self) -> tuple[Outage, ...]:
        """When endpoints were lost, so far."""
        return self._endpoints().outages

    def _endpoints(self, cpu_s: Mapping[str, float] | None = None) -> EndpointsOfRepeat:
        changes = [each.report.changes for each in self.generators.values()]
        return EndpointsOfRepeat(self.seconds, changes, cpu_s or {})

    @property
    def missing(self) -> list[str]:
        """Processes whose last report has not come: some of their calls are not counted."""
        return [name for name, each in self.generators.items() if not each.is_done]

    def compare_firsts(self) -> None:
        """Count first replies of a process that are not those of another as wrong, at the end."""
        known: dict[str, FirstReply] = {}
        for each in self.generators.values():
            each.compare_firsts(known)

    @property
    def windows(self) -> tuple[ProcessWindow, ...]:
        """What each process did, as far as it has reported."""
        return tuple(window for each in self.generators.values() for window in each.windows)

    @property
    def total(self) -> Window:
        """Everything that was reported so far."""
        return add_windows(each.total for each in self.generators.values())

    @property
    def seconds(self) -> float:
        """How long the run has lasted, by the process that knows of most."""
        return max((each.seconds for each in self.generators.values()), default=0.0)

    @property
    def paused(self) -> float:
        """The largest share of its time in which a closed loop of a process got no answer."""
        shares = (
            each.report.paused_ns / 1e9 / each.seconds
            for each in self.generators.values()
            if each.seconds
        )
        return min(max(shares, default=0.0), 1.0)

    def part(
        self,
        *,
        server_cpu_s: float | None = None,
        steal: float | None = None,
        surroundings: Surroundings | None = None,
        endpoint_cpu_s: Mapping[str, float] | None = None,
    ) -> MeasuredRepeat:
        """Return the run as `summarize` takes it."""
        return MeasuredRepeat(
            [each.report for each in self.generators.values()] or [Report()],
            self.seconds,
            self._busy,
            server_cpu_s,
            steal,
            surroundings or Surroundings(),
            endpoint_cpu_s=endpoint_cpu_s or {},
        )

    def so_far(
        self,
        server_cpu_s: float | None,
        surroundings: Surroundings | None = None,
        endpoint_cpu_s: Mapping[str, float] | None = None,
    ) -> Summary:
        """Judge what there is by now; whether the run drifts is left for its end."""
        reports = [each.report_so_far for each in self.generators.values()] or [Report()]
        # As if it were one second: to go through all of a long run would take long.
        part = MeasuredRepeat(reports, 1.0, self._busy, server_cpu_s)
        summary = summarize([replace(part, surroundings=surroundings or Surroundings())])
        return replace(
            summary,
            calls_per_s=summary.calls / self.seconds if self.seconds else 0.0,
            endpoints=endpoint_summaries(
                self.total, [self._endpoints(endpoint_cpu_s)], is_open_loop=self.is_open_loop
            ),
        )

    def between(self, from_s: float, until_s: float) -> Summary:
        """Return what the processes saw between two times of the collecting process's clock.

        A process counts with its whole seconds in between: a worker's begin later than the run.
        """
        windows, shares, calls_per_s = [], [0.0], 0.0
        for each in self.generators.values():
            first, end = (max(at_s - each.began_s, 0.0) for at_s in (from_s, until_s))
            seconds = range(math.ceil(first), math.floor(end))
            seen = each.report.windows
            own = [seen[second] for second in seconds if second in seen]
            windows += own
            shares.append(each.busy_between(first, end))
            if own:
                calls_per_s += sum(window.answered for window in own) / len(seconds)
        report = Report({0: add_windows(windows)}, scheduled=0 if self.is_open_loop else None)
        summary = summarize([MeasuredRepeat([report], until_s - from_s, max(shares))])
        return replace(summary, calls_per_s=calls_per_s)

    @property
    def _busy(self) -> float:
        return max((each.busy for each in self.generators.values()), default=0.0)

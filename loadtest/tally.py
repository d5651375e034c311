"""What one process of a load run has seen, and how the processes' reports add up.

A worker sends what is new since its last report; the collector adds it. A worker's
last report is marked: without it the run lost samples and says so.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from loadtest.failures import FailureNames, kind_of
from loadtest.histogram import Histogram, Recorder, merge


@dataclass(frozen=True, slots=True)
class Report:
    """One process's calls over some time, or those of all.

    `service` has the times of answered calls from sending to receiving, by name of the
    method; `failed` those of failed calls. `failures` counts failures by kind.
    `unfinished` calls were given up when the run ended. `cpu_ns` is what the process
    itself used; `first_ns` and `last_ns` are its monotonic clock at the first sending and
    the last answer, None without a call.
    """

    service: Mapping[str, Histogram] = field(default_factory=dict)
    failed: Mapping[str, Histogram] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    unfinished: int = 0
    cpu_ns: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    final: bool = False

    @property
    def calls(self) -> int:
        """Answered calls."""
        return sum(histogram.count for histogram in self.service.values())

    @property
    def window_ns(self) -> int:
        """From the first sending to the last answer."""
        return 0 if self.first_ns is None or self.last_ns is None else self.last_ns - self.first_ns

    def to_json(self) -> dict[str, Any]:
        """Return plain values that JSON and msgpack keep."""
        return {
            "service": {name: part.to_json() for name, part in self.service.items()},
            "failed": {name: part.to_json() for name, part in self.failed.items()},
            "failures": dict(self.failures),
            **{name: getattr(self, name) for name in _PLAIN},
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote.

        Raises:
            ValueError: A histogram has other bucket edges.
        """
        return cls(
            service={name: Histogram.from_json(part) for name, part in plain["service"].items()},
            failed={name: Histogram.from_json(part) for name, part in plain["failed"].items()},
            failures=dict(plain["failures"]),
            **{name: plain[name] for name in _PLAIN},
        )


_PLAIN = ("unfinished", "cpu_ns", "first_ns", "last_ns", "final")


def add(one: Report, other: Report) -> Report:
    """Return two reports of one process as one."""
    return Report(
        service=_add_by_name(one.service, other.service),
        failed=_add_by_name(one.failed, other.failed),
        failures=Counter(one.failures) + Counter(other.failures),
        unfinished=one.unfinished + other.unfinished,
        cpu_ns=one.cpu_ns + other.cpu_ns,
        first_ns=_chosen(min, one.first_ns, other.first_ns),
        last_ns=_chosen(max, one.last_ns, other.last_ns),
        final=one.final or other.final,
    )


def _add_by_name(
    one: Mapping[str, Histogram], other: Mapping[str, Histogram]
) -> dict[str, Histogram]:
    names = [*one, *(name for name in other if name not in one)]
    empty = Histogram()
    return {name: merge([one.get(name, empty), other.get(name, empty)]) for name in names}


def _chosen(choose: Callable[..., int], *values: int | None) -> int | None:
    known = [value for value in values if value is not None]
    return choose(known) if known else None


class Tally:
    """Records the calls of this process. It reads no clock: callers pass the times."""

    def __init__(self) -> None:
        self._names = FailureNames()
        self._service: dict[str, Recorder] = {}
        self._failed: dict[str, Recorder] = {}
        self._failures: Counter[str] = Counter()
        self._unfinished = 0
        self._first_ns: int | None = None
        self._last_ns: int | None = None

    def answered(self, method: str, sent_ns: int, received_ns: int) -> None:
        """Count a call that was answered as it should be."""
        recorder = self._service.get(method)
        if recorder is None:
            recorder = self._service[method] = Recorder()
            self._first_ns = self._first_ns or sent_ns
        recorder.record(received_ns - sent_ns)
        self._last_ns = received_ns

    def failed(self, method: str, sent_ns: int, received_ns: int, error: Exception) -> Exception:
        """Count a call that failed; return its exception, shortened so as to be counted."""
        self._failed.setdefault(method, Recorder()).record(received_ns - sent_ns)
        short = self._names.shorten(error)
        self._failures[kind_of(short)] += 1
        return short

    def unfinished(self, count: int) -> None:
        """Count calls that the end of the run cut off."""
        self._unfinished += count

    def take(self, *, cpu_ns: int = 0, final: bool = False) -> Report:
        """Return what is new since the last `take`."""
        report = Report(
            service={name: recorder.take() for name, recorder in self._service.items()},
            failed={name: recorder.take() for name, recorder in self._failed.items()},
            failures=dict(self._failures),
            unfinished=self._unfinished,
            cpu_ns=cpu_ns,
            first_ns=self._first_ns,
            last_ns=self._last_ns,
            final=final,
        )
        self._failures.clear()
        self._unfinished = 0
        return report


class Collector:
    """Adds the reports of all processes, each under its own id."""

    def __init__(self) -> None:
        self.processes: dict[str, Report] = {}

    def receive(self, process_id: str, report: Report) -> None:
        """Add what a process newly reports."""
        self.processes[process_id] = add(self.processes.get(process_id, Report()), report)

    @property
    def missing(self) -> list[str]:
        """Processes whose last report did not come: some of their calls are not counted."""
        return [name for name, report in self.processes.items() if not report.final]

    @property
    def longest_ns(self) -> int:
        """The longest window of a process."""
        return max((report.window_ns for report in self.processes.values()), default=0)

    @property
    def rate_hz(self) -> float:
        """Answered calls per second of the longest window; 0 without a call."""
        # The clocks of two machines have nothing in common, so windows are compared by length.
        return self.total.calls * 1e9 / self.longest_ns if self.longest_ns else 0.0

    @property
    def busy(self) -> float:
        """The largest share of a CPU that one process used; over 0.9 the rig was the limit."""
        shares = (
            report.cpu_ns / report.window_ns
            for report in self.processes.values()
            if report.window_ns
        )
        return max(shares, default=0.0)

    @property
    def total(self) -> Report:
        """All processes together; its first and last instants hold for one machine only."""
        total = Report()
        for report in self.processes.values():
            total = add(total, report)
        return total

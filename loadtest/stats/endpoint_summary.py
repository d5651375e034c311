"""What a load run says of each of several endpoints (no I/O)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from capnp_rig.loadtest.stats.histogram import Histogram, us_of
from capnp_rig.loadtest.stats.tally import Clocks, EndpointChange, Window

PERCENTILES = (50.0, 90.0, 99.0, 99.9)


@dataclass(frozen=True, slots=True)
class Outage:
    """A stretch of a repeat, in seconds of its measured window, without connections to a server.

    `until_s` is None where that did not come back.
    """

    endpoint: str
    from_s: float
    until_s: float | None


def outages_of(changes: Iterable[EndpointChange]) -> tuple[Outage, ...]:
    """Return when endpoints were lost, by the changes of one process in the order of time."""
    ended: list[Outage] = []
    lost_s: dict[str, float] = {}
    for change in changes:
        if change.is_lost:
            lost_s.setdefault(change.endpoint, change.at_s)
        elif change.endpoint in lost_s:
            ended.append(Outage(change.endpoint, lost_s.pop(change.endpoint), change.at_s))
    return (*ended, *(Outage(name, from_s, None) for name, from_s in lost_s.items()))


def united(outages: Iterable[Outage], end_s: float) -> tuple[Outage, ...]:
    """Return what several processes saw as one: from the first that lost a server to the last.

    What lies outside of the measured window, which ends at `end_s`, is cut off.
    """
    whole: list[Outage] = []
    for each in sorted(outages, key=lambda outage: (outage.endpoint, outage.from_s)):
        from_s = max(each.from_s, 0.0)
        until_s = None if each.until_s is None or each.until_s >= end_s else each.until_s
        if from_s >= end_s or (until_s is not None and until_s <= from_s):
            continue
        last = whole[-1] if whole and whole[-1].endpoint == each.endpoint else None
        if last is None or (last.until_s is not None and last.until_s < from_s):
            whole.append(Outage(each.endpoint, from_s, until_s))
        elif last.until_s is not None and (until_s is None or until_s > last.until_s):
            whole[-1] = Outage(last.endpoint, last.from_s, until_s)
    return tuple(whole)


@dataclass(frozen=True, slots=True)
class EndpointSummary:
    """What one of several servers did in a run, all processes and repeats together.

    `window` has its calls, connects and failures. `connections` stood at the end of a repeat, in
    the mean; `outages` has the stretches without any, repeat after repeat, and `lost_s` is how
    long they were. `server_cpu_s` is what its processes used, None where that is not known.
    """

    endpoint: str
    window: Window
    seconds: float
    connections: float
    outages: tuple[Outage, ...] = ()
    lost_s: float = 0.0
    server_cpu_s: float | None = None
    is_open_loop: bool = False

    @property
    def calls(self) -> int:
        """Calls that were answered rightly."""
        return self.window.answered

    @property
    def calls_per_s(self) -> float:
        """The same per second of the run."""
        return self.calls / self.seconds if self.seconds else 0.0

    @property
    def times(self) -> Histogram:
        """Response times of an open loop, service times of a closed one."""
        return Clocks.of(self.window.times, is_open_loop=self.is_open_loop).response

    @property
    def server_cpu_us_per_call(self) -> float | None:
        """CPU µs of its processes per answered call, None where it is not known."""
        if self.server_cpu_s is None or not self.calls:
            return None
        return self.server_cpu_s * 1e6 / self.calls

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        times = self.times
        named = {f"p{percent:g}": us_of(times.percentile_ns(percent)) for percent in PERCENTILES}
        return {
            "endpoint": self.endpoint,
            "calls": self.calls,
            "calls_per_s": self.calls_per_s,
            "errors": self.window.failed,
            "errors_by_kind": dict(self.window.failures),
            "times_us": {"mean": us_of(times.mean_ns), **named, "max": us_of(times.max_ns)},
            "connections": self.connections,
            "connections_ended": self.window.ended,
            "reconnects": self.window.reconnects.count,
            "outages": [[each.from_s, each.until_s] for each in self.outages],
            "outage_s": self.lost_s,
            "server_cpu_us_per_call": self.server_cpu_us_per_call,
        }


@dataclass(frozen=True, slots=True)
class EndpointsOfRepeat:
    """What a repeat knows of its endpoints: changes by process, CPU seconds by endpoint."""

    seconds: float
    changes: Sequence[Sequence[EndpointChange]]
    cpu_s: Mapping[str, float]

    @property
    def outages(self) -> tuple[Outage, ...]:
        """When its endpoints were lost, in any of its processes."""
        return united(
            (outage for changes in self.changes for outage in outages_of(changes)), self.seconds
        )


def endpoint_summaries(
    total: Window, repeats: Sequence[EndpointsOfRepeat], *, is_open_loop: bool
) -> tuple[EndpointSummary, ...]:
    """Return the summary of each endpoint of a run, none where there is only one.

    `total` has all windows of all repeats.
    """
    outages = [(outage, repeat.seconds) for repeat in repeats for outage in repeat.outages]
    return tuple(
        EndpointSummary(
            endpoint=name,
            window=window,
            seconds=sum(repeat.seconds for repeat in repeats),
            connections=_standing(window) / max(len(repeats), 1),
            outages=tuple(outage for outage, _ in outages if outage.endpoint == name),
            lost_s=sum(
                (seconds if outage.until_s is None else outage.until_s) - outage.from_s
                for outage, seconds in outages
                if outage.endpoint == name
            ),
            server_cpu_s=_sum(repeat.cpu_s.get(name) for repeat in repeats),
            is_open_loop=is_open_loop,
        )
        for name, window in total.endpoints.items()
    )


def _standing(window: Window) -> int:
    return window.connects.count + window.reconnects.count - window.ended


def _sum(parts: Iterable[float | None]) -> float | None:
    known = list(parts)
    return None if not known or None in known else sum(filter(None, known))

"""The figures of a load so far, as counters that only grow (no I/O)."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from capnp_rig.loadtest.stats.histogram import Histogram, bucket_range_ns
from capnp_rig.loadtest.stats.tally import Clocks, Window

# Upper ends of the buckets, in ns: 1, 2, 5, 10, … from 10 µs to 20 s, then all above.
BOUNDS_NS = tuple(
    step * 10**power for power in range(4, 11) for step in (1, 2, 5) if step * 10**power <= 2e10
)


@dataclass(slots=True)
class LiveFigures:
    """What was counted so far, the warm-up included.

    `answered` calls were answered as they should be, `failures` counts the others, and failed
    connects, by kind. `buckets` has the answered calls by `BOUNDS_NS`, those above in the last one;
    a time is the response time in an open loop, else the service time. `in_flight`,
    `connections` and Locust's `users` are those of now, None where nobody knows.
    """

    answered: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_NS) + 1))
    sum_ns: int = 0
    connects: int = 0
    reconnects: int = 0
    in_flight: int | None = None
    connections: int | None = None
    users: int | None = None

    def add(self, window: Window, *, is_open_loop: bool) -> None:
        """Count what a window has."""
        times = Clocks.of(window.times, is_open_loop=is_open_loop).response
        self.answered += times.count
        self.sum_ns += times.sum_ns
        self.failures.update(window.failures)
        self.connects += window.connects.count
        self.reconnects += window.reconnects.count
        for at, count in _by_bound(times).items():
            self.buckets[at] += count

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {name: getattr(self, name) for name in self.__slots__} | {
            "failures": dict(self.failures)
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote."""
        return cls(**{**plain, "failures": Counter(plain["failures"])})


def _by_bound(times: Histogram) -> Counter[int]:
    """Return the counts by the number of the bound that they do not exceed."""
    counts: Counter[int] = Counter()
    for bucket, count in times.counts.items():
        # All of a bucket lies within 0.8 %; its upper end decides.
        counts[bisect_left(BOUNDS_NS, bucket_range_ns(bucket)[1])] += count
    counts[0] += times.below
    counts[len(BOUNDS_NS)] += times.above
    return counts


def added(parts: Iterable[LiveFigures]) -> LiveFigures:
    """Return the figures of several processes, or of several runs one after the other, as one."""
    total = LiveFigures()
    for part in parts:
        total.answered += part.answered
        total.failures.update(part.failures)
        total.buckets = [a + b for a, b in zip(total.buckets, part.buckets, strict=True)]
        total.sum_ns += part.sum_ns
        total.connects += part.connects
        total.reconnects += part.reconnects
        total.in_flight = _sum(total.in_flight, part.in_flight)
        total.connections = _sum(total.connections, part.connections)
        total.users = _sum(total.users, part.users)
    return total


class LiveRepeats:
    """The figures of runs that follow each other, as if they were one."""

    def __init__(self) -> None:
        self._read: Callable[[], Sequence[LiveFigures]] = list
        self._before = LiveFigures()

    def begin(self, read: Callable[[], Sequence[LiveFigures]]) -> None:
        """Begin the next run: `read` returns the figures of its processes."""
        ended = self.read()
        # What waited and stood then does no more.
        ended.in_flight = ended.connections = ended.users = None
        self._before, self._read = ended, read

    def read(self) -> LiveFigures:
        """Return the figures so far."""
        return added([self._before, *self._read()])


def _sum(one: int | None, other: int | None) -> int | None:
    return one if other is None else other + (one or 0)

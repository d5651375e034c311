"""What a worker has counted, in the page that outlives it (`control.call_stamp`).

A worker counts in lists of its own, because a store into the page costs twice as much as one into a
list, and copies them here four times a second. So a scrape asks no worker, and the counts of one
that died are not lost but for its last quarter of a second.

All numbers are of 64 bits, from `call_stamp.COUNTS` on: the counts of the worker, then those of
each method by its number.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import add

# Times are counted by how many bits their ns have: quick to find, and none has too many.
BUCKETS = 60
SUM_NS, FAILED, CANCELLED, REFUSED = range(BUCKETS, BUCKETS + 4)
METHOD_WORDS = 64
BYTES_IN, BYTES_OUT = range(2)
# Of the event loop, as for a method: buckets and sum.
LAG = 64
LIMITS_AT = 128
# Those of which a worker knows. The order is that of the page.
LIMITS = (
    *("draining", "in-flight", "worker-calls", "params", "early-cancels", "unread"),
    *("first-frame", "slow-frame", "stalled", "idle", "age", "unimplemented"),
    "tls-handshake",
)
WORKER_WORDS = 192


def bucket_end_s(bucket: int) -> float:
    """Return the upper end of a bucket, in seconds."""
    return float((1 << bucket) / 1e9)


@dataclass(frozen=True, slots=True)
class Times:
    """How long something took: counts by bucket, and the sum."""

    buckets: tuple[int, ...] = (0,) * BUCKETS
    sum_ns: int = 0

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.buckets)

    def __add__(self, other: "Times") -> "Times":
        return Times(tuple(map(add, self.buckets, other.buckets)), self.sum_ns + other.sum_ns)


@dataclass(frozen=True, slots=True)
class MethodCounts:
    """The calls of one method: `times` of all that ran to an answer, failed ones among them.

    `cancelled` calls ran without an answer, `refused` ones did not run.
    """

    times: Times = field(default_factory=Times)
    failed: int = 0
    cancelled: int = 0
    refused: int = 0

    def __add__(self, other: "MethodCounts") -> "MethodCounts":
        return MethodCounts(
            self.times + other.times,
            self.failed + other.failed,
            self.cancelled + other.cancelled,
            self.refused + other.refused,
        )


@dataclass(frozen=True, slots=True)
class WorkerCounts:
    """All that a worker has counted, or that several have together."""

    methods: Mapping[str, MethodCounts] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0
    lag: Times = field(default_factory=Times)

    def __add__(self, other: "WorkerCounts") -> "WorkerCounts":
        methods = dict(self.methods)
        for name, counts in other.methods.items():
            methods[name] = methods.get(name, MethodCounts()) + counts
        limits = dict(self.limits)
        for name, count in other.limits.items():
            limits[name] = limits.get(name, 0) + count
        return WorkerCounts(
            methods,
            limits,
            self.bytes_in + other.bytes_in,
            self.bytes_out + other.bytes_out,
            self.lag + other.lag,
        )


def read_counts(words: Sequence[int], names: Sequence[str]) -> WorkerCounts:
    """Return the counts in `words`, which begin at `COUNTS`; `names` are those of the methods.

    Methods of the same name, as long ones are cut, are counted together.
    """
    methods: dict[str, MethodCounts] = {}
    for name, counts in zip(names, _methods(words), strict=False):
        if counts != MethodCounts():
            methods[name] = methods[name] + counts if name in methods else counts
    return WorkerCounts(
        methods,
        dict(zip(LIMITS, words[LIMITS_AT:], strict=False)),
        words[BYTES_IN],
        words[BYTES_OUT],
        _times(words[LAG : LAG + METHOD_WORDS]),
    )


def _methods(words: Sequence[int]) -> Iterator[MethodCounts]:
    for start in range(WORKER_WORDS, len(words), METHOD_WORDS):
        part = words[start : start + METHOD_WORDS]
        yield MethodCounts(_times(part), part[FAILED], part[CANCELLED], part[REFUSED])


def _times(words: Sequence[int]) -> Times:
    return Times(tuple(words[:BUCKETS]), words[SUM_NS])

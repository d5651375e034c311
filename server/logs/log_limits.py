"""Limits the log lines that peers can provoke, by their kind: pure."""

from dataclasses import dataclass

# In a row, and then on and on: with a traceback of 2 kB each, 4 kB/s.
BURST = 20
LINES_PER_S = 2.0
# Of the five lines that tell of a connection: 7 kB/s, where a peer that connects each half
# millisecond made 600. A server with many clients at its start shows them all.
CALM_BURST = 500
CALM_LINES_PER_S = 20.0
_CALM_LEVELS = frozenset({"debug", "info"})
# How often the lines left out are summed up.
SUM_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class LeftOut:
    """How many lines of one kind were left out, in how many seconds."""

    kind: str
    level: str
    count: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.kind}: {self.count:,} more left out in {self.seconds:.0f} s"


@dataclass(slots=True)
class _Bucket:
    level: str
    burst: int
    lines_per_s: float
    lines: float
    filled_s: float
    left_out: int = 0
    since_s: float = 0.0


class LineLimits:
    """Admits lines by kind: `BURST` in a row, then `LINES_PER_S`; the others are counted.

    Lines that report no fault may be more: `CALM_BURST` and `CALM_LINES_PER_S`. Kinds are fixed
    texts of the program, never made from what a peer sends.
    """

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}

    def admit(self, kind: str, level: str, now_s: float) -> bool:
        """Return whether a line may be written now; if not, it is counted."""
        bucket = self._buckets.get(kind)
        if bucket is None:
            bucket = self._buckets[kind] = _full_bucket(level, now_s)
        grown = (now_s - bucket.filled_s) * bucket.lines_per_s
        bucket.lines = min(bucket.lines + grown, bucket.burst)
        bucket.filled_s = now_s
        if bucket.lines >= 1:
            bucket.lines -= 1
            return True
        if not bucket.left_out:
            bucket.since_s = now_s
        bucket.left_out += 1
        return False

    def take_left_out(self, now_s: float, *, all_of_it: bool = False) -> list[LeftOut]:
        """Return what was left out and not yet logged, once it is old enough, or now."""
        left_out = []
        for kind, bucket in self._buckets.items():
            seconds = now_s - bucket.since_s
            if bucket.left_out and (all_of_it or seconds >= SUM_INTERVAL_S):
                left_out.append(LeftOut(kind, bucket.level, bucket.left_out, max(seconds, 1.0)))
                bucket.left_out = 0
        return left_out


def _full_bucket(level: str, now_s: float) -> _Bucket:
    if level in _CALM_LEVELS:
        return _Bucket(level, CALM_BURST, CALM_LINES_PER_S, CALM_BURST, now_s)
    return _Bucket(level, BURST, LINES_PER_S, BURST, now_s)

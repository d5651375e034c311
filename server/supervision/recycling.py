"""When a worker is replaced by a fresh one: decisions on plain values."""

from collections.abc import Callable
from dataclasses import dataclass

from capnp_rig.server.config import WorkerLimits

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Wear:
    """What a worker has done and holds; `max_calls` is its own limit, 0 for none."""

    calls: int
    rss_bytes: int
    max_calls: int


def call_limit(limits: WorkerLimits, random_below: Callable[[int], int]) -> int:
    """Return how many calls a worker serves, 0 for no limit; not all workers as many."""
    if not limits.max_requests:
        return 0
    return limits.max_requests + random_below(limits.max_requests_jitter + 1)


def worn(wear: Wear, limits: WorkerLimits) -> str | None:
    """Return why a worker is to be replaced, or None if it is not."""
    if wear.max_calls and wear.calls >= wear.max_calls:
        return f"it has served {wear.calls} calls, the limit is {wear.max_calls}"
    limit = limits.max_worker_rss
    if limit and wear.rss_bytes > limit:
        return f"it holds {wear.rss_bytes / _MIB:.0f} MiB, the limit is {limit / _MIB:g} MiB"
    return None

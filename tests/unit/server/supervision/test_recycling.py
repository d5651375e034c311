import pytest

from capnp_rig.server.config import WorkerLimits
from capnp_rig.server.supervision.recycling import Wear, call_limit, worn

MIB = 1 << 20
FRESH = Wear(calls=0, rss_bytes=40 * MIB, max_calls=0)


@pytest.mark.parametrize(
    ("limits", "drawn", "expected"),
    [
        (WorkerLimits(), 0, 0),
        # Without a limit there is nothing to vary.
        (WorkerLimits(max_requests_jitter=50), 0, 0),
        (WorkerLimits(max_requests=100), 0, 100),
        (WorkerLimits(max_requests=100, max_requests_jitter=50), 50, 150),
    ],
)
def test_a14_each_worker_has_a_limit_of_its_own(
    limits: WorkerLimits, drawn: int, expected: int
) -> None:
    def random_below(bound: int) -> int:
        assert 0 <= drawn < bound
        return drawn

    assert call_limit(limits, random_below) == expected


@pytest.mark.parametrize(
    ("wear", "reason"),
    [
        (FRESH, None),
        (Wear(99, 40 * MIB, 100), None),
        (Wear(100, 40 * MIB, 100), "it has served 100 calls, the limit is 100"),
        (Wear(10**9, 40 * MIB, 0), None),
        (Wear(0, 512 * MIB, 0), None),
        (Wear(0, 600 * MIB, 0), "it holds 600 MiB, the limit is 512 MiB"),
    ],
)
def test_a14_a15_a_worker_is_worn_by_calls_or_memory(wear: Wear, reason: str | None) -> None:
    assert worn(wear, WorkerLimits(max_worker_rss=512 * MIB)) == reason


def test_memory_has_no_limit_by_default() -> None:
    assert worn(Wear(0, 1 << 50, 0), WorkerLimits()) is None

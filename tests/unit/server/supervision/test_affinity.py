import pytest

from capnp_rig.server.supervision.launch import plan_affinity


@pytest.mark.parametrize(
    ("cpus", "workers", "plan"),
    [
        ([0], 1, (0,)),
        ([0, 1], 2, (0, 1)),
        ([3, 1, 2], 2, (1, 2)),
        ([4, 6], 5, (4, 6, 4, 6, 4)),
        ([5, 5], 2, (5, 5)),
        (range(64), 1, (0,)),
    ],
)
def test_workers_take_the_cpus_in_turns(
    cpus: list[int], workers: int, plan: tuple[int, ...]
) -> None:
    assert plan_affinity(cpus, workers) == plan


@pytest.mark.parametrize(("cpus", "workers"), [([], 1), ([0], 0), ([0], -1)])
def test_a_plan_without_cpus_or_workers_is_refused(cpus: list[int], workers: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        plan_affinity(cpus, workers)

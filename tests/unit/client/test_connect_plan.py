"""Which address is tried when (faults.md, F-10; RFC 8305)."""

import pytest

from capnp_rig.client.connect_plan import STAGGER_S, Candidate, ConnectPlan, interleave

V4, V6 = 2, 10


def candidates(*families: int) -> list[Candidate]:
    return [Candidate(family, 1, 6, number) for number, family in enumerate(families)]


def taken(plan: ConnectPlan, now_s: float) -> list[int]:
    """Return which addresses are started at this moment."""
    started = []
    while (candidate := plan.take(now_s)) is not None:
        started.append(candidate.where)
    return started


def plan_of(count: int, *, timeout_s: float = 1.0) -> ConnectPlan:
    return ConnectPlan(candidates(*[V4] * count), now_s=100.0, deadline_s=100.0 + timeout_s)


@pytest.mark.parametrize(
    ("families", "order"),
    [
        ((), []),
        ((V4,), [0]),
        ((V6, V6, V6, V4, V4), [0, 3, 1, 4, 2]),
        ((V4, V6), [0, 1]),
    ],
)
def test_families_take_turns(families: tuple[int, ...], order: list[int]) -> None:
    assert [candidate.where for candidate in interleave(candidates(*families))] == order


def test_f10_an_attempt_that_does_not_answer_is_joined_by_the_next() -> None:
    plan = plan_of(3)
    assert taken(plan, 100.0) == [0]
    assert plan.wake_s == 100.0 + STAGGER_S
    assert taken(plan, 100.2) == []
    assert taken(plan, 100.25) == [1]
    assert taken(plan, 100.6) == [2]
    assert plan.is_exhausted
    assert plan.wake_s == 101.0


@pytest.mark.parametrize(
    ("count", "timeout_s", "step_s"),
    [(2, 0.2, 0.1), (11, 1.1, 0.1), (4, 1.0, 0.25), (99, 0.1, 0.01)],
)
def test_f10_a_short_timeout_is_shared_by_all_addresses(
    count: int, timeout_s: float, step_s: float
) -> None:
    plan = plan_of(count, timeout_s=timeout_s)
    assert taken(plan, 100.0) == [0]
    assert plan.wake_s == pytest.approx(100.0 + step_s)
    assert taken(plan, 100.0 + step_s * 1.01) == [1]


def test_an_attempt_that_fails_is_followed_at_once() -> None:
    plan = plan_of(2)
    first = plan.take(100.0)
    assert first is not None
    plan.failed(first, 100.01, is_busy=False)
    assert plan.wake_s == 100.01
    assert taken(plan, 100.01) == [1]
    assert plan.is_exhausted


def test_nothing_starts_after_the_deadline() -> None:
    plan = plan_of(9, timeout_s=0.6)
    assert [taken(plan, 100.0 + at) for at in (0, 0.25, 0.5, 0.6, 0.75)] == [[0], [1], [2], [], []]
    assert taken(plan_of(1, timeout_s=0), 100.0) == []


def test_b9_a_full_backlog_is_tried_again_more_and_more_slowly() -> None:
    plan = plan_of(1, timeout_s=1.0)
    now_s, waits_ms = 100.0, []
    while now_s < 101.0:
        candidate = plan.take(now_s)
        assert candidate is not None
        plan.failed(candidate, now_s, is_busy=True)
        assert not plan.is_exhausted
        assert plan.take(now_s) is None
        waits_ms.append(round((plan.wake_s - now_s) * 1000))
        now_s = plan.wake_s
    assert waits_ms[:7] == [5, 10, 20, 40, 80, 100, 100]
    assert now_s == 101.0

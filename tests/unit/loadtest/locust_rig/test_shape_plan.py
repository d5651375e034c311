import pytest

from capnp_rig.loadtest.locust_rig.shape_plan import Ramp, Spike, Steps
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.run_summary import Summary
from capnp_rig.loadtest.stats.thresholds import parse_threshold


def test_steps_go_up_until_the_last_is_over() -> None:
    steps = Steps(users=10, step_s=30, count=3)
    times = [0, 29.9, 30, 60, 89.9, 90]
    assert [steps.users_at(at_s) for at_s in times] == [10, 10, 20, 30, 30, None]
    assert steps.peak_users == 30


def test_a_spike_goes_up_and_down_again() -> None:
    spike = Spike(base=5, peak=50, at_s=10, for_s=2, after_s=10)
    times = [0, 9.9, 10, 11.9, 12, 21.9, 22]
    assert [spike.users_at(at_s) for at_s in times] == [5, 5, 50, 50, 5, 5, None]
    assert spike.peak_users == 50
    # A dip is a spike downwards.
    assert Spike(base=5, peak=1, at_s=1, for_s=1, after_s=1).peak_users == 5


def stretch(*, errors: int = 0, calls: int = 1000, busy: float = 0.5) -> Summary:
    times = Histogram.of([200_000] * calls)
    return Summary(
        calls=calls,
        failures={"WrongReply: wrong": errors},
        calls_per_s=calls / 2,
        response=times,
        service=times,
        lateness=Histogram(),
        is_open_loop=True,
        server_cpu_s=None,
        busy=busy,
    )


class Seen:
    """Notes which times are asked for, and answers with one stretch after the other."""

    def __init__(self, *stretches: Summary) -> None:
        self.times_s: list[tuple[float, float]] = []
        self._stretches = list(stretches)

    def __call__(self, from_s: float, until_s: float) -> Summary:
        self.times_s.append((from_s, until_s))
        return self._stretches.pop(0)


def ramp(see: Seen, *conditions: str, most: int = 25) -> Ramp:
    judged = tuple(map(parse_threshold, conditions or ("errors>1%",)))
    return Ramp(users=10, step_s=5, most=most, conditions=judged, see=see)


def follow(plan: Ramp, *times_s: float) -> list[int | None]:
    return [plan.users_at(at_s) for at_s in times_s]


def test_a_ramp_ends_with_the_first_step_that_fails() -> None:
    see = Seen(stretch(), stretch(errors=50))
    plan = ramp(see)
    # The clock of a shape ticks about once a second.
    found = follow(plan, 0.0, 1.0, 4.9, 5.3, 6.3, 10.2, 10.4)
    assert found == [10, 10, 10, 20, 20, 20, None]
    # The first second of a step, in which its users come, is left out.
    assert see.times_s == [(1, 5), (pytest.approx(6.3), pytest.approx(10.3))]
    assert [(step.users, step.held) for step in plan.done] == [(10, True), (20, False)]
    assert plan.highest is plan.done[0]
    assert plan.answer == (
        "the highest step that held: 10 users, 500 calls/s, p99 200 µs; "
        "at 20 users: errors>1%: 4.7619 %"
    )
    kept = plan.to_json()
    assert (kept["highest_users"], kept["failed_users"]) == (10, 20)
    assert kept["steps"][1]["violations"] == ["errors>1%: 4.7619 %"]
    assert kept["steps"][0]["response_p99_us"] == 200


def test_a_ramp_whose_steps_all_hold_ends_at_its_most() -> None:
    plan = ramp(Seen(stretch(), stretch(), stretch()))
    assert follow(plan, 0, 5, 10, 15) == [10, 20, 25, None]
    assert plan.failed is None
    assert plan.answer == ("all held, up to 25 users, 500 calls/s, p99 200 µs; no limit was found")


def test_a_ramp_whose_first_step_fails_has_no_highest() -> None:
    plan = ramp(Seen(stretch(errors=1)), "p50>100us", "errors>0")
    assert follow(plan, 0, 5) == [10, None]
    assert plan.highest is None
    assert plan.answer == "even 10 users failed: p50>100us: 200 µs; errors>0: 1"


def test_a_server_that_does_not_answer_any_more_fails_the_step() -> None:
    plan = ramp(Seen(stretch(calls=0)))
    assert follow(plan, 0, 5) == [10, None]
    assert plan.answer == "even 10 users failed: errors>1%: not measured"


def test_a_busy_generator_is_named() -> None:
    plan = ramp(Seen(stretch(), stretch(errors=50, busy=0.97)))
    follow(plan, 0, 5, 10)
    assert plan.answer.endswith("(the generator was 97% busy: the server may hold more)")

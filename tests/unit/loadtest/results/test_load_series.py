import pytest

from capnp_rig.loadtest.results.load_samples import LoadRun, MachineSample, Repeat, UsageSample
from capnp_rig.loadtest.results.load_series import (
    seconds_of,
    steal_share,
    usage_by_second,
    usage_intervals,
    used_between,
)
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.tally import Report, Times, Window


def _window(*times_ns: int) -> Window:
    return Window({"m": Times(Histogram.of(times_ns))}, failures={"gone": 1})


def _run(*usage: UsageSample) -> LoadRun:
    reports = {
        (0, 0): Report({-1: _window(9_000), 0: _window(5_000, 6_000), 3: _window(8_000)}),
        (0, 1): Report({0: _window(7_000), 1: _window(5_000)}),
        (1, 0): Report({0: _window(5_000)}),
    }
    machine = (
        MachineSample(0, 0.0, 10.0, 100.0),
        MachineSample(0, 2.0, 10.5, 104.0),
        MachineSample(0, 1.0, 10.0, 102.0),
        MachineSample(1, 1.0, 99.0, 999.0),
    )
    return LoadRun(
        reports, {0: Repeat(2.5, 0.1), 1: Repeat(1.0, 0.1)}, usage=usage, machine=machine
    )


def test_seconds_of_all_processes_add_up_and_stalls_are_seconds_too() -> None:
    found = seconds_of(_run(), 0)
    assert [(one.second, one.length_s, one.window.answered) for one in found] == [
        (-1, 0.0, 1),
        (0, 1.0, 3),
        (1, 1.0, 1),
        (2, 0.5, 0),
        (3, 0.0, 1),
    ]
    assert [one.calls_per_s for one in found] == [None, 3.0, 1.0, 0.0, None]
    assert found[1].window.failed == 2


def test_in_a_closed_loop_responses_are_service_times() -> None:
    second = seconds_of(_run(), 0)[1]
    assert second.clocks.response == second.clocks.service == Histogram.of([5_000, 6_000, 7_000])
    assert second.clocks.lateness == Histogram.of([0, 0, 0])


def _usage(t_s: float, cpu_s: float, pid: int = 1, rss: int = 100, repeat: int = 0) -> UsageSample:
    return UsageSample(repeat, t_s, "server", "worker 0", pid, cpu_s, rss)


def test_usage_goes_by_process_and_repeat() -> None:
    load = _run(
        *(_usage(0.5, 3.0), _usage(1.5, 3.5, rss=120), _usage(1.0, 3.1, rss=110)),
        *(_usage(1.5, 1.0, pid=2), _usage(0.0, 1.0, repeat=1)),
    )
    found = usage_intervals(load, 0)
    assert list(found) == [("server", "worker 0", 1), ("server", "worker 0", 2)]
    first, second = found["server", "worker 0", 1]
    assert (first.from_s, first.until_s, second.until_s) == (0.5, 1.0, 1.5)
    assert (first.cores, second.cores) == pytest.approx((0.2, 0.8))
    assert found["server", "worker 0", 2] == []


def test_what_was_used_between_two_instants_is_interpolated() -> None:
    intervals = usage_intervals(_run(_usage(0.5, 3.0), _usage(1.5, 4.0), _usage(2.5, 4.5)), 0)
    (found,) = intervals.values()
    assert used_between(found, 0.0, 1.0) == pytest.approx((0.5, 0.5))
    assert used_between(found, 1.0, 2.0) == pytest.approx((0.75, 1.0))
    assert used_between(found, 5.0, 6.0) == (0.0, 0.0)


def test_usage_by_second_has_cores_and_the_last_memory() -> None:
    load = _run(_usage(0.5, 3.0), _usage(1.5, 4.0, rss=150), _usage(2.0, 4.5, rss=170))
    (found,) = usage_by_second(load, 0).values()
    assert [(at, one.cores, one.rss_bytes) for at, one in found.items()] == [
        (0, 1.0, None),
        (1, 1.0, 170),
    ]


def test_steal_is_the_share_since_the_last_sample() -> None:
    assert steal_share(_run(), 0) == [(1.0, 0.0), (2.0, 0.25)]

import json

import pytest

from capnp_rig.loadtest.locust_rig.live_run import LiveRun, ProcessReport, ResourceUse
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.tally import Report, Times, Window, add_windows

US = 1000


def window(count: int, service_us: int = 100, *, failed: int = 0) -> Window:
    times = Times(Histogram.of([service_us * US] * count))
    return Window({"read": times}, failures={"WrongReply: wrong": failed} if failed else {})


def envelope(
    *windows: tuple[int, Window],
    at_s: float = 3.0,
    seconds: float | None = None,
    cpu_s: float = 1.5,
    final: bool = False,
    used: tuple[ResourceUse, ...] = (),
) -> ProcessReport:
    report = Report(dict(windows), cpu_ns=round(cpu_s * 1e9), final=final)
    return ProcessReport(report, at_s, at_s if seconds is None else seconds, 7, "here", 1, used)


def test_an_envelope_travels_as_plain_values() -> None:
    sent = envelope((0, window(3)), used=(ResourceUse(1.0, 0.5, 4096),), final=True)
    assert ProcessReport.from_json(json.loads(json.dumps(sent.to_json()))) == sent


def test_reports_of_all_processes_add_up() -> None:
    run = LiveRun()
    run.receive("a", 0, envelope((0, window(10)), (1, window(20, 300))), now_s=3)
    run.receive("b", 1, envelope((0, window(5, failed=2))), now_s=3)
    run.receive("a", 0, envelope((1, window(1)), (2, window(4)), at_s=6), now_s=6)
    windows = [window(10), window(20, 300), window(5, failed=2), window(1), window(4)]
    assert run.total == add_windows(windows)
    assert run.generators["a"].report.calls == 35
    assert run.generators["a"].report.total == run.generators["a"].total
    assert run.seconds == 6
    summary = run.so_far(None)
    assert (summary.calls, summary.errors) == (40, 2)
    assert summary.service.percentile_ns(50) == 100_351


def test_what_a_process_did_lately_is_between_its_last_reports() -> None:
    run = LiveRun()
    run.receive("a", 0, envelope((0, window(300)), at_s=3, cpu_s=3), now_s=3)
    run.receive("a", 0, envelope((3, window(100)), at_s=5, cpu_s=0.5), now_s=5)
    generator = run.generators["a"]
    assert (generator.rate_now_hz, generator.busy_now) == (50, 0.25)
    assert generator.busy == 3.5 / 5
    assert (generator.pid, generator.host, generator.cpu) == (7, "here", 1)


def test_who_has_not_sent_its_last_report_is_missed() -> None:
    run = LiveRun()
    run.expect("a", 0, now_s=0)
    run.receive("b", 1, envelope(final=True), now_s=1)
    assert run.missing == ["a"]
    run.receive("a", 0, envelope(final=True), now_s=2)
    assert run.missing == []


def test_the_end_of_the_users_ends_the_run_not_its_last_report() -> None:
    run = LiveRun()
    run.receive("a", 0, envelope((0, window(400)), at_s=5, seconds=4), now_s=5)
    part = run.part(server_cpu_s=2.0, steal=0.0)
    assert (part.seconds, part.server_cpu_s, part.steal) == (4, 2.0, 0.0)
    assert part.busy == 0.3


def test_a_stretch_holds_its_own_seconds_only() -> None:
    run = LiveRun()
    used = tuple(
        ResourceUse(float(at), cpu_s, 1) for at, cpu_s in enumerate((0, 0.1, 0.9, 1.7, 1.8))
    )
    windows = [(0, window(1)), (1, window(30)), (2, window(50, 500, failed=4)), (3, window(7))]
    run.receive("a", 0, envelope(*windows, used=used), now_s=4)
    run.receive("b", 1, envelope((2, window(20))), now_s=4)
    # Both began at 1 on this clock.
    stretch = run.between(1.9, 4.2)
    assert (stretch.calls, stretch.errors, stretch.calls_per_s) == (100, 4, 50)
    # In a closed loop a call is due when it is sent.
    assert stretch.response == stretch.service
    assert stretch.service.count == stretch.lateness.count == 100
    assert stretch.busy == pytest.approx(1.7 / 3)
    assert run.between(10, 12).calls == 0


@pytest.mark.parametrize("late_s", [0.0, 0.4, 1.3])
def test_a_worker_that_began_later_counts_with_its_own_seconds(late_s: float) -> None:
    run = LiveRun()
    windows = [(second, window(100 * second)) for second in range(4)]
    run.receive("a", 0, envelope(*windows, at_s=4), now_s=4)
    run.receive("b", 1, envelope(*windows, at_s=4 - late_s), now_s=4)
    # Two seconds have at least one whole second of each.
    own = {0.0: 100 + 200, 0.4: 100, 1.3: 0}[late_s]
    assert run.between(1, 3).calls == 100 + 200 + own


def test_before_the_first_report_there_is_nothing() -> None:
    run = LiveRun()
    assert (run.seconds, run.total, run.missing) == (0, Window(), [])
    assert run.so_far(None).calls == 0
    assert run.part().seconds == 0

from argparse import Namespace
from dataclasses import replace

import pytest

from capnp_rig.loadtest.locust_rig.live_run import LiveRun, ProcessReport, ResourceUse
from capnp_rig.loadtest.locust_rig.resource_sampler import ServerReading, ServerSampler
from capnp_rig.loadtest.locust_rig.results import RunOutcome, conclude, plain_options
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.process_use import KernelCounts, MachineTime, Usage
from capnp_rig.loadtest.stats.reasons import ReasonCode, codes_of, text_of
from capnp_rig.loadtest.stats.tally import Report, Times, Window


def live(
    *, calls: int = 20_000, failed: int = 0, final: bool = True, falling: bool = False
) -> LiveRun:
    run = LiveRun()
    windows = {
        second: Window(
            {
                "read": Times(
                    Histogram.of([100_000] * (calls if not falling else 900 - 50 * second))
                )
            },
            failures={"WrongReply: wrong": failed} if failed and not second else {},
        )
        for second in range(12)
    }
    report = Report(windows if calls else {}, cpu_ns=6 * 10**9, final=final)
    run.receive("a", 0, ProcessReport(report, at_s=12.5, seconds=12.0), now_s=12.5)
    return run


def watch(cpu_s: float = 5.0) -> ServerSampler:
    return ServerSampler(
        "127.0.0.1:1",
        [
            ServerReading(
                at_s, (Usage("server", 7, 1 + used_s, 4096),), MachineTime(0.0, 10 + at_s)
            )
            for at_s, used_s in ((0.0, 0.0), (12.0, cpu_s))
        ],
    )


def outcome(run: LiveRun, *conditions: str, is_shaped: bool = False) -> RunOutcome:
    return conclude(run, watch(), conditions, is_shaped=is_shaped)


def test_a_good_run() -> None:
    found = outcome(live(), "p99>1ms", "errors>0")
    assert (found.summary.verdict, found.problems, found.violations) == ("valid", (), ())
    assert found.summary.calls_per_s == 20_000
    assert found.summary.server_cpu_us_per_call == pytest.approx(5e6 / 240_000)
    assert {figure.verdict for figure in found.figures} == {"ok"}
    (row,) = [line for line in found.lines if "service" in line]
    assert row.replace("│", "").split()[:4] == ["read", "service", "240,000", "20,000"]


def test_a_worker_that_waited_for_a_cpu_voids_the_run() -> None:
    run, kernel = live(), KernelCounts(0.1)
    use = (
        ResourceUse(0.0, 1.0, 4096, kernel=kernel),
        ResourceUse(12.0, 7.0, 4096, kernel=replace(kernel, wait_s=2.5)),
    )
    run.receive("a", 0, ProcessReport(Report(final=True), 12.5, 12.0, pid=9, use=use), now_s=12.5)
    summary = outcome(run).summary
    assert codes_of(summary.reasons) == {ReasonCode.CPU_WAIT}
    assert "generator locust 0 waited 20.0% of the time" in text_of(summary.reasons)
    assert {figure.verdict for figure in outcome(run).figures if figure.name != "failures"} == {
        "void"
    }


def test_a_server_that_was_throttled_voids_the_run() -> None:
    server = watch()
    first, last = server.readings
    used = [
        replace(reading.usages[0], kernel=KernelCounts(0.0, throttles=count, throttled_s=0.1))
        for reading, count in ((first, 3), (last, 5))
    ]
    server.readings = [
        replace(reading, usages=(usage,))
        for reading, usage in zip((first, last), used, strict=True)
    ]
    assert codes_of(conclude(live(), server, (), is_shaped=False).summary.reasons) == {
        ReasonCode.THROTTLED
    }


def test_conditions_that_hold_are_violations() -> None:
    found = outcome(live(failed=1), "p99>50us", "errors>5")
    assert found.violations == ("p99>50us: 100 µs",)


def test_failed_calls_alone_are_no_reason_that_the_run_does_not_count() -> None:
    assert text_of(outcome(live(failed=1)).summary.reasons) == "1 calls failed"
    found = outcome(live(failed=1), "errors>1%")
    assert (found.summary.verdict, found.problems, found.violations) == ("valid", (), ())


def test_g4_a_lost_worker_voids_every_figure() -> None:
    found = outcome(live(final=False))
    assert codes_of(found.problems) == {ReasonCode.REPORTS_MISSING}
    assert found.summary.verdict == "void"
    assert {figure.verdict for figure in found.figures} == {"void"}


def test_a_run_without_a_call_does_not_count() -> None:
    found = outcome(live(calls=0), "errors>0")
    assert codes_of(found.problems) == {ReasonCode.NO_CALLS}


def test_a_load_that_was_to_change_may_drift() -> None:
    run = live(falling=True)
    assert ReasonCode.DRIFTED in codes_of(outcome(run).summary.reasons)
    assert ReasonCode.DRIFTED not in codes_of(outcome(run, is_shaped=True).summary.reasons)


def test_the_config_keeps_no_secrets() -> None:
    options = Namespace(
        host="h:1", rate=None, tls_key="key", web_login=True, capnp_rig_part={"numbers": {}}
    )
    assert plain_options(options) == {"host": "h:1", "rate": None}

from dataclasses import replace

import pytest

from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode
from capnp_rig.loadtest.stats.run_summary import Summary
from capnp_rig.loadtest.stats.thresholds import ThresholdError, parse_threshold, within_limits

TIMES = Histogram.of([1_000_000] * 98 + [5_000_000] * 2)


def measured(*, failures: int = 0, calls: int = 100, times: Histogram = TIMES) -> Summary:
    return Summary(
        response=times,
        service=Histogram.of([200_000] * 100),
        lateness=Histogram.of([1_000] * 100),
        calls=calls,
        failures={"WrongReply: wrong": failures},
        calls_per_s=calls / 2,
        is_open_loop=True,
        server_cpu_s=None,
        busy=0.0,
    )


@pytest.mark.parametrize(
    ("conditions", "verdict"),
    [
        ((), "failed"),
        (("errors>1%",), "valid"),
        (("errors>0.5%",), "failed"),
        (("errors>1%", "errors>0"), "failed"),
        (("p99>1s",), "failed"),
    ],
)
def test_failed_calls_within_a_limit_fail_no_run(conditions: tuple[str, ...], verdict: str) -> None:
    reason = Reason.of(ReasonCode.CALLS_FAILED, count=1)
    run = replace(measured(failures=1, calls=99), reasons=(reason,))
    assert within_limits(run, conditions).verdict == verdict


@pytest.mark.parametrize(
    ("text", "violation"),
    [
        ("p99>2ms", "p99>2ms: 5,000 µs"),
        ("p99 > 6ms", None),
        ("p50>2ms", None),
        ("p50>900us", "p50>900us: 1,003.52 µs"),
        ("max>4.5ms", "max>4.5ms: 5,000 µs"),
        ("service.p99>0.1ms", "service.p99>0.1ms: 200 µs"),
        ("lateness.p99.9>10µs", None),
        ("calls/s<60", "calls/s<60: 50 calls/s"),
        ("calls/s<50", None),
        ("errors>0", None),
    ],
)
def test_a_condition_fails_a_run_where_it_holds(text: str, violation: str | None) -> None:
    assert parse_threshold(text).violation(measured()) == violation


def test_errors_are_a_count_or_a_share() -> None:
    found = measured(failures=1, calls=99)
    assert parse_threshold("errors>0").violation(found) == "errors>0: 1"
    assert parse_threshold("errors>1%").violation(found) is None
    assert parse_threshold("errors>0.5%").violation(found) == "errors>0.5%: 1 %"


def test_what_was_not_measured_does_not_pass() -> None:
    empty = measured(calls=0, times=Histogram())
    assert parse_threshold("p99>2ms").violation(empty) == "p99>2ms: not measured"
    assert parse_threshold("errors>1%").violation(empty) == "errors>1%: not measured"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("p99", "expected for example p99>2ms"),
        ("p99>2", "a time needs us, ms or s"),
        ("p99>2%", "a time needs us, ms or s"),
        ("p100>2ms", "a percentile lies between p0 and p100"),
        ("p9.9.9>2ms", "a percentile lies between p0 and p100"),
        ("errors>1ms", "errors are a count or a share with %"),
        ("calls/s>1s", "a rate has no unit"),
        ("speed>1", "expected for example p99>2ms"),
    ],
)
def test_what_is_no_condition_says_what_is_expected(text: str, reason: str) -> None:
    with pytest.raises(ThresholdError, match="bad condition") as error:
        parse_threshold(text)
    assert reason in str(error.value)

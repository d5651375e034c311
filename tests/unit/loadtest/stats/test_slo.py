from dataclasses import replace

import pytest

from capnp_rig.loadtest.stats.failures import FailedCall
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode
from capnp_rig.loadtest.stats.run_summary import MeasuredRepeat, Summary, summarize
from capnp_rig.loadtest.stats.slo import (
    Latency,
    Outcome,
    Slo,
    SloError,
    binomial_cdf,
    judge,
    least_calls,
    parse_slo,
    proves,
    service_failed,
)
from capnp_rig.loadtest.stats.tally import Report, Times, Window


@pytest.mark.parametrize(
    ("text", "latencies", "share"),
    [
        ("p99<1ms", (Latency(99.0, 1_000_000),), None),
        ("p99.9 < 250us", (Latency(99.9, 250_000),), None),
        ("service.p50<=2s", (Latency(50.0, 2_000_000_000, "service"),), None),
        (
            "p99<2ms and p50<1ms and errors<0.1%",
            (Latency(99.0, 2_000_000), Latency(50.0, 1_000_000)),
            0.001,
        ),
        ("p99<2ms, errors<=1%", (Latency(99.0, 2_000_000),), 0.01),
    ],
)
def test_an_objective_reads_as_it_is_written(
    text: str, latencies: tuple[Latency, ...], share: float | None
) -> None:
    assert parse_slo(text) == Slo(text, latencies, share)


@pytest.mark.parametrize(
    "text", ["", "p99", "p99<1", "p99>1ms", "p100<1ms", "p0<1ms", "errors<1%", "fast", "p99<0ms"]
)
def test_what_is_no_objective_is_refused(text: str) -> None:
    with pytest.raises(SloError):
        parse_slo(text)


@pytest.mark.parametrize(
    ("k", "n", "p", "expected"),
    [
        (0, 10, 0.5, 1 / 1024),
        (5, 10, 0.5, 0.623046875),
        (7, 10, 0.5, 0.9453125),
        (10, 10, 0.5, 1.0),
        (-1, 10, 0.5, 0.0),
        (1000, 100_000, 0.01, 0.50841),
    ],
)
def test_the_binomial_distribution(k: int, n: int, p: float, expected: float) -> None:
    assert binomial_cdf(k, n, p) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("calls", "over", "percent", "expected"),
    [
        # LoadGen's early stopping.
        (458, 0, 99.0, False),
        (459, 0, 99.0, True),
        (4602, 0, 99.9, False),
        (4603, 0, 99.9, True),
        (661, 1, 99.0, False),
        (662, 1, 99.0, True),
        (100_000, 900, 99.0, True),
        (100_000, 1000, 99.0, False),
    ],
)
def test_so_many_calls_prove_a_percentile(
    calls: int,
    over: int,
    percent: float,
    expected: bool,
) -> None:
    assert proves(calls, over, percent) is expected


@pytest.mark.parametrize(("text", "calls"), [("p99<1s", 459), ("p99.9<1s", 4603), ("p50<1s", 7)])
def test_so_many_calls_are_needed(text: str, calls: int) -> None:
    assert least_calls(parse_slo(text)) == calls


def summary(
    *, fast: int, slow: int = 0, failed: int = 0, late_us: int = 1, busy: float = 0.2
) -> Summary:
    times = Histogram.of([500_000] * fast + [5_000_000] * slow)
    lateness = Histogram.of([late_us * 1000] * times.count)
    failures = {"Disconnected: gone": failed} if failed else {}
    window = Window({"read": Times(times, times, lateness)}, failures=failures)
    report = Report({0: window}, scheduled=fast + slow + failed)
    return summarize([MeasuredRepeat([report], 1.0, busy)])


def disturbed(good: Summary) -> Summary:
    return replace(good, reasons=(Reason.of(ReasonCode.STEAL, share=0.1),))


P99 = parse_slo("p99<1ms")


@pytest.mark.parametrize("code", [ReasonCode.CPU_WAIT, ReasonCode.THROTTLED, ReasonCode.STEAL])
def test_a_failure_on_a_disturbed_machine_is_not_the_servers(code: ReasonCode) -> None:
    slow = replace(summary(fast=1000, slow=20, busy=0.95), reasons=(Reason(code),))
    assert judge(P99, slow, 1020) is Outcome.DISTURBED
    fast = replace(summary(fast=1000), reasons=(Reason(code),))
    assert judge(P99, fast, 1000) is Outcome.HELD


@pytest.mark.parametrize(
    ("slo", "found", "scheduled", "outcome"),
    [
        (P99, summary(fast=1000), 1000, Outcome.HELD),
        (P99, summary(fast=1000, slow=20), 1020, Outcome.FAILED),
        (P99, summary(fast=100), 100, Outcome.FAILED),
        # A failed call, or one without an answer, is over every limit.
        (P99, summary(fast=1000, failed=20), 1020, Outcome.FAILED),
        (P99, summary(fast=1000), 1020, Outcome.FAILED),
        (parse_slo("p99<1ms and errors<0.1%"), summary(fast=5000, failed=6), 5006, Outcome.FAILED),
        (parse_slo("p99<1ms and errors<0.2%"), summary(fast=5000, failed=6), 5006, Outcome.HELD),
        (P99, summary(fast=1000, slow=20, late_us=200), 1020, Outcome.GENERATOR),
        (P99, summary(fast=1000, slow=20, busy=0.95), 1020, Outcome.GENERATOR),
        # The machine may be why it failed; what holds in spite of it holds.
        (P99, disturbed(summary(fast=1000, slow=20)), 1020, Outcome.DISTURBED),
        (P99, disturbed(summary(fast=1000)), 1000, Outcome.HELD),
        # Its own lateness is in the response time: what holds in spite of it holds.
        (P99, summary(fast=1000, late_us=200), 1000, Outcome.HELD),
        (parse_slo("p99<10ms"), summary(fast=0, slow=1000), 1000, Outcome.HELD),
    ],
)
def test_a_probe_is_judged(slo: Slo, found: Summary, scheduled: int, outcome: Outcome) -> None:
    assert judge(slo, found, scheduled) is outcome


WRONG = (FailedCall("wrong", "wrong", is_wrong=True),)


@pytest.mark.parametrize(
    ("text", "outcome", "failed", "examples", "expected"),
    [
        ("p50<1s", Outcome.HELD, 0, (), False),
        ("p50<1s", Outcome.HELD, 1, (), True),
        # At too high a rate calls may fail; no rate makes a reply wrong.
        ("p50<1s", Outcome.FAILED, 1, (), False),
        ("p50<1s", Outcome.FAILED, 1, WRONG, True),
        ("p50<1s", Outcome.DISTURBED, 1, WRONG, True),
        ("p50<1s and errors<1%", Outcome.HELD, 1, WRONG, False),
    ],
)
def test_a_service_fails_where_no_load_explains_it(
    text: str, outcome: Outcome, failed: int, examples: tuple[FailedCall, ...], expected: bool
) -> None:
    probe = replace(summary(fast=1000, failed=failed), examples=examples)
    assert service_failed(parse_slo(text), [(outcome, probe)]) is expected

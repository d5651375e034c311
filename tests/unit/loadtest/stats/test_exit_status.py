"""One status for a command for which several things are true."""

from dataclasses import replace

import pytest

from capnp_rig.loadtest.stats.exit_status import (
    ExitStatus,
    exit_status,
    figure_statuses,
    load_statuses,
    search_statuses,
)
from capnp_rig.loadtest.stats.figure import Figure
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.rate_search import Answer, Limit
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode
from capnp_rig.loadtest.stats.run_summary import MeasuredRepeat, summarize
from capnp_rig.loadtest.stats.tally import Report, Times, Window


@pytest.mark.parametrize(
    ("holding", "status"),
    [
        ((), 0),
        (("VOID",), 5),
        (("VOID", "FAILED"), 1),
        (("SLOWER", "VOID"), 5),
        (("CANNOT_TELL", "SLOWER"), 3),
        (("CANNOT_TELL",), 4),
        (("FAILED", "USAGE"), 2),
    ],
)
def test_the_gravest_is_the_status(holding: tuple[str, ...], status: int) -> None:
    """A failed call is told before a void run, and a void run before a slow one."""
    assert exit_status(*(ExitStatus[name] for name in holding)) == status


def test_an_allowed_void_run_is_good() -> None:
    """Nothing else is lifted with it."""
    assert exit_status(ExitStatus.VOID, allow_void=True) == 0
    assert exit_status(ExitStatus.VOID, ExitStatus.SLOWER, allow_void=True) == 3


_FAILED = Reason.of(ReasonCode.CALLS_FAILED, count=1)
_STEAL = Reason.of(ReasonCode.STEAL, share=0.1)


@pytest.mark.parametrize(
    ("calls", "errors", "reasons", "violated", "tolerates", "status"),
    [
        (9, 0, (), False, False, 0),
        (9, 1, (_FAILED,), False, False, 1),
        (9, 1, (_FAILED,), False, True, 0),
        (9, 0, (), True, True, 1),
        # Nothing was answered: that is no question of what is tolerated.
        (0, 0, (), False, True, 1),
        (9, 0, (_STEAL,), False, False, 5),
        (9, 1, (_FAILED, _STEAL), False, True, 5),
        (9, 1, (_FAILED, _STEAL), False, False, 1),
        (0, 9, (_FAILED, _STEAL), False, True, 1),
    ],
)
def test_the_status_of_a_load_run(
    calls: int,
    errors: int,
    reasons: tuple[Reason, ...],
    *,
    violated: bool,
    tolerates: bool,
    status: int,
) -> None:
    """What failed comes before what is void."""
    times = Times(Histogram.of([1000] * calls))
    window = Window({"read": times}, failures={"WrongReply: wrong reply": errors})
    plain = summarize([MeasuredRepeat([Report({0: window})], 1.0, 0.0)])
    summary = replace(plain, reasons=reasons)
    holding = load_statuses(summary, violated=violated, tolerates_errors=tolerates)
    assert exit_status(*holding) == status


@pytest.mark.parametrize(
    ("code", "status"),
    [(ReasonCode.CALLS_FAILED, 1), (ReasonCode.STEAL, 0), (None, 0)],
)
def test_a_failed_call_of_one_figure_is_the_status_of_all(
    code: ReasonCode | None, status: int
) -> None:
    """Figures of a sweep or a benchmark have loads of their own."""
    reasons = () if code is None else (Reason(code),)
    figures = [Figure("a", 1.0, "µs", "c", 1), Figure("b", 1.0, "µs", "c", 1, reasons=reasons)]
    assert exit_status(*figure_statuses(figures)) == status


@pytest.mark.parametrize(
    ("rate_hz", "limit", "status"),
    [
        (1000.0, "server", 0),
        (1000.0, "machine", 0),
        (None, "server", 1),
        (None, "machine", 5),
        (None, "generator", 5),
    ],
)
def test_a_search_without_a_rate_says_whose_fault_it_is(
    rate_hz: float | None, limit: str, status: int
) -> None:
    """A rate that was verified is a lower bound at least."""
    answer = Answer(rate_hz, 2000.0, Limit(limit), 0)
    assert exit_status(*search_statuses(answer)) == status
    assert exit_status(*search_statuses(answer, has_failed=True)) == 1

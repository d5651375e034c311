import json
import signal
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from random import Random

import pytest

from capnp_rig.loadtest.ab.blocks import Blocks, ServerTimes, Turn
from capnp_rig.loadtest.ab.course import Course
from capnp_rig.loadtest.ab.judging import (
    Asked,
    Measured,
    comparison_of,
    figures,
    is_decided,
    judge_blocks,
    judged,
    measured,
    metric_names,
    verdict_of,
)
from capnp_rig.loadtest.compare import Row
from capnp_rig.loadtest.engine.early_end import EarlyEnd
from capnp_rig.loadtest.stats.disturbance import OtherProcess
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.looks import LEVEL, plan_looks, shares
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.reasons import ReasonCode, codes_of

ROLES = ("baseline", "candidate", "again")
_SCATTER = (0.99, 1.01, 1.0, 1.005, 0.995, 1.0, 1.01, 0.99)


def _turn(block: int, role: str, cpu_us: float, *, busy: float = 0.5, wait: float = 0.0) -> Turn:
    return Turn(
        block=block,
        round=0,
        order=0,
        role=role,
        calls=10_000,
        seconds=0.5,
        busy=busy,
        generator_wait_s=wait * 0.5,
        server_cpu_s=10_000 * cpu_us / 1e6,
        server_wait_s=0.0,
    )


@cache
def _histogram(service_us: float) -> Histogram:
    return Histogram.of([round(service_us * 1000)] * 10_000)


def _times(block: int, role: str, service_us: float) -> ServerTimes:
    times = _histogram(service_us)
    return ServerTimes(block, role, times, times)


def _blocks(slower: float = 1.0, *, count: int = 8, **of_turn: float) -> Blocks:
    """Return blocks whose candidate costs `slower` times as much CPU."""
    turns, times = [], []
    for block, scatter in zip(range(count), _SCATTER, strict=False):
        costs = {"baseline": 20.0, "candidate": 20.0 * slower * scatter, "again": 20.0 * scatter}
        turns += [_turn(block, role, cost, **of_turn) for role, cost in costs.items()]
        times += [_times(block, role, 100.0) for role in costs]
    return Blocks(tuple(turns), tuple(times))


def _row(rows: Sequence[Row], name: str = "server CPU per call") -> Row:
    return next(row for row in rows if row.metric == name)


@pytest.mark.parametrize(
    ("slower", "expected"),
    [(1.05, Verdict.SLOWER), (1.03, Verdict.SLOWER), (1.0, Verdict.SAME), (0.95, Verdict.FASTER)],
)
def test_the_verdict_on_the_cpu_per_call(slower: float, expected: Verdict) -> None:
    rows = judge_blocks(_blocks(slower), LEVEL, Asked())
    row = _row(rows)
    assert row.verdict is expected
    assert row.ratio == pytest.approx(1 / slower, rel=0.01)
    assert row.baseline == pytest.approx(20.0, rel=0.01)
    assert row.n == 8
    assert verdict_of(rows) is expected
    assert is_decided(rows)


def test_metrics_share_the_chance_to_err_and_one_alone_has_all_of_it() -> None:
    cpu, rate, *_ = measured(_blocks())
    rows = judge_blocks(_blocks(), LEVEL, Asked())
    assert rows[0] == judged(cpu, LEVEL / 2, margin=0.05)
    assert rows[1] == judged(rate, LEVEL / 6, margin=0.05)
    (alone,) = judge_blocks(_blocks(), LEVEL, Asked(metrics=("server CPU per call",)))
    assert alone == judged(cpu, LEVEL, margin=0.05)
    assert alone.low is not None
    assert rows[0].low is not None
    assert alone.low > rows[0].low


def test_a_margin_that_the_interval_leaves_is_not_decided() -> None:
    rows = judge_blocks(_blocks(), LEVEL, Asked(margin=0.001))
    assert verdict_of(rows) is Verdict.CANNOT_TELL
    assert not is_decided(rows)
    assert ReasonCode.MORE_NEEDED in codes_of(_row(rows).reasons)


def test_under_six_blocks_nothing_is_judged() -> None:
    rows = judge_blocks(_blocks(1.5, count=5), LEVEL, Asked())
    assert verdict_of(rows) is Verdict.VOID


def test_a_closed_loop_has_a_rate_and_service_times_an_open_one_response_times() -> None:
    closed = [metric.name for metric in measured(_blocks())]
    assert closed == ["server CPU per call", "calls/s", "service.p50", "service.p99"]
    assert closed == metric_names(is_open_loop=False)
    blocks = _blocks()
    opened = [m.name for m in measured(Blocks(blocks.turns, blocks.times, is_open_loop=True))]
    assert opened == ["server CPU per call", "response.p50", "response.p99"]
    assert opened == metric_names(is_open_loop=True)


def test_of_a_rate_more_is_better() -> None:
    steady = {"baseline": [100.0] * 8, "again": [100.0 * each for each in _SCATTER]}
    less = Measured("calls/s", "calls/s", {**steady, "candidate": [90.0] * 8})
    assert judged(less, LEVEL, margin=0.05).verdict is Verdict.SLOWER
    as_time = Measured("service.p50", "µs", {**steady, "candidate": [90.0] * 8})
    assert judged(as_time, LEVEL, margin=0.05).verdict is Verdict.FASTER


def test_a_metric_that_is_slower_decides_whatever_the_first_says() -> None:
    rows = judge_blocks(_blocks(), LEVEL, Asked())
    slower = _row(judge_blocks(_blocks(1.2), LEVEL, Asked()))
    assert verdict_of(rows) is Verdict.SAME
    assert verdict_of([*rows, slower]) is Verdict.SLOWER


def test_a_disturbed_generator_voids_rate_and_times_but_not_the_cpu_per_call() -> None:
    culprit = OtherProcess("stress", 7, 0.9)
    blocks = replace(_blocks(1.05, wait=0.2), others=(culprit,))
    rows = judge_blocks(blocks, LEVEL, Asked())
    assert [row.verdict for row in rows] == [Verdict.SLOWER, *[Verdict.VOID] * 3]
    assert rows[1].ratio == pytest.approx(1.0)
    assert rows[1].reason == (
        "generator engine waited 20.0% of the time for a CPU, over 5%: "
        "stress (pid 7) used 90% of one"
    )


def test_an_open_loop_that_was_not_kept_voids_its_times() -> None:
    blocks = _blocks()
    times = tuple(replace(each, scheduled=20_000) for each in blocks.times)
    rows = judge_blocks(Blocks(blocks.turns, times, is_open_loop=True), LEVEL, Asked())
    assert codes_of(_row(rows, "response.p50").reasons) == {ReasonCode.SCHEDULE_MISSED}
    late = tuple(replace(each, lateness=each.response) for each in blocks.times)
    rows = judge_blocks(Blocks(blocks.turns, late, is_open_loop=True), LEVEL, Asked())
    assert codes_of(_row(rows, "response.p50").reasons) == {ReasonCode.GENERATOR_LATE}
    assert _row(rows).verdict is Verdict.SAME


def test_a_generator_at_its_limit_voids_the_rate() -> None:
    rows = judge_blocks(_blocks(busy=0.95), LEVEL, Asked())
    assert codes_of(_row(rows, "calls/s").reasons) == {ReasonCode.GENERATOR_BUSY}
    assert _row(rows, "service.p50").verdict is not Verdict.VOID


def test_without_the_servers_cpu_the_rate_comes_first() -> None:
    blocks = _blocks()
    turns = tuple(replace(turn, server_cpu_s=None) for turn in blocks.turns)
    rows = judge_blocks(Blocks(turns, blocks.times), LEVEL, Asked())
    assert codes_of(rows[0].reasons) == {ReasonCode.CPU_NOT_KNOWN}
    assert verdict_of(rows) is Verdict.SAME


def test_samples_bring_back_the_same_blocks() -> None:
    blocks = replace(_blocks(1.05), others=(OtherProcess("stress", 7, 0.9),))
    samples = json.loads(json.dumps(list(blocks.samples())))
    assert Blocks.of_samples(samples, is_open_loop=False) == blocks


def test_a_comparison_that_ended_early_is_void_and_shows_its_ratios() -> None:
    rows = judge_blocks(_blocks(1.5), LEVEL, Asked())
    end = EarlyEnd("Ctrl-C", signal.SIGINT)
    comparison = comparison_of(rows, _blocks(1.5), Course(180.0), Asked(), end)
    assert comparison.verdict is Verdict.VOID
    assert comparison.exit_status == 5
    assert comparison.objections == ("ended early, after 8 blocks: Ctrl-C",)
    assert comparison.rows[0].ratio == pytest.approx(1 / 1.5, rel=0.01)


def test_servers_that_run_already_leave_the_variance_of_processes_unseen() -> None:
    asked = Asked(are_fresh=False)
    rows = judge_blocks(_blocks(), LEVEL, asked)
    notes = comparison_of(rows, _blocks(), Course(180.0), asked).notes
    assert any("how much a fresh process of each would differ" in note for note in notes)


def test_figures_have_both_values_and_the_ratio() -> None:
    listed = list(figures(judge_blocks(_blocks(1.05), LEVEL, Asked()), "64 x 1"))
    assert [figure.name for figure in listed[:3]] == [
        "64 x 1: baseline server CPU per call",
        "64 x 1: candidate server CPU per call",
        "64 x 1: candidate, server CPU per call",
    ]
    assert listed[2].verdict is Verdict.SLOWER


def _is_called_different(rng: Random, slower: float) -> bool:
    """Tell whether any of four metrics is called slower or faster in any look at 18 blocks."""
    logs = {
        role: [[rng.lognormvariate(0.0, 0.03) for _ in range(18)] for _ in range(4)]
        for role in ROLES
    }
    logs["candidate"] = [[value * slower for value in each] for each in logs["candidate"]]
    for look in plan_looks(18):
        for number, share in enumerate(shares(4)):
            values = {role: logs[role][number][: look.blocks] for role in ROLES}
            row = judged(Measured("x", "µs", values), look.level * share, margin=0.05)
            if row.verdict in {Verdict.SLOWER, Verdict.FASTER}:
                return True
    return False


def test_of_100_comparisons_of_equal_servers_under_5_call_them_different() -> None:
    rng = Random(1)
    called = sum(_is_called_different(rng, 1.0) for _ in range(400))
    assert called <= 0.05 * 400


def test_5_percent_are_seen_in_nine_of_ten_comparisons_where_values_scatter_by_3() -> None:
    rng = Random(2)
    called = sum(_is_called_different(rng, 1.05) for _ in range(100))
    assert called >= 90

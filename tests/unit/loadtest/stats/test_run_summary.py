from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from capnp_rig.loadtest.engine.run import RunConfig, plan_engines
from capnp_rig.loadtest.stats.disturbance import SERVER, ProcessWindow, Surroundings
from capnp_rig.loadtest.stats.figure import Figure
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.process_use import KernelCounts
from capnp_rig.loadtest.stats.reasons import ReasonCode, codes_of, doubts_of, text_of
from capnp_rig.loadtest.stats.run_summary import (
    MeasuredRepeat,
    drift,
    figures,
    summarize,
)
from capnp_rig.loadtest.stats.run_units import RATE, CpuSample
from capnp_rig.loadtest.stats.tally import WARMUP, Report, Times, Window
from capnp_rig.rigcli.address import parse_addresses

US = 1000
WAITED = Surroundings(
    (ProcessWindow(SERVER, "worker 0", 7, seconds=2.0, cpu_s=1.0, kernel=KernelCounts(0.5)),)
)
NO_STEAL = 0.0


@cache
def same(count: int, ns: int) -> Histogram:
    return Histogram.of([ns] * count)


def window(
    count: int, *, open_loop: bool = True, service_us: int = 100, late_us: int = 1, failed: int = 0
) -> Window:
    service = same(count, service_us * US)
    times = Times(service)
    if open_loop:
        response = same(count, (service_us + late_us) * US)
        times = Times(service, response, same(count, late_us * US))
    return Window({"read": times}, failures={"wrong reply": failed} if failed else {})


def part(
    counts: Sequence[int] = (10_000, 10_000),
    *,
    open_loop: bool = True,
    busy: float = 0.4,
    scheduled: int | None = None,
    unfinished: int = 0,
    steal: float | None = NO_STEAL,
    server_cpu_s: float | None = 2.0,
    late_us: int = 1,
    failed: int = 0,
) -> MeasuredRepeat:
    windows = {
        second: window(count, open_loop=open_loop, late_us=late_us, failed=0 if second else failed)
        for second, count in enumerate(counts)
    }
    windows[WARMUP] = window(500, open_loop=open_loop, service_us=900_000)
    due = sum(counts) if scheduled is None else scheduled
    report = Report(windows, scheduled=due if open_loop else None, unfinished=unfinished)
    return MeasuredRepeat([report], float(len(counts)), busy, server_cpu_s, steal)


def test_processes_are_added_up_and_their_histograms_merged() -> None:
    one, other = part(), part([5_000, 5_000])
    summary = summarize([replace(one, reports=[*one.reports, *other.reports])])
    assert (summary.calls, summary.errors, summary.calls_per_s) == (30_000, 0, 15_000)
    assert summary.response.count == 30_000
    assert summary.server_cpu_us_per_call == pytest.approx(2e6 / 30_000)
    assert (summary.verdict, summary.reasons) == ("valid", ())


def test_repeats_follow_one_another() -> None:
    summary = summarize([part(), part([5_000, 5_000])])
    assert (summary.calls, summary.calls_per_s) == (30_000, 7_500)
    assert summary.server_cpu_s == 4.0


def test_the_object_of_json_has_what_readers_look_for() -> None:
    plain = summarize([part()]).to_json()
    assert plain.keys() >= {
        *("calls", "errors", "calls_per_s", "response_us", "service_us", "lateness_us"),
        *("server_cpu_us_per_call", "verdict", "reasons"),
    }
    for name in ("response_us", "service_us", "lateness_us"):
        assert list(plain[name]) == ["mean", "p50", "p90", "p95", "p99", "p99.9", "max"]
    assert plain["service_us"]["max"] == 100.0
    assert plain["lateness_us"]["p50"] == 1.0


def test_a_call_of_a_closed_loop_is_due_when_it_is_sent() -> None:
    plain = summarize([part(open_loop=False)]).to_json()
    assert plain["response_us"] == plain["service_us"]
    assert set(plain["lateness_us"].values()) == {0.0}


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (part(busy=0.95), "the generator was 95% busy: the rate is a lower bound"),
        (part(scheduled=21_000), "95.2% of the schedule was answered"),
        (part(late_us=50), "the generator was late: p99 50 µs"),
        (part(steal=0.05), "5.0% of the CPU time was stolen by other machines"),
        (
            part([10_000] * 5 + [11_000] * 5, open_loop=False),
            "the run drifted by 10%: 10,000 calls/s at first, 11,000 at the end",
        ),
    ],
)
def test_what_cannot_be_believed_is_void_with_its_reason(
    found: MeasuredRepeat, reason: str
) -> None:
    summary = summarize([found])
    assert summary.verdict == "void"
    assert any(each.text.startswith(reason) for each in summary.reasons)


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (part(failed=1), "1 calls failed"),
        (part(unfinished=3), "3 calls failed"),
        (part([0, 0]), "no call was answered rightly"),
    ],
)
def test_what_the_service_did_wrong_fails_the_run(seen: MeasuredRepeat, reason: str) -> None:
    summary = summarize([seen])
    assert summary.verdict == summary.to_json()["verdict"] == "failed"
    assert reason in {each.text for each in summary.reasons}


def test_a_failed_run_shows_its_figures() -> None:
    listed = {figure.name: figure for figure in figures(summarize([part([50_000] * 14, failed=1)]))}
    assert (listed["failures"].value, listed["failures"].verdict) == (1, "failed")
    assert {each.verdict for name, each in listed.items() if name != "failures"} == {"ok"}


def test_a_failed_run_may_be_void_too_and_says_why() -> None:
    summary = summarize([part(failed=1, steal=0.05)])
    assert summary.verdict == "failed"
    assert codes_of(doubts_of(summary.reasons)) == {ReasonCode.STEAL}


def test_an_interrupted_run_is_void() -> None:
    assert text_of(summarize([part()], interrupted=True).reasons) == "interrupted after 2.0 s"


def test_what_cannot_be_read_is_none_and_voids_nothing() -> None:
    summary = summarize([part(server_cpu_s=None, steal=None)])
    assert (summary.server_cpu_us_per_call, summary.verdict) == (None, "valid")


@pytest.mark.parametrize(
    ("counts", "drifts"),
    [
        ([10_000] * 8 + [20_000], False),
        ([10_000] * 6 + [10_400] * 3, False),
        ([10_000] * 6 + [10_600] * 3, True),
        ([10_000] * 8, False),
    ],
)
def test_thirds_are_compared_by_the_medians_of_their_seconds(
    counts: list[int],
    drifts: bool,
) -> None:
    assert (drift(part(counts, open_loop=False), is_open_loop=False) is not None) is drifts


def test_an_open_loop_drifts_by_its_response_time() -> None:
    windows = {second: window(1000, service_us=100 + 20 * (second > 5)) for second in range(9)}
    found = MeasuredRepeat([Report(windows, scheduled=9000)], 9.0, 0.1)
    reason = drift(found, is_open_loop=True)
    assert reason is not None
    assert reason.code is ReasonCode.DRIFTED
    assert dict(reason.values)["change"] == pytest.approx(0.2, rel=0.02)


def test_every_figure_has_its_own_verdict() -> None:
    found = {figure.name: figure for figure in figures(summarize([part()]))}
    assert found["answered calls, open loop"].value == 10_000
    assert found["response time p99"].verdict == "ok"
    assert found["response time p99.9"].verdict == "void"
    assert found["response time p99.9"].reason == (
        "under 100 calls beyond it: that takes about 10 s at this rate"
    )
    assert found["server CPU per call"].verdict == "ok"
    assert found["failures"].value == 0
    short = {f.name: f for f in figures(summarize([part(server_cpu_s=0.5, open_loop=False)]))}
    assert short["server CPU per call"].reason == "under 1 s of server CPU"
    assert "response time p50" not in short
    busy = {f.name: f for f in figures(summarize([part(busy=0.95, open_loop=False)]))}
    assert busy["answered calls, closed loop"].verdict == "at least"


def test_a_run_of_4433_calls_has_a_good_p50_and_p90_but_no_p99_9() -> None:
    summary = summarize([part([2_000, 2_433], open_loop=False)])
    verdicts = {figure.name: str(figure.verdict) for figure in figures(summary)}
    assert (summary.verdict, summary.calls) == ("valid", 4_433)
    assert [verdicts[f"service time p{percent}"] for percent in ("50", "90", "99", "99.9")] == [
        *("ok", "ok", "void", "void")
    ]
    # 100 calls beyond it are 10,000, or 100,000, at 2,216.5 a second.
    assert summary.to_json()["too_short_for"] == {
        "p99": pytest.approx(4.51, abs=0.01),
        "p99.9": pytest.approx(45.1, abs=0.1),
    }
    assert summarize([part([50_000] * 4)]).to_json()["too_short_for"] == {}


@pytest.mark.parametrize(
    ("disturbed", "code"),
    [
        (part(steal=0.05), ReasonCode.STEAL),
        (part([10_000] * 5 + [11_000] * 5), None),
        (part([10_000] * 5 + [11_000] * 5, open_loop=False), ReasonCode.DRIFTED),
        (replace(part(), surroundings=WAITED), ReasonCode.CPU_WAIT),
    ],
)
def test_what_disturbs_a_run_voids_each_of_its_figures(
    disturbed: MeasuredRepeat, code: ReasonCode | None
) -> None:
    summary = summarize([disturbed])
    listed = [figure for figure in figures(summary) if figure.name != "failures"]
    assert all((code in codes_of(each.reasons)) is (code is not None) for each in listed)
    assert summary.verdict == ("valid" if code is None else "void")
    assert all(figure.is_void for figure in listed) is (code is not None)


def test_a_late_generator_voids_times_alone() -> None:
    verdicts = {figure.name: figure.verdict for figure in figures(summarize([part(late_us=50)]))}
    assert verdicts["answered calls, open loop"] == verdicts["server CPU per call"] == "ok"
    assert verdicts["response time p50"] == verdicts["service time p50"] == "void"


def _figure_of(parts: Sequence[MeasuredRepeat], name: str) -> Figure:
    return next(figure for figure in figures(summarize(parts)) if figure.name == name)


RATES = [43_000, 52_000, 61_000, 72_000, 48_000, 66_000]


def test_with_repeats_an_interval_is_over_the_repeats() -> None:
    parts = [part([rate], open_loop=False, server_cpu_s=1.0) for rate in RATES]
    rate = _figure_of(parts, "answered calls, closed loop")
    assert rate.value == 57_000
    assert rate.low is not None
    assert rate.high is not None
    # 2.571 standard errors of 4,531 each.
    assert (rate.low, rate.high) == pytest.approx((46_500, 69_900), rel=0.02)
    assert rate.labels == {"interval_unit": "repeat"}
    cpu = _figure_of(parts, "server CPU per call")
    assert (cpu.low, cpu.high) == pytest.approx((1e6 / rate.high, 1e6 / rate.low))


def test_the_repeats_differ_in_a_percentile_however_many_calls_they_have() -> None:
    slow = [
        replace(part(), reports=[Report({0: window(20_000, service_us=us)}, scheduled=20_000)])
        for us in (100, 120, 140, 160, 180, 200)
    ]
    figure = _figure_of(slow, "service time p99")
    assert figure.low is not None
    assert figure.high is not None
    assert figure.low < 0.9 * figure.high
    spread = summarize(slow).to_json()["spread"]["service.p99"]
    assert list(spread) == ["lowest", "median", "highest"]
    assert list(spread.values()) == pytest.approx([100, 150, 200], rel=0.01)


@pytest.mark.parametrize(
    ("parts", "count"),
    [
        ([part([1000] * 29)], 0),
        ([part([1000] * 29 + [1000])], 1),
        ([part()] * 5, 0),
        ([part()] * 6, 1),
    ],
)
def test_with_fewer_units_there_is_no_interval(parts: list[MeasuredRepeat], count: int) -> None:
    figure = _figure_of(parts, "answered calls, open loop")
    assert (figure.low is not None) is bool(count)
    assert (RATE in summarize(parts).intervals) is bool(count)


def test_of_a_single_run_blocks_of_seconds_are_the_unit() -> None:
    # Every other second is slow: neighbours differ, and the mean is known the better.
    uneven = part([900, 1100] * 30, open_loop=False)
    found = _figure_of([uneven], "answered calls, closed loop")
    assert (found.value, found.labels) == (1000, {"interval_unit": "second"})
    # Ten slow seconds, ten fast ones: it is hardly known.
    waves = part(([900] * 10 + [1100] * 10) * 3, open_loop=False)
    wide = _figure_of([waves], "answered calls, closed loop")
    assert found.low is not None
    assert wide.low is not None
    assert found.low > 990
    assert wide.low < 960


def test_cpu_per_call_of_a_single_run_is_by_what_was_sampled() -> None:
    samples = [CpuSample(at / 2, 7, 10 + 0.2 * at + 0.002 * (at % 3)) for at in range(61)]
    watched = replace(part([1000] * 30), server_cpu=samples, server_cpu_s=12.0)
    figure = _figure_of([watched], "server CPU per call")
    assert figure.value == 400
    assert figure.low is not None
    assert figure.high is not None
    assert 390 < figure.low < 400 < figure.high < 410
    unwatched = replace(watched, server_cpu=samples[10:])
    assert _figure_of([unwatched], "server CPU per call").low is None


def test_the_load_is_shared_among_processes_on_cpus_of_their_own() -> None:
    config = RunConfig(
        addresses=parse_addresses("127.0.0.1:1"),
        results=Path("results"),
        connections=5,
        in_flight=2,
        rate_hz=300.0,
        arrivals="fixed",
        seconds=None,
        calls=11,
        processes=2,
        seed=7,
    )
    engines = plan_engines(config, [0, 1, 2])
    assert [(e.connections, e.calls, e.rate_hz, e.cpu, e.seed, e.number) for e in engines] == [
        (3, 6, 150.0, 2, 7, 0),
        (2, 5, 150.0, 1, 8, 1),
    ]
    again = plan_engines(replace(config, pin=False), [0, 1, 2], repeat=1)
    assert [(e.cpu, e.seed) for e in again] == [(None, 9), (None, 10)]


def test_there_are_no_more_processes_than_connections_or_calls() -> None:
    config = RunConfig(addresses=parse_addresses("127.0.0.1:1"), results=Path(), processes=8)
    assert len(plan_engines(replace(config, connections=3), [0])) == 3
    assert len(plan_engines(replace(config, calls=2, seconds=None), [0])) == 2

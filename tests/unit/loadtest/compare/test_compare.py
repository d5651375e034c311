import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from references import KINDS, REFERENCES, each_reference
from sample_runs import Fake, make_run

from capnp_rig.loadtest.compare import CompareError, Comparison, compare, differences
from capnp_rig.loadtest.results import ResultError
from capnp_rig.loadtest.results.load_samples import Result, read_result
from capnp_rig.loadtest.stats.histogram import Histogram

_UNITS = {
    "bench": "process",
    "run": "second",
    **dict.fromkeys(("bench-server", "bench-stacks", "bench-locust", "sweep"), "round"),
    "search": "probe",
}
_RUN = Fake(seconds=30, calls=350, noise=0.003)
# Enough where the verdict is not what is tested.
_SHORT = replace(_RUN, calls=200, is_open_loop=False)
_OPEN = [
    "calls/s",
    *(
        f"{clock}.{name}"
        for clock in ("response", "service")
        for name in ("p50", "p90", "p99", "p99.9")
    ),
    "server CPU per call",
]


@cache
def _result(fake: Fake) -> Result:
    written = make_run(fake)
    return Result(written.document, written.samples)


def _compared(old: Fake, new: Fake, **options: Any) -> Comparison:
    return compare(_result(old), _result(new), **{"force": False, **options})


def _verdicts(found: Comparison) -> dict[str, str]:
    return {row.metric: str(row.verdict) for row in found.rows}


def test_two_runs_of_the_same_are_the_same() -> None:
    found = _compared(_RUN, replace(_RUN, seed=2))
    assert list(_verdicts(found)) == _OPEN
    assert {row.metric for row in found.rows if row.verdict == "void"} == {
        "response.p99.9",
        "service.p99.9",
    }
    assert _verdicts(found)["response.p50"] == _verdicts(found)["calls/s"] == "same"
    assert {row.verdict for row in found.rows} <= {"same", "cannot tell", "void"}
    assert found.unit == "second"
    assert found.objections == ()


def test_a_run_against_itself_is_the_same() -> None:
    found = _compared(_RUN, _RUN)
    assert {row.ratio for row in found.rows} == {1.0}
    assert (found.verdict, found.exit_status) == ("same", 0)


def test_the_verdict_does_not_change_by_itself() -> None:
    assert _compared(_RUN, replace(_RUN, seed=2)) == _compared(_RUN, replace(_RUN, seed=2))


@pytest.mark.parametrize("noise", [0.003, 0.04])
def test_a_slowdown_of_twice_the_floor_is_caught(noise: float) -> None:
    quiet = replace(_RUN, noise=noise)
    same = _compared(quiet, replace(quiet, seed=2), metrics=["response.p99"], force=True).rows[0]
    assert same.floor is not None
    slowness = 1 + 2 * max(0.02, same.floor)
    slow = replace(quiet, seed=2, slowness=slowness)
    found = _compared(quiet, slow, force=True)
    row = next(row for row in found.rows if row.metric == "response.p99")
    assert row.verdict == "slower"
    assert row.ratio is not None
    assert row.ratio == pytest.approx(1 / slowness, rel=max(0.02, same.floor))
    assert (found.verdict, found.exit_status) == ("slower", 3)
    back = _compared(slow, quiet, force=True)
    assert _verdicts(back)["response.p99"] == "faster"
    assert (back.verdict, back.exit_status) == ("faster", 0)


def test_of_a_closed_loop_rate_and_service_times_are_judged() -> None:
    closed = replace(_RUN, is_open_loop=False, calls=400)
    found = _compared(closed, replace(closed, seed=2, slowness=1.15))
    assert list(_verdicts(found)) == [
        "calls/s",
        *("service.p50", "service.p90", "service.p99", "service.p99.9"),
        "server CPU per call",
    ]
    assert set(_verdicts(found).values()) == {"slower", "void"}
    rate = found.rows[0]
    assert rate.ratio is not None
    assert rate.baseline is not None
    assert rate.candidate is not None
    assert rate.ratio == pytest.approx(rate.candidate / rate.baseline)
    assert rate.ratio < 1


def test_values_are_those_of_the_whole_run() -> None:
    written = make_run(_RUN)
    rows = {row.metric: row for row in _compared(_RUN, _RUN).rows}
    whole = Histogram.of(written.raw["response"]).percentile_ns(99)
    assert whole is not None
    assert rows["response.p99"].baseline == whole / 1000
    assert rows["calls/s"].baseline == pytest.approx(len(written.raw["response"]) / 30)
    cpu_us = written.document["observed"][0]["server_cpu_s"] * 1e6 / len(written.raw["response"])
    assert rows["server CPU per call"].baseline == pytest.approx(cpu_us)


def test_a_run_of_two_seconds_is_void() -> None:
    short = replace(_RUN, seconds=2, calls=6000)
    found = _compared(short, short)
    assert set(_verdicts(found).values()) == {"void"}
    assert all("too few seconds: 2, at least 30" in row.reason for row in found.rows)
    assert (found.verdict, found.exit_status) == ("void", 5)


def test_short_seconds_at_the_end_belong_to_the_last_one() -> None:
    found = _compared(
        replace(_RUN, seconds=30.4, calls=200), replace(_RUN, seconds=30.4, calls=200, seed=3)
    )
    assert {row.n for row in found.rows} == {30}
    assert _verdicts(found)["calls/s"] == "same"


@pytest.mark.nightly
def test_a_long_run_is_cut_into_some_30_blocks() -> None:
    long = replace(_RUN, seconds=250, calls=60, processes=1)
    found = _compared(long, replace(long, seed=2))
    assert {row.n for row in found.rows} == {250}
    assert len(_result(long).load.units.units) == 31
    assert _verdicts(found)["response.p90"] == "same"


def test_six_repeats_are_the_unit() -> None:
    repeats = replace(_RUN, seconds=2, repeats=6, calls=500)
    found = _compared(repeats, replace(repeats, seed=2))
    assert (found.unit, {row.n for row in found.rows}) == ("repeat", {6})
    assert found.verdict == "same"
    assert "servers that were not started anew" in found.notes[0]
    slow = _compared(repeats, replace(repeats, seed=2, slowness=1.2))
    assert _verdicts(slow)["response.p99"] == "slower"


def test_with_fewer_repeats_on_one_side_nothing_is_judged() -> None:
    few = replace(_RUN, seconds=6, repeats=5)
    found = _compared(few, replace(_RUN, seconds=6, repeats=6))
    assert (found.unit, found.verdict) == ("repeat", "void")
    assert found.rows[0].reason == "5 measured, at least 6"


def test_the_share_of_the_server_needs_the_server() -> None:
    away = replace(_SHORT, server=False)
    (row,) = _compared(away, away, metrics=["server CPU per call"]).rows
    assert (row.verdict, row.reason) == ("void", "the server's CPU time is not known")


def test_the_interval_of_the_share_lies_around_what_was_used_from_edge_to_edge() -> None:
    good = _result(_SHORT)
    (observed,) = good.document["observed"]
    more = {**observed, "server_cpu_s": 2 * observed["server_cpu_s"]}
    (row,) = compare(
        good, _changed(good, observed=[more]), force=False, metrics=["server CPU per call"]
    ).rows
    assert row.ratio == pytest.approx(0.5)
    assert row.low is not None
    assert row.high is not None
    assert row.low <= 0.5 <= row.high
    assert row.verdict == "slower"


def test_a_percentile_with_few_calls_beyond_it_is_void() -> None:
    rows = _compared(_RUN, _RUN, metrics=["p99.9"]).rows
    assert [(row.metric, row.verdict, row.reason) for row in rows] == [
        ("response.p99.9", "void", "under 100 calls beyond it")
    ]


def _changed(result: Result, **changes: Any) -> Result:
    document = copy.deepcopy(dict(result.document))
    for path, value in changes.items():
        plain = document
        *folders, name = path.split("__")
        for folder in folders:
            plain = plain[folder]
        plain[name] = value
    return Result(document, result.samples)


def test_a_void_run_makes_its_rows_void_unless_forced() -> None:
    good = _result(_SHORT)
    bad = _changed(good, summary={"verdict": "void", "reasons": ["it rained", "it snowed"]})
    found = compare(good, bad, force=False)
    assert set(_verdicts(found).values()) == {"void"}
    doubt = "the candidate is void: it rained (and 1 more)"
    assert found.to_json()["rows"][0]["reason"] == doubt
    assert found.objections == (
        "the candidate is void: it rained",
        "the candidate is void: it snowed",
    )
    assert (found.verdict, found.exit_status) == ("void", 5)
    forced = compare(good, bad, force=True, metrics=["calls/s"])
    assert (forced.verdict, forced.forced, forced.objections) == ("same", True, found.objections)


def test_a_slower_candidate_is_not_faster_than_a_disturbed_baseline() -> None:
    disturbed = _changed(
        _result(replace(_SHORT, slowness=2.0)),
        summary={"verdict": "void", "reasons": ["a process waited for a CPU"]},
    )
    slower = _result(replace(_SHORT, seed=2, slowness=1.2))
    found = compare(disturbed, slower, force=False, metrics=["calls/s", "p50"])
    assert set(_verdicts(found).values()) == {"void"}
    assert (found.verdict, found.exit_status) == ("void", 5)


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("environment__machine__cpu_model", "Other", "CPU model: Some CPU against Other"),
        ("environment__machine__cpus", 4, "CPUs: 2 against 4"),
        ("environment__python", "3.12.1", "Python: 3.11.7 against 3.12.1"),
        ("environment__platform", "Linux-7", "platform: Linux-6.18 against Linux-7"),
        ("environment__packages__uvloop", "0.1", "uvloop: 0.23.0 against 0.1"),
        ("config__connections", 8, "connections: 64 against 8"),
        ("config__in_flight", 4, "in_flight: 1 against 4"),
        ("config__rate_hz", None, "rate_hz: 2000.0 against null"),
        ("config__processes", 1, "processes: 2 against 1"),
        ("config__workload__payload_bytes", 64, "workload.payload_bytes: 32 against 64"),
        (
            "config__workload__text",
            "x" * 50,
            f"workload.text: <script>alert(1)</script> against {'x' * 40}…",
        ),
    ],
)
def test_unlike_runs_are_not_judged_unless_forced(path: str, value: Any, text: str) -> None:
    good = _result(_SHORT)
    other = _changed(good, **{path: value})
    assert differences(good.document, other.document) == [text]
    found = compare(good, other, force=False, metrics=["calls/s"])
    assert found.objections == (f"unlike {text}",)
    assert found.rows[0].verdict == "void"
    doubt = f"unlike {text.partition(':')[0]}"
    assert found.to_json()["rows"][0]["reason"] == doubt
    assert compare(good, other, force=True, metrics=["calls/s"]).verdict == "same"


@pytest.mark.parametrize(
    "changes",
    [
        {"config__address": "127.0.0.1:2"},
        {"config__results": "elsewhere"},
        {"config__workload__seed": 7},
        {"environment__packages__capnp-rig": "0.2.0"},
        {"environment__packages__hdrhistogram": "0.10.8"},
        {"environment__commit": "fedcba9876"},
    ],
)
def test_what_a_comparison_is_for_may_differ(changes: Mapping[str, Any]) -> None:
    good = _result(_RUN)
    assert differences(good.document, _changed(good, **changes).document) == []


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["calls/s"], ["calls/s"]),
        (["p50"], ["response.p50"]),
        (["service.p50", "calls/s"], ["calls/s", "service.p50"]),
        (["*.p50"], ["response.p50", "service.p50"]),
        (["*CPU*"], ["server CPU per call"]),
    ],
)
def test_metrics_are_chosen_by_name_or_pattern(patterns: list[str], names: list[str]) -> None:
    assert list(_verdicts(_compared(_RUN, _RUN, metrics=patterns))) == names


def test_in_a_closed_loop_a_percentile_alone_is_of_the_service_time() -> None:
    assert list(_verdicts(_compared(_SHORT, _SHORT, metrics=["p50"]))) == ["service.p50"]


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(CompareError, match=r"^no metric 'p98': there is calls/s, service.p50, "):
        _compared(_SHORT, _SHORT, metrics=["calls/s", "p98"])


def test_only_the_chosen_metrics_decide() -> None:
    slow = replace(_RUN, slowness=1.2)
    assert _compared(_RUN, slow).verdict == "slower"
    assert _compared(_RUN, slow, metrics=["calls/s"]).verdict == "same"


def test_a_comparison_survives_json() -> None:
    found = _compared(_RUN, _RUN)
    plain = json.loads(json.dumps(found.to_json()))
    assert (plain["verdict"], plain["exit_status"], len(plain["rows"])) == ("same", 0, len(_OPEN))
    assert plain["rows"][0]["metric"] == "calls/s"


@pytest.mark.parametrize("folder", each_reference())
def test_a_reference_against_itself_is_the_same(folder: Path) -> None:
    result = read_result(folder)
    found = compare(result, result, force=False)
    # Where the rounds scatter by more than the margin, nobody can tell.
    judged = {row.metric: row for row in found.rows if row.verdict != "void"}
    assert {row.ratio for row in judged.values()} <= {1.0}
    noisy = {name for name, row in judged.items() if row.verdict != "same"}
    assert {judged[name].verdict for name in noisy} <= {"cannot tell"}
    for name, row in judged.items():
        assert row.low is not None
        assert row.high is not None
        assert (name in noisy) is not (1 / 1.05 <= row.low <= row.high <= 1.05)
    assert all(row.reason for row in found.rows if row.verdict == "void")
    assert found.unit == _UNITS[result.kind]
    assert found.exit_status == (4 if noisy else 0 if judged else 5)


@cache
def _reference(kind: str) -> Result:
    return read_result(next(folder for folder in REFERENCES if KINDS[folder] == kind))


def test_a_slower_case_of_a_bench_is_caught() -> None:
    result = _reference("bench")
    assert result.samples is not None
    name = "tensor, build+encode, 65536 B, wire"
    metrics = ["tensor, build+encode, 65536 B*"]
    same = compare(result, result, force=False, metrics=metrics)
    before = {row.metric: row for row in same.rows}
    floor = before[name].floor
    assert floor is not None
    slow = [
        {**sample, "median_ns": sample["median_ns"] * (1 + 2 * max(0.02, floor))}
        if (sample["subject"], sample["message"], sample["contract"], sample["size_bytes"])
        == ("wire", "tensor", "build+encode", 65536)
        else sample
        for sample in result.samples
    ]
    found = compare(result, Result(result.document, slow), force=False, metrics=metrics)
    changed = {row.metric for row in found.rows if row.verdict != before[row.metric].verdict}
    assert changed == {name}
    assert (found.verdict, found.exit_status) == ("slower", 3)


def test_a_bench_has_the_medians_of_its_figures() -> None:
    result = _reference("bench")
    values = {figure["name"]: figure["value"] for figure in result.document["figures"]}
    rows = compare(result, result, force=False, metrics=["text, open*"]).rows
    assert len(rows) > 30
    assert all(row.baseline == values[f"time: {row.metric}"] for row in rows)


def test_a_bench_server_has_the_medians_of_its_figures() -> None:
    result = _reference("bench-server")
    values = {figure["name"]: figure["value"] for figure in result.document["figures"]}
    rows = [row for row in compare(result, result, force=False).rows if "p99" not in row.metric]
    assert len(rows) == 16
    assert all(row.baseline == pytest.approx(values[row.metric]) for row in rows)


_BUSY = "the generator was 95% busy: the rate is a lower bound"


def test_a_limited_rate_is_void() -> None:
    result = _reference("bench-server")
    document = copy.deepcopy(dict(result.document))
    figure = next(one for one in document["figures"] if one["name"] == "64 x 1: wire calls/s")
    figure |= {"verdict": "at least", "reason": _BUSY}
    limited = Result(document, result.samples)
    (row,) = compare(limited, limited, force=True, metrics=["64 x 1: wire calls/s"]).rows
    assert (row.verdict, row.reason) == ("void", f"at least: {_BUSY}")


def test_under_six_processes_have_no_verdict() -> None:
    result = _reference("bench")
    assert result.samples is not None
    few = Result(result.document, [one for one in result.samples if one["process"] < 5])
    found = compare(result, few, force=False, metrics=["text, open*"])
    assert set(_verdicts(found).values()) == {"void"}
    assert {row.reason for row in found.rows} == {"5 measured, at least 6"}
    row = found.to_json()["rows"][0]
    assert row["reason_codes"] == [{"code": "few-units", "count": 5, "least": 6}]


def test_a_case_that_one_lacks_is_named() -> None:
    result = _reference("bench")
    assert result.samples is not None
    less = [
        one
        for one in result.samples
        if one["subject"] != "memcpy" or one["size_bytes"] not in {64, 256}
    ]
    few = compare(result, Result(result.document, less), force=False, metrics=["floor*"])
    assert few.notes[-1] == "Only one of the two has: floor, 256 B, memcpy, floor, 64 B, memcpy."


def test_different_kinds_cannot_be_compared() -> None:
    with pytest.raises(CompareError, match="a run and a bench have nothing in common"):
        compare(_result(_SHORT), _reference("bench"), force=True)


def test_a_demo_has_nothing_to_compare() -> None:
    demo = Result({**_result(_SHORT).document, "kind": "demo"}, None)
    with pytest.raises(CompareError, match="a demo has no samples that compare"):
        compare(demo, demo, force=True)


def test_the_damaged_side_is_named() -> None:
    good = _result(_SHORT)
    with pytest.raises(ResultError, match=r"^the candidate: samples.jsonl.gz, line 1 is damaged"):
        compare(good, Result(good.document, [{}]), force=False)
    bench = _reference("bench")
    with pytest.raises(ResultError, match=r"^the baseline: samples.jsonl.gz, line 1 is damaged"):
        compare(Result(bench.document, [{}]), bench, force=False)

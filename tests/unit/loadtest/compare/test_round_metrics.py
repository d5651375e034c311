"""`compare` of results that were made in rounds or probes."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest
from sample_runs import ENVIRONMENT

from capnp_rig.loadtest.bench import locust as bench_locust
from capnp_rig.loadtest.bench import stacks_figures as bench_stacks_figures
from capnp_rig.loadtest.bench import sweep_figures
from capnp_rig.loadtest.bench.stacks_figures import CLOSED, OPEN, StackSample
from capnp_rig.loadtest.bench.sweep_figures import SweepStep
from capnp_rig.loadtest.compare import Comparison, compare
from capnp_rig.loadtest.compare.round_metrics import locust_metrics, stack_metrics, sweep_metrics
from capnp_rig.loadtest.results import ResultError, run_document
from capnp_rig.loadtest.results.load_samples import Result
from capnp_rig.loadtest.stats.histogram import Histogram

# How much slower or faster than on average each of eight rounds is.
NOISE = (1.0, 1.004, 0.997, 1.002, 0.999, 1.003, 0.998, 1.001)


def _verdicts(found: Comparison) -> dict[str, str]:
    return {row.metric: str(row.verdict) for row in found.rows}


def _compare(old: Result, new: Result, **options: Any) -> Comparison:
    return compare(old, new, force=False, **options)


def _result(kind: str, config: dict[str, Any], figures: Sequence[Any], rounds: Any) -> Result:
    document = run_document(kind, config, ENVIRONMENT, figures)
    return Result(document, [asdict(one) for one in rounds])


# --- a sweep ---------------------------------------------------------------------------------


def _sweep(slowness: float = 1.0, flights: Sequence[int] = (1, 4), **more: Any) -> Result:
    steps = [
        SweepStep(
            *(number, 0, 4, in_flight),
            calls=round(12_000 / noise / slowness),
            seconds=1.0,
            busy=0.5,
            server_cpu_s=0.5,
            steal=0.0,
            failures=more.get("failures", {}),
            service=Histogram.of([round(400_000 * noise * slowness)] * 12_000).to_json(),
        )
        for number, noise in enumerate(NOISE)
        for in_flight in flights
    ]
    config = {"load": {"connections": 4, **more.get("load", {})}, "in_flight": list(flights)}
    return _result("sweep", config, sweep_figures.figures(steps), steps)


_OF_SWEEP = [
    f"4 x {flight}: {what}"
    for flight in (1, 4)
    for what in ("calls/s", "service p50", "service p99", "server CPU per call")
]


def test_a_sweep_is_compared_by_calls_in_flight() -> None:
    same = _compare(_sweep(), _sweep())
    assert (same.unit, same.verdict, same.exit_status) == ("round", "same", 0)
    assert _verdicts(same) == dict.fromkeys(_OF_SWEEP, "same")
    slower = _compare(_sweep(), _sweep(1.2))
    assert (slower.verdict, slower.exit_status) == ("slower", 3)
    assert _verdicts(slower) == dict.fromkeys(_OF_SWEEP, "slower")
    assert _compare(_sweep(1.2), _sweep()).verdict == "faster"


def test_sweeps_meet_where_both_have_been() -> None:
    found = _compare(_sweep(flights=(1, 2)), _sweep(flights=(1, 4)))
    assert set(_verdicts(found)) == {name for name in _OF_SWEEP if name.startswith("4 x 1:")}
    assert found.objections == ()
    assert any(note.startswith("Only one of the two has: 4 x 2: calls/s") for note in found.notes)


def test_sweeps_of_other_loads_are_not_judged() -> None:
    found = _compare(_sweep(), _sweep(load={"workload": {"payload_bytes": 64}}))
    assert set(_verdicts(found).values()) == {"void"}
    assert found.objections == ("unlike workload.payload_bytes: null against 64",)


def test_what_was_void_is_not_judged() -> None:
    found = _compare(_sweep(), _sweep(failures={"gone": 1}))
    assert set(_verdicts(found).values()) == {"void"}
    assert found.rows[0].reason == "void: 8 calls failed"
    assert found.exit_status == 5


# --- bench-stacks ----------------------------------------------------------------------------


def _stacks(slowness: float = 1.0, **more: Any) -> Result:
    samples = []
    for number, noise in enumerate(NOISE):
        times = Histogram.of([round(300_000 * noise * slowness)] * 2000).to_json()
        closed = StackSample(
            *("capnp", "text", 32, CLOSED, number, 0, False, 16, 1),
            calls=round(20_000 / noise / slowness),
            seconds=0.5,
            busy=0.5,
            server_cpu_s=0.4,
            steal=0.0,
            service=times,
            response=times,
            lateness=Histogram.of([1000] * 2000).to_json(),
        )
        closed = replace(closed, **more)
        open_loop = replace(closed, loop=OPEN, rate_hz=4000.0, scheduled=2000, calls=2000)
        again = replace(closed, again=True, calls=closed.calls // 2)
        samples += [closed, again, replace(closed, stack="json"), open_loop]
    figures = bench_stacks_figures.figures(samples)
    return _result("bench-stacks", {"connections": 16, "in_flight": 1}, figures, samples)


def test_stacks_are_compared_each_with_itself() -> None:
    names = [
        *(
            f"{stack}, text of 32 B, closed loop: {what}"
            for stack in ("capnp", "json")
            for what in ("calls_per_s", "p50", "p99", "cpu_us_per_call")
        ),
        *(f"capnp, text of 32 B, open loop: {what}" for what in ("p50", "p99", "cpu_us_per_call")),
    ]
    found = _compare(_stacks(), _stacks())
    same = _verdicts(found)
    assert {row.n for row in found.rows} == {len(NOISE)}
    judged = {name: verdict for name, verdict in same.items() if not name.endswith("p99.9")}
    assert {name: judged[name] for name in names} == dict.fromkeys(names, "same")
    assert judged.keys() == set(names)
    # Twenty calls beyond it in a round, 16 in all.
    assert {same[name] for name in same if name.endswith("p99.9")} == {"void"}
    slower = _verdicts(_compare(_stacks(), _stacks(1.3)))
    assert slower["json, text of 32 B, closed loop: calls_per_s"] == "slower"
    assert slower["capnp, text of 32 B, open loop: p99"] == "slower"


def test_a_rate_that_the_generator_limited_is_not_judged() -> None:
    row = _compare(_stacks(), _stacks(busy=0.97), metrics=["capnp*closed*calls_per_s"]).rows[0]
    assert (row.verdict, row.reason[:9]) == ("void", "at least:")


# --- bench-locust ----------------------------------------------------------------------------


def _locust(slowness: float = 1.0) -> Result:
    requests = {"baseline": 10_000, "candidate": 60_000, "again": 10_000}
    rounds = [
        bench_locust.Round(
            *(number, 0, role, 1.0),
            requests=round(count / noise / (slowness if role == "candidate" else 1.0)),
            failures=0,
            cpu_s=0.9,
            server_cpu_s=0.5,
        )
        for number, noise in enumerate(NOISE)
        for role, count in requests.items()
    ]
    return _result("bench-locust", {"users": 16}, bench_locust.figures(rounds, 16), rounds)


def test_users_are_compared_each_with_itself() -> None:
    found = _compare(_locust(), _locust(1.2))
    assert _verdicts(found) == {
        "16 x 1: ReverseUser calls/s": "slower",
        "16 x 1: ReverseUser generator CPU per call": "slower",
        "16 x 1: FastHttpUser calls/s": "same",
        "16 x 1: FastHttpUser generator CPU per call": "same",
    }
    assert found.unit == "round"


# --- a search --------------------------------------------------------------------------------


def _search(
    rate_hz: float | None, failing_hz: float | None, *, slowness: float = 1.0, limit: str = "server"
) -> Result:
    probes = [
        {"rate_hz": 8000.0, "summary": {"response_us": {"p50": us, "p99": 3 * us}}}
        for us in (100.0 * noise * slowness for noise in NOISE)
    ]
    probes += [{"rate_hz": 9000.0, "summary": {"response_us": {"p50": 1.0, "p99": None}}}]
    document = run_document("search", {"load": {}, "slo": "p99<1ms"}, ENVIRONMENT, [])
    found = {"rate_hz": rate_hz, "failing_hz": failing_hz, "verified": 5, "limit": limit}
    curve = [{"rate_hz": rate, "note": ""} for rate in (8000.0, 9000.0)]
    return Result(document | {"found": found, "probes": probes, "curve": curve}, [])


_ANSWER = "highest verified rate"


def test_a_search_is_compared_by_its_answer_and_by_rate() -> None:
    found = _compare(_search(8000.0, 8300.0), _search(8000.0, 8300.0))
    assert _verdicts(found) == {
        _ANSWER: "same",
        "8,000 calls/s: response p50": "same",
        "8,000 calls/s: response p99": "same",
        "9,000 calls/s: response p50": "void",
        "9,000 calls/s: response p99": "void",
    }
    assert found.rows[3].reason == "1 measured, at least 6"
    assert (found.unit, found.exit_status) == ("probe", 0)


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ((8000.0, 8300.0), (9000.0, 9400.0), "faster"),
        ((9000.0, 9400.0), (8000.0, 8300.0), "slower"),
        # The ranges meet: neither is known to be higher.
        ((8000.0, 8400.0), (8300.0, 8700.0), "cannot tell"),
        ((8000.0, 8300.0), (None, 1000.0), "void"),
        ((8000.0, 8300.0), (9000.0, None), "void"),
    ],
)
def test_answers_are_ranges(
    old: tuple[float, float], new: tuple[float | None, float | None], verdict: str
) -> None:
    found = _compare(_search(*old), _search(*new), metrics=[_ANSWER])
    assert _verdicts(found) == {_ANSWER: verdict}


def test_a_generator_that_was_the_limit_says_nothing_of_the_server() -> None:
    limited = _search(9000.0, 9400.0, limit="generator")
    (row,) = _compare(_search(8000.0, 8300.0), limited, metrics=[_ANSWER]).rows
    assert (row.verdict, row.reason) == ("void", "at least: the limit was the generator")


def test_slower_responses_at_the_same_rate_are_seen() -> None:
    found = _compare(_search(8000.0, 8300.0), _search(8000.0, 8300.0, slowness=1.2))
    assert _verdicts(found)["8,000 calls/s: response p99"] == "slower"


# --- damage ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "metrics"),
    [(_sweep, sweep_metrics), (_stacks, stack_metrics), (_locust, locust_metrics)],
)
@pytest.mark.parametrize(
    "change", [{"number": "x", "round": "x"}, {"seconds": 0}, {"more": 1}, {"calls": "many"}]
)
def test_damaged_samples_are_named(made: Any, metrics: Any, change: dict[str, Any]) -> None:
    good: Result = made()
    assert good.samples is not None
    known = set(good.samples[0]) | {"more"}
    change = {name: value for name, value in change.items() if name in known} or {"requests": None}
    bad = [{**good.samples[0], **change}, *good.samples[1:]]
    with pytest.raises(ResultError, match=r"samples\.jsonl\.gz.* is damaged"):
        metrics(good.document, bad)


@pytest.mark.parametrize("missing", ["found", "probes", "curve"])
def test_a_damaged_search_is_named(missing: str) -> None:
    good = _search(8000.0, 8300.0)
    bad = Result({**good.document, missing: [{}]}, [])
    with pytest.raises(ResultError, match=r"the candidate: run\.json is damaged"):
        _compare(good, bad)

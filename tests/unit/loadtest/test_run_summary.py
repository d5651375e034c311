from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.engine import EngineResult
from loadtest.histogram import Histogram
from loadtest.run import RunConfig, plan_engines
from loadtest.run_summary import Observed, summarize
from wire.address import parse_address

QUIET = Observed(server_cpu_s=0.5, steal=0.0)


def result(
    *, open_loop: bool = True, late_us: int = 1, busy: float = 0.4, count: int = 20_000
) -> EngineResult:
    lateness = Histogram.of([late_us * 1000] * count).to_json()
    return EngineResult(
        calls=count,
        seconds=2.0,
        busy=busy,
        failures={},
        answered=count + 1000,
        histogram=Histogram.of([100_000] * count).to_json(),
        response=Histogram.of([101_000] * count).to_json(),
        lateness=lateness if open_loop else Histogram().to_json(),
        scheduled=count if open_loop else None,
    )


def test_processes_are_added_up_and_their_histograms_merged() -> None:
    summary = summarize([result(), result(count=10_000)], QUIET)
    assert (summary.calls, summary.errors, summary.calls_per_s) == (30_000, 0, 15_000)
    assert summary.response.count == 30_000
    assert summary.server_cpu_us_per_call == pytest.approx(0.5e6 / 32_000)
    assert (summary.verdict, summary.reasons) == ("valid", ())


def test_the_object_of_json_has_what_readers_look_for() -> None:
    plain = summarize([result()], QUIET).to_json()
    assert plain.keys() >= {
        *("calls", "errors", "calls_per_s", "response_us", "service_us", "lateness_us"),
        *("server_cpu_us_per_call", "verdict", "reasons"),
    }
    for name in ("response_us", "service_us", "lateness_us"):
        assert list(plain[name]) == ["p50", "p90", "p99", "p99.9", "max"]
    assert plain["service_us"]["max"] == 100.0
    assert plain["lateness_us"]["p50"] == 1.0


def test_a_call_of_a_closed_loop_is_due_when_it_is_sent() -> None:
    plain = summarize([result(open_loop=False)], QUIET).to_json()
    assert plain["response_us"] == plain["service_us"]
    assert set(plain["lateness_us"].values()) == {0.0}


@pytest.mark.parametrize(
    ("found", "observed", "reason"),
    [
        (replace(result(), failures={"wrong reply": 1}), QUIET, "1 calls failed"),
        (replace(result(), unfinished=3), QUIET, "3 calls failed"),
        (result(busy=0.95), QUIET, "the generator was 95% busy: the rate is a lower bound"),
        (replace(result(), scheduled=21_000), QUIET, "95.2% of the schedule was answered"),
        (result(late_us=50), QUIET, "the generator was late: p99 50 µs"),
        (result(count=500), QUIET, "too few samples: under 100 calls beyond p99"),
        (result(), Observed(0.5, 0.05), "5.0% of the CPU time was stolen by other machines"),
    ],
)
def test_what_cannot_be_believed_is_void_with_its_reason(
    found: EngineResult, observed: Observed, reason: str
) -> None:
    summary = summarize([found], observed)
    assert summary.verdict == "void"
    assert any(said.startswith(reason) for said in summary.reasons)


def test_what_cannot_be_read_is_none_and_voids_nothing() -> None:
    summary = summarize([result()], Observed(None, None))
    assert (summary.server_cpu_us_per_call, summary.verdict) == (None, "valid")


def test_the_load_is_shared_among_processes_on_cpus_of_their_own() -> None:
    config = RunConfig(
        address=parse_address("127.0.0.1:1"),
        connections=5,
        in_flight=2,
        rate_hz=300.0,
        arrivals="fixed",
        seconds=1.0,
        payload_bytes=32,
        processes=2,
        seed=7,
        pin=True,
        results=Path("results"),
    )
    engines = plan_engines(config, [0, 1, 2])
    assert [(e.connections, e.rate_hz, e.cpu, e.seed) for e in engines] == [
        (3, 150.0, 2, 7),
        (2, 150.0, 1, 8),
    ]
    assert len(plan_engines(replace(config, processes=9), [0])) == 5
    assert plan_engines(replace(config, pin=False), [0])[0].cpu is None

from dataclasses import replace
from pathlib import Path

import pytest
from sample_results import pair_figures, server_figures, stack_figures, write_figures
from sample_runs import Fake, make_run, write_run_folder

from capnp_rig.loadtest.report.call_cpu import cpu_parts
from capnp_rig.loadtest.report.chart import RowChart
from capnp_rig.loadtest.report.document import Paragraph, Table
from capnp_rig.loadtest.report.end_to_end import end_to_end_parts
from capnp_rig.loadtest.report.sources import Source, read_sources
from capnp_rig.loadtest.report.stack_ladder import ladder_parts


def _source(folder: Path) -> Source:
    found = read_sources([folder])
    assert not found.skipped
    return found.sources[0]


def test_cpu_per_call_has_a_bar_per_engine_and_load(tmp_path: Path) -> None:
    source = _source(write_figures(tmp_path, "bench-server", server_figures()))
    ratios, chart, table = cpu_parts(source)
    assert isinstance(ratios, Table)
    assert [row.cells[0].text for row in ratios.rows][:2] == [
        "Calls/s, 64 x 1: wire over pycapnp",
        "Server CPU per call, 64 x 1: wire over pycapnp",
    ]
    assert isinstance(chart, RowChart)
    assert chart.rows == ["64 x 1", "8 x 16"]
    assert [series.name for series in chart.series] == ["wire", "pycapnp"]
    first = chart.series[0].values[0]
    assert (first.value, first.low, first.high) == (9.0, 9.0 * 0.98, 9.0 * 1.02)
    assert chart.finding.startswith("From 9 µs (wire, 64 x 1) to 20 µs (pycapnp, 64 x 1).")
    assert isinstance(table, Table)
    assert len(table.rows) == len(server_figures())


def test_a_locust_comparison_shows_the_generators_cpu(tmp_path: Path) -> None:
    figures = pair_figures("ReverseUser", "FastHttpUser", "16 x 1", "generator CPU per call")
    _, chart, _ = cpu_parts(_source(write_figures(tmp_path, "bench-locust", figures)))
    assert isinstance(chart, RowChart)
    assert chart.title == "Generator CPU per call, ReverseUser and FastHttpUser"
    assert chart.x.title == "CPU µs per call, by users x calls in flight"


def test_each_worker_has_its_calls_and_cpu(tmp_path: Path) -> None:
    fake = Fake(seconds=4, calls=50, repeats=2, workers=3, is_open_loop=False)
    source = _source(write_run_folder(tmp_path, make_run(fake)))
    calls, cpu = cpu_parts(source)
    assert isinstance(calls, RowChart)
    assert isinstance(cpu, RowChart)
    assert calls.rows == cpu.rows == ["worker 0", "worker 1", "worker 2"]
    assert [value.value for value in calls.series[0].values] == [250.0, 500.0, 1000.0]
    assert [value.value for value in cpu.series[0].values] == [1000.0, 1000.0, 750.0]
    assert "the busiest of 3 workers answered 57 % of the calls" in calls.finding.lower()


@pytest.mark.parametrize("fake", [Fake(seconds=2, calls=50), Fake(seconds=2, server=False)])
def test_one_worker_has_nothing_to_compare(tmp_path: Path, fake: Fake) -> None:
    assert list(cpu_parts(_source(write_run_folder(tmp_path, make_run(fake))))) == []


def test_the_ladder_goes_from_the_best_down() -> None:
    rates, cpu, ratios, table = ladder_parts(stack_figures(), {})
    assert isinstance(ratios, Table)
    assert [row.cells[0].text for row in ratios.rows] == [
        f"Calls/s, 32 B text: capnp over {rival}" for rival in ("http1", "grpc")
    ]
    assert isinstance(rates, RowChart)
    assert isinstance(cpu, RowChart)
    assert rates.rows == cpu.rows == ["capnp", "http1", "grpc"]
    assert [series.name for series in rates.series] == ["32 B text", "256 KiB text"]
    assert rates.kind == "dots"
    assert rates.x.is_log
    assert [value.void for value in rates.series[1].values] == ["", "", "a worker died"]
    assert rates.finding.startswith(
        "With 32 B text payloads from capnp, 99,364, to grpc, 2,484 calls per second."
    )
    assert isinstance(table, Table)
    assert len(table.rows) == len(stack_figures())


def test_a_stack_that_lacks_a_payload_leaves_a_gap() -> None:
    figures = [one for one in stack_figures() if one.name != "http1, 262144 B: calls/s"]
    chart, *_ = ladder_parts(figures, {})
    assert isinstance(chart, RowChart)
    assert [value.value is None for value in chart.series[1].values] == [False, True, False]


def test_an_open_loop_has_response_times_of_its_smallest_payload() -> None:
    more = [
        replace(
            one,
            unit="µs",
            value=value,
            labels={**one.labels, "loop": "open", "figure": figure, "payload_bytes": size},
        )
        for one in stack_figures()
        if one.labels["figure"] == "calls_per_s" and one.labels["payload_bytes"] == 32
        for figure, value in (("p50", 100.0), ("p99", 900.0))
        for size in (32, 4096)
    ]
    *_, chart, _, _ = ladder_parts([*stack_figures(), *more], {})
    assert isinstance(chart, RowChart)
    assert chart.key == "ladder-latency-text"
    assert chart.title.endswith("32 B text")
    assert [series.name for series in chart.series] == ["p50", "p99", "p99.9"]
    assert chart.series[1].values[0].text == "capnp, 32 B text: 900 µs (96.4 to 102 ms)"


def test_an_echo_is_named_as_the_floor_and_kinds_have_their_own_charts() -> None:
    more = [
        replace(one, labels={**one.labels, "stack": "echo", "payload_kind": "binary"})
        for one in stack_figures()
        if one.labels["stack"] == "grpc"
    ]
    charts = [
        part for part in ladder_parts([*stack_figures(), *more], {}) if isinstance(part, RowChart)
    ]
    assert [chart.key for chart in charts] == [
        *("ladder-calls-per-s-text", "ladder-cpu-us-per-call-text"),
        *("ladder-calls-per-s-binary", "ladder-cpu-us-per-call-binary"),
    ]
    assert charts[2].rows == ["echo (floor)"]


def test_stacks_that_were_left_out_are_named() -> None:
    *_, said, _ = ladder_parts(stack_figures(), {"skipped": {"grpc": "needs grpcio"}})
    assert said == Paragraph("Left out: grpc: needs grpcio.", quiet=True)


def test_what_is_left_of_a_call(tmp_path: Path) -> None:
    (chart,) = end_to_end_parts(_source(write_figures(tmp_path, "bench-server", server_figures())))
    assert isinstance(chart, RowChart)
    own, rest = chart.series
    assert [value.value for value in own.values] == [3.6, 3.6]
    assert [value.value for value in rest.values] == [pytest.approx(5.4)] * 2
    assert chart.finding.startswith(
        "Frames, messages and the service take 40 % at 64 x 1 and 40 % at 8 x 16"
    )


def test_without_times_in_memory_nothing_is_said(tmp_path: Path) -> None:
    figures = pair_figures("wire", "pycapnp", "64 x 1")
    assert list(end_to_end_parts(_source(write_figures(tmp_path, "bench-server", figures)))) == []

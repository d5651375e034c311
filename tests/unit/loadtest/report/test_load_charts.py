from dataclasses import replace
from pathlib import Path

import pytest
from sample_results import CURVE, FOUND, write_search, write_sweep
from sample_runs import Fake, make_run, over_two_servers, write_run_folder

from capnp_rig.loadtest.report.chart import LineChart
from capnp_rig.loadtest.report.document import Paragraph, Table
from capnp_rig.loadtest.report.flight_curve import flight_parts
from capnp_rig.loadtest.report.rate_curve import search_parts
from capnp_rig.loadtest.report.sources import Source, read_sources
from capnp_rig.loadtest.report.spectrum import spectrum_parts
from capnp_rig.loadtest.report.timeline import time_parts
from capnp_rig.loadtest.results import ResultError


def _source(folder: Path) -> Source:
    found = read_sources([folder])
    assert not found.skipped
    return found.sources[0]


def _run(tmp_path: Path, fake: Fake) -> Source:
    return _source(write_run_folder(tmp_path, make_run(fake)))


# --- by percentile ---------------------------------------------------------------------------


def test_an_open_loop_has_three_clocks(tmp_path: Path) -> None:
    source = _run(tmp_path, Fake(seconds=10, calls=900))
    chart, table = spectrum_parts(source)
    assert isinstance(chart, LineChart)
    assert [line.name for line in chart.lines] == [
        "response (n = 18,000)",
        "service (n = 18,000)",
        "lateness (n = 18,000)",
    ]
    assert chart.key == "spectrum-run"
    assert isinstance(table, Table)
    assert [row.void for row in table.rows[:5]] == ["", "", "", *["too few calls beyond it"] * 2]


def test_a_closed_loop_has_service_times(tmp_path: Path) -> None:
    source = _run(tmp_path, Fake(seconds=10, calls=900, is_open_loop=False))
    chart, _ = spectrum_parts(source)
    assert isinstance(chart, LineChart)
    assert [line.name.partition(" ")[0] for line in chart.lines] == ["service"]
    assert chart.panels[0].y.title == "service time of a call"


def test_a_void_run_is_grey_throughout(tmp_path: Path) -> None:
    written = make_run(Fake(seconds=10, calls=900))
    written.document["interrupted"] = True
    del written.document["summary"]
    chart, _ = spectrum_parts(_source(write_run_folder(tmp_path, written)))
    assert isinstance(chart, LineChart)
    assert all(point.void for line in chart.lines for point in line.points)
    assert "Void: interrupted after 10.0 s." in chart.finding


def test_a_failed_run_keeps_its_curve(tmp_path: Path) -> None:
    chart, _, failed = spectrum_parts(_run(tmp_path, Fake(calls=900, failures=(("gone", 1),))))
    assert isinstance(chart, LineChart)
    assert isinstance(failed, Paragraph)
    assert failed.text == "2 calls of 54,002 failed."
    assert not any(line.points[0].void for line in chart.lines)
    assert "Void" not in chart.finding


def test_a_run_without_an_answer_has_no_curve(tmp_path: Path) -> None:
    source = _run(tmp_path, Fake(seconds=3, calls=0))
    (said,) = spectrum_parts(source)
    assert isinstance(said, Paragraph)
    assert list(time_parts(source)) == []


# --- over time -------------------------------------------------------------------------------


def test_every_second_has_its_place(tmp_path: Path) -> None:
    source = _run(tmp_path, Fake(seconds=4, calls=200))
    (chart,) = time_parts(source)
    assert isinstance(chart, LineChart)
    latency, rate, cpu, memory = chart.panels
    assert [line.name for line in latency.lines] == ["response p50", "response p99"]
    assert [point.x for point in latency.lines[0].points] == [0.5, 1.5, 2.5, 3.5]
    assert latency.heat is not None
    assert list(latency.heat.x_edges) == [0, 1, 2, 3, 4]
    for column in zip(*latency.heat.shares, strict=True):
        assert sum(column) == pytest.approx(1)
    names = ["server: worker 0", "server: supervisor", "generator: engine 0"]
    assert [point.y for line in rate.lines for point in line.points] == [400.0] * 4
    assert [line.name for line in cpu.lines] == names
    assert [line.name for line in memory.lines] == names
    assert {point.y for point in memory.lines[0].points} == {50.0}
    assert cpu.lines[2].points[0].y == pytest.approx(0.4)


def test_each_endpoint_has_a_line_and_the_loss_of_one_is_shaded(tmp_path: Path) -> None:
    written = over_two_servers(make_run(Fake(seconds=6, calls=200)), lost=(1.5, 4.25))
    (chart,) = time_parts(_source(write_run_folder(tmp_path, written)))
    assert isinstance(chart, LineChart)
    rate, standing = (panel for panel in chart.panels if "each endpoint" in panel.y.title)
    first, second = rate.lines
    assert (first.name, second.name) == ("127.0.0.1:1", "<b>:2")
    assert [point.y for point in first.points] == [400.0] * 6
    assert [point.y for point in second.points] == [400.0, 400.0, 0.0, 0.0, 400.0, 400.0]
    # Two processes lose a connection each in second 1; at its end none stands.
    assert [point.y for point in standing.lines[1].points] == [2, 0, 0, 0, 0, 0]
    assert [point.x for point in standing.lines[1].points] == [1, 2, 3, 4, 5, 6]
    for panel in (rate, standing):
        assert [(mark.low, mark.high) for mark in panel.marks] == [(1.5, 4.25)]
    assert "There was no connection to <b>:2 from second 1.5 to 4.2." in chart.finding


def test_an_outage_of_a_later_repeat_is_shaded_there(tmp_path: Path) -> None:
    fake = Fake(seconds=4, calls=100, repeats=2, processes=1)
    written = over_two_servers(make_run(fake), lost=(1.0, 9.0))
    written.document["generators"][0]["changes"] = []
    *_, chart = time_parts(_source(write_run_folder(tmp_path, written)))
    assert isinstance(chart, LineChart)
    (mark,) = next(panel.marks for panel in chart.panels if "each endpoint" in panel.y.title)
    assert (mark.low, mark.high, mark.text) == (5.0, 8.0, "<b>:2 lost")
    assert "no connection to <b>:2 from second 1.0 to 4.0 of repeat 1." in chart.finding


def test_repeats_lie_one_over_the_other(tmp_path: Path) -> None:
    source = _run(tmp_path, Fake(seconds=4, calls=50, repeats=6, is_open_loop=False))
    overlay, _ = time_parts(source)
    assert isinstance(overlay, LineChart)
    titles = [panel.y.title for panel in overlay.panels]
    assert titles == ["service time p99", "service time p50", "answered, in calls/s"]
    for panel in overlay.panels:
        assert [line.name for line in panel.lines] == [f"repeat {number}" for number in range(6)]
        assert len({line.look for line in panel.lines}) == 6
        assert [[point.x for point in line.points] for line in panel.lines] == [
            [0.5, 1.5, 2.5, 3.5]
        ] * 6
    assert all(98 <= point.y <= 102 for line in overlay.panels[2].lines for point in line.points)
    assert overlay.finding.startswith("The repeats answered ")


def test_repeats_stand_one_after_the_other(tmp_path: Path) -> None:
    source = _run(tmp_path, Fake(seconds=3, calls=50, repeats=2))
    _, chart = time_parts(source)
    assert isinstance(chart, LineChart)
    points = chart.panels[0].lines[0].points
    assert [point.x for point in points] == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    assert [(mark.at, mark.text) for mark in chart.panels[0].marks] == [(3.0, "repeat 1")]


def test_collections_have_a_panel_of_those_that_tell_of_them(tmp_path: Path) -> None:
    source = _run(tmp_path, Fake(seconds=4, calls=200, gc_every_s=1.0))
    (chart,) = time_parts(source)
    assert isinstance(chart, LineChart)
    panel = chart.panels[-1]
    assert panel.y.title == "garbage collection, in ms of pause per sample"
    (line,) = panel.lines
    assert line.name == "generator: engine 0"
    in_cpu = next(one for one in chart.panels[2].lines if one.name == line.name)
    assert line.look == in_cpu.look
    # One a second, sampled twice in it.
    assert [(point.x, point.y) for point in line.points][:4] == [
        *((0.5, 0.0), (1.0, 2.0)),
        *((1.5, 0.0), (2.0, 2.0)),
    ]
    assert line.points[1].text.endswith("1 collection, 2 ms in all, the longest so far 3 ms")
    assert "The generator collected garbage 3 times, and stood still for 6 ms." in chart.finding


def test_without_collections_there_is_no_such_panel(tmp_path: Path) -> None:
    source = _run(tmp_path, Fake(seconds=4, calls=200, gc_every_s=99.0))
    (chart,) = time_parts(source)
    assert isinstance(chart, LineChart)
    assert [panel.y.title for panel in chart.panels[1:]] == [
        "answered, in calls/s",
        "CPU, in cores",
        "resident memory, in MB",
    ]
    assert "The generator collected no garbage." in chart.finding


def test_a_server_elsewhere_leaves_its_panels_out(tmp_path: Path) -> None:
    source = _run(tmp_path, Fake(seconds=3, calls=50, server=False))
    (chart,) = time_parts(source)
    assert isinstance(chart, LineChart)
    titles = [panel.y.title for panel in chart.panels]
    assert titles == ["response time", "answered, in calls/s"]


# --- against the rate ------------------------------------------------------------------------


def test_the_curve_of_a_search(tmp_path: Path) -> None:
    chart, table = search_parts(_source(write_search(tmp_path)))
    assert isinstance(chart, LineChart)
    (panel,) = chart.panels
    assert [line.name for line in panel.lines] == ["response p50", "response p99", "response p99.9"]
    p99 = panel.lines[1].points
    assert [(point.x, point.y) for point in p99] == [
        (point["rate_hz"], point["p99"] * 1000) for point in CURVE
    ]
    assert [point.void for point in p99] == ["", "", "", "the generator was late or busy"]
    assert [(mark.axis, mark.at, mark.text) for mark in panel.marks] == [
        ("y", 2_000_000, "objective: p99 < 2 ms"),
        ("x", 30_000.0, "verified: 30,000/s"),
    ]
    # The rate that fails by orders of magnitude does not flatten the rest.
    assert panel.y.high == 4_000_000
    assert chart.finding == (
        "It holds up to 30,000 calls/s; it fails at 40,000, where the limit was the server. "
        "What lies above the frame is in the table. "
        "Grey points are void: the generator was late, or calls failed."
    )
    assert isinstance(table, Table)
    assert [row.cells[-2].text for row in table.rows] == ["3 of 3", "3 of 3", "3 of 3", "0 of 3"]


def test_a_void_rate_does_not_stretch_the_frame(tmp_path: Path) -> None:
    source = _source(write_search(tmp_path))
    late = {**CURVE[1], "rate_hz": 15_000.0, "p99": 50_000.0, "note": "the generator was late"}
    chart, _ = search_parts(replace(source, document={**source.document, "curve": [*CURVE, late]}))
    assert isinstance(chart, LineChart)
    assert chart.panels[0].y.high == 4_000_000


def test_a_search_without_an_answer_has_no_mark(tmp_path: Path) -> None:
    source = _source(write_search(tmp_path))
    found = {**FOUND, "rate_hz": None, "failing_hz": 10_000.0}
    chart, _ = search_parts(replace(source, document={**source.document, "found": found}))
    assert isinstance(chart, LineChart)
    assert [mark.axis for mark in chart.panels[0].marks] == ["y"]
    assert chart.finding.startswith("No rate was verified; it fails at 10,000, where the limit")


@pytest.mark.parametrize("curve", [None, []])
def test_a_search_without_a_curve_says_so(tmp_path: Path, curve: object) -> None:
    source = _source(write_search(tmp_path))
    (said,) = search_parts(replace(source, document={**source.document, "curve": curve}))
    assert isinstance(said, Paragraph)


def test_a_damaged_curve_is_named(tmp_path: Path) -> None:
    source = _source(write_search(tmp_path))
    broken = replace(source, document={**source.document, "curve": [{"rate_hz": "x"}]})
    with pytest.raises(ResultError, match="the curve is damaged"):
        list(search_parts(broken))


# --- calls in flight -------------------------------------------------------------------------


def test_the_rate_stands_over_the_calls_in_flight(tmp_path: Path) -> None:
    chart, table = flight_parts(_source(write_sweep(tmp_path)))
    assert isinstance(chart, LineChart)
    rate, times, cpu = chart.panels
    assert [(point.x, point.y) for point in rate.lines[0].points] == [
        *((4, 2000.0), (8, pytest.approx(7867, abs=1)), (16, 8000.0)),
    ]
    assert chart.x.is_log
    assert list(chart.x.ticks) == [(4, "4"), (8, "8"), (16, "16")]
    assert [(mark.at, mark.text) for mark in rate.marks] == [(8, "8: within 5 % of the highest")]
    assert [line.name for line in times.lines] == ["service p50", "service p99"]
    assert [point.y for point in times.lines[0].points] == pytest.approx(
        [2_000_000, 1_017_000, 2_000_000], rel=0.01
    )
    assert [point.y for point in cpu.lines[0].points] == pytest.approx([200, 50.8, 50], rel=0.01)
    assert "8 come within 5 % of it" in chart.finding
    assert isinstance(table, Table)
    assert [row.cells[0].value for row in table.rows] == [4, 8, 16]
    assert not any(row.void for row in table.rows)


def test_steps_with_failed_calls_are_grey(tmp_path: Path) -> None:
    chart, table = flight_parts(_source(write_sweep(tmp_path, failures={"gone": 1})))
    assert isinstance(chart, LineChart)
    assert all(point.void == "6 calls failed" for line in chart.lines for point in line.points)
    assert chart.finding == "All of it is void."
    assert isinstance(table, Table)
    assert [row.void for row in table.rows] == ["6 calls failed"] * 3


def test_without_the_servers_cpu_its_panel_is_absent(tmp_path: Path) -> None:
    chart, _ = flight_parts(_source(write_sweep(tmp_path, server_cpu_s=None)))
    assert isinstance(chart, LineChart)
    assert [panel.y.title for panel in chart.panels] == ["calls/s", "service time"]
    assert "Grey points are void" in chart.finding

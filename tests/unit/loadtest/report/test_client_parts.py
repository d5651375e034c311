from pathlib import Path

import pytest
from running_rig import ROOT
from sample_clients import client_sample
from sample_results import write_clients

from capnp_rig.loadtest.clients.client_figures import ClientSample, figures, timeline
from capnp_rig.loadtest.report.chart import LineChart
from capnp_rig.loadtest.report.client_parts import client_parts, course_parts
from capnp_rig.loadtest.report.contents import document_of
from capnp_rig.loadtest.report.document import Notes, Table
from capnp_rig.loadtest.report.fill_in import filled
from capnp_rig.loadtest.report.sources import read_sources
from capnp_rig.loadtest.results import ResultError, read_run
from capnp_rig.loadtest.results.load_samples import read_result
from capnp_rig.loadtest.results.writing import write_run


def test_a_row_per_client_and_a_line_per_criterion() -> None:
    samples = [client_sample(executions=12_500), client_sample("bare", failed=300)]
    table, verdict, *_ = client_parts(figures(samples))
    assert isinstance(table, Table)
    cells = [[cell.text for cell in row.cells] for row in table.rows]
    assert [row[:2] for row in cells] == [["default", "100.00 %"], ["bare", "97.00 %"]]
    assert [row[-2:] for row in cells] == [["1.25", "-"], ["1", "300 Disconnected"]]
    assert isinstance(verdict, Notes)
    assert verdict.texts == [
        "good: 100.00 %, at least 99.90 % asked for: kept",
        "attempts per call: 1.25, at most 1.2 asked for: missed",
        "p99 over healthy: 1.2, at most 3 asked for: kept",
    ]


def test_the_course_has_a_line_per_client_and_the_faults(tmp_path: Path) -> None:
    (source,) = read_sources([write_clients(tmp_path / "clients")]).sources
    (chart,) = course_parts(source)
    assert isinstance(chart, LineChart)
    good, p99 = chart.panels
    assert {line.name: [point.y for point in line.points] for line in good.lines} == {
        "default": [100, 100],
        "bare": [100, 97],
    }
    assert [point.y for point in p99.lines[0].points] == pytest.approx([5e6, 6e6], rel=0.01)
    marks = [(mark.at, mark.text, mark.high) for mark in good.marks]
    assert marks == [
        (1.0, "A slow", 2.0),
        (1.25, "C killed", None),
        (1.35, "", None),
        (1.75, "A fast again", None),
    ]
    assert "default 100 %, bare 97 %" in chart.finding.replace(" and ", ", ")


def test_a_damaged_timeline_is_named(tmp_path: Path) -> None:
    folder = write_clients(tmp_path / "clients")
    document = read_run(folder)
    del document["timeline"]
    write_run(folder, document)
    (source,) = read_sources([folder]).sources
    with pytest.raises(ResultError, match="the timeline is damaged"):
        list(course_parts(source))


def test_the_page_of_the_docs_says_what_the_reference_says() -> None:
    (reference,) = (ROOT / "results" / "clients").iterdir()
    page = (ROOT / "docs" / "guides" / "failing-servers.md").read_text(encoding="utf-8")
    found = read_sources([reference])
    assert filled(page, document_of(found, lambda source: source.name), "../assets") == page
    stored = read_result(reference)
    assert stored.samples is not None
    samples = [ClientSample(**each) for each in stored.samples]
    assert [figure.to_json() for figure in figures(samples)] == stored.document["figures"]
    assert [*timeline(samples)] == stored.document["timeline"]

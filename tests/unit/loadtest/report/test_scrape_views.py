from pathlib import Path

from sample_runs import Fake, make_run, write_run_folder

from capnp_rig.loadtest.report.chart import LineChart, Panel
from capnp_rig.loadtest.report.document import Paragraph, Table
from capnp_rig.loadtest.report.result_page import result_document
from capnp_rig.loadtest.report.scrape_views import scrape_panels, scrape_parts
from capnp_rig.loadtest.report.sources import Source, read_sources
from capnp_rig.loadtest.report.timeline import time_parts
from capnp_rig.loadtest.results.load_samples import LoadRun, scrape_entry, scrape_samples
from capnp_rig.loadtest.scrape.series import Scraped

URL = "http://a:1/metrics"
READINGS = (
    (-1.0, {"jobs_total": 0.0, 'depth{q="<b>"}': 1.0, "still": 7.0, "w_sum": 0.0, "w_count": 0.0}),
    (0.0, {"jobs_total": 5.0, 'depth{q="<b>"}': 2.0, "still": 7.0, "w_sum": 1.0, "w_count": 2.0}),
    (1.0, {"jobs_total": 25.0, 'depth{q="<b>"}': 1.5, "still": 7.0, "w_sum": 7.0, "w_count": 8.0}),
    (2.0, {"jobs_total": 2.0, 'depth{q="<b>"}': 1.0, "still": 7.0, "w_sum": 7.0, "w_count": 8.0}),
    (3.5, {"jobs_total": 9.0, 'depth{q="<b>"}': 9.0, "still": 8.0, "w_sum": 9.0, "w_count": 9.0}),
)
SCRAPED = Scraped(
    URL, READINGS, frozenset({"jobs_total", "w_sum", "w_count"}), failed=1, error="it is gone"
)


def _source(folder: Path, *scrapes: Scraped, repeats: int = 1) -> Source:
    written = make_run(Fake(seconds=3, calls=20, repeats=repeats))
    for repeat, observed in enumerate(written.document["observed"]):
        observed["scrapes"] = [scrape_entry(each) for each in scrapes]
        for each in scrapes:
            written.samples.extend(scrape_samples(repeat, each))
    return read_sources([write_run_folder(folder, written)]).sources[0]


def _load(source: Source) -> LoadRun:
    assert source.load is not None
    return source.load


def _drawn(panels: list[Panel]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    return {
        panel.y.title: {
            line.name: [(point.x, point.y) for point in line.points] for line in panel.lines
        }
        for panel in panels
    }


def test_what_was_read_survives_its_folder(tmp_path: Path) -> None:
    assert _load(_source(tmp_path, SCRAPED)).repeats[0].scrapes == (SCRAPED,)


def test_what_moved_in_the_window_is_drawn_counters_as_rates(tmp_path: Path) -> None:
    load = _load(_source(tmp_path, SCRAPED))
    assert _drawn(scrape_panels(load, {0: 0.0})) == {
        # It began anew after second 1. The last reading came after the window.
        "jobs_total, per second": {"jobs_total, per second": [(0.0, 5), (1.0, 20), (2.0, 2)]},
        "depth": {'q="<b>"': [(0.0, 2.0), (1.0, 1.5), (2.0, 1.0)]},
        # Nothing was observed in the second after it.
        "w, mean": {"w, mean": [(0.0, 0.5), (1.0, 1.0)]},
        "w_count, per second": {"w_count, per second": [(0.0, 2), (1.0, 6), (2.0, 0)]},
    }


def test_endpoints_and_repeats_are_told_apart(tmp_path: Path) -> None:
    other = Scraped("http://b:2/metrics", ((0.0, {"depth": 1.0}), (1.0, {"depth": 2.0})))
    load = _load(_source(tmp_path, SCRAPED, other, repeats=2))
    drawn = _drawn(scrape_panels(load, {0: 0.0, 1: 3.0}))
    assert f"depth ({URL})" in drawn
    assert drawn["depth (http://b:2/metrics)"] == {
        "depth": [(0.0, 1.0), (1.0, 2.0), (3.0, 1.0), (4.0, 2.0)]
    }


def test_a_table_has_all_and_says_what_is_missing(tmp_path: Path) -> None:
    table, note = scrape_parts(_load(_source(tmp_path, SCRAPED)), 0)
    assert isinstance(table, Table)
    cells = {row.cells[0].text: [cell.value for cell in row.cells[1:]] for row in table.rows}
    assert cells["still"] == [7, 8, 7, 8, None]
    # 5 + 20 + 2 (from 0) + 7, in 4.5 s.
    assert cells["jobs_total"] == [0, 9, 0, 25, 34 / 4.5]
    assert isinstance(note, Paragraph)
    assert note.text == f"{URL}: 1 of 6 readings failed, the last one: it is gone"


def test_the_page_of_a_run_shows_them(tmp_path: Path) -> None:
    source = _source(tmp_path, SCRAPED)
    (chart,) = time_parts(source)
    assert isinstance(chart, LineChart)
    assert [panel.y.title for panel in chart.panels][-1] == "w_count, per second"
    keys = [
        part.key
        for section in result_document(source).sections
        for part in section.parts
        if isinstance(part, Table)
    ]
    assert "scrape-0-0" in keys

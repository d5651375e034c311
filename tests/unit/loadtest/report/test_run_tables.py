from capnp_rig.loadtest.report.document import Tone
from capnp_rig.loadtest.report.run_tables import times_table
from capnp_rig.loadtest.results.times_table import times_rows
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.tally import Times, Window


def test_a_label_has_its_times_in_us() -> None:
    times = Times(service=Histogram.of([400, 12_340, 5_678_000]))
    table = times_table(times_rows(Window({"read": times}), 2.0))
    (row,) = ([cell.text for cell in row.cells] for row in table.rows)
    assert dict(zip(table.headings, row, strict=True)) == {
        "label": "read",
        "clock": "service",
        "count": "3",
        "per s": "2",
        "mean": "1,897",
        "p50": "12.35",
        **dict.fromkeys(("p90", "p99", "p99.9", "p99.99", "max"), "5,678"),
    }


def test_a_percentile_with_few_calls_beyond_it_is_grey() -> None:
    times = Times(service=Histogram.of([10_000] * 500 + [20_000] * 500))
    (row,) = times_table(times_rows(Window({"read": times}), 1.0)).rows
    tones = [cell.tone for cell in row.cells[5:10]]
    assert tones == [Tone.PLAIN, Tone.PLAIN, Tone.QUIET, Tone.QUIET, Tone.QUIET]

from collections.abc import Iterable

import pytest
from sample_results import COPIES, SIZES, bench_figures, ratio, time

from capnp_rig.loadtest.report.chart import LineChart, RowChart
from capnp_rig.loadtest.report.codec_ratios import codec_ratio_table, loss_parts
from capnp_rig.loadtest.report.codec_sweeps import share_parts, size_parts
from capnp_rig.loadtest.report.codec_view import CodecView
from capnp_rig.loadtest.report.codec_weights import copy_parts, encoded_parts
from capnp_rig.loadtest.report.document import Fold, Paragraph, Part, Table
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.reasons import reasons_of_text


def _view(figures: Iterable[Figure] | None = None) -> CodecView:
    return CodecView(list(bench_figures() if figures is None else figures))


def _table(parts: Iterable[Part], key: str) -> Table:
    return next(part for part in parts if isinstance(part, Table) and part.key == key)


def test_a_sweep_has_a_line_per_codec_a_floor_and_the_ratio_below() -> None:
    ratios, chart, *_ = size_parts(_view())
    assert isinstance(ratios, Table)
    assert ratios.key == "codec-ratios"
    assert isinstance(chart, LineChart)
    assert chart.key == "size-text-open-read-100"
    times, ratio_panel = chart.panels
    assert [(line.name, line.shown) for line in times.lines] == [
        ("wire", True),
        ("pycapnp", True),
        ("orjson", True),
        ("json", False),
        ("other", False),
        ("memcpy", True),
    ]
    assert [point.x for point in times.lines[0].points] == [*SIZES]
    assert times.lines[0].points[0].low == pytest.approx(970)
    assert [line.name for line in ratio_panel.lines] == ["wire", "pycapnp"]
    unity, crossed = ratio_panel.marks
    assert (unity.axis, unity.at) == ("y", 1.0)
    assert (crossed.axis, crossed.at, crossed.low, crossed.high) == ("x", 600.0, 550.0, 700.0)
    assert [point.void for point in ratio_panel.lines[0].points] == [
        "",
        "",
        "under 6 pairs",
        "",
        "",
    ]
    assert chart.finding == (
        "At 4 MiB, wire over orjson: 4,190 (3,990 to 4,400), faster; "
        "ahead from 600 B (550 to 700 B). Bands are 95 % intervals."
    )


def test_round_trips_over_a_transport_have_its_echo_as_the_floor() -> None:
    contract = "round trip over TCP"
    figures = [time("wire", "text", contract, size, 1.0 * size) for size in (64, 128)]
    figures += [time("echo over TCP", "", "floor", size, 0.5 * size) for size in (64, 128)]
    figures += [time("memcpy", "", "floor", size, 0.1 * size) for size in (64, 128)]
    (fold, _) = size_parts(_view(figures))
    assert isinstance(fold, Fold)
    (chart,) = fold.parts
    assert isinstance(chart, LineChart)
    assert chart.title == "Writing, sending over TCP and back, and reading a text"
    assert [line.name for line in chart.lines] == ["wire", "echo over TCP"]


def test_contracts_that_are_no_headline_are_folded() -> None:
    folds = [part for part in size_parts(_view()) if isinstance(part, Fold)]
    assert [
        chart.key for fold in folds for chart in fold.parts if isinstance(chart, LineChart)
    ] == ["size-text-build"]


def test_numbers_stand_beside_their_chart() -> None:
    table = _table(size_parts(_view()), "table-text-open-read-100")
    assert table.headings[:4] == ["size", "wire", "pycapnp", "orjson"]
    assert table.headings[4:] == [
        *("wire over orjson", "95 % interval", "A/A floor", "n", "verdict"),
    ]
    assert [cell.text for cell in table.rows[0].cells] == [
        *("64 B", "1 µs", "1.51 µs", "464 ns"),
        *("0.464", "0.442 to 0.487", "1 %", "12", "slower"),
    ]
    assert table.rows[2].void == "under 6 pairs"
    assert table.rows[0].cells[0].value == 64


def test_every_time_is_in_a_table_those_of_void_codecs_with_the_reason() -> None:
    void = Figure(
        *("time: text, open, 64 B, broken", None, "ns", "open", 0),
        verdict=Verdict.VOID,
        reasons=reasons_of_text("gives back other values"),
        labels={"kind": "time", "codec": "broken", "message": "text", "size_bytes": 64},
    )
    table = _table(size_parts(_view([*bench_figures(), void])), "times")
    assert table.folded
    assert table.rows[-1].void == "gives back other values"
    assert table.rows[-1].cells[4].text == "-"


def test_second_timings_and_those_with_gc_are_not_drawn() -> None:
    again = time("orjson", "text", "open", 64, 1.0, subject="orjson again")
    with_gc = time("orjson", "text", "open", 64, 1.0, gc=True)
    assert _view([again, with_gc]).times() == []


def test_a_benchmark_of_other_codecs_shows_them() -> None:
    figures = [time("mine", "text", "open", size, 1.0 * size) for size in (64, 128)]
    chart, *_ = size_parts(_view(figures))
    assert isinstance(chart, LineChart)
    assert [line.shown for line in chart.lines] == [True]
    assert chart.finding == "Bands are 95 % intervals."


def test_a_sweep_by_shares_marks_where_it_breaks_even() -> None:
    (chart,) = share_parts(_view())
    assert isinstance(chart, LineChart)
    assert chart.title == "1,000 records, 133 KiB"
    assert [point.x for point in chart.lines[0].points] == [0, 1, 10, 50, 100]
    (mark,) = chart.panels[0].marks
    assert (mark.at, mark.text) == (22.0, "wire = orjson at 22 %")
    assert chart.finding.startswith(
        "Against orjson, wire is ahead up to 22 % of the fields (20 to 25 %)."
    )


def test_the_copy_ledger_and_memory() -> None:
    ledger, chart, table = copy_parts(_view(), {"copies": [*COPIES]})
    assert isinstance(ledger, Table)
    assert [cell.text for cell in ledger.rows[1].cells[:5]] == [
        *("orjson", "frame to array", "3", "-", "no"),
    ]
    assert isinstance(chart, RowChart)
    assert chart.rows == ["wire", "orjson"]
    assert [value.value for value in chart.series[0].values] == [0.0, 3.0]
    assert chart.finding == "Round trip: no further memory with wire."
    assert isinstance(table, Table)
    assert [cell.text for cell in table.rows[1].cells[4:]] == ["3 MiB", "3 MiB"]


@pytest.mark.parametrize("document", [{}, {"copies": []}, {"copies": "none"}])
def test_without_a_ledger_there_is_none(document: dict[str, object]) -> None:
    assert list(copy_parts(_view([]), document)) == []


def test_encoded_sizes_by_method() -> None:
    chart, table = encoded_parts(_view())
    assert isinstance(chart, RowChart)
    assert [series.name for series in chart.series] == ["raw", "zstd 3"]
    assert chart.series[0].values[0].value == pytest.approx(70000 / 65536)
    assert chart.finding == "The least is 29 KiB (wire, zstd 3), the most 68 KiB (wire, raw)."
    assert isinstance(table, Table)
    assert len(table.rows) == 4


def test_where_copying_wins_is_listed() -> None:
    table = _table(loss_parts(_view()), "loss-table")
    # At 64 B; at 16 KiB the ratio is void, elsewhere Cap'n Proto is ahead.
    assert [[cell.text for cell in row.cells] for row in table.rows] == [
        [
            "Opening and reading all of a text, 64 B: wire over orjson",
            *("0.464", "0.442 to 0.487", "1 %", "12", "slower"),
        ]
    ]
    fastest = _table(loss_parts(_view()), "fastest")
    assert [cell.text for cell in fastest.rows[0].cells] == [
        *("text", "open+read 100%", "64 B", "orjson", "464 ns", "1 µs", "2.16"),
    ]


def test_no_loss_is_said() -> None:
    own = time("wire", "text", "open+read 100%", 64, 1.0)
    first, *_ = loss_parts(_view([own, ratio(2.0)]))
    assert first == Paragraph("No baseline was ahead of Cap'n Proto in what was measured.")


def test_what_a_benchmark_writes_is_what_the_page_reads() -> None:
    pytest.importorskip("orjson", reason="needs the extra bench")
    from capnp_rig.loadtest.bench.case_times import CaseTimes
    from capnp_rig.loadtest.bench.figures import figures
    from capnp_rig.loadtest.bench.plan import PLANS, groups

    plan = PLANS["tiny"]
    cases = [case for group in groups(plan) for case in group]
    samples = [
        CaseTimes(process, at, case, (1e-6 * (1 + case.size_bytes * len(case.subject)),), 1)
        for process in range(6)
        for at, case in enumerate(cases)
    ]
    view = _view(figures(plan, samples))
    charts = [part for part in size_parts(view) if isinstance(part, LineChart)]
    assert [chart.key for chart in charts] == [
        "size-tensor-open-read-one-field",
        "size-tensor-open-read-100",
        "size-tensor-build-encode",
    ]
    for chart in charts:
        assert {"wire", "pycapnp", "orjson", "memcpy"} <= {line.name for line in chart.lines}
        assert len(chart.panels) == 2
    assert list(share_parts(view))
    assert codec_ratio_table(view).rows

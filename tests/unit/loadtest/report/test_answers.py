import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from sample_results import (
    FOUND,
    bench_figures,
    pair_figures,
    ratio,
    server_figures,
    stack_figures,
    time,
    write_figures,
    write_results,
    write_search,
    write_sweep,
)
from sample_runs import Fake, make_run, write_run_folder

from capnp_rig.loadtest.report.answers import answers
from capnp_rig.loadtest.report.document import Row, Tone
from capnp_rig.loadtest.report.sources import Source, find_sources, read_sources
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode


def _source(folder: Path) -> Source:
    found = read_sources([folder])
    assert not found.skipped
    return found.sources[0]


def _rows(*sources: Source) -> list[Row]:
    table = answers(sources)
    return [] if table is None else [*table.rows]


def _texts(rows: Iterable[Row]) -> list[list[str]]:
    return [[cell.text for cell in row.cells] for row in rows]


def test_codecs_answer_when_zero_copy_pays_by_the_best_and_the_worst_ratio(tmp_path: Path) -> None:
    rows = _rows(_source(write_figures(tmp_path, "bench", bench_figures())))
    ahead = "ahead from 600 B (550 to 700 B)"
    place = "Opening and reading all of a text"
    assert _texts(rows) == [
        [
            f"{place}, 4 MiB: wire over orjson; {ahead}",
            *("4,190", "3,990 to 4,400", "1 %", "12", "faster"),
        ],
        [
            f"{place}, 64 B: wire over orjson; {ahead}",
            *("0.464", "0.442 to 0.487", "1 %", "12", "slower"),
        ],
    ]


def test_columns_answer_where_zero_copy_pays_and_where_it_loses(tmp_path: Path) -> None:
    table = {"message": "table", "contract": "open+read one column"}
    figures = [
        *bench_figures(),
        time("wire", "table", "open+read one column", 13_600_000, 10.0),
        ratio(300.0, **table, size_bytes=13_600_000),
        ratio(20.0, **table, size_bytes=136_000),
        ratio(0.25, **table, size_bytes=13_600_000, baseline="Arrow IPC"),
    ]
    rows = _texts(_rows(_source(write_figures(tmp_path, "bench", figures))))
    place = "Opening and reading one column of a table, 100,000 records: wire over"
    assert [row[:2] for row in rows] == [[f"{place} orjson", "300"], [f"{place} Arrow IPC", "0.25"]]


def test_round_trips_answer_what_is_left_over_rpc(tmp_path: Path) -> None:
    trips = [f"round trip {where}" for where in ("in memory", "over RPC")]
    figures = [
        figure
        for size in (64, 1 << 20)
        for contract in trips
        for figure in (
            time("wire", "tensor", contract, size, 10.0),
            ratio(8.0 if contract == trips[0] else 2.0, contract=contract, message="tensor",
                  size_bytes=size),
        )
    ]  # fmt: skip
    (row,) = _rows(_source(write_figures(tmp_path, "bench", figures)))
    # A small message is all transport: it answers nothing.
    assert row.cells[0].text == (
        "A tensor (1 MiB), there and back over RPC: wire over orjson; 8 in memory"
    )
    assert row.cells[1].text == "2"


def _stack_ratio(rival: str, value: float, verdict: Verdict = Verdict.FASTER) -> Figure:
    figure = next(one for one in stack_figures() if one.labels.get("baseline"))
    labels = {**figure.labels, "baseline": rival, "figure": "ratio_cpu"}
    reasons = (Reason(ReasonCode.NO_FLOOR),) if verdict is Verdict.VOID else ()
    return replace(figure, value=value, verdict=verdict, reasons=reasons, labels=labels)


def test_stacks_answer_what_a_call_costs_by_the_dearest_and_the_cheapest(tmp_path: Path) -> None:
    ratios = [
        *(_stack_ratio("http1", 2.0), _stack_ratio("grpc", 19.0), _stack_ratio("json", 0.7)),
        _stack_ratio("http2", 99.0, Verdict.VOID),
    ]
    rows = _rows(_source(write_figures(tmp_path, "bench-stacks", [*stack_figures(), *ratios])))
    assert [row.cells[0].text for row in rows] == [
        f"Server CPU per call, 32 B text: capnp over {rival}" for rival in ("grpc", "json")
    ]


def test_without_cpu_the_rates_of_stacks_answer(tmp_path: Path) -> None:
    rows = _rows(_source(write_figures(tmp_path, "bench-stacks", stack_figures())))
    assert [row.cells[0].text for row in rows] == [
        f"Calls/s, 32 B text: capnp over {rival}" for rival in ("http1", "grpc")
    ]


def test_where_all_ratios_are_void_they_say_why(tmp_path: Path) -> None:
    void = [_stack_ratio(rival, 1.0, Verdict.VOID) for rival in ("a", "b")]
    rows = _rows(_source(write_figures(tmp_path, "bench-stacks", void)))
    assert [row.void for row in rows] == ["no A/A pairs"] * 2


def test_a_pair_of_servers_fills_what_is_left(tmp_path: Path) -> None:
    rows = _texts(_rows(_source(write_figures(tmp_path, "bench-server", server_figures()))))
    assert rows[0] == [
        "Calls/s, 64 x 1: wire over pycapnp",
        *("2", "1.94 to 2.06", "1 %", "12", "faster"),
    ]
    assert [row[0] for row in rows[1:]] == [
        "Server CPU per call, 64 x 1: wire over pycapnp",
        "Calls/s, 8 x 16: wire over pycapnp",
        "Server CPU per call, 8 x 16: wire over pycapnp",
    ]


def test_there_are_six_lines_at_most(tmp_path: Path) -> None:
    sources = find_sources(write_results(tmp_path)).sources
    rows = _texts(_rows(*sources))
    assert len(rows) == 6
    assert [row[0].partition(" ")[0] for row in rows] == [
        *("Opening", "Opening", "Calls/s,", "Calls/s,", "Calls/s,", "Server"),
    ]


def test_nothing_answers_nothing(tmp_path: Path) -> None:
    figures = [one for one in pair_figures("a", "b", "1 x 1") if one.labels["kind"] == "value"]
    assert answers([_source(write_figures(tmp_path, "bench-server", figures))]) is None


# --- loads -------------------------------------------------------------------------------------


def test_a_search_says_which_rate_keeps_the_objective(tmp_path: Path) -> None:
    (row,) = _rows(_source(write_search(tmp_path)))
    assert _texts([row]) == [
        [
            "Highest rate that keeps p99<2ms and errors<0.1%",
            *("30,000 calls/s", "30,000 to 40,000", "-", "5", "limit: server"),
        ]
    ]
    assert row.void == ""


def test_a_search_without_an_answer_is_void(tmp_path: Path) -> None:
    source = _source(write_search(tmp_path))
    none = {**FOUND, "rate_hz": None, "failing_hz": None}
    (row,) = _rows(replace(source, document={**source.document, "found": none}))
    assert (row.cells[1].text, row.void) == ("-", "no rate was verified")


def test_a_sweep_says_how_high_the_rate_goes(tmp_path: Path) -> None:
    (row,) = _rows(_source(write_sweep(tmp_path)))
    assert [row.cells[0].text, row.cells[1].text, row.cells[-1].text] == [
        "Highest rate of callers that wait, 16 calls in flight",
        *("8,000 calls/s", "ok"),
    ]
    (row,) = _rows(_source(write_sweep(tmp_path, busy=0.95)))
    assert (row.cells[1].text, row.cells[-1].text) == ("≥ 8,000 calls/s", "at least")
    (row,) = _rows(_source(write_sweep(tmp_path, failures={"gone": 1})))
    assert row.void == "all of it is void"


def _percentile(values: list[int]) -> int:
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


@pytest.mark.parametrize("failures", [(), (("gone", 2),)])
def test_a_run_says_its_tail_and_whether_to_believe_it(
    tmp_path: Path, failures: tuple[tuple[str, int], ...]
) -> None:
    written = make_run(Fake(seconds=12, calls=900, failures=failures))
    (row,) = _rows(_source(write_run_folder(tmp_path, written)))
    assert row.cells[0].text.startswith("loadtest run, open loop, ")
    assert row.cells[0].text.endswith(" calls/s: response time p99")
    assert row.cells[1].value == pytest.approx(_percentile(written.raw["response"]), rel=0.01)
    assert row.cells[-1].text == ("failed" if failures else "valid")
    assert (row.void, row.tone) == ("", Tone.BAD if failures else Tone.PLAIN)


def test_a_void_run_says_why(tmp_path: Path) -> None:
    written = make_run(Fake(seconds=12, calls=900))
    written.document["interrupted"] = True
    del written.document["summary"]
    (row,) = _rows(_source(write_run_folder(tmp_path, written)))
    assert (row.cells[-1].text, row.void) == ("void", "interrupted after 12.0 s")


def test_a_closed_loop_has_service_times(tmp_path: Path) -> None:
    written = make_run(Fake(seconds=12, calls=900, is_open_loop=False))
    written.document["kind"] = "locust"
    (row,) = _rows(_source(write_run_folder(tmp_path, written)))
    assert row.cells[0].text.startswith("Locust, closed loop, ")
    assert row.cells[0].text.endswith(": service time p99")

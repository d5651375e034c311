import json
from pathlib import Path

import pytest
from references import REFERENCES
from sample_results import STARTED, server_figures, write_figures, write_results, write_search
from sample_runs import ENVIRONMENT

from capnp_rig.loadtest.report.chart import LineChart, RowChart
from capnp_rig.loadtest.report.contents import KINDS, document_of, usable
from capnp_rig.loadtest.report.document import Commands, Document, Links, Notes, Paragraph, Table
from capnp_rig.loadtest.report.sources import find_sources, read_sources
from capnp_rig.loadtest.results import Figure, run_document
from capnp_rig.loadtest.results.writing import write_run
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode

_SECTIONS = (
    *(
        "size",
        "share",
        "copies",
        "spectrum",
        "distribution",
        "rate",
        "flight",
        "time",
        "ab",
        "cpu",
        "peers",
        "servers",
        "clients",
        "ladder",
    ),
    *("end-to-end", "encoded", "losses", "environment", "reproduce", "data"),
)


def _document(results: Path) -> Document:
    return document_of(find_sources(results), lambda source: f"../{source.name}")


def _notes(document: Document, key: str) -> list[str]:
    notes = [part for part in document.verdict if isinstance(part, Notes) and part.key == key]
    return [text for part in notes for text in part.texts]


def _section(document: Document, key: str) -> list[object]:
    return [*next(section.parts for section in document.sections if section.key == key)]


def test_all_that_was_measured_is_there_in_its_order(tmp_path: Path) -> None:
    document = _document(write_results(tmp_path))
    assert [section.key for section in document.sections] == [*_SECTIONS]


def test_the_page_opens_with_answers_and_one_picture_that_is_nowhere_else(tmp_path: Path) -> None:
    document = _document(write_results(tmp_path))
    lines, picture, *_ = document.verdict
    assert isinstance(lines, Table)
    assert isinstance(picture, LineChart | RowChart)
    assert picture.key == "size-text-open-read-100"
    keys = [chart.key for chart in document.charts]
    assert keys[0] == picture.key
    assert len(keys) == len({*keys})


def test_void_figures_are_counted_by_kind_of_reason(tmp_path: Path) -> None:
    kinds = [
        *([Reason.of(ReasonCode.STEAL, share=share / 100)] for share in (5, 6, 7)),
        *([Reason.of(ReasonCode.OTHER, text=text)] for text in ("few", "few", "a", "b")),
        [
            *(Reason.of(ReasonCode.STEAL, share=share) for share in (0.08, 0.09)),
            Reason.of(ReasonCode.OTHER, text="few"),
        ],
        [],
    ]
    figures = [
        Figure("x", 1.0, "µs", "round trip", 1, verdict=Verdict.VOID, reasons=tuple(reasons))
        for reasons in kinds
    ]
    figures.append(Figure("y", 1.0, "µs", "round trip", 1))
    write_figures(tmp_path / "a", "demo", figures)
    (flag,) = _notes(_document(tmp_path), "flags")
    assert flag == (
        "demo: 9 of 10 figures are void: 5.0% of the CPU time was stolen by other machines (4); "
        "few (3); a (1); and 2 more reasons"
    )


def test_what_was_not_measured_is_named_with_its_command(tmp_path: Path) -> None:
    write_figures(tmp_path / "a", "bench-server", server_figures())
    document = _document(tmp_path)
    assert [section.key for section in document.sections] == [
        *("cpu", "end-to-end", "environment", "reproduce", "data", "absent"),
    ]
    lines = [part.text for part in _section(document, "absent") if isinstance(part, Paragraph)]
    assert "Latency against the rate: loadtest search ADDR --slo 'p99<2ms'" in lines
    assert f"Latency by percentile: {KINDS['run']} or {KINDS['locust']}" in lines
    assert not any("CPU per call" in line for line in lines)


def test_figures_of_no_known_kind_do_no_harm(tmp_path: Path) -> None:
    write_figures(tmp_path / "a", "other", [Figure("x", 1.0, "µs", "c", 1)])
    document = _document(tmp_path)
    nothing = document.verdict[0]
    assert isinstance(nothing, Paragraph)
    assert nothing.text == "Nothing was measured that could be judged."
    assert ("loadtest other", "other, 2026-11-21 12:00:00 UTC") in _commands(document)


def _commands(document: Document) -> list[tuple[str, str]]:
    (commands,) = _section(document, "reproduce")
    assert isinstance(commands, Commands)
    return [*commands.lines]


def test_one_machine_is_told_once_and_several_with_what_they_made(tmp_path: Path) -> None:
    write_figures(tmp_path / "a", "bench-server", server_figures())
    write_figures(tmp_path / "b", "demo", [])
    machine = "Some CPU, 2 CPUs, Linux-6.18, CPython 3.11.7; commit 0123456789"
    assert _notes(_document(tmp_path), "machine") == [machine]
    assert _notes(_document(tmp_path), "flags") == []
    other = {**ENVIRONMENT, "commit": "fedcba9876", "dirty": True}
    write_run(tmp_path / "b", run_document("demo", {}, other, (), started=STARTED))
    document = _document(tmp_path)
    dirty = "with uncommitted changes"
    assert _notes(document, "machine") == [
        f"{machine}: bench-server of 2026-11-21",
        f"{machine.replace('0123456789', 'fedcba9876')} {dirty}: demo of 2026-11-21",
    ]
    assert _notes(document, "flags")[0].startswith("These results come from 2 machines or commits.")


def test_the_environment_has_each_fact_once_per_value(tmp_path: Path) -> None:
    write_figures(tmp_path / "a", "bench-server", server_figures())
    other = {**ENVIRONMENT, "python": "3.13.1", "machine": {"load_1m": 1.23456}}
    (tmp_path / "b").mkdir()
    write_run(tmp_path / "b", run_document("demo", {}, other, (), started=STARTED))
    (table,) = _section(_document(tmp_path), "environment")
    assert isinstance(table, Table)
    rows = [tuple(cell.text for cell in row.cells) for row in table.rows]
    assert ("commit", "0123456789", "all") in rows
    assert ("python", "3.11.7", "bench-server") in rows
    assert ("python", "3.13.1", "demo") in rows
    assert ("machine.load_1m", "1.235", "demo") in rows
    assert not any(name == "command" for name, _, _ in rows)


def test_commands_and_files_of_each_result(tmp_path: Path) -> None:
    document = _document(write_results(tmp_path))
    commands = _commands(document)
    assert ("loadtest bench", "bench, 2026-11-21 12:00:00 UTC") in commands
    assert commands[-1][0] == "loadtest report"
    _, links = _section(document, "data")
    assert isinstance(links, Links)
    assert links.paths[0] == "../bench/run.json"
    assert "../run/samples.jsonl.gz" in links.paths
    assert "../bench/samples.jsonl.gz" not in links.paths


@pytest.mark.parametrize("missing", ["found", "curve"])
def test_a_result_that_lacks_what_it_should_have_is_left_out(tmp_path: Path, missing: str) -> None:
    write_figures(tmp_path / "good", "bench-server", server_figures())
    folder = write_search(tmp_path / "search")
    plain = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    plain[missing] = [{}]
    (folder / "run.json").write_text(json.dumps(plain), encoding="utf-8")
    found = usable(find_sources(tmp_path))
    assert [source.kind for source in found.sources] == ["bench-server"]
    assert found.skipped[0].startswith(f"{folder} is skipped: {folder}")


@pytest.mark.parametrize(
    "folder",
    REFERENCES,
    ids=lambda folder: folder.name,
)
def test_a_reference_says_something(folder: Path) -> None:
    found = read_sources([folder])
    assert not found.skipped
    document = document_of(found, lambda source: source.name)
    lines, picture, *_ = document.verdict
    assert isinstance(lines, Table)
    assert isinstance(picture, LineChart | RowChart)
    assert not any(row.void for row in lines.rows)

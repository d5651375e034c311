import re
from pathlib import Path

import pytest
from sample_results import write_results

from capnp_rig.loadtest.report.contents import document_of
from capnp_rig.loadtest.report.document import Cell, Document, Notes, Row, Section, Table
from capnp_rig.loadtest.report.markdown import NOTE, escaped, markdown, table
from capnp_rig.loadtest.report.sources import find_sources


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("p99<2ms", "p99&lt;2ms"),
        ("a|b", "a\\|b"),
        ("x86_64 *bold* `code`", "x86\\_64 \\*bold\\* \\`code\\`"),
        ("[a](b)", "\\[a\\](b)"),
        ("two\nlines", "two lines"),
        ("back\\slash", "back\\\\slash"),
    ],
)
def test_text_is_shown_as_it_is(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_a_table() -> None:
    rows = [Row([Cell("a"), Cell("1 µs", 1000.0)]), Row([Cell("b"), Cell("-")], "late")]
    assert table(Table("t", "Caption", ["name", "time"], rows)).splitlines() == [
        "Caption",
        "",
        "| name | time |",
        "| --- | ---: |",
        "| a | 1 µs |",
        "| b | - (void: late) |",
    ]


def test_what_is_folded_and_what_is_void() -> None:
    long = Table("t", "Long", ["a"], [Row([Cell("1")])], folded=True)
    lines = Table("answers", "Answers", ["what", "verdict"], [Row([Cell("it"), Cell("-")], "late")])
    machine = Notes("Measured on", ["Some CPU"])
    document = Document("Title", [Section("s", "Section", [long])], [lines, machine])
    text = markdown(document)
    assert NOTE in text
    assert "| it | - (void: late) |" in text
    assert "Long" not in text
    assert "Section" not in text


def test_every_chart_is_an_image_beside_it(tmp_path: Path) -> None:
    document = document_of(find_sources(write_results(tmp_path)), lambda source: source.name)
    images = re.findall(r"!\[[^\n]*\]\(([^)]*)\)", markdown(document))
    assert "size-text-open-read-100.svg" in images
    assert "size-text-build.svg" in images
    assert "spectrum-run.svg" in images
    assert "ladder-calls-per-s-text.svg" in images
    assert len(images) == len({*images})

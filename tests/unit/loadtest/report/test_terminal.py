import io

import pytest
from rich.console import Console

from capnp_rig.loadtest.report.chart import Axis, LineChart
from capnp_rig.loadtest.report.document import (
    Cell,
    Commands,
    Fold,
    Links,
    Notes,
    Paragraph,
    Part,
    Row,
    Table,
    Tone,
)
from capnp_rig.loadtest.report.terminal import rich_table, show


def shown(*parts: Part, width: int = 40) -> str:
    console = Console(file=io.StringIO(), width=width)
    show(console, *parts)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_numbers_are_aligned_to_the_right() -> None:
    rows = [Row([Cell("a"), Cell("1,000", 1000)]), Row([Cell("bcd"), Cell("-")])]
    assert shown(Table("t", "Caption", ["name", "value"], rows)).splitlines() == [
        "Caption         ",
        "┏━━━━━━┳━━━━━━━┓",
        "┃ name ┃ value ┃",
        "┡━━━━━━╇━━━━━━━┩",
        "│ a    │ 1,000 │",
        "│ bcd  │     - │",
        "└──────┴───────┘",
    ]


def test_brackets_of_a_peer_are_no_markup() -> None:
    text = "no [id 1f2e3d4c] [red]of[/red] that [/]"
    parts = [Table("t", text, [text], [Row([Cell(text)])]), Notes(text, [text]), Paragraph(text)]
    assert shown(*parts, width=80).count(text) == 6


def test_headings_that_are_empty_are_not_shown() -> None:
    table = Table("t", "", ["", ""], [Row([Cell("calls"), Cell("3", 3)])])
    assert shown(table).splitlines() == ["┌───────┬───┐", "│ calls │ 3 │", "└───────┴───┘"]


@pytest.mark.parametrize(
    ("row", "style"),
    [
        (Row([Cell("a")]), ""),
        (Row([Cell("a")], tone=Tone.GOOD), "green"),
        (Row([Cell("a")], tone=Tone.BAD), "red"),
        (Row([Cell("a")], tone=Tone.DOUBTFUL), "yellow"),
        (Row([Cell("a")], void="late", tone=Tone.GOOD), "dim"),
    ],
)
def test_a_row_has_the_colour_of_its_tone(row: Row, style: str) -> None:
    table = rich_table(Table("t", "", ["x"], [row]))
    assert table.rows[0].style == style


def test_every_other_part_is_lines_of_text() -> None:
    parts = [
        Paragraph("Said [red]plainly[/red], at a length that is over the width of the terminal."),
        Notes("Title", ["one", "two"]),
        Commands([("loadtest demo", "The demo")]),
        Links(["a/samples.jsonl.gz"]),
        Fold("More", [Paragraph("inside"), LineChart("k", "Chart", "It rises.", Axis("x"), [])]),
    ]
    assert shown(*parts).splitlines() == [
        "Said [red]plainly[/red], at a length that is over the width of the terminal.",
        *("Title", "- one", "- two"),
        "loadtest demo",
        "a/samples.jsonl.gz",
        *("More", "inside", "Chart: It rises."),
    ]


def test_text_from_a_file_steers_no_terminal() -> None:
    table = Table("t", "\x1b[1m", ["\x1b[2m"], [Row([Cell("[b]a[/b]\x1b[31m\nb")])])
    text = shown(table, Paragraph("\x1b[3mx"))
    assert "\x1b" not in text
    assert "│ [b]a[/b]?[31m │" in text
    assert "?[3mx" in text

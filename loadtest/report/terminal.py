"""The parts of a document on a terminal, through rich."""

import io
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from capnp_rig.loadtest.report.chart import Chart
from capnp_rig.loadtest.report.document import (
    Cell,
    Commands,
    Fold,
    Links,
    Notes,
    Paragraph,
    Part,
    Table,
    Tone,
)

_LOG_COLUMNS = 250
_STYLES = {
    Tone.PLAIN: "",
    Tone.GOOD: "green",
    Tone.BAD: "red",
    Tone.DOUBTFUL: "yellow",
    Tone.QUIET: "dim",
}


def show(console: Console, *parts: Part) -> None:
    """Print parts one below the other; lines of text are not wrapped."""
    for part in parts:
        if isinstance(part, Table):
            console.print(rich_table(part))
        for line in _lines(part):
            console.print(Text(printable(line)), soft_wrap=True)
        if isinstance(part, Fold):
            show(console, *part.parts)


def lines_of(*parts: Part) -> list[str]:
    """Return what `show` prints, for a log: no colours, and wide enough for every table."""
    console = Console(file=io.StringIO(), width=_LOG_COLUMNS, color_system=None)
    with console.capture() as capture:
        show(console, *parts)
    return [line.rstrip() for line in capture.get().splitlines()]


def rich_table(table: Table) -> RichTable:
    """Return a table as rich draws it; numbers are aligned to the right."""
    shown = RichTable(
        title=Text(printable(table.caption)) if table.caption else None,
        title_justify="left",
        show_header=any(table.headings),
    )
    for at, heading in enumerate(table.headings):
        is_right = at in table.numeric_columns
        # A plain string would be read as markup.
        shown.add_column(Text(printable(heading)), justify="right" if is_right else "left")
    for row in table.rows:
        style = _STYLES[Tone.QUIET if row.void else row.tone]
        shown.add_row(*map(_text, row.cells), style=style)
    return shown


def _text(cell: Cell) -> Text:
    return Text(printable(cell.text), style=_STYLES[cell.tone])


def _lines(part: Part) -> Iterator[str]:
    if isinstance(part, Chart):
        yield f"{part.title}: {part.finding}"
    elif isinstance(part, Paragraph):
        yield part.text
    elif isinstance(part, Notes):
        yield from filter(None, [part.title])
        yield from (f"- {text}" for text in part.texts)
    elif isinstance(part, Commands):
        yield from (command for command, _ in part.lines)
    elif isinstance(part, Links):
        yield from part.paths
    elif isinstance(part, Fold):
        yield part.title


def printable(text: str) -> str:
    """Return text without what could steer a terminal: it may come from a file."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)

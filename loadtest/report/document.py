"""A document: what a page, a Markdown file or a terminal shows of results (no I/O).

Builders make its parts from typed results; `web`, `markdown` and `terminal` render them. Text
stands in a part as it is meant to be read; a renderer escapes it, and decides on nothing but
the types and enums here.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from capnp_rig.loadtest.report.chart import Chart


class Tone(StrEnum):
    """How a cell or a row is coloured; the value is the class on the page."""

    PLAIN = ""
    GOOD = "good"
    BAD = "bad"
    DOUBTFUL = "doubtful"
    QUIET = "quiet"


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table; it sorts by `value`, or by its text where that is None."""

    text: str
    value: float | None = None
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table; `void` says why nobody should trust it, and makes it grey."""

    cells: Sequence[Cell]
    void: str = ""
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Table:
    """A table; headings that are all empty are not shown.

    A `folded` table is long: it opens on demand, and stays out of Markdown and print.
    """

    key: str
    caption: str
    headings: Sequence[str]
    rows: Sequence[Row]
    folded: bool = False

    @property
    def numeric_columns(self) -> frozenset[int]:
        """The columns that hold a number in some row; they are aligned to the right."""
        return frozenset(
            at for row in self.rows for at, cell in enumerate(row.cells) if cell.value is not None
        )


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph; a `quiet` one says what is absent, or how something was done."""

    text: str
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Notes:
    """A list of sentences, under a title where there is one; its `key` may be empty, too."""

    title: str
    texts: Sequence[str]
    key: str = ""


@dataclass(frozen=True, slots=True)
class Commands:
    """Command lines to repeat, each with what it does; an empty text says nothing of it."""

    lines: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Links:
    """Files that the page was made of, by their paths relative to it."""

    paths: Sequence[str]


@dataclass(frozen=True, slots=True)
class Fold:
    """Parts that open on demand, and stay out of print."""

    title: str
    parts: "Sequence[Part]"


Part = Chart | Table | Paragraph | Notes | Commands | Links | Fold


@dataclass(frozen=True, slots=True)
class Section:
    """A section under its heading."""

    key: str
    title: str
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Document:
    """A title, the parts of the verdict box, then sections.

    `is_void` marks the box red: nobody should trust the result as a whole.
    """

    title: str
    sections: Sequence[Section] = ()
    verdict: Sequence[Part] = ()
    is_void: bool = False

    @property
    def parts(self) -> list[Part]:
        """All of its parts in their order, those of folds in place of the folds."""
        of_sections = (part for section in self.sections for part in section.parts)
        return [*_leaves(self.verdict), *_leaves(of_sections)]

    @property
    def charts(self) -> list[Chart]:
        """All of its charts in their order."""
        return [part for part in self.parts if isinstance(part, Chart)]


def _leaves(parts: Iterable[Part]) -> Iterator[Part]:
    for part in parts:
        if isinstance(part, Fold):
            yield from _leaves(part.parts)
        else:
            yield part

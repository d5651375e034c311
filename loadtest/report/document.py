"""The document that the page, the pictures' folder and the Markdown show (no I/O)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from capnp_rig.loadtest.report.chart import Chart


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table; it sorts by `value`, or by its text where that is None."""

    text: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table; a `void` one is grey, and says why."""

    cells: Sequence[Cell]
    void: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table; a `folded` one is long, opens on demand and stays out of Markdown and print."""

    key: str
    caption: str
    headings: Sequence[str]
    rows: Sequence[Row]
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph; a `quiet` one says what is absent, or how something was done."""

    text: str
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of the verdict box, the figures behind it in short, and why they are void."""

    topic: str
    text: str
    detail: str = ""
    void: str = ""


@dataclass(frozen=True, slots=True)
class Commands:
    """Command lines to repeat, each with what it does."""

    lines: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Link:
    """A file beside the page: its text, and where it is from the page."""

    text: str
    path: str


@dataclass(frozen=True, slots=True)
class Links:
    """Files that the page was made of."""

    links: Sequence[Link]


@dataclass(frozen=True, slots=True)
class Fold:
    """Parts that open on demand, and stay out of print."""

    title: str
    parts: "Sequence[Part]"


Part = Chart | Table | Paragraph | Commands | Links | Fold


@dataclass(frozen=True, slots=True)
class Section:
    """A section under its heading."""

    key: str
    title: str
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Document:
    """All there is: claims, the machine and the void flags of the box, then the sections."""

    title: str
    claims: Sequence[Claim]
    machine: Sequence[str]
    flags: Sequence[str]
    sections: Sequence[Section] = field(default_factory=tuple)

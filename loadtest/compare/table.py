"""A comparison as people read it."""

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table

from capnp_rig.loadtest.compare import Comparison, Row
from capnp_rig.loadtest.stats.pair_statistics import Verdict

_STYLES = {"faster": "green", "slower": "red", "void": "dim", "inconclusive": "yellow"}
_DOUBTED = "not judged: see below"
_WORDS = {
    Verdict.FASTER: "The candidate is faster.",
    Verdict.SLOWER: "The candidate is slower.",
    Verdict.SAME: "The candidate is the same.",
    Verdict.INCONCLUSIVE: "Whether the candidate is faster or slower cannot be told.",
}


def comparison_table(found: Comparison) -> Table:
    """Return a row per metric."""
    title = f"Candidate against baseline, by {found.unit}: above 1 the candidate is better"
    table = Table(title=title, title_justify="left")
    right = {"baseline", "candidate", "ratio", "A/A floor", "n"}
    headings = ("metric", "unit", "baseline", "candidate", "ratio", "95 % interval", "A/A floor")
    for heading in (*headings, "n", "verdict", "reason"):
        table.add_column(heading, justify="right" if heading in right else "left")
    for row in found.rows:
        table.add_row(*_cells(row, found.doubt), style=_STYLES.get(row.verdict))
    return table


def _cells(row: Row, doubt: str) -> list[str]:
    # It is the same in all rows, and long.
    reason = row.reason.replace(doubt, _DOUBTED) if doubt else row.reason
    interval = "none"
    if row.low is not None and row.high is not None:
        interval = f"{row.low:.3f} to {row.high:.3f}"
    return [
        *(escape(printable(row.metric)), row.unit),
        *(_number(row.baseline), _number(row.candidate)),
        "-" if row.ratio is None else f"{row.ratio:.3f}",
        interval,
        "-" if row.floor is None else f"{row.floor:.1%}",
        *(f"{row.n:,}", str(row.verdict), escape(printable(reason))),
    ]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.1f}"


def comparison_lines(found: Comparison) -> Iterator[str]:
    """Yield the verdict in words, and how the intervals are meant."""
    if all(row.verdict == Verdict.VOID for row in found.rows):
        yield "Nothing could be judged: every row is void."
    else:
        yield _WORDS[found.verdict]
    yield from found.notes


def objection_lines(found: Comparison) -> Iterator[str]:
    """Yield why rows are void, or what was ignored to judge them."""
    for objection in found.objections:
        yield f"{'ignored' if found.forced else 'void'}: {printable(objection)}"


def printable(text: str) -> str:
    """Return text without what could steer a terminal: it comes from a file."""
    return "".join(char if char.isprintable() else "?" for char in text)

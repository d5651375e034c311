"""A comparison of two results as people read it (no I/O)."""

from collections.abc import Iterator

from capnp_rig.loadtest.compare import Comparison
from capnp_rig.loadtest.report.cells import cell, number_cell, row
from capnp_rig.loadtest.report.document import Paragraph, Part, Table
from capnp_rig.loadtest.report.figures import tone_of
from capnp_rig.loadtest.report.units import interval_text
from capnp_rig.loadtest.stats.pair_statistics import Verdict

# The doubt itself is long.
_DOUBTED = "not judged: see below"
_WORDS = {
    Verdict.FASTER: "The candidate is faster.",
    Verdict.SLOWER: "The candidate is slower.",
    Verdict.SAME: "The candidate is the same.",
    Verdict.INCONCLUSIVE: "Whether the candidate is faster or slower is not resolved.",
}


def comparison_parts(found: Comparison) -> Iterator[Part]:
    """Yield a row per metric, the verdict in words, and how the intervals are meant."""
    headings = ("metric", "unit", "baseline", "candidate", "ratio", "95 % interval", "A/A floor")
    yield Table(
        "comparison",
        f"Candidate against baseline, by {found.unit}: above 1 the candidate is better",
        (*headings, "n", "verdict", "reason"),
        [
            row(
                one.metric,
                one.unit,
                one.baseline,
                one.candidate,
                number_cell(one.ratio, 3),
                interval_text(one.low, one.high, "{:.3f}".format) or "none",
                cell(one.floor, "{:.1%}".format),
                one.n,
                one.verdict,
                found.reason_of(one, _DOUBTED),
                tone=tone_of(one.verdict),
            )
            for one in found.rows
        ],
    )
    is_void = all(row.verdict == Verdict.VOID for row in found.rows)
    yield Paragraph(
        "Nothing could be judged: every row is void." if is_void else _WORDS[found.verdict]
    )
    yield from map(Paragraph, found.notes)


def objection_lines(found: Comparison) -> Iterator[str]:
    """Yield why rows are void, or what was ignored to judge them."""
    for objection in found.objections:
        yield f"{'ignored' if found.forced else 'void'}: {objection}"

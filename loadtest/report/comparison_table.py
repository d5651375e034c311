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
    Verdict.SAME: "The candidate is the same within ±{margin:.3g} %.",
    Verdict.CANNOT_TELL: "Whether the candidate is faster or slower cannot be told.",
    Verdict.VOID: "Nothing could be judged: every row is void.",
}


def comparison_parts(comparison: Comparison) -> Iterator[Part]:
    """Yield a row per metric, the verdict in words, and how the intervals are meant."""
    headings = ("metric", "unit", "baseline", "candidate", "ratio", "95 % interval", "A/A floor")
    yield Table(
        "comparison",
        f"Candidate against baseline, by {comparison.unit}: above 1 the candidate is better, "
        f"within ±{comparison.margin * 100:.3g} % it is the same",
        (*headings, "n", "verdict", "reason"),
        [
            row(
                judged.metric,
                judged.unit,
                judged.baseline,
                judged.candidate,
                number_cell(judged.ratio, 3),
                interval_text(judged.low, judged.high, "{:.3f}".format) or "none",
                cell(judged.floor, "{:.1%}".format),
                judged.n,
                judged.verdict,
                comparison.reason_of(judged, _DOUBTED),
                tone=tone_of(judged.verdict),
            )
            for judged in comparison.rows
        ],
    )
    yield Paragraph(_WORDS[comparison.verdict].format(margin=comparison.margin * 100))
    yield from map(Paragraph, comparison.notes)


def objection_lines(comparison: Comparison) -> Iterator[str]:
    """Yield why rows are void, or what was ignored to judge them."""
    for objection in comparison.objections:
        yield f"{'ignored' if comparison.forced else 'void'}: {objection}"

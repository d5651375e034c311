"""Ratios of Cap'n Proto to other codecs, and every case in which one of those is ahead (no I/O)."""

from collections.abc import Iterator

from capnp_rig.loadtest.report.cells import cell, row
from capnp_rig.loadtest.report.codec_lines import time_cell, what_of
from capnp_rig.loadtest.report.codec_view import HEADLINES, CodecView, by_size, grouped
from capnp_rig.loadtest.report.document import Paragraph, Part, Row, Table
from capnp_rig.loadtest.report.ratios import (
    HEADINGS,
    ahead_text,
    ratio_row,
    ratio_table,
)
from capnp_rig.loadtest.report.units import digits, size_text
from capnp_rig.loadtest.stats.contracts import Contract
from capnp_rig.loadtest.stats.figure import Figure, FigureKind
from capnp_rig.loadtest.stats.pair_statistics import Verdict

# Shown in the other tables; beating the standard library's is no news.
_NO_HEADLINE = "json"
_READING = (Contract.READ_ONE, Contract.READ_ALL)


def codec_ratio_table(view: CodecView) -> Table:
    """Return the largest and the smallest size of each headline, per baseline."""
    rows = [
        ratio_row(what_of(ratio), ratio, ahead_of(view, curve))
        for curve in headline_curves(view)
        for ratio in [curve[-1], curve[0]][: len(curve)]
    ]
    caption = "Times as fast: above 1 the first named is faster"
    return Table("codec-ratios", caption, [*HEADINGS, "crossover"], rows)


def headline_curves(view: CodecView) -> Iterator[list[Figure]]:
    """Yield the curves of what stands for Cap'n Proto, the headline baseline first."""
    for baseline in view.baselines:
        if baseline != _NO_HEADLINE:
            curves = view.curves(view.own_codec, baseline)
            headlines = [curve for curve in curves if curve[0].contract in HEADLINES]
            yield from sorted(headlines, key=_rank)


def _rank(curve: list[Figure]) -> tuple[int, str]:
    return HEADLINES.index(Contract(curve[0].contract)), curve[0].labels["message"]


def ahead_of(view: CodecView, curve: list[Figure]) -> str:
    """Return from which size, or up to which share of the fields, the codec is ahead."""
    by_share = curve[0].contract in _READING and len(curve) == 1
    kind = FigureKind.BREAK_EVEN if by_share else FigureKind.CROSSOVER
    return ahead_text(view.crossing(kind, curve[0].labels))


# --- where copying wins ----------------------------------------------------------------------


def loss_parts(view: CodecView) -> Iterator[Part]:
    """Yield where a baseline is ahead, and the fastest codec of each case."""
    lost = [
        ratio_row(what_of(ratio), ratio)
        for baseline in view.baselines
        for curve in view.curves(view.own_codec, baseline)
        for ratio in curve
        if ratio.verdict is Verdict.SLOWER
    ]
    if lost:
        yield ratio_table("loss-table", "Where another codec is faster than Cap'n Proto", lost)
    else:
        yield Paragraph("No baseline was ahead of Cap'n Proto in what was measured.")
    rows = [
        _fastest_row(figures, view.own_codec)
        for message, contract in view.places()
        for figures in grouped(
            by_size(view.times(message=message, contract=contract)), "size_bytes"
        ).values()
    ]
    if rows:
        yield Table(
            "fastest",
            "The fastest codec of each case, by medians; without pairs there is no interval",
            ["message", "contract", "size", "fastest", "time", view.own_codec, "behind by"],
            rows,
            folded=True,
        )


def _fastest_row(figures: list[Figure], codec: str) -> Row:
    best = min(figures, key=lambda figure: figure.value or 0.0)
    own = next((figure for figure in figures if figure.labels["codec"] == codec), None)
    behind = own.value / best.value if own is not None and own.value and best.value else None
    return row(
        best.labels["message"],
        best.contract,
        cell(best.labels["size_bytes"], size_text),
        best.labels["codec"],
        time_cell(best),
        time_cell(own),
        cell(behind, digits),
    )

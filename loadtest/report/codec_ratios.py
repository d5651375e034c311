"""Ratios of Cap'n Proto to the codecs that it is held against, and where they cross 1 (no I/O)."""

from collections.abc import Iterator

from capnp_rig.loadtest.report.codec_view import (
    HEADLINES,
    CodecView,
    Curve,
    action,
    thing,
)
from capnp_rig.loadtest.report.document import Cell, Row, Table
from capnp_rig.loadtest.report.ratios import (
    HEADINGS,
    ahead_from,
    ahead_up_to,
    end_ratios,
    ratio_row,
)
from capnp_rig.loadtest.report.units import capitalized, size_text
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.contracts import Contract

# Shown in the other tables; beating the standard library's is no news.
_NO_HEADLINE = "json"
_READING = (Contract.READ_ONE, Contract.READ_ALL)


def codec_ratio_table(view: CodecView) -> Table:
    """Return the largest and the smallest size of each headline, per baseline."""
    rows = [
        Row(
            [*ratio_row(what_of(curve, ratio), ratio).cells, Cell(ahead_text(view, curve))],
            ratio.void_text,
        )
        for curve in headline_curves(view)
        for ratio in end_ratios(curve.ratios)
    ]
    caption = "Times as fast: above 1 the first named is faster"
    return Table("codec-ratios", caption, [*HEADINGS, "crossover"], rows)


def headline_curves(view: CodecView) -> Iterator[Curve]:
    """Yield the curves of what stands for Cap'n Proto, the headline baseline first."""
    own = view.own_codec()
    for baseline in view.baselines():
        if own is None or baseline == _NO_HEADLINE:
            continue
        curves = [figure for figure in view.curves(own, baseline) if figure.contract in HEADLINES]
        yield from sorted(
            curves, key=lambda figure: (HEADLINES.index(Contract(figure.contract)), figure.message)
        )


def what_of(curve: Curve, ratio: Figure) -> str:
    """Return what a ratio compares: what is done to what, and by which two codecs."""
    done = capitalized(f"{action(curve.contract)} {thing(curve.message)}")
    size = size_text(ratio.labels["size_bytes"])
    return f"{done}, {size}: {curve.codec} over {curve.baseline}"


def ahead_text(view: CodecView, curve: Curve) -> str:
    """Return from which size, or up to which share of the fields, the codec is ahead."""
    if curve.contract in _READING and len(curve.ratios) == 1:
        return ahead_up_to(view.break_even(curve))
    return ahead_from(curve.crossover)

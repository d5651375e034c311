"""Where copying wins: every case in which another codec is ahead (no I/O)."""

from collections.abc import Iterator

from capnp_rig.loadtest.report.codec_lines import sizes_of, time_cell, timed
from capnp_rig.loadtest.report.codec_ratios import what_of
from capnp_rig.loadtest.report.codec_view import CodecView, by_size
from capnp_rig.loadtest.report.document import Cell, Paragraph, Part, Row, Table
from capnp_rig.loadtest.report.ratios import ratio_row, ratio_table, standing
from capnp_rig.loadtest.report.units import NOTHING, digits, size_text
from capnp_rig.loadtest.stats.pair_statistics import Verdict


def loss_parts(view: CodecView) -> Iterator[Part]:
    """Yield where a baseline is ahead, and the fastest codec of each case."""
    lost = list(_losses(view))
    if lost:
        yield ratio_table("loss-table", "Where another codec is faster than Cap'n Proto", lost)
    else:
        yield Paragraph("No baseline was ahead of Cap'n Proto in what was measured.")
    rows = list(_fastest_rows(view))
    if rows:
        yield Table(
            "fastest",
            "The fastest codec of each case, by medians; without pairs there is no interval",
            ["message", "contract", "size", "fastest", "time", f"{view.own_codec()}", "behind by"],
            rows,
            folded=True,
        )


def _losses(view: CodecView) -> Iterator[Row]:
    own = view.own_codec()
    for baseline in view.baselines():
        for curve in view.curves(own, baseline) if own is not None else ():
            for ratio in curve.ratios:
                if standing(ratio) is Verdict.SLOWER:
                    yield ratio_row(what_of(curve, ratio), ratio)


def _fastest_rows(view: CodecView) -> Iterator[Row]:
    own = view.own_codec()
    for message, contract in view.places():
        figures = timed(view, message, contract)
        for size in sizes_of(figures):
            here = [figure for figure in by_size(figures) if figure.labels["size_bytes"] == size]
            best = min(here, key=lambda figure: figure.value or 0.0)
            ours = next((figure for figure in here if figure.labels.get("codec") == own), None)
            behind = None
            if ours is not None and ours.value and best.value:
                behind = ours.value / best.value
            yield Row(
                [
                    Cell(message),
                    Cell(contract),
                    Cell(size_text(size), size),
                    Cell(str(best.labels.get("codec"))),
                    time_cell(best),
                    time_cell(ours),
                    Cell(NOTHING if behind is None else digits(behind), behind),
                ]
            )

"""Where copying wins: every case in which another codec is ahead (no I/O)."""

from collections.abc import Iterator, Sequence
from typing import Any

from capnp_rig.loadtest.report.codec_claims import CAPNP_NAME, losses
from capnp_rig.loadtest.report.codec_lines import sizes_of, time_cell, timed
from capnp_rig.loadtest.report.codec_view import CodecView, Curve, by_size
from capnp_rig.loadtest.report.document import Cell, Paragraph, Part, Row, Table
from capnp_rig.loadtest.report.units import NOTHING, digits, interval_text, size_text


def loss_parts(view: CodecView) -> Iterator[Part]:
    """Yield where a baseline is ahead, and the fastest codec of each case."""
    found = list(losses(view))
    if found:
        yield _loss_table(view, found)
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


def _loss_table(view: CodecView, found: Sequence[tuple[Curve, Any]]) -> Table:
    rows = [
        Row(
            [
                Cell(curve.message),
                Cell(curve.contract),
                Cell(size_text(ratio.size_bytes), ratio.size_bytes),
                Cell(curve.baseline),
                Cell(digits(1 / ratio.value), 1 / ratio.value),
                Cell(
                    interval_text(
                        None if ratio.high is None else 1 / ratio.high,
                        None if ratio.low is None else 1 / ratio.low,
                        digits,
                    )
                ),
            ]
        )
        for curve, ratio in found
    ]
    headings = ["message", "contract", "size", "ahead", "times as fast", "95 % interval"]
    caption = f"Where another codec is faster than {CAPNP_NAME} ({view.own_codec()})"
    return Table("loss-table", caption, headings, rows)


def _fastest_rows(view: CodecView) -> Iterator[Row]:
    own = view.own_codec()
    for message, contract in view.places():
        figures = timed(view, message, contract)
        for size in sizes_of(figures):
            here = [one for one in by_size(figures) if one.labels["size_bytes"] == size]
            best = min(here, key=lambda one: one.value or 0.0)
            ours = next((one for one in here if one.labels.get("codec") == own), None)
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

"""Two servers that took turns: ratios, and what they did in each block (no I/O)."""

import math
from collections.abc import Iterator, Mapping, Sequence

from capnp_rig.loadtest.bench.rounds import AGAIN, BASELINE, CANDIDATE, ROLES
from capnp_rig.loadtest.report.call_cpu import pair_ratio_text, pair_ratios
from capnp_rig.loadtest.report.cells import row
from capnp_rig.loadtest.report.chart import Axis, Line, LineChart, Mark, Panel, Point
from capnp_rig.loadtest.report.document import Paragraph, Part, Table
from capnp_rig.loadtest.report.line_styles import look_of
from capnp_rig.loadtest.report.ratios import ratio_row, ratio_table
from capnp_rig.loadtest.report.sources import Source
from capnp_rig.loadtest.report.units import digits

# Of each metric, one value per block by role.
_Values = Mapping[str, Sequence[float]]


def ab_parts(source: Source) -> Iterator[Part]:
    """Yield the ratios, the first metric's ratio in each block, and all values of all blocks."""
    rows = [ratio_row(pair_ratio_text(figure), figure) for figure in pair_ratios(source.figures)]
    yield ratio_table(f"ratios-{source.slug}", "Above 1 the candidate is better", rows)
    yield from map(Paragraph, source.document["comparison"]["notes"])
    metrics = {name: values for name, values in source.document["values"].items() if values}
    if not metrics:
        return
    name, values = next(iter(metrics.items()))
    yield _chart(source, name, values)
    yield _table(source, metrics)


def _chart(source: Source, name: str, values: _Values) -> LineChart:
    both = [math.sqrt(one * two) for one, two in zip(values[BASELINE], values[AGAIN], strict=True)]
    lines = [
        Line(what, _points(top, bottom), look_of(what, {}, at))
        for at, (what, top, bottom) in enumerate(
            [
                ("candidate to baseline", values[CANDIDATE], both),
                ("baseline to itself", values[AGAIN], values[BASELINE]),
            ]
        )
    ]
    return LineChart(
        key=f"blocks-{source.slug}",
        title=f"{name}, block by block",
        finding="Each block is one value: how far they scatter is what the interval is made of.",
        x=Axis("block"),
        panels=[Panel(Axis("times as much"), lines, [Mark("y", 1.0, "the same")])],
    )


def _points(top: Sequence[float], bottom: Sequence[float]) -> list[Point]:
    ratios = [one / two for one, two in zip(top, bottom, strict=True)]
    return [
        Point(block, ratio, text=f"block {block}: {digits(ratio)} times as much")
        for block, ratio in enumerate(ratios, 1)
    ]


def _table(source: Source, metrics: Mapping[str, _Values]) -> Table:
    columns = [values[role] for values in metrics.values() for role in ROLES]
    headings = [f"{name}, {role}" for name in metrics for role in ROLES]
    rows = [row(block, *values) for block, values in enumerate(zip(*columns, strict=True), 1)]
    caption = "Values of each block"
    return Table(f"block-table-{source.slug}", caption, ["block", *headings], rows, folded=True)

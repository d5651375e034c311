"""Charts as SVG and PNG files, by matplotlib: the README's pictures.

The same chart always gives the same bytes, so that a picture changes in git only with its figures.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from capnp_rig.loadtest.report.chart import (
    GREY,
    Axis,
    Chart,
    Heat,
    Line,
    LineChart,
    Look,
    Mark,
    Panel,
    Point,
    RowChart,
    Series,
    Value,
)

# Any: matplotlib's own type has a name for each of its hundreds of settings.
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "svg.hashsalt": "capnp-rig",
    "figure.facecolor": "white",
}
_WIDTH_IN, _PANEL_IN, _ROW_IN = 8.0, 3.6, 0.24
_PNG_DPI = 144
_SMALL = 9
_DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
_WHISKERS = {"ecolor": "#555555", "capsize": 2}
_MARKERS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle": "^",
    "cross": "P",
    "": "",
}


def write_picture(chart: Chart, folder: Path) -> list[Path]:
    """Write a chart as ``KEY.svg`` and ``KEY.png``, and return their paths.

    Raises:
        OSError: One cannot be written.
    """
    with mpl.rc_context(_STYLE):
        picture = _of_lines(chart) if isinstance(chart, LineChart) else _of_rows(chart)
        paths = [folder / f"{chart.key}.{ending}" for ending in ("svg", "png")]
        picture.savefig(paths[0], metadata={"Date": None}, bbox_inches="tight")
        picture.savefig(paths[1], dpi=_PNG_DPI, metadata={"Software": None}, bbox_inches="tight")
    return paths


def _title(picture: Picture, text: str) -> None:
    picture.suptitle(text, x=0.01, ha="left", fontsize=12, fontweight="bold")


def _legend(picture: Picture, handles: dict[str, Any]) -> None:
    picture.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower left",
        ncols=min(4, len(handles)),
        frameon=False,
        fontsize=_SMALL,
    )


# --- lines -----------------------------------------------------------------------------------


def _of_lines(chart: LineChart) -> Picture:
    weights = [panel.weight for panel in chart.panels]
    picture = Picture(figsize=(_WIDTH_IN, 1 + _PANEL_IN * sum(weights)), layout="constrained")
    plots = picture.subplots(len(weights), 1, sharex=True, squeeze=False, height_ratios=weights)
    handles: dict[str, Any] = {}
    for panel, plot in zip(chart.panels, plots[:, 0], strict=True):
        _draw_panel(panel, plot)
        for handle, name in zip(*plot.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    last = plots[-1, 0]
    _scale(last, chart.x, "x")
    last.set_xlabel(chart.x.title)
    # Only now is it known where the middle of the chart is.
    for panel, plot in zip(chart.panels, plots[:, 0], strict=True):
        for mark in panel.marks:
            _draw_mark(mark, plot)
    _title(picture, chart.title)
    if len(handles) > 1:
        _legend(picture, handles)
    return picture


def _draw_panel(panel: Panel, plot: Axes) -> None:
    plot.set_title(panel.y.title, loc="left", fontsize=10)
    if panel.heat is not None:
        _draw_heat(panel.heat, plot)
    for line in panel.lines:
        if line.shown and line.points:
            _draw_line(line, plot)
    _scale(plot, panel.y, "y")


def _scale(plot: Axes, axis: Axis, name: str) -> None:
    is_x = name == "x"
    if axis.is_log:
        (plot.set_xscale if is_x else plot.set_yscale)("log")
    if axis.ticks:
        texts = dict(axis.ticks)
        of_plot = plot.xaxis if is_x else plot.yaxis
        of_plot.set_major_locator(FixedLocator(list(texts)))
        of_plot.set_major_formatter(FuncFormatter(lambda value, _: texts.get(value, "")))
        of_plot.set_minor_locator(NullLocator())
    if (axis.low, axis.high) == (None, None):
        return
    if is_x:
        plot.set_xlim(axis.low, axis.high)
    else:
        plot.set_ylim(axis.low, axis.high)


def _draw_heat(heat: Heat, plot: Axes) -> None:
    # By the root, or all but the busiest stretch would be white.
    roots = [[math.sqrt(share) for share in row] for row in heat.shares]
    look: Any = {"cmap": "Blues", "vmin": 0, "vmax": 1, "rasterized": True}
    plot.pcolormesh(heat.x_edges, heat.y_edges, roots, **look)


def _draw_line(line: Line, plot: Axes) -> None:
    good = [point for point in line.points if not point.void]
    if any(point.low is not None for point in good):
        lows = [point.y if point.low is None else point.low for point in good]
        highs = [point.y if point.high is None else point.high for point in good]
        xs = [point.x for point in good]
        plot.fill_between(xs, lows, highs, color=line.look.color, alpha=0.18, linewidth=0)
    style = _style(line.look)
    ys = [math.nan if point.void else point.y for point in line.points]
    xs = [point.x for point in line.points]
    plot.plot(xs, ys, label=line.name, **style | {"color": line.look.color})
    for stretch in _void_stretches(line.points):
        void = [at for at, point in enumerate(stretch) if point.void]
        xs, ys = [point.x for point in stretch], [point.y for point in stretch]
        plot.plot(xs, ys, markevery=void, **style)


def _style(look: Look) -> dict[str, Any]:
    return {
        "color": GREY,
        "linestyle": _DASHES[look.dash],
        "linewidth": look.width * 0.8,
        "marker": _MARKERS[look.marker],
        "markersize": 4,
    }


def _void_stretches(points: Sequence[Point]) -> Iterator[list[Point]]:
    """Yield runs of void points, each with the good point on either side."""
    run: list[Point] = []
    for at, point in enumerate(points):
        if point.void:
            if not run and at:
                run.append(points[at - 1])
            run.append(point)
        elif run:
            yield [*run, point]
            run = []
    if run:
        yield run


def _draw_mark(mark: Mark, plot: Axes) -> None:
    is_x = mark.axis == "x"
    (plot.axvline if is_x else plot.axhline)(mark.at, color=GREY, linewidth=1)
    if mark.low is not None and mark.high is not None and mark.low < mark.high:
        span = plot.axvspan if is_x else plot.axhspan
        span(mark.low, mark.high, color=GREY, alpha=0.2, linewidth=0)
    if not mark.text:
        return
    text: dict[str, Any] = {"textcoords": "offset points", "fontsize": _SMALL}
    if mark.axis == "y":
        place: dict[str, Any] = {"xy": (0.99, mark.at), "xycoords": ("axes fraction", "data")}
        plot.annotate(mark.text, xytext=(0, 3), ha="right", va="bottom", **place, **text)
        return
    # To the side where there is more room.
    is_left = plot.transLimits.transform(plot.transScale.transform((mark.at, 1)))[0] > 0.5
    place = {"xy": (mark.at, 0.98), "xycoords": ("data", "axes fraction")}
    side = ("right", -4) if is_left else ("left", 4)
    plot.annotate(mark.text, xytext=(side[1], 0), ha=side[0], va="top", **place, **text)


# --- rows ------------------------------------------------------------------------------------


def _of_rows(chart: RowChart) -> Picture:
    bars = len(chart.series) if chart.kind == "bars" else 1.4
    height = 1.4 + _ROW_IN * len(chart.rows) * (bars + 0.6)
    picture = Picture(figsize=(_WIDTH_IN, height), layout="constrained")
    plot = picture.subplots()
    plot.grid(visible=chart.kind == "dots", axis="y")
    ends = [0.0] * len(chart.rows)
    for number, series in enumerate(chart.series):
        if chart.kind == "dots":
            _draw_dots(series, plot)
        else:
            _draw_bars(chart, series, number, plot, ends)
        if chart.kind == "stack":
            ends = [end + (one.value or 0.0) for end, one in zip(ends, series.values, strict=True)]
    plot.set_yticks(range(len(chart.rows)), list(chart.rows))
    plot.invert_yaxis()
    plot.set_xlabel(chart.x.title)
    _scale(plot, chart.x, "x")
    if chart.kind != "dots":
        # Numbers stand behind their bars.
        plot.set_xlim(0, plot.get_xlim()[1] * 1.08)
    _title(picture, chart.title)
    if len(chart.series) > 1:
        handles, names = plot.get_legend_handles_labels()
        _legend(picture, dict(zip(names, handles, strict=True)))
    return picture


def _known(series: Series) -> list[tuple[int, Value, float]]:
    """Return row, value and its number where there is one."""
    return [(row, one, one.value) for row, one in enumerate(series.values) if one.value is not None]


def _colors(series: Series) -> list[str]:
    return [GREY if one.void else series.look.color for _, one, _ in _known(series)]


def _draw_dots(series: Series, plot: Axes) -> None:
    known = _known(series)
    places = [float(row) for row, _, _ in known]
    marker = _MARKERS[series.look.marker] or "o"
    values = [value for _, _, value in known]
    look: Any = {"s": 42, "color": _colors(series), "marker": marker, "zorder": 3}
    plot.scatter(values, places, label=series.name, **look)
    if _has_whiskers(series):
        look = {"fmt": "none", "ecolor": "#555555", "elinewidth": 1, "capsize": 2}
        plot.errorbar(values, places, xerr=_whiskers(series), **look)


def _draw_bars(
    chart: RowChart, series: Series, number: int, plot: Axes, ends: Sequence[float]
) -> None:
    known = _known(series)
    is_stack = chart.kind == "stack"
    thickness = 0.8 if is_stack else 0.8 / len(chart.series)
    shift = 0.0 if is_stack else (number - (len(chart.series) - 1) / 2) * thickness
    places = [row + shift for row, _, _ in known]
    left = [ends[row] for row, _, _ in known]
    values = [value for _, _, value in known]
    # Drawn with the bars, so that their numbers stand behind the whiskers.
    whiskers: Any = {"xerr": _whiskers(series), **_WHISKERS} if _has_whiskers(series) else {}
    look: Any = {"color": _colors(series), "label": series.name, **whiskers}
    drawn = plot.barh(places, values, thickness * 0.92, left, **look)
    labels = [one.label for _, one, _ in known]
    where: Any = {"label_type": "center" if is_stack else "edge", "padding": 0 if is_stack else 4}
    plot.bar_label(drawn, labels, fontsize=8, color="white" if is_stack else "black", **where)


def _has_whiskers(series: Series) -> bool:
    return any(one.low is not None for _, one, _ in _known(series))


def _whiskers(series: Series) -> list[list[float]]:
    """Return how far the whiskers reach below and above each value."""
    known = _known(series)
    below = [0.0 if one.low is None else max(value - one.low, 0.0) for _, one, value in known]
    above = [0.0 if one.high is None else max(one.high - value, 0.0) for _, one, value in known]
    return [below, above]

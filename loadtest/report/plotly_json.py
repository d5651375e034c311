"""Charts as plotly's figures: plain values for its JavaScript, without its Python (no I/O).

The legend is the page's own, so that it wraps on a telephone; each trace names its line in
``meta`` for the buttons that switch it. Titles of y axes stand above their panels, where they take
no width. Colours that depend on the reader's are set in the page.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

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

_MARKERS = {
    "circle": "circle",
    "square": "square",
    "diamond": "diamond",
    "triangle": "triangle-up",
    "cross": "cross",
    "": "circle",
}
_GRID = "rgba(128,128,128,0.25)"
_BAND = 0.18
_PANEL_PX, _TOP_PX, _BOTTOM_PX, _GAP_PX = 260, 26, 30, 40
_BAR_PX, _THIN_BAR_PX, _ROW_PAD_PX = 22, 15, 14
_HEAT_COLORS = [[0, "rgba(0,114,178,0)"], [0.05, "rgba(0,114,178,0.12)"], [1, "rgba(0,60,120,1)"]]
_MARGIN = 0.015
_MARKER_PX = 7
_CLEAR = "rgba(0,0,0,0)"


def plotly_figure(chart: Chart) -> dict[str, Any]:
    """Return ``data`` and ``layout`` of a chart, its height in px among them."""
    return _of_lines(chart) if isinstance(chart, LineChart) else _of_rows(chart)


def _layout(height: float, **more: object) -> dict[str, Any]:
    return {
        "height": round(height),
        "margin": {"l": 58, "r": 14, "t": _TOP_PX, "b": _BOTTOM_PX, "pad": 2},
        "paper_bgcolor": _CLEAR,
        "plot_bgcolor": _CLEAR,
        "showlegend": False,
        "hovermode": "closest",
        "font": {"family": "system-ui, sans-serif", "size": 12},
        "hoverlabel": {"align": "left", "namelength": -1},
        **more,
    }


# --- lines -----------------------------------------------------------------------------------


def _of_lines(chart: LineChart) -> dict[str, Any]:
    weights = [panel.weight for panel in chart.panels]
    inner = _PANEL_PX * sum(weights) + _GAP_PX * (len(weights) - 1)
    data: list[dict[str, Any]] = []
    last = len(chart.panels) - 1
    layout = _layout(
        inner + _TOP_PX + _BOTTOM_PX,
        xaxis=_x_axis(chart) | {"anchor": _name("y", last)},
        shapes=[],
        annotations=[],
    )
    top = 1.0
    for number, panel in enumerate(chart.panels):
        share = _PANEL_PX * panel.weight / inner
        domain = [max(top - share, 0.0), top]
        y_name = _name("y", number)
        axis = _axis(panel.y) | {"domain": domain, "anchor": "x"}
        if panel.y.low is not None and panel.y.high is None and not panel.y.is_log:
            axis["rangemode"] = "tozero"
        layout[f"yaxis{'' if number == 0 else number + 1}"] = axis
        layout["annotations"].append(_title_above(panel.y.title, top))
        data += _panel_traces(panel, y_name)
        for mark in panel.marks:
            layout["shapes"] += _mark_shapes(mark, y_name)
            layout["annotations"] += _mark_texts(mark, chart, panel, y_name)
        top = domain[0] - _GAP_PX / inner
    return {"data": data, "layout": layout}


def _name(axis: str, number: int) -> str:
    return axis if number == 0 else f"{axis}{number + 1}"


def _x_axis(chart: LineChart) -> dict[str, Any]:
    found = _axis(chart.x)
    if "range" in found and not chart.x.is_log:
        # A little beyond, or the points at the ends would be cut.
        low, high = found["range"]
        found["range"] = [low - _MARGIN * (high - low), high + _MARGIN * (high - low)]
    return found


def _axis(axis: Axis) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "log" if axis.is_log else "linear",
        "gridcolor": _GRID,
        "zeroline": False,
        "showline": False,
        "tickangle": 0,
        "automargin": "height+width",
    }
    if axis.ticks:
        found |= {
            "tickmode": "array",
            "tickvals": [value for value, _ in axis.ticks],
            "ticktext": [text for _, text in axis.ticks],
        }
    if axis.low is not None and axis.high is not None:
        found["range"] = [_placed(axis, axis.low), _placed(axis, axis.high)]
    return found


def _placed(axis: Axis, value: float) -> float:
    """Return where a value lies on an axis: plotly wants the logarithm of some."""
    return math.log10(value) if axis.is_log else value


def _title_above(text: str, top: float) -> dict[str, Any]:
    return {
        "text": text,
        "xref": "paper",
        "yref": "paper",
        "x": 0,
        "y": top,
        "xanchor": "left",
        "yanchor": "bottom",
        "yshift": 4,
        "showarrow": False,
        "font": {"size": 12},
    }


def _panel_traces(panel: Panel, y_name: str) -> Iterator[dict[str, Any]]:
    if panel.heat is not None:
        yield _heat_trace(panel.heat, y_name)
    for line in panel.lines:
        if any(point.low is not None for point in line.points):
            yield _band_trace(line, y_name)
    for line in panel.lines:
        yield from _line_traces(line, y_name)


def _heat_trace(heat: Heat, y_name: str) -> dict[str, Any]:
    return {
        "type": "heatmap",
        "x": list(heat.x_edges),
        "y": list(heat.y_edges),
        # By the root, or all but the busiest stretch would be white.
        "z": [[math.sqrt(share) for share in row] for row in heat.shares],
        "zmin": 0,
        "zmax": 1,
        "colorscale": _HEAT_COLORS,
        "showscale": False,
        "hoverinfo": "skip",
        "yaxis": y_name,
    }


def _band_trace(line: Line, y_name: str) -> dict[str, Any]:
    good = [point for point in line.points if not point.void]
    xs = [point.x for point in good]
    lows = [point.y if point.low is None else point.low for point in good]
    highs = [point.y if point.high is None else point.high for point in good]
    return {
        "type": "scatter",
        "x": [*xs, *reversed(xs)],
        "y": [*highs, *reversed(lows)],
        "mode": "lines",
        "line": {"width": 0},
        "fill": "toself",
        "fillcolor": _rgba(line.look.color, _BAND),
        "hoverinfo": "skip",
        "yaxis": y_name,
        **_switched(line.name, is_shown=line.shown),
    }


def _switched(name: str, *, is_shown: bool) -> dict[str, Any]:
    return {"name": name, "meta": name, "visible": is_shown}


def _rgba(color: str, alpha: float) -> str:
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def _line_traces(line: Line, y_name: str) -> Iterator[dict[str, Any]]:
    """Yield what is good of a line in its colour, and what is void in grey."""
    good = [None if point.void else point for point in line.points]
    yield _trace(line, good, y_name, line.look.color)
    if any(point.void for point in line.points):
        # A void stretch reaches to the good points beside it, so that the line does not break.
        void = [
            point if point.void or _beside_void(line.points, at) else None
            for at, point in enumerate(line.points)
        ]
        trace = _trace(line, void, y_name, GREY)
        # Only its line: the neighbours keep their own markers.
        trace["marker"]["size"] = [_MARKER_PX * bool(point.void) for point in line.points]
        yield trace


def _beside_void(points: Sequence[Point], at: int) -> bool:
    return any(point.void for point in points[max(at - 1, 0) : at + 2])


def _trace(line: Line, points: Sequence[Point | None], y_name: str, color: str) -> dict[str, Any]:
    look = line.look
    return {
        "type": "scatter",
        "x": [None if point is None else point.x for point in points],
        "y": [None if point is None else point.y for point in points],
        "text": ["" if point is None else _hover(point) for point in points],
        "hoverinfo": "text",
        "mode": "lines+markers" if look.marker else "lines",
        "line": {"color": color, "dash": look.dash, "width": look.width},
        "marker": {"symbol": _MARKERS[look.marker], "size": _MARKER_PX, "color": color},
        "yaxis": y_name,
        **_switched(line.name, is_shown=line.shown),
    }


def _hover(point: Point | Value) -> str:
    return f"{point.text}<br>void: {point.void}" if point.void else point.text


def _mark_shapes(mark: Mark, y_name: str) -> Iterator[dict[str, Any]]:
    across, along = ("x", "y") if mark.axis == "x" else ("y", "x")
    refs = {"xref": "x", "yref": f"{y_name} domain"}
    if mark.axis == "y":
        refs = {"xref": "x domain", "yref": y_name}
    if mark.low is not None and mark.high is not None and mark.low < mark.high:
        yield {
            "type": "rect",
            f"{across}0": mark.low,
            f"{across}1": mark.high,
            f"{along}0": 0,
            f"{along}1": 1,
            "line": {"width": 0},
            "fillcolor": "rgba(128,128,128,0.22)",
            "layer": "below",
            **refs,
        }
    yield {
        "type": "line",
        f"{across}0": mark.at,
        f"{across}1": mark.at,
        f"{along}0": 0,
        f"{along}1": 1,
        "line": {"width": 1.2, "color": GREY},
        **refs,
    }


def _mark_texts(
    mark: Mark, chart: LineChart, panel: Panel, y_name: str
) -> Iterator[dict[str, Any]]:
    if not mark.text:
        return
    text = {"text": mark.text, "showarrow": False, "font": {"size": 11}}
    if mark.axis == "y":
        yield text | {
            "xref": "x domain",
            "yref": y_name,
            "x": 1,
            "y": _placed(panel.y, mark.at),
            "xanchor": "right",
            "yanchor": "bottom",
        }
        return
    # To the side where there is more room.
    is_left = _share_along(chart, mark.at) > 0.5
    yield text | {
        "xref": "x",
        "yref": f"{y_name} domain",
        "x": _placed(chart.x, mark.at),
        "y": 1,
        "xanchor": "right" if is_left else "left",
        "yanchor": "top",
        "xshift": -4 if is_left else 4,
    }


def _share_along(chart: LineChart, at: float) -> float:
    xs = [point.x for panel in chart.panels for line in panel.lines for point in line.points]
    low, high = (_placed(chart.x, end) for end in (min(xs), max(xs)))
    return (_placed(chart.x, at) - low) / (high - low) if high > low else 0.0


# --- rows ------------------------------------------------------------------------------------


def _of_rows(chart: RowChart) -> dict[str, Any]:
    each = _BAR_PX if len(chart.series) < 3 else _THIN_BAR_PX
    bars = len(chart.series) * each if chart.kind == "bars" else 1.6 * _BAR_PX
    height = len(chart.rows) * (bars + _ROW_PAD_PX) + 14 + _BOTTOM_PX
    axis = _axis(chart.x)
    if chart.kind != "dots":
        # Numbers stand behind their bars.
        axis |= {"range": [0, 1.18 * _longest(chart)], "autorange": False}
    rows = {
        "type": "category",
        "autorange": "reversed",
        "automargin": True,
        "showgrid": chart.kind == "dots",
        "gridcolor": _GRID,
        "ticksuffix": " ",
        "categoryorder": "array",
        "categoryarray": list(chart.rows),
    }
    layout = _layout(height, xaxis=axis, yaxis=rows)
    layout["margin"] |= {"t": 14}
    if chart.kind != "dots":
        layout |= {"barmode": "stack" if chart.kind == "stack" else "group", "bargap": 0.25}
    return {
        "data": [_row_trace(chart, series) for series in chart.series],
        "layout": layout,
    }


def _longest(chart: RowChart) -> float:
    columns = zip(*(series.values for series in chart.series), strict=True)
    rows = [[value.high or value.value or 0.0 for value in column] for column in columns]
    ends = [sum(row) if chart.kind == "stack" else max(row) for row in rows]
    return max(ends, default=0.0) or 1.0


def _row_trace(chart: RowChart, series: Series) -> dict[str, Any]:
    values = series.values
    colors = [GREY if value.void else series.look.color for value in values]
    trace: dict[str, Any] = {
        "orientation": "h",
        "x": [value.value for value in values],
        "y": list(chart.rows),
        "hovertext": [_hover(value) for value in values],
        "hoverinfo": "text",
        "marker": {"color": colors},
        **_switched(series.name, is_shown=True),
    }
    if any(value.low is not None for value in values):
        trace["error_x"] = _whiskers(values)
    if chart.kind == "dots":
        trace |= {"type": "scatter", "mode": "markers"}
        trace["marker"] |= {"size": 11, "symbol": _MARKERS[series.look.marker]}
        return trace
    inside = chart.kind == "stack"
    return trace | {
        "type": "bar",
        "text": [value.label for value in values],
        # Behind the bar, or at its foot where whiskers are in the way.
        "textposition": "inside" if inside else "auto" if "error_x" in trace else "outside",
        "insidetextanchor": "middle" if inside else "start",
        "cliponaxis": False,
    }


def _whiskers(values: Sequence[Value]) -> dict[str, Any]:
    def reach(value: Value, end: float | None) -> float:
        return 0.0 if end is None or value.value is None else abs(end - value.value)

    return {
        "type": "data",
        "symmetric": False,
        "array": [reach(value, value.high) for value in values],
        "arrayminus": [reach(value, value.low) for value in values],
        "thickness": 1.2,
        "width": 4,
        "color": GREY,
    }


def swatch(look: Look) -> tuple[str, str]:
    """Return dashes and marker of a look, as the page's legend draws them in SVG."""
    dashes = {"solid": "", "dash": "6 4", "dot": "2 3", "dashdot": "6 3 2 3"}
    return dashes[look.dash], look.marker

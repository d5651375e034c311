"""Charts as Vega-Lite specifications: the page, the SVG and the PNG show the same one (no I/O).

A specification is a plain dict. A panel has its points as inline data, one row per point. The
parameter ``shown`` lists the names of the lines that are drawn; a page switches lines by setting
it. Ink is ``currentColor``, so that text is light on a dark page and black on paper.

    {"params": [{"name": "shown", "value": ["wire", "orjson"]}],
     "vconcat": [{"data": {"values": [{"line": "wire", "x": 64, "y": 745.0, ...}, ...]},
                  "layer": [{"transform": [{"filter": "indexof(shown, datum.line) >= 0"}],
                             "encoding": {"x": ..., "y": ..., "color": ...},
                             "layer": [{"mark": "line", ...}, {"mark": "point", ...}]}]}]}

Altair builds such a dict in 0.25 s of CPU (two panels), this module in 1 ms: that is 15 s for the
page of the reference results. So Altair checks the specifications in the tests only.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
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

Spec = dict[str, Any]

_INK = "currentColor"
_HEAT = "#56b4e9"
_WIDTH_PX, _PANEL_PX = 600, 240
_TITLE_PX, _AXIS_PX = 36, 36
_BAR_PX, _THIN_BAR_PX, _ROW_PAD_PX = 20, 14, 12
CONFIG: Spec = {
    # A chart says in one sentence what it shows; a list of all its points helps nobody.
    "aria": False,
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "domain": False,
        "ticks": False,
        "gridColor": GREY,
        "gridOpacity": 0.3,
        "labelColor": _INK,
        "labelFontSize": 12,
        "labelLimit": 0,
        "labelPadding": 6,
        "titleColor": _INK,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "legend": {
        # Fonts of readers may be wider than the one that was measured.
        "columnPadding": 24,
        "columns": 4,
        "labelColor": _INK,
        "labelFontSize": 12,
        "labelLimit": 0,
        "orient": "bottom",
        "symbolSize": 70,
        "title": None,
    },
    "text": {"color": _INK, "fontSize": 11},
    "title": {"anchor": "start", "color": _INK, "fontSize": 12, "fontWeight": "normal"},
}


def vega_lite(chart: Chart) -> Spec:
    """Return the specification of a chart, to be drawn with `CONFIG` and under its title."""
    shown = [name for name, _, is_shown in entries(chart) if is_shown]
    spec = _of_lines(chart) if isinstance(chart, LineChart) else _of_rows(chart)
    said = f"{chart.title}: {chart.finding}"
    return {"description": said, "params": [{"name": "shown", "value": shown}], **spec}


def picture(chart: Chart) -> Spec:
    """Return the specification of a chart as a picture by itself: with its title.

    Lines that are to be switched on are left out, since nobody can.
    """
    if isinstance(chart, LineChart):
        panels = [
            replace(panel, lines=[line for line in panel.lines if line.shown])
            for panel in chart.panels
        ]
        chart = replace(chart, panels=panels)
    title = {"text": chart.title, "fontSize": 15, "fontWeight": "bold", "offset": 12}
    return {**vega_lite(chart), "title": title, "padding": 10, "config": CONFIG}


def height_px(chart: Chart) -> int:
    """Return about how high a chart is, so that a page can keep its place."""
    spec = vega_lite(chart)
    panels = spec.get("vconcat", [])
    above_px: int = sum(panel["height"] + _TITLE_PX for panel in panels) or spec["height"]
    return above_px + _AXIS_PX


def entries(chart: Chart) -> list[tuple[str, Look, bool]]:
    """Return the entries of a legend: name, look, and whether it is drawn from the start."""
    if isinstance(chart, LineChart):
        return [(line.name, line.look, line.shown) for line in chart.lines]
    return [(series.name, series.look, True) for series in chart.series]


# --- what both kinds of charts share ---------------------------------------------------------


def _number(field: str, title: str = "", **more: object) -> Spec:
    return {"field": field, "type": "quantitative", "title": title or None, **more}


def _name(field: str, **more: object) -> Spec:
    return {"field": field, "type": "nominal", **more}


def _layer(mark: Spec, encoding: Spec, only: str = "") -> Spec:
    """Return a layer of the rows for which the expression `only` is true."""
    spec: Spec = {"mark": mark, "encoding": encoding}
    return {"transform": [{"filter": only}], **spec} if only else spec


def _if_shown(encoding: Spec, layers: Sequence[Spec]) -> Spec:
    filters = [{"filter": "indexof(shown, datum.line) >= 0"}]
    return {"transform": filters, "encoding": encoding, "layer": layers}


def _by_line(chart: Chart, drawn: Callable[[Look], object]) -> Spec:
    """Return a channel that has a look per line, in the legend where there are several lines."""
    names = [name for name, _, _ in entries(chart)]
    scale = {"domain": names, "range": [drawn(look) for _, look, _ in entries(chart)]}
    return _name("line", scale=scale, **({"legend": None} if len(names) < 2 else {}))


def _color(chart: Chart) -> Spec:
    grey = {"test": "datum.void", "value": GREY}
    return {"condition": grey, **_by_line(chart, lambda look: look.color)}


def _shape(chart: Chart) -> Spec:
    return _by_line(chart, lambda look: look.marker or "stroke")


def _axis(axis: Axis, count: int) -> Spec:
    if not axis.ticks:
        return {"tickCount": count}
    values, texts = ([tick[at] for tick in axis.ticks] for at in (0, 1))
    text = f"{json.dumps(texts)}[indexof({json.dumps(values)}, datum.value)]"
    return {"values": values, "labelExpr": text}


def _scale(axis: Axis) -> Spec:
    # A little beyond the ends, or points there would be cut.
    ends = {"domainMin": axis.low, "domainMax": axis.high}
    spec: Spec = {name: end for name, end in ends.items() if end is not None}
    kind = {"type": "log"} if axis.is_log else {"zero": False}
    return {"nice": False, "padding": 8, **kind, **spec}


def _drawn(value: float) -> float:
    """Return a number with six digits, more than can be seen."""
    return float(f"{value:.6g}")


def _said(point: Point | Value) -> Spec:
    if point.void:
        return {"void": True, "text": f"{point.text}; void: {point.void}"}
    return {"text": point.text}


# --- lines -----------------------------------------------------------------------------------


def _of_lines(chart: LineChart) -> Spec:
    last = chart.panels[-1]
    panels = [_panel(chart, panel, is_last=panel is last) for panel in chart.panels]
    return {"vconcat": panels, "resolve": {"scale": {"x": "shared"}}, "spacing": 14}


def _panel(chart: LineChart, panel: Panel, *, is_last: bool) -> Spec:
    x_title = chart.x.title if is_last else ""
    x_axis = _axis(chart.x, 8) | ({} if is_last else {"labels": False})
    encoding = {
        "x": _number("x", x_title, scale=_scale(chart.x), axis=x_axis),
        "y": _number("y", scale=_scale(panel.y), axis=_axis(panel.y, 5)),
        "color": _color(chart),
    }
    layers = [] if panel.heat is None else [_heat_layer(panel.heat, x_title)]
    layers += [layer for mark in panel.marks for layer in _mark_layers(chart, mark, x_title)]
    return {
        # The title of the y axis stands above, where it takes no width.
        "title": {"text": panel.y.title, "frame": "bounds", "offset": 6},
        "width": _WIDTH_PX,
        "height": round(_PANEL_PX * panel.weight),
        "data": {"values": [row for line in panel.lines for row in _line_rows(line)]},
        "layer": [*layers, _if_shown(encoding, list(_line_layers(chart, panel)))],
    }


def _line_rows(line: Line) -> Iterator[Spec]:
    """Yield the points of a line, run by run: what is good, what is void, what is good again.

    A void run has the good points beside it as `joint` rows, so that the line does not break.
    """
    has_band = any(point.low is not None for point in line.points)
    run, before = 0, None
    for point in line.points:
        if before is not None and bool(before.void) != bool(point.void):
            run += 1
            joint, at = (before, run) if point.void else (point, run - 1)
            yield {**_place(line, joint), "run": at, "void": True, "joint": True}
        row = {**_place(line, point), "run": run, **_said(point)}
        if has_band and not point.void:
            row["low"] = _drawn(point.y if point.low is None else point.low)
            row["high"] = _drawn(point.y if point.high is None else point.high)
        yield row
        before = point


def _place(line: Line, point: Point) -> Spec:
    return {"line": line.name, "x": _drawn(point.x), "y": _drawn(point.y)}


def _line_layers(chart: LineChart, panel: Panel) -> Iterator[Spec]:
    # Where nothing can be outside, a clip would only cost: a PNG takes four times as long.
    clip = {} if panel.y.high is None else {"clip": True}
    if any(point.low is not None for line in panel.lines for point in line.points):
        band = {"y": _number("low"), "y2": {"field": "high"}}
        area = {"type": "area", "opacity": 1, "fillOpacity": 0.18, **clip}
        yield _layer(area, band, "isValid(datum.low)")
    dash = _by_line(chart, lambda look: look.dash)
    yield _layer({"type": "line", **clip}, {"strokeDash": dash, "detail": _name("run")})
    marked = [line.name for line in panel.lines if line.look.marker]
    if marked:
        point = {"type": "point", "filled": True, "opacity": 1, "size": 40, **clip}
        only = f"!datum.joint && indexof({json.dumps(marked)}, datum.line) >= 0"
        yield _layer(point, {"shape": _shape(chart)}, only)
    # A disc that is not seen, so that the pointer need not hit the very point.
    disc = {"type": "circle", "opacity": 1, "fillOpacity": 0, "size": 250, **clip}
    yield _layer(disc, {"tooltip": _name("text")}, "!datum.joint")


def _heat_layer(heat: Heat, x_title: str) -> Spec:
    xs, ys = ([_drawn(edge) for edge in edges] for edges in (heat.x_edges, heat.y_edges))
    cells = [
        # By the root, or all but the busiest stretch would be white.
        {"x": x, "x2": x2, "y": y, "y2": y2, "share": _drawn(math.sqrt(share))}
        for y, y2, row in zip(ys, ys[1:], heat.shares, strict=False)
        for x, x2, share in zip(xs, xs[1:], row, strict=False)
        if share
    ]
    shade = {"domain": [0, 1], "range": [0.1, 1]}
    encoding = {
        "x": _number("x", x_title),
        "x2": {"field": "x2"},
        "y": _number("y"),
        "y2": {"field": "y2"},
        "fillOpacity": _number("share", scale=shade, legend=None),
    }
    rect = {"type": "rect", "color": _HEAT, "opacity": 1}
    return {"data": {"values": cells}, **_layer(rect, encoding)}


def _mark_layers(chart: LineChart, mark: Mark, x_title: str) -> Iterator[Spec]:
    is_x = mark.axis == "x"
    title = x_title if is_x else ""
    if mark.low is not None and mark.high is not None and mark.low < mark.high:
        stretch = {mark.axis: _number("low", title), f"{mark.axis}2": {"field": "high"}}
        rect = {"type": "rect", "color": GREY, "opacity": 1, "fillOpacity": 0.22}
        rows = [{"low": _drawn(mark.low), "high": _drawn(mark.high)}]
        yield {"data": {"values": rows}, **_layer(rect, stretch)}
    place = {mark.axis: _number("at", title)}
    data = {"data": {"values": [{"at": _drawn(mark.at)}]}}
    yield data | _layer({"type": "rule", "color": GREY}, place)
    if not mark.text:
        return
    # To the side where there is more room; along the right end of a line across.
    is_left = not is_x or _share_along(chart, mark.at) > 0.5
    side = {"align": "right", "dx": -4} if is_left else {"align": "left", "dx": 4}
    level = {"baseline": "top", "dy": 2} if is_x else {"baseline": "bottom", "dy": -3}
    end = {"y": {"value": 0}} if is_x else {"x": {"value": "width"}}
    yield data | _layer({"type": "text", "text": mark.text, **side, **level}, place | end)


def _share_along(chart: LineChart, at: float) -> float:
    xs = [point.x for panel in chart.panels for line in panel.lines for point in line.points]
    low, high, at = (math.log(x) if chart.x.is_log else x for x in (min(xs), max(xs), at))
    return (at - low) / (high - low) if high > low else 0.0


# --- rows ------------------------------------------------------------------------------------


def _of_rows(chart: RowChart) -> Spec:
    is_grouped = chart.kind == "bars"
    each = _BAR_PX if len(chart.series) < 3 else _THIN_BAR_PX
    bars_px = len(chart.series) * each if is_grouped else 1.4 * _BAR_PX
    scale = {"domain": chart.rows, "paddingInner": 0.3, "paddingOuter": 0.15}
    encoding = {"y": _name("row", title=None, scale=scale, axis={"grid": chart.kind == "dots"})}
    if is_grouped:
        names = [series.name for series in chart.series]
        encoding["yOffset"] = _name("line", scale={"domain": names})
    layers = _dot_layers(chart) if chart.kind == "dots" else _bar_layers(chart)
    return {
        "width": _WIDTH_PX,
        "height": round(len(chart.rows) * (bars_px + _ROW_PAD_PX)),
        "data": {"values": [row for series in chart.series for row in _series_rows(chart, series)]},
        **_if_shown(encoding, list(layers)),
    }


def _series_rows(chart: RowChart, series: Series) -> Iterator[Spec]:
    for name, value in zip(chart.rows, series.values, strict=True):
        if value.value is None:
            continue
        row = {"line": series.name, "row": name, "x": _drawn(value.value), **_said(value)}
        row |= {"label": value.label, "end": _drawn(_end(value))}
        if value.low is not None:
            row |= {"low": _drawn(value.low), "high": _drawn(_end(value))}
        yield row


def _end(value: Value) -> float:
    return max(value.value or 0.0, value.high or 0.0)


def _dot_layers(chart: RowChart) -> Iterator[Spec]:
    yield from _whisker_layers(chart)
    x = _number("x", chart.x.title, scale=_scale(chart.x), axis=_axis(chart.x, 6))
    point = {"type": "point", "filled": True, "opacity": 1, "size": 110}
    look = {"color": _color(chart), "shape": _shape(chart), "tooltip": _name("text")}
    yield _layer(point, {"x": x, **look})


def _bar_layers(chart: RowChart) -> Iterator[Spec]:
    is_stack = chart.kind == "stack"
    # Numbers stand behind their bars.
    scale = {"domain": [0, 1.1 * _longest(chart)], "nice": False}
    x = _number("x", chart.x.title, scale=scale, axis=_axis(chart.x, 6))
    # In the order of the legend.
    names = json.dumps([series.name for series in chart.series])
    look = {"color": _color(chart), "tooltip": _name("text")}
    if not is_stack:
        yield _layer({"type": "bar"}, {"x": x, **look})
        yield from _whisker_layers(chart)
        number = {"x": _number("end", chart.x.title), "text": _name("label")}
        yield _layer({"type": "text", "align": "left", "dx": 4}, number)
        return
    x |= {"stack": "zero"}
    order = {"order": _number("place")}
    place = [{"calculate": f"indexof({names}, datum.line)", "as": "place"}]
    yield {"transform": place, **_layer({"type": "bar"}, {"x": x, **look, **order})}
    middle = {**_number("x", chart.x.title, stack="zero"), "bandPosition": 0.5}
    number = {"x": middle, "text": _name("label"), "detail": _name("line"), **order}
    yield {"transform": place, **_layer({"type": "text", "color": "white"}, number)}


def _whisker_layers(chart: RowChart) -> Iterator[Spec]:
    if any(value.low is not None for series in chart.series for value in series.values):
        reach = {"x": _number("low", chart.x.title), "x2": {"field": "high"}}
        bar = {"type": "errorbar", "ticks": {"size": 6}, "color": GREY}
        yield _layer(bar, reach, "isValid(datum.low)")


def _longest(chart: RowChart) -> float:
    columns = zip(*(series.values for series in chart.series), strict=True)
    rows = [[_end(value) for value in column] for column in columns]
    ends = [sum(row) if chart.kind == "stack" else max(row) for row in rows]
    return max(ends, default=0.0) or 1.0

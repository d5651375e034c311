import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sample_results import write_results

from capnp_rig.loadtest.report.chart import (
    GREY,
    Axis,
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
    decade_ticks,
)
from capnp_rig.loadtest.report.contents import document_of
from capnp_rig.loadtest.report.sources import find_sources
from capnp_rig.loadtest.report.vega_lite import height_px, picture, vega_lite

_BLUE = Look("#0072b2")


def _chart(*points: Point, marks: tuple[Mark, ...] = (), heat: Heat | None = None) -> LineChart:
    panel = Panel(Axis("time", is_log=True), [Line("a", points, _BLUE)], marks, heat)
    return LineChart("key", "title", "finding", Axis("size", is_log=True), [panel])


def _panel(chart: LineChart) -> dict[str, Any]:
    (panel,) = vega_lite(chart)["vconcat"]
    return dict(panel)


def _layers(spec: dict[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    """Yield the layers with a mark of some type, however deep."""
    for layer in spec["layer"]:
        if "layer" in layer:
            yield from _layers(layer, kind)
        elif layer["mark"]["type"] == kind:
            yield layer


def _lines(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a panel that draws its lines."""
    (part,) = (layer for layer in spec["layer"] if "layer" in layer)
    return dict(part)


def test_void_points_are_grey_and_say_why() -> None:
    points = [Point(1, 1, text="one"), Point(2, 2, void="late", text="two"), Point(3, 3)]
    panel = _panel(_chart(*points))
    rows = panel["data"]["values"]
    # The void run reaches to its neighbours, so that the line does not break.
    runs = [[row["x"] for row in rows if row["run"] == run] for run in range(3)]
    assert runs == [[1], [1, 2, 3], [3]]
    assert [row["run"] for row in rows if row.get("void")] == [1, 1, 1]
    assert [row["text"] for row in rows if not row.get("joint")] == ["one", "two; void: late", ""]
    assert _lines(panel)["encoding"]["color"]["condition"] == {"test": "datum.void", "value": GREY}
    (line,) = _layers(panel, "line")
    assert line["encoding"]["detail"]["field"] == "run"
    # A neighbour keeps its own point.
    for kind in ("point", "circle"):
        (dots,) = _layers(panel, kind)
        assert "!datum.joint" in dots["transform"][0]["filter"]


def test_a_band_leaves_void_points_out() -> None:
    points = [Point(1, 10, 9, 12), Point(2, 20), Point(4, 40, 30, 50, void="few")]
    panel = _panel(_chart(*points))
    rows = [row for row in panel["data"]["values"] if "low" in row]
    assert [(row["x"], row["low"], row["high"]) for row in rows] == [(1, 9, 12), (2, 20, 20)]
    (area,) = _layers(panel, "area")
    assert area["transform"] == [{"filter": "isValid(datum.low)"}]
    assert not list(_layers(_panel(_chart(Point(1, 10))), "area"))


def test_a_mark_is_a_line_with_a_stretch_and_a_text() -> None:
    marks = (Mark("x", 100.0, "here", 50.0, 200.0), Mark("y", 1.0, ""))
    panel = _panel(_chart(Point(1, 1), Point(1e4, 2), marks=marks))
    (stretch,) = _layers(panel, "rect")
    assert stretch["data"]["values"] == [{"low": 50.0, "high": 200.0}]
    places = [(layer["data"]["values"], set(layer["encoding"])) for layer in _layers(panel, "rule")]
    assert places == [([{"at": 100.0}], {"x"}), ([{"at": 1.0}], {"y"})]
    (text,) = _layers(panel, "text")
    assert (text["mark"]["text"], text["mark"]["align"]) == ("here", "left")


def test_a_text_stands_where_there_is_room() -> None:
    chart = _chart(Point(1, 1), Point(1e4, 2), marks=(Mark("x", 5e3, "here"),))
    (text,) = _layers(_panel(chart), "text")
    assert text["mark"]["align"] == "right"


def test_panels_share_the_height_by_weight_and_the_x_axis() -> None:
    panels = [Panel(Axis("a"), [Line("a", [Point(1, 1)], _BLUE)]), Panel(Axis("b"), weight=0.5)]
    chart = LineChart("key", "t", "f", Axis("x"), panels)
    spec = vega_lite(chart)
    first, second = spec["vconcat"]
    assert first["height"] == 2 * second["height"]
    assert spec["resolve"] == {"scale": {"x": "shared"}}
    assert [one["title"]["text"] for one in (first, second)] == ["a", "b"]
    titles = [_lines(one)["encoding"]["x"]["title"] for one in (first, second)]
    assert titles == [None, "x"]
    assert first["height"] + second["height"] < height_px(chart) < 2 * first["height"]


def test_a_line_that_is_not_shown_can_be_switched_on_but_not_in_a_picture() -> None:
    lines = [
        Line("a", [Point(1, 1)], _BLUE),
        Line("b", [Point(1, 2)], Look("#d55e00"), shown=False),
    ]
    chart = LineChart("key", "The title", "f", Axis("x"), [Panel(Axis("y"), lines)])
    spec = vega_lite(chart)
    assert spec["description"] == "The title: f"
    assert spec["params"] == [{"name": "shown", "value": ["a"]}]
    part = _lines(spec["vconcat"][0])
    assert part["transform"] == [{"filter": "indexof(shown, datum.line) >= 0"}]
    scale = part["encoding"]["color"]["scale"]
    assert scale == {"domain": ["a", "b"], "range": ["#0072b2", "#d55e00"]}
    alone = picture(chart)
    (panel,) = alone["vconcat"]
    assert {row["line"] for row in panel["data"]["values"]} == {"a"}
    assert _lines(panel)["encoding"]["color"]["scale"]["domain"] == ["a"]
    assert alone["title"]["text"] == "The title"


def test_an_axis_has_its_scale_its_ends_and_its_ticks() -> None:
    x = Axis("x", ticks=[(0, "none"), (2.5, "half")], low=0, high=5)
    panel = Panel(Axis("y", is_log=True), [Line("a", [Point(1, 1)], _BLUE)])
    encoding = _lines(_panel(LineChart("k", "t", "f", x, [panel])))["encoding"]
    assert (encoding["x"]["scale"]["domainMin"], encoding["x"]["scale"]["domainMax"]) == (0, 5)
    assert encoding["y"]["scale"]["type"] == "log"
    assert encoding["x"]["axis"]["values"] == [0, 2.5]
    text = '["none", "half"][indexof([0, 2.5], datum.value)]'
    assert encoding["x"]["axis"]["labelExpr"] == text


def test_what_lies_above_a_fixed_end_is_cut_off() -> None:
    for high in (None, 5.0):
        panel = Panel(Axis("y", high=high), [Line("a", [Point(1, 9)], _BLUE)])
        spec = _panel(LineChart("k", "t", "f", Axis("x"), [panel]))
        (line,) = _layers(spec, "line")
        assert line["mark"].get("clip", False) is (high is not None)


def test_a_heat_map_shows_the_root_of_its_shares() -> None:
    heat = Heat([0, 1, 2], [1, 10, 100], [[0.25, 1.0], [0.0, 0.0]])
    (rect,) = _layers(_panel(_chart(Point(1, 1), heat=heat)), "rect")
    assert rect["data"]["values"] == [
        {"x": 0, "x2": 1, "y": 1, "y2": 10, "share": 0.5},
        {"x": 1, "x2": 2, "y": 1, "y2": 10, "share": 1.0},
    ]


def _rows(kind: str) -> dict[str, Any]:
    values = [Value(3.0, 2.5, 4.0, label="3"), Value(None), Value(1.0, void="late", text="c")]
    series = [Series("s", values, _BLUE), Series("t", [Value(2.0)] * 3, _BLUE)]
    return vega_lite(RowChart("key", "t", "f", Axis("x"), ["a", "b", "c"], series, kind))


@pytest.mark.parametrize("kind", ["bars", "stack", "dots"])
def test_rows_have_their_values_whiskers_and_reasons(kind: str) -> None:
    spec = _rows(kind)
    rows = [row for row in spec["data"]["values"] if row["line"] == "s"]
    assert [(row["row"], row["x"], row.get("void", False)) for row in rows] == [
        ("a", 3.0, False),
        ("c", 1.0, True),
    ]
    assert rows[1]["text"] == "c; void: late"
    assert (rows[0]["low"], rows[0]["high"]) == (2.5, 4.0)
    assert "low" not in rows[1]
    # A row without a value keeps its place.
    assert spec["encoding"]["y"]["scale"]["domain"] == ["a", "b", "c"]
    (marks,) = _layers(spec, "point" if kind == "dots" else "bar")
    assert marks["encoding"]["color"]["condition"] == {"test": "datum.void", "value": GREY}
    assert bool(list(_layers(spec, "errorbar"))) is (kind != "stack")
    assert ("yOffset" in spec["encoding"]) is (kind == "bars")


@pytest.mark.parametrize(("kind", "longest"), [("bars", 4.0), ("stack", 6.0)])
def test_bars_start_at_zero_and_leave_room_for_numbers(kind: str, longest: float) -> None:
    (bars,) = _layers(_rows(kind), "bar")
    low, high = bars["encoding"]["x"]["scale"]["domain"]
    assert low == 0
    assert longest < high < 1.5 * longest


@pytest.mark.parametrize(
    ("values", "most", "ticks"),
    [
        ([], 8, []),
        ([0, -1], 8, []),
        ([5], 8, [1, 2, 5, 10]),
        ([0.3, 8], 8, [0.1, 0.2, 0.5, 1, 2, 5, 10]),
        ([64, 4e6], 8, [1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7]),
        # Where they are too many, 1 stays.
        ([0.2, 3000], 5, [1, 1e2, 1e4]),
        ([1, 1e9], 4, [1, 1e3, 1e6, 1e9]),
    ],
)
def test_ticks_are_powers_of_ten_or_between_them(
    values: list[float], most: int, ticks: list[float]
) -> None:
    assert [value for value, _ in decade_ticks(values, str, most=most)] == pytest.approx(ticks)


def test_altair_knows_all_that_it_is_given(tmp_path: Path) -> None:
    pytest.importorskip("altair", reason="needs the extra test")
    from altair.utils.schemapi import validate_jsonschema
    from altair.vegalite.v6.schema.core import load_schema

    schema = load_schema()
    document = document_of(find_sources(write_results(tmp_path)), lambda source: source.name)
    charts = document.charts
    assert len({chart.key for chart in charts}) == len(charts) > 10
    for chart in charts:
        spec = json.loads(json.dumps(picture(chart), allow_nan=False))
        # It refuses properties and values that do not exist.
        validate_jsonschema(_shortened(spec), {"$ref": "#/definitions/TopLevelSpec"}, schema)


def _shortened(spec: Any) -> Any:
    """Return a specification with two rows of each data, which are all alike."""
    if isinstance(spec, list):
        return [_shortened(one) for one in spec]
    if not isinstance(spec, dict):
        return spec
    return {
        name: {"values": part["values"][:2]} if name == "data" else _shortened(part)
        for name, part in spec.items()
    }

import json
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
from capnp_rig.loadtest.report.plotly_json import plotly_figure
from capnp_rig.loadtest.report.sources import find_sources
from capnp_rig.loadtest.report.web import charts_of

_BLUE = Look("#0072b2")


def _chart(*points: Point, marks: tuple[Mark, ...] = (), heat: Heat | None = None) -> LineChart:
    panel = Panel(Axis("time", is_log=True), [Line("a", points, _BLUE)], marks, heat)
    return LineChart("key", "title", "finding", Axis("size", is_log=True), [panel])


def test_void_points_are_grey_and_say_why() -> None:
    points = [Point(1, 1, text="one"), Point(2, 2, void="late", text="two"), Point(3, 3)]
    good, void = plotly_figure(_chart(*points))["data"]
    assert good["y"] == [1, None, 3]
    assert good["line"]["color"] == "#0072b2"
    assert good["text"][0] == "one"
    # It reaches to its neighbours, so that the line does not break.
    assert void["y"] == [1, 2, 3]
    assert void["line"]["color"] == GREY
    assert void["text"][1] == "two<br>void: late"
    assert good["meta"] == void["meta"] == "a"


def test_a_band_goes_up_one_side_and_down_the_other() -> None:
    points = [Point(1, 10, 9, 12), Point(2, 20), Point(4, 40, 30, 50, void="few")]
    band, *_ = plotly_figure(_chart(*points))["data"]
    assert band["x"] == [1, 2, 2, 1]
    assert band["y"] == [12, 20, 20, 9]
    assert band["fill"] == "toself"


def test_a_mark_is_a_line_with_a_stretch_and_a_text() -> None:
    marks = (Mark("x", 100.0, "here", 50.0, 200.0), Mark("y", 1.0, ""))
    layout = plotly_figure(_chart(Point(1, 1), Point(1e4, 2), marks=marks))["layout"]
    stretch, line, unity = layout["shapes"]
    assert (stretch["x0"], stretch["x1"], line["x0"], line["x1"]) == (50.0, 200.0, 100.0, 100.0)
    assert (unity["y0"], unity["y1"]) == (1.0, 1.0)
    text = layout["annotations"][-1]
    # Texts want the logarithm, shapes do not.
    assert (text["text"], text["x"], text["xanchor"]) == ("here", 2.0, "left")


def test_a_text_stands_where_there_is_room() -> None:
    chart = _chart(Point(1, 1), Point(1e4, 2), marks=(Mark("x", 5e3, "here"),))
    assert plotly_figure(chart)["layout"]["annotations"][-1]["xanchor"] == "right"


def test_panels_share_the_height_by_weight() -> None:
    panels = [Panel(Axis(name), [Line(name, [Point(1, 1)], _BLUE)]) for name in "ab"]
    chart = LineChart("key", "t", "f", Axis("x"), [panels[0], Panel(Axis("b"), weight=0.5)])
    layout = plotly_figure(chart)["layout"]
    first, second = layout["yaxis"]["domain"], layout["yaxis2"]["domain"]
    assert first[1] == 1
    assert second[0] == pytest.approx(0, abs=0.01)
    assert first[1] - first[0] == pytest.approx(2 * (second[1] - second[0]))
    assert layout["xaxis"]["anchor"] == "y2"


def test_a_heat_map_shows_the_root_of_its_shares() -> None:
    heat = Heat([0, 1, 2], [1, 10], [[0.25, 1.0]], "share")
    trace, *_ = plotly_figure(_chart(Point(1, 1), heat=heat))["data"]
    assert trace["type"] == "heatmap"
    assert trace["z"] == [[0.5, 1.0]]


def _rows(kind: str) -> dict[str, Any]:
    values = [Value(3.0, 2.5, 4.0, label="3"), Value(None), Value(1.0, void="late", text="c")]
    series = [Series("s", values, _BLUE)]
    return plotly_figure(RowChart("key", "t", "f", Axis("x"), ["a", "b", "c"], series, kind))


@pytest.mark.parametrize("kind", ["bars", "stack", "dots"])
def test_rows_have_their_values_whiskers_and_reasons(kind: str) -> None:
    (trace,) = _rows(kind)["data"]
    assert trace["x"] == [3.0, None, 1.0]
    assert trace["y"] == ["a", "b", "c"]
    assert trace["marker"]["color"] == ["#0072b2", "#0072b2", GREY]
    assert trace["error_x"]["array"] == [1.0, 0.0, 0.0]
    assert trace["error_x"]["arrayminus"] == [0.5, 0.0, 0.0]
    assert trace["hovertext"][2] == "c<br>void: late"
    assert trace["type"] == ("scatter" if kind == "dots" else "bar")


def test_bars_start_at_zero_and_leave_room_for_numbers() -> None:
    low, high = _rows("bars")["layout"]["xaxis"]["range"]
    assert low == 0
    assert high > 4.0


@pytest.mark.parametrize(
    ("values", "most", "powers"),
    [
        ([], 8, []),
        ([0, -1], 8, []),
        ([5], 8, [0, 1]),
        ([64, 4e6], 8, [1, 2, 3, 4, 5, 6, 7]),
        # Where they are too many, 1 stays.
        ([0.2, 3000], 5, [0, 2, 4]),
        ([1, 1e9], 4, [0, 3, 6, 9]),
    ],
)
def test_ticks_are_powers_of_ten(values: list[float], most: int, powers: list[int]) -> None:
    ticks = decade_ticks(values, str, most=most)
    assert [value for value, _ in ticks] == [10.0**power for power in powers]


def test_plotly_knows_all_that_it_is_given(tmp_path: Path) -> None:
    graph_objects = pytest.importorskip("plotly.graph_objects", reason="needs the extra report")
    document = document_of(find_sources(write_results(tmp_path)), lambda source: source.name)
    charts = list(charts_of(document))
    assert len({chart.key for chart in charts}) == len(charts)
    for chart in charts:
        figure = plotly_figure(chart)
        # It refuses properties and values that do not exist.
        graph_objects.Figure(figure)
        assert json.loads(json.dumps(figure, allow_nan=False)) == figure

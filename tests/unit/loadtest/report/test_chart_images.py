import re
import sys
from html import unescape

import pytest

from capnp_rig.loadtest.report.chart import (
    Axis,
    Line,
    LineChart,
    Look,
    Panel,
    Point,
    RowChart,
    Series,
    Value,
)
from capnp_rig.loadtest.report.chart_images import ExtraMissing, png, svg, vega_script

_LOOK = Look("#0072b2")
_ROWS = RowChart(
    "rows", "Rows & bars", "f", Axis("µs"), ["one"], [Series("s", [Value(1.0)], _LOOK)]
)


def _lines(key: str = "lines") -> LineChart:
    lines = [
        Line("wire <1>", [Point(1, 1), Point(2, 9, void="late"), Point(3, 2)], _LOOK),
        Line("other", [Point(1, 2), Point(3, 1)], Look("#d55e00")),
        Line("hidden", [Point(1, 2)], Look("#123456"), shown=False),
    ]
    # With a fixed end, what lies above is clipped.
    return LineChart(key, "Lines", "f", Axis("x"), [Panel(Axis("y", high=5.0), lines)])


@pytest.fixture(autouse=True)
def _extra() -> None:
    pytest.importorskip("vl_convert", reason="needs the extra report")


def test_an_svg_has_title_axis_and_legend_but_no_hidden_line() -> None:
    texts = {unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg(_lines()))}
    assert {"Lines", "y", "x", "wire <1>", "other"} <= texts
    assert "hidden" not in texts
    assert "#123456" not in svg(_lines())
    assert svg(_lines()).startswith('<svg style="color:black;background:white" ')
    # Nobody points at a picture.
    assert 'fill-opacity="0"' not in svg(_lines())


def test_an_svg_is_the_same_whatever_was_drawn_before() -> None:
    first = svg(_lines())
    svg(_ROWS)
    assert svg(_lines()) == first
    assert png(_ROWS) == png(_ROWS)


def test_ids_of_two_pictures_in_one_page_differ() -> None:
    ids = []
    for key in ("one", "two"):
        text = svg(_lines(key))
        own = re.findall(r'\bid="([^"]+)"', text)
        assert set(re.findall(r"url\(#([^)]+)\)", text)) == set(own)
        assert own[0] == f"{key}-clip0"
        ids += own
    assert len(set(ids)) == len(ids)


def test_a_png_is_one() -> None:
    assert png(_ROWS).startswith(b"\x89PNG")


def test_the_script_is_for_a_page_without_a_network() -> None:
    script = vega_script()
    assert "window.vegaEmbed" in script
    assert "import(" not in script
    assert not any(line.startswith("import ") for line in script.splitlines())


@pytest.mark.parametrize("make", [lambda: svg(_ROWS), lambda: png(_ROWS), vega_script])
def test_a_missing_library_names_the_extra(make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(make)
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(ExtraMissing, match=r"^vl-convert is missing: install capnp-rig\[report\]$"):
        make()

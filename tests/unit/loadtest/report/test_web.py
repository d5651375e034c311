import base64
import gzip
import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from sample_results import EVIL, bench_figures, write_figures, write_results

from capnp_rig.loadtest.report.chart import Axis, Line, LineChart, Look, Panel, Point
from capnp_rig.loadtest.report.contents import document_of
from capnp_rig.loadtest.report.document import (
    Cell,
    Document,
    Fold,
    Links,
    Notes,
    Row,
    Section,
    Table,
)
from capnp_rig.loadtest.report.sources import find_sources
from capnp_rig.loadtest.report.web import Html, render
from capnp_rig.loadtest.results import Figure

_VOID_TAGS = {"meta", "link", "br", "img", "input"}


class _Page(HTMLParser):
    """Reads a page: its elements with their attributes, its texts, and what is not well-formed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.problems: list[str] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        plain = {name: value or "" for name, value in attrs}
        self.elements.append((tag, plain))
        self.problems += [f"{name} is a script" for name in plain if name.startswith("on")]
        if tag not in _VOID_TAGS:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        # SVG's shapes close themselves.
        if tag in {"path", "rect", "circle"}:
            self.open.remove(tag)
        elif not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> closes what is not open")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif not self.open or self.open[-1] != "style":
            self.text += data

    def all_of(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        return [
            plain
            for name, plain in self.elements
            if name == tag and attributes.items() <= plain.items()
        ]


def _page(document: Document) -> _Page:
    page = _Page(render(document, "VEGA"))
    assert page.problems == []
    assert page.open == []
    return page


def _unpacked(packed: str) -> str:
    return gzip.decompress(base64.b64decode(packed)).decode()


def _charts(page: _Page) -> dict[str, Any]:
    return dict(json.loads(_unpacked(page.scripts[0]))["charts"])


def _chart(key: str = "k", name: str = "a") -> LineChart:
    lines = [
        Line(name, [Point(1, 1)], Look("#0072b2")),
        Line("b", [], Look("#0072b2"), shown=False),
    ]
    return LineChart(key, "Title", "The finding.", Axis("x"), [Panel(Axis("y"), lines)])


def _document(*parts: Any, **more: Any) -> Document:
    return Document("Title", [Section("s", "Section", parts)], **more)


def test_a_chart_has_a_legend_a_description_and_a_caption() -> None:
    page = _page(_document(_chart()))
    (plot,) = page.all_of("div", role="img")
    assert plot["aria-label"] == "Title: The finding."
    assert plot["data-chart"] == "k"
    pills = page.all_of("button", **{"class": "pill"})
    assert [(pill["data-line"], pill["aria-pressed"]) for pill in pills] == [
        ("a", "true"),
        ("b", "false"),
    ]
    assert "The finding." in page.text
    assert _charts(page).keys() == {"k"}
    assert _unpacked(page.scripts[1]) == "VEGA"


def test_without_charts_there_is_no_vega() -> None:
    # The page's own script is alone.
    assert len(_page(_document()).scripts) == 1


def test_a_chart_that_is_drawn_already_is_a_picture_and_needs_no_script() -> None:
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9"><path d="M0 0"/></svg>'
    text = render(_document(_chart(), _chart("other")), pictures={"k": Html(svg)})
    page = _Page(text)
    assert (page.problems, page.open) == ([], [])
    assert "http:" not in text
    assert '<svg width="9"><path d="M0 0"/></svg>' in text
    assert [plain["aria-label"] for plain in page.all_of("div", role="img")] == ["Title"]
    assert page.text.count("The finding.") == 2
    assert "Install capnp-rig[report]" in page.text
    assert page.all_of("button", **{"class": "pill"}) == []


def test_a_table_says_how_it_sorts_and_why_rows_are_void() -> None:
    rows = [Row([Cell("b"), Cell("1 µs", 1000.0)]), Row([Cell("a"), Cell("-")], "late")]
    page = _page(_document(Table("t", "Caption", ["name", "time"], rows)))
    assert [plain["aria-sort"] for plain in page.all_of("th")] == ["none", "none"]
    assert [plain.get("data-v") for plain in page.all_of("td")] == [None, "1000", None, None]
    assert page.all_of("tr", **{"class": "void"}) == [{"class": "void", "title": "void: late"}]
    assert "Caption" in page.text


def test_what_is_folded_opens_on_demand() -> None:
    table = Table("t", "Long", ["a"], [Row([Cell("1")])], folded=True)
    page = _page(_document(table, Fold("More", [_chart("inner")])))
    assert "Long (1 rows)" in page.text
    # One more says how to read the page.
    assert len(page.all_of("details")) == 3
    assert _charts(page).keys() == {"inner"}


def test_the_box_has_its_parts_void_flags_and_machines() -> None:
    lines = Table("answers", "Answers", ["what"], [Row([Cell("it pays")])])
    verdict = [lines, _chart("gain")]
    notes = [Notes("Void", ["3 figures are void"]), Notes("Measured on", ["Some CPU"])]
    page = _page(_document(verdict=[*verdict, *notes]))
    for text in ("Answers", "it pays", "3 figures", "Some"):
        assert text in page.text
    assert _charts(page).keys() == {"gain"}


def test_links_are_quoted() -> None:
    page = _page(_document(Links(["../a b/run.json"])))
    assert page.all_of("a", href="../a%20b/run.json")


def test_nothing_that_was_read_becomes_markup(tmp_path: Path) -> None:
    labels = {"codec": EVIL, "message": EVIL, "contract": EVIL, "size_bytes": 64, "k": None}
    evil = [
        Figure(f"time: {EVIL}", 1.0, "ns", EVIL, 1, labels={**labels, "size_bytes": size})
        for size in (64, 128)
    ]
    write_figures(tmp_path / "<b>", "bench", [*evil, *bench_figures()], started=EVIL)
    page = _page(document_of(find_sources(tmp_path), lambda source: source.name))
    assert EVIL in page.text
    assert not page.all_of("b")
    # Charts, Vega and the page's own.
    assert len(page.scripts) == 3
    assert EVIL in json.dumps(_charts(page), ensure_ascii=False).replace('\\"', '"')


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Document:
    """The page of a result of every kind."""
    folder = write_results(tmp_path_factory.mktemp("results"))
    return document_of(find_sources(folder), lambda source: source.name)


def test_a_page_asks_for_nothing_from_anywhere(everything: Document) -> None:
    text = render(everything, "VEGA")
    page = _page(everything)
    tags = {name for name, _ in page.elements}
    assert not tags & {"iframe", "object", "embed", "video", "img", "base", "form"}
    assert [plain["href"] for plain in page.all_of("link")] == ["data:,"]
    assert not page.all_of("script", src="")
    assert all("src" not in plain for plain in page.all_of("script"))
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert "url(" not in text
    (policy,) = page.all_of("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none';")


def test_ids_are_unique(everything: Document) -> None:
    page = _page(everything)
    ids = [plain["id"] for _, plain in page.elements if "id" in plain]
    assert [each for each in ids if ids.count(each) > 1] == []
    anchors = [plain["href"] for plain in page.all_of("a")]
    assert {one[1:] for one in anchors if one.startswith("#")} <= {*ids}


def test_headings_go_down_step_by_step(everything: Document) -> None:
    page = _page(everything)
    assert all(page.all_of(level) for level in ("h2", "h3"))
    assert len(page.all_of("h1")) == 1

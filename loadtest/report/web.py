"""The document as one HTML file that asks for nothing from anywhere (no I/O but the package's own).

Style, scripts and figures are in it, and a policy in its head forbids the browser to load
anything else, even from a page that somebody has tampered with.
"""

import base64
import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from importlib import resources
from itertools import groupby
from urllib.parse import quote

from capnp_rig.loadtest.report.chart import Chart, Look, RowChart
from capnp_rig.loadtest.report.document import (
    Cell,
    Commands,
    Document,
    Fold,
    Links,
    Notes,
    Paragraph,
    Part,
    Section,
    Table,
)
from capnp_rig.loadtest.report.vega_lite import CONFIG, entries, height_px, vega_lite

_NAMESPACES = re.compile(r' xmlns(:\w+)?="[^"]*"')
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)
_HOW = {
    "ratio": "How many times as fast, or as good, the first one is: above 1 it is better.",
    "A/A floor": (
        "How far apart the baseline was from itself, measured twice: what lies within is noise."
    ),
    "tie": (
        "The interval holds 1 and lies within 5 %, however noisy it was. Where there is "
        "neither a tie nor a difference, it cannot be told who is ahead."
    ),
    "95 % interval": (
        "Where the true value lies, over fresh processes or rounds; n is how many there were."
    ),
    "void": "A figure that nobody should trust: it is grey, and says why.",
    "p99": "99 % of the calls took at most this long; p50 is the median.",
    "open loop": (
        "Calls are due on a schedule, whether or not earlier ones were answered. In a closed loop "
        "callers wait for replies."
    ),
    "wire, pycapnp": (
        "Two implementations of Cap'n Proto: this project's, and the reference one for Python. "
        "Where only Cap'n Proto is said, it is the first."
    ),
}
# By the key of its chart: SVG as `Html`, or the text of why there is none.
Pictures = Mapping[str, str]
_NO_PICTURES = "Install capnp-rig[report], and run loadtest report on this folder, for a picture."


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(tag: str, *content: str, **attributes: str) -> Html:
    """Return an element; text in it is escaped, `Html` is not.

    ``class_`` is the class; an attribute with an empty value is left out.
    """
    plain = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
        if value
    )
    return Html(f"<{tag}{plain}>{joined(content)}</{tag}>")


def joined(content: Iterable[str]) -> Html:
    """Return content one after the other, escaped where it is text."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in content))


def render(document: Document, vega_script: str = "", *, pictures: Pictures | None = None) -> str:
    """Return the page; `vega_script` is the JavaScript of Vega, Vega-Lite and Vega-Embed.

    With `pictures` the charts are drawn already, and the page needs no such script; in place of
    a picture that is missing stands why.
    """
    drawn_here = () if pictures is not None else document.charts
    charts = {chart.key: vega_lite(chart) for chart in drawn_here}
    head = [
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        # Without one, browsers ask for favicon.ico.
        Html('<link rel="icon" href="data:,">'),
        element("title", document.title),
        element("style", Html(_own_file("page.css"))),
    ]
    body = [
        element("header", element("h1", document.title)),
        element(
            "main",
            _section(
                Section("verdict", "Verdict", document.verdict),
                pictures,
                "box bad" if document.is_void else "box",
            ),
            _how(),
            _contents(document.sections),
            *(_section(section, pictures) for section in document.sections),
        ),
        _packed("charts", json.dumps({"config": CONFIG, "charts": charts})) if charts else Html(""),
        _packed("vega", vega_script) if charts else Html(""),
        Html(f"<script>{_own_file('page.js')}</script>"),
    ]
    html = element("html", element("head", *head), element("body", *body), lang="en")
    return f"<!DOCTYPE html>\n{html}\n"


def _own_file(name: str) -> str:
    return resources.files("capnp_rig.loadtest.report").joinpath(name).read_text(encoding="utf-8")


def _packed(key: str, text: str) -> Html:
    """Return a text for the page's script, compressed: it would be most of the page otherwise."""
    packed = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
    return element("script", packed, type="application/gzip", id=key)


def _contents(sections: Iterable[Section]) -> Html:
    links = [
        element("li", element("a", section.title, href=f"#{section.key}")) for section in sections
    ]
    return element("nav", element("ul", *links), aria_label="Sections") if links else Html("")


def _how() -> Html:
    entries = [
        part for term, text in _HOW.items() for part in (element("dt", term), element("dd", text))
    ]
    return element(
        "details",
        element("summary", "How to read this page"),
        element("dl", *entries),
        class_="howto",
    )


# --- sections --------------------------------------------------------------------------------


def _section(section: Section, pictures: Pictures | None, look: str = "") -> Html:
    content = (element("h2", section.title), *_parts(section.parts, pictures))
    return element("section", *content, class_=look, id=section.key)


def _parts(parts: Iterable[Part], pictures: Pictures | None) -> Iterator[Html]:
    for is_chart, some in groupby(parts, key=lambda part: isinstance(part, Chart)):
        shown = [_part(part, pictures) for part in some]
        yield from [element("div", *shown, class_="charts")] if is_chart else shown


def _part(part: Part, pictures: Pictures | None) -> Html:
    if isinstance(part, Chart):
        if pictures is None:
            return _chart(part)
        return _picture(part, pictures.get(part.key, _NO_PICTURES))
    if isinstance(part, Fold):
        parts = _parts(part.parts, pictures)
        return element("details", element("summary", part.title), *parts)
    if isinstance(part, Table):
        return _table(part)
    if isinstance(part, Commands):
        return element("div", *(line for pair in part.lines for line in _command(*pair)))
    if isinstance(part, Notes):
        title = element("h3", part.title) if part.title else ""
        return joined([title, element("ul", *(element("li", text) for text in part.texts))])
    if isinstance(part, Links):
        links = [element("a", path.removeprefix("./"), href=quote(path)) for path in part.paths]
        return element("ul", *(element("li", link) for link in links))
    assert isinstance(part, Paragraph)
    return element("p", part.text, class_="quiet" if part.quiet else "")


def _command(command: str, what: str) -> Iterator[Html]:
    if what:
        yield element("p", f"{what}:")
    yield element("pre", element("code", command))


def _picture(chart: Chart, svg: str) -> Html:
    if isinstance(svg, Html):
        # In a page the name of SVG's language goes without saying, and would look like a link.
        drawn = Html(_NAMESPACES.sub("", svg))
        shown = element("div", drawn, class_="picture", role="img", aria_label=chart.title)
    else:
        shown = joined([element("h3", chart.title), element("p", svg, class_="quiet")])
    caption = element("figcaption", chart.finding)
    return element("figure", shown, caption, id=chart.key, class_="chart")


def _chart(chart: Chart) -> Html:
    plot = element(
        "div",
        class_="plot",
        data_chart=chart.key,
        style=f"min-height:{height_px(chart)}px",
        role="img",
        aria_label=f"{chart.title}: {chart.finding}",
    )
    caption = element("figcaption", chart.finding)
    title = element("h3", chart.title)
    return element("figure", title, _legend(chart), plot, caption, id=chart.key, class_="chart")


def _legend(chart: Chart) -> Html:
    lines = entries(chart)
    if len(lines) < 2:
        return Html("")
    is_dots = isinstance(chart, RowChart)
    pills = [
        element(
            "button",
            _swatch(look, is_dots=is_dots),
            name,
            type="button",
            class_="pill",
            data_line=name,
            aria_pressed=str(shown).lower(),
        )
        for name, look, shown in lines
    ]
    return element("div", *pills, class_="legend", role="group", aria_label="Lines of the chart")


_SHAPES = {
    "circle": '<circle cx="12" cy="6" r="4"/>',
    "square": '<rect x="8" y="2" width="8" height="8"/>',
    "diamond": '<path d="M12 1 17 6 12 11 7 6Z"/>',
    "triangle": '<path d="M12 1.5 17 10.5H7Z"/>',
    "cross": '<path d="M10.5 2h3v2.5H16v3h-2.5V10h-3V7.5H8v-3h2.5Z"/>',
    "": "",
}


def _swatch(look: Look, *, is_dots: bool) -> Html:
    dashes = " ".join(map(str, look.dash))
    line = f'<path d="M0 6H24" stroke="{look.color}" stroke-width="2" stroke-dasharray="{dashes}"/>'
    shape = _SHAPES[look.marker or ("circle" if is_dots else "")]
    return Html(
        f'<svg width="24" height="12" fill="{look.color}" aria-hidden="true">'
        f"{'' if is_dots else line}{shape}</svg>"
    )


# --- tables ----------------------------------------------------------------------------------


def grid_html(table: Table, *, is_sortable: bool = False) -> Html:
    """Return the cells of a table alone, without its caption; a sortable one has buttons."""
    numeric = table.numeric_columns
    heads = [
        element(
            "th",
            element("button", text, type="button") if is_sortable else text,
            scope="col",
            aria_sort="none" if is_sortable else "",
            class_="n" if at in numeric else "",
        )
        for at, text in enumerate(table.headings)
    ]
    rows = [
        element(
            "tr",
            *(_cell(cell, is_numeric=at in numeric) for at, cell in enumerate(row.cells)),
            class_="void" if row.void else row.tone,
            title=f"void: {row.void}" if row.void else "",
        )
        for row in table.rows
    ]
    return element(
        "table",
        element("thead", element("tr", *heads)),
        element("tbody", *rows),
        aria_labelledby=f"{table.key}-caption" if is_sortable else "",
    )


def _table(table: Table) -> Html:
    shown = element(
        "div",
        # Not a caption: that would scroll sideways with the table.
        element("p", table.caption, class_="caption", id=f"{table.key}-caption"),
        element("button", "Copy table", type="button", class_="copy"),
        element(
            "div",
            grid_html(table, is_sortable=True),
            class_="scroll",
            tabindex="0",
            role="region",
            aria_labelledby=f"{table.key}-caption",
        ),
        class_="tablebox",
        id=table.key,
    )
    if not table.folded:
        return shown
    said = f"{table.caption} ({len(table.rows):,} rows)"
    return element("details", element("summary", said), shown)


def _cell(cell: Cell, *, is_numeric: bool) -> Html:
    kind = "n" if is_numeric else "long" if len(cell.text) > 28 else "fixed"
    value = "" if cell.value is None else f"{cell.value:.12g}"
    return element("td", cell.text, class_=f"{kind} {cell.tone}".strip(), data_v=value)

"""Plain HTML: escaped elements, tables, line charts and the page around them (no I/O).

A page asks for nothing from anywhere: style and charts are in it, and there is no script.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

_NUMBER = re.compile(r"-|[-+]?[0-9][0-9,.]*( %)?")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 180, 60, 20
_STYLE = """
:root { color-scheme: light dark; --grey: #767676; --line: #8884; --a: #1f6fd0; --b: #d0661f; }
body { font: 16px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 75rem; padding: 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.scroll { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; font-size: .875rem; }
caption { text-align: left; color: var(--grey); padding-bottom: .25rem; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; white-space: nowrap; }
td.long { white-space: normal; overflow-wrap: anywhere; min-width: 12rem; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
.void, .void td { color: var(--grey); }
.box { border-left: .3rem solid var(--a); padding: .25rem 1rem; margin: 1rem 0; }
.box.bad { border-color: #c22; }
code { overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
svg { max-width: 100%; height: auto; }
svg text { font-size: 11px; fill: currentColor; }
svg polyline { fill: none; stroke-width: 1.5; }
.line0 { stroke: var(--a); } .line1 { stroke: var(--b); } .axis { stroke: var(--line); }
.key0 { color: var(--a); } .key1 { color: var(--b); }
"""


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(tag: str, *content: str, **attributes: str) -> Html:
    """Return an element; text in it is escaped, `Html` is not. ``class_`` is the class."""
    plain = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
        if value
    )
    return Html(f"<{tag}{plain}>{joined(content)}</{tag}>")


def joined(content: Iterable[str]) -> Html:
    """Return content one after the other, escaped where it is text."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in content))


@dataclass(frozen=True, slots=True)
class Cells:
    """A row of a table; a void one is grey, and so are the cells in `doubted`, by number."""

    texts: Sequence[str]
    is_void: bool = False
    doubted: frozenset[int] = frozenset()


def table(headings: Sequence[str], rows: Iterable[Cells], *, caption: str = "") -> Html:
    """Return a table that scrolls by itself where the screen is narrow; numbers stand right."""
    rows = list(rows)
    columns = list(zip(*(row.texts for row in rows), strict=True)) or [()] * len(headings)
    heads = [
        element("th", text, class_="n" if all(map(_NUMBER.fullmatch, column)) and column else "")
        for text, column in zip(headings, columns, strict=True)
    ]
    body = [
        element(
            "tr",
            *(
                element("td", text, class_=_cell_class(text, at in row.doubted))
                for at, text in enumerate(row.texts)
            ),
            class_="void" if row.is_void else "",
        )
        for row in rows
    ]
    return element(
        "div",
        element(
            "table",
            element("caption", caption) if caption else "",
            element("thead", element("tr", *heads)),
            element("tbody", *body),
        ),
        class_="scroll",
    )


def _cell_class(text: str, is_doubted: bool) -> str:
    kinds = ["n"] if _NUMBER.fullmatch(text) else []
    kinds += ["long"] if len(text) > 40 else []
    kinds += ["void"] if is_doubted else []
    return " ".join(kinds)


def line_chart(
    title: str, unit: str, lines: Sequence[tuple[str, Sequence[tuple[float, float]]]]
) -> Html:
    """Return a chart over seconds of one or two named lines, from zero up; empty without points."""
    points = [point for _, line in lines for point in line]
    if not points:
        return Html("")
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    top = max(y for _, y in points) or 1.0
    width, height = _WIDTH - _LEFT, _HEIGHT - _BOTTOM

    def place(x: float, y: float) -> str:
        across = _LEFT + width * ((x - first) / (last - first) if last > first else 0.5)
        return f"{across:.1f},{height - (height - 12) * y / top:.1f}"

    drawn = [
        element("polyline", points=" ".join(place(x, y) for x, y in line), class_=f"line{at}")
        for at, (_, line) in enumerate(lines)
    ]
    axis = element(
        "polyline", points=f"{_LEFT},0 {_LEFT},{height} {_WIDTH},{height}", class_="axis"
    )
    texts = [
        _label(_LEFT - 4, 12, f"{top:,.0f}", "end"),
        _label(_LEFT - 4, height, "0", "end"),
        _label(_LEFT, _HEIGHT - 4, f"{first:g} s", "start"),
        _label(_WIDTH, _HEIGHT - 4, f"{last:g} s", "end"),
    ]
    keys = [element("span", f"— {name} ", class_=f"key{at}") for at, (name, _) in enumerate(lines)]
    picture = element(
        "svg",
        *(element("title", f"{title} ({unit}) over time"), axis, *drawn, *texts),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        width=str(_WIDTH),
        role="img",
    )
    return element("figure", element("figcaption", f"{title}, {unit}: ", *keys), picture)


def _label(x: float, y: float, text: str, anchor: str) -> Html:
    return element("text", text, x=f"{x:g}", y=f"{y:g}", text_anchor=anchor)


def page(title: str, sections: Iterable[str]) -> str:
    """Return the whole page."""
    head = [
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", title),
        element("style", Html(_STYLE)),
    ]
    body = element("body", element("h1", title), *sections)
    return f"<!DOCTYPE html>\n{element('html', element('head', *head), body, lang='en')}\n"

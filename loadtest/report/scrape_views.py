"""What Prometheus endpoints said during a load run: panels beside latency, and a table (no I/O).

A counter is drawn as its growth per second, and what counts and sums up observations (a histogram,
a summary) as their mean too. What did not move tells nothing beside latency: it is in the table.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise

from capnp_rig.loadtest.report.cells import row
from capnp_rig.loadtest.report.chart import Axis, Line, Panel, Point
from capnp_rig.loadtest.report.document import Paragraph, Part, Row, Table
from capnp_rig.loadtest.report.line_styles import look_of
from capnp_rig.loadtest.report.units import number_text, plural
from capnp_rig.loadtest.results.load_samples import LoadRun
from capnp_rig.loadtest.scrape.series import Scraped, family_of, labels_of, rates

_MOST_PANELS, _MOST_LINES = 12, 6
# The first two colours are those of the percentiles above.
_FIRST_LOOK = 2

_Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A panel's title and its lines, by their labels."""

    title: str
    lines: Mapping[str, _Points]


def scrape_panels(load: LoadRun, offsets: Mapping[int, float]) -> list[Panel]:
    """Return a panel for each family of metrics that moved; `offsets` say where repeats begin."""
    urls = list(dict.fromkeys(each.url for at in offsets for each in load.repeats[at].scrapes))
    looks: dict[str, int] = {}
    panels = []
    for drawn in islice(_moving(load, offsets, urls), _MOST_PANELS):
        lines = []
        for name, points in drawn.lines.items():
            look = look_of(name, {}, looks.setdefault(name, len(looks)) + _FIRST_LOOK)
            said = [
                Point(at_s, value, text=f"{name}: {number_text(value)}") for at_s, value in points
            ]
            lines.append(Line(name, said, replace(look, marker="")))
        is_positive = all(point.y >= 0 for line in lines for point in line.points)
        axis = Axis(drawn.title, low=0 if is_positive else None)
        panels.append(Panel(axis, lines, weight=0.5))
    return panels


def _moving(load: LoadRun, offsets: Mapping[int, float], urls: Sequence[str]) -> Iterator[_Drawn]:
    for url in urls:
        where = f" ({url})" if len(urls) > 1 else ""
        for title, lines in _families(load, offsets, url).items():
            moving = {name: points for name, points in lines.items() if _moves(points)}
            highest = sorted(moving, key=lambda name: -_highest(moving[name]))[:_MOST_LINES]
            if highest:
                named = {name or title: moving[name] for name in moving if name in highest}
                yield _Drawn(title + where, named)


def _moves(points: _Points) -> bool:
    return len({value for _, value in points}) > 1


def _highest(points: _Points) -> float:
    return max(abs(value) for _, value in points)


def _families(
    load: LoadRun, offsets: Mapping[int, float], url: str
) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return the points of each line of one endpoint, by panel and by labels."""
    families: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for repeat, offset in offsets.items():
        for scraped in load.repeats[repeat].scrapes:
            if scraped.url != url:
                continue
            for title, labels, points in _series(scraped):
                length_s = load.repeats[repeat].seconds
                within = [(offset + at_s, value) for at_s, value in points if 0 <= at_s <= length_s]
                families.setdefault(title, {}).setdefault(labels, []).extend(within)
    return families


def _series(scraped: Scraped) -> Iterator[tuple[str, str, _Points]]:
    by_series = _by_series(scraped)
    for series, readings in by_series.items():
        family, labels = family_of(series), labels_of(series)
        if series not in scraped.counters:
            yield family, labels, readings
            continue
        count = by_series.get(f"{family[:-4]}_count{series[len(family) :]}")
        if family.endswith("_sum") and count is not None:
            yield f"{family[:-4]}, mean", labels, _means(readings, count)
        else:
            yield f"{family}, per second", labels, rates(readings)


def _by_series(scraped: Scraped) -> dict[str, list[tuple[float, float]]]:
    by_series: dict[str, list[tuple[float, float]]] = {}
    for at_s, values in scraped.readings:
        for series, value in values.items():
            by_series.setdefault(series, []).append((at_s, value))
    return by_series


def _means(sums: _Points, counts: _Points) -> _Points:
    """Return the mean of what was observed between two readings, where something was."""
    observed = dict(rates(counts))
    return [
        (at_s, rate / observed[at_s]) for at_s, rate in rates(sums) if observed.get(at_s, 0.0) > 0
    ]


def scrape_parts(load: LoadRun, repeat: int) -> Iterator[Part]:
    """Yield a table of all that each endpoint said in a repeat; nothing where none was read."""
    for number, scraped in enumerate(load.repeats[repeat].scrapes):
        rows = [
            _row(series, readings, is_counter=series in scraped.counters)
            for series, readings in _by_series(scraped).items()
        ]
        headings = ["series", "first", "last", "least", "most", "per second"]
        caption = f"What {scraped.url} said, from the first to the last of "
        caption += plural(len(scraped.readings), "reading")
        yield Table(f"scrape-{repeat}-{number}", caption, headings, rows, folded=True)
        if scraped.note:
            yield Paragraph(scraped.note, quiet=True)


def _row(series: str, readings: _Points, *, is_counter: bool) -> Row:
    values = [value for _, value in readings]
    grown = list(pairwise([(readings[0][0], 0.0), *rates(readings)])) if is_counter else []
    total = math.fsum(rate * (at_s - before_s) for (before_s, _), (at_s, rate) in grown)
    per_s = total / (readings[-1][0] - readings[0][0]) if grown else None
    return row(series, values[0], values[-1], min(values), max(values), per_s)

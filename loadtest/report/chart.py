"""Charts as plain values: what to draw, by whatever draws it (no I/O).

A `LineChart` has panels one above the other on one x axis, a `RowChart` a row per name with bars or
dots to the right. A point whose `void` says why is drawn grey, and nothing may be read from it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

GREY = "#8a8a8a"
# Lengths of dashes and gaps, in px.
SOLID, DASH, DOT, DASHDOT = (1, 0), (6, 4), (2, 3), (6, 3, 2, 3)


@dataclass(frozen=True, slots=True)
class Look:
    """How a line or its dots look; `dash` has the lengths of dashes and gaps, in px.

    `marker` is ``circle``, ``square``, ``diamond``, ``triangle``, ``cross`` or empty for none.
    """

    color: str
    dash: Sequence[int] = SOLID
    marker: str = "circle"


@dataclass(frozen=True, slots=True)
class Point:
    """A point, with its interval where there is one; `text` is what is said of it on hover."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    void: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A named line; one that is not `shown` can be switched on, and is in the tables."""

    name: str
    points: Sequence[Point]
    look: Look
    shown: bool = True


@dataclass(frozen=True, slots=True)
class Mark:
    """Something found or demanded: a line across at `at` on the axis ``x`` or ``y``.

    `low` and `high` bound the stretch that is shaded with it.
    """

    axis: str
    at: float
    text: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis; `ticks` are values and texts, those of the drawing library where there are none.

    `low` and `high` are the ends where they shall not come from what is drawn.
    """

    title: str
    is_log: bool = False
    ticks: Sequence[tuple[float, str]] = ()
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Heat:
    """A heat map: `shares` has a row per stretch between `y_edges`, of a value per one of x."""

    x_edges: Sequence[float]
    y_edges: Sequence[float]
    shares: Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines over one y axis, whose title stands above; `weight` is its share of the height."""

    y: Axis
    lines: Sequence[Line] = ()
    marks: Sequence[Mark] = ()
    heat: Heat | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class LineChart:
    """Panels one above the other. `finding` states in a sentence what there is to see."""

    key: str
    title: str
    finding: str
    x: Axis
    panels: Sequence[Panel]

    @property
    def lines(self) -> list[Line]:
        """Each line once, by name, in the order of the panels."""
        by_name: dict[str, Line] = {}
        for panel in self.panels:
            for line in panel.lines:
                by_name.setdefault(line.name, line)
        return list(by_name.values())


@dataclass(frozen=True, slots=True)
class Value:
    """What a row has: a value, None where there is none, with its interval and its words."""

    value: float | None
    low: float | None = None
    high: float | None = None
    void: str = ""
    text: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """A value per row, in the order of the chart's rows."""

    name: str
    values: Sequence[Value]
    look: Look


@dataclass(frozen=True, slots=True)
class RowChart:
    """A row per name; `kind` is ``bars``, ``stack`` (bars one after the other) or ``dots``."""

    key: str
    title: str
    finding: str
    x: Axis
    rows: Sequence[str]
    series: Sequence[Series]
    kind: str = "bars"


Chart = LineChart | RowChart


def decade_ticks(
    values: Iterable[float], text: Callable[[float], str], *, most: int = 8
) -> tuple[tuple[float, str], ...]:
    """Return ticks at the powers of ten around some values, those that are not positive left out.

    Within two powers there are ticks at 2 and 5 as well. Where there would be more than `most`,
    every second or third power has one.
    """
    logs = [math.log10(value) for value in values if value > 0]
    if not logs:
        return ()
    first, last = math.floor(min(logs)), math.ceil(max(logs))
    step = -(-(last - first + 1) // most)
    # Those of 1, whatever the step: it is what ratios are held against.
    powers = [10.0**power for power in range(first, last + 1) if power % step == 0]
    if last - first <= 2:
        digits = [digit * power for power in powers for digit in (1, 2, 5)]
        powers = [tick for tick in digits if tick <= powers[-1]]
    return tuple((value, text(value)) for value in powers)


def log_panel(
    title: str,
    lines: Sequence[Line],
    text: Callable[[float], str],
    marks: Sequence[Mark] = (),
    *,
    heat: Heat | None = None,
    most: int = 8,
    weight: float = 1.0,
) -> Panel:
    """Return lines over a logarithmic axis, with ticks around all that is drawn."""
    values = [point.y for line in lines for point in line.points]
    values += [] if heat is None else [heat.y_edges[0], heat.y_edges[-1]]
    values += [mark.at for mark in marks if mark.axis == "y"]
    axis = Axis(title, is_log=True, ticks=decade_ticks(values, text, most=most))
    return Panel(axis, lines, marks, heat, weight)

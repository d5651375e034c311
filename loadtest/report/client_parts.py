"""Clients of failing servers side by side: a table, the verdict and the course (no I/O)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from capnp_rig.loadtest.clients.client_figures import (
    ATTEMPTS,
    FAULTS,
    GOOD,
    HEALTHY,
    P99_RATIO,
    PERCENTILES,
    criteria_of,
)
from capnp_rig.loadtest.clients.fault_plan import Action, fault_plan
from capnp_rig.loadtest.report.cells import row
from capnp_rig.loadtest.report.chart import Axis, Line, LineChart, Mark, Panel, Point, log_panel
from capnp_rig.loadtest.report.document import Cell, Notes, Paragraph, Part, Table
from capnp_rig.loadtest.report.figures import figure_cell, voids_alike
from capnp_rig.loadtest.report.line_styles import CLIENTS, look_of
from capnp_rig.loadtest.report.sources import Source
from capnp_rig.loadtest.report.units import NOTHING, digits, joined, time_text
from capnp_rig.loadtest.results import Figure, ResultError
from capnp_rig.loadtest.stats.pair_statistics import Verdict

_TOP_PERCENT = 104.0
_Figures = Mapping[tuple[str, str, str], Figure]


def good_text(share: float) -> str:
    """Return a share that may be near 1, in percent."""
    return f"{100 * share:.2f} %"


def _by_place(figures: Sequence[Figure]) -> _Figures:
    names = ("contender", "phase", "figure")
    return {
        (labels[names[0]], labels[names[1]], labels[names[2]]): figure
        for figure in figures
        for labels in (figure.labels,)
    }


def client_parts(figures: Sequence[Figure]) -> Iterator[Part]:
    """Yield what each client made of the faults, the verdict, and what is void."""
    known = _by_place(figures)
    headings = ["client", "good", *(f"{name}, ms" for name in PERCENTILES), "healthy p99, ms"]
    headings += ["p99 over healthy", ATTEMPTS, "failed calls"]
    rows = []
    for name in dict.fromkeys(contender for contender, _, _ in known):
        good = known[name, FAULTS, GOOD]
        cells = [figure_cell(good, good_text)]
        cells += [figure_cell(known[name, FAULTS, each]) for each in PERCENTILES]
        cells.append(figure_cell(known[name, HEALTHY, "p99"]))
        cells += [figure_cell(known[name, FAULTS, each], digits) for each in (P99_RATIO, ATTEMPTS)]
        rows.append(row(name, *cells, Cell(_failures(good.labels["failures"]))))
    yield Table(
        "clients-values",
        "While servers fail; a call without a right reply counts as one of a second",
        headings,
        rows,
    )
    verdicts = list(_verdicts(figures))
    if verdicts:
        yield Notes("What is asked of the default stack", verdicts, "clients-verdict")
    for alike in voids_alike(figures):
        example = "" if len(set(alike)) == 1 else ", such as"
        yield Paragraph(f"Void figures, {len(alike):,}{example}: {alike[0]}")


def _failures(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda each: -each[1])
    return ", ".join(f"{count:,} {kind}" for kind, count in ordered) or NOTHING


def _verdicts(figures: Sequence[Figure]) -> Iterator[str]:
    """Yield a line for each criterion of the default stack."""
    for criterion, figure in criteria_of(figures):
        text = good_text if criterion.figure == GOOD else digits
        asked = f"{criterion.bound} {text(criterion.limit)} asked for"
        outcome = _OUTCOMES.get(figure.verdict, "kept")
        yield f"{criterion.figure}: {text(figure.value or 0.0)}, {asked}: {outcome}"


_OUTCOMES = {Verdict.FAILED: "missed", Verdict.VOID: "void"}


def course_parts(source: Source) -> Iterator[Part]:
    """Yield the course of good calls and of p99 over time, a line per client.

    Raises:
        ResultError: The result is damaged.
    """
    try:
        yield _course_chart(source.config, source.document["timeline"])
    except (KeyError, TypeError, ValueError) as error:
        raise ResultError(f"{source.folder}: the timeline is damaged: {error}") from error


def _course_chart(config: Mapping[str, Any], timeline: Sequence[Mapping[str, Any]]) -> LineChart:
    good, p99 = [], []
    for number, name in enumerate(dict.fromkeys(each["contender"] for each in timeline)):
        own = [each for each in timeline if each["contender"] == name]
        look = replace(look_of(name, CLIENTS, number), marker="")
        shares = [_point(each, 100 * each[GOOD], good_text(each[GOOD])) for each in own]
        times = [_point(each, each["p99_ns"], time_text(each["p99_ns"])) for each in own]
        good.append(Line(name, shares, look))
        p99.append(Line(name, times, look))
    marks = list(_marks(config["healthy_s"], config["faults_s"]))
    return LineChart(
        key="clients-course",
        title="The same faults, second by second",
        finding=_finding(good, p99),
        x=Axis("seconds since the measurement began", low=0),
        panels=[
            Panel(
                # Room for the words of the marks.
                Axis("right replies within a second, in % of the calls due", high=_TOP_PERCENT),
                good,
                marks,
            ),
            log_panel(
                "p99 of response times; failed calls count as 1 s",
                p99,
                time_text,
                [replace(mark, text="") for mark in marks],
            ),
        ],
    )


def _point(second: Mapping[str, Any], value: float, text: str) -> Point:
    said = f"{second['contender']}, second {second['second']}: {text}"
    return Point(second["second"] + 0.5, value, text=said)


def _marks(healthy_s: float, faults_s: float) -> Iterator[Mark]:
    """Yield when a server begins or ceases to be ill; the time of the faults is shaded."""
    for step in fault_plan(healthy_s, faults_s, 0):
        if step.action is not Action.RESET:
            end_s = healthy_s + faults_s if step.action is Action.SLOW_DOWN else None
            # It is dead for so short a time that there is no room for two texts.
            text = "" if step.action is Action.START else f"{'ABC'[step.server]} {step.action}"
            yield Mark("x", step.at_s, text, step.at_s, end_s)


def _finding(good: Sequence[Line], p99: Sequence[Line]) -> str:
    worst = (f"{line.name} {min(point.y for point in line.points):.0f} %" for line in good)
    slowest = (f"{line.name} {time_text(max(point.y for point in line.points))}" for line in p99)
    return (
        f"Server A is slow, B resets in all of the shaded time, C dies. Good calls in the worst "
        f"second: {joined([*worst])}. p99 of the slowest second: {joined([*slowest])}."
    )

"""The ladder of stacks: the same service over each layer (no I/O).

Payloads lie orders of magnitude apart, so the axes are logarithmic, and there are dots, since a
bar on such an axis has no foot.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from capnp_rig.loadtest.report.chart import Axis, RowChart, Series, Value, decade_ticks
from capnp_rig.loadtest.report.codec_lines import key_of
from capnp_rig.loadtest.report.document import Paragraph, Part
from capnp_rig.loadtest.report.figures import figure_table
from capnp_rig.loadtest.report.line_styles import PERCENTILES as LOOKS
from capnp_rig.loadtest.report.line_styles import look_of
from capnp_rig.loadtest.report.ratios import ratio_row, ratio_table
from capnp_rig.loadtest.report.stack_view import (
    CALLS,
    CPU,
    OPEN,
    PERCENTILES,
    RATIO_CALLS,
    RATIO_CPU,
    Payload,
    payload_of,
    payloads_of,
    row_text,
    select,
    stack_of,
)
from capnp_rig.loadtest.report.units import (
    compact,
    count_text,
    interval_text,
    sentence,
    time_text,
)
from capnp_rig.loadtest.results import Figure

_RATIOS = {RATIO_CALLS: "Calls/s", RATIO_CPU: "Server CPU per call"}


def ladder_parts(figures: Sequence[Figure], document: Mapping[str, Any]) -> Iterator[Part]:
    """Yield calls per second, CPU per call and percentiles of every stack, and a table."""
    for kind in dict.fromkeys(payload.kind for payload in payloads_of(select(figures, CALLS))):
        own = [figure for figure in figures if payload_of(figure).kind == kind]
        yield from _charts(kind, own)
    ratios = [ratio_row(stack_ratio_text(figure), figure) for figure in telling_ratios(figures)]
    if ratios:
        yield ratio_table("stack-ratios", "Above 1 the first named is better", ratios)
    skipped = document.get("skipped")
    if isinstance(skipped, dict) and skipped:
        said = "; ".join(f"{stack}: {reason}" for stack, reason in skipped.items())
        yield Paragraph(f"Left out: {said}.", quiet=True)
    if figures:
        yield figure_table("stacks-table", "Every figure of every stack", figures, folded=True)


def telling_ratios(figures: Sequence[Figure]) -> list[Figure]:
    """Return the ratios of rates and CPU, of the smallest and the largest payload of each kind."""
    ratios = [figure for name in (RATIO_CALLS, RATIO_CPU) for figure in select(figures, name)]
    by_kind: dict[str, list[Payload]] = {}
    for payload in payloads_of(ratios):
        by_kind.setdefault(payload.kind, []).append(payload)
    ends = [payload for some in by_kind.values() for payload in (some[0], some[-1])]
    return [figure for payload in dict.fromkeys(ends) for figure in _of_payload(ratios, payload)]


def stack_ratio_text(ratio: Figure) -> str:
    """Return what a ratio of stacks compares."""
    what = _RATIOS.get(ratio.labels["figure"], "")
    over = ratio.labels.get("baseline", "the baseline")
    return f"{what}, {payload_of(ratio).text}: {stack_of(ratio)} over {over}"


def _charts(kind: str, figures: Sequence[Figure]) -> Iterator[RowChart]:
    of_kind = f", {kind} payloads" if kind else ""
    for figure, title, unit in (
        (CALLS, "Answered calls per second, closed loop", "calls per second"),
        (CPU, "Server CPU per call", "CPU µs per call"),
    ):
        grouped = select(figures, figure)
        if grouped:
            series = {
                payload.text: _of_payload(grouped, payload) for payload in payloads_of(grouped)
            }
            yield _ladder(
                key_of("ladder", figure, kind),
                f"{title}{of_kind}",
                series,
                Axis(unit, is_log=True, ticks=decade_ticks(_values(grouped), compact)),
                finding=_finding(grouped, unit, is_most_best=figure == CALLS),
                is_most_best=figure == CALLS,
            )
    yield from _percentiles(kind, figures)


def _percentiles(kind: str, figures: Sequence[Figure]) -> Iterator[RowChart]:
    """Yield response times under half of what each stack can do, of the smallest payload."""
    grouped = [figure for name in PERCENTILES for figure in select(figures, name, OPEN)]
    if not grouped:
        return
    payload = payloads_of(grouped)[0]
    series = {
        name: [
            figure for figure in _of_payload(grouped, payload) if figure.labels["figure"] == name
        ]
        for name in PERCENTILES
    }
    values_us = _values(grouped)
    yield _ladder(
        key_of("ladder-latency", kind),
        f"Response time, open loop at half of each stack's own rate, {payload.text}",
        series,
        Axis(
            "response time",
            is_log=True,
            ticks=decade_ticks(values_us, lambda value_us: time_text(value_us * 1000)),
        ),
        finding="Every stack is asked for half of the calls that it has just made. "
        "Whiskers are 95 % intervals; grey dots are void.",
        is_most_best=False,
    )


def _values(figures: Sequence[Figure]) -> list[float]:
    return [figure.value or 0.0 for figure in figures]


def _of_payload(figures: Sequence[Figure], payload: Payload) -> list[Figure]:
    return [figure for figure in figures if payload_of(figure) == payload]


def _ladder(
    key: str,
    title: str,
    series: Mapping[str, Sequence[Figure]],
    axis: Axis,
    *,
    finding: str,
    is_most_best: bool,
) -> RowChart:
    """Return a chart with a row per stack, the best one of the first series on top."""
    first = {stack_of(figure): figure.value or 0.0 for figure in next(iter(series.values()))}
    every = dict.fromkeys(stack_of(figure) for grouped in series.values() for figure in grouped)
    stacks = sorted(every, key=lambda stack: first.get(stack, 0.0), reverse=is_most_best)
    drawn = []
    for number, (name, grouped) in enumerate(series.items()):
        by_stack = {stack_of(figure): figure for figure in grouped}
        values = [_value(by_stack.get(stack)) for stack in stacks]
        drawn.append(Series(name, values, look_of(name, LOOKS, number)))
    return RowChart(key, title, finding, axis, [row_text(stack) for stack in stacks], drawn, "dots")


def _value(figure: Figure | None) -> Value:
    if figure is None or figure.value is None:
        return Value(None)
    text = _text_of(figure)
    interval = interval_text(figure.low, figure.high, text)
    least = "at least " if figure.verdict == "at least" else ""
    said = (
        f"{stack_of(figure)}, {payload_of(figure).text}: {least}{text(figure.value)}"
        f"{f' ({interval})' if interval else ''}"
    )
    return Value(figure.value, figure.low, figure.high, figure.void_text, said)


def _text_of(figure: Figure) -> Callable[[float], str]:
    if figure.unit == "µs":
        return lambda value_us: time_text(value_us * 1000)
    return count_text


def _finding(grouped: Sequence[Figure], unit: str, *, is_most_best: bool) -> str:
    payload = payloads_of(grouped)[0]
    good = [figure for figure in _of_payload(grouped, payload) if not figure.is_void]
    if not good:
        return "A dot per payload; whiskers are 95 % intervals, grey dots are void."
    ordered = sorted(good, key=lambda figure: figure.value or 0.0, reverse=is_most_best)
    best, worst = ordered[0], ordered[-1]
    said = (
        f"with {payload.text} payloads from {row_text(stack_of(best))}, {count_text(best.value)}, "
        f"to {row_text(stack_of(worst))}, {count_text(worst.value)} {unit}"
    )
    return sentence(said) + " Whiskers are 95 % intervals; grey dots are void."

"""The ladder of stacks: the same service over each layer (no I/O).

Payloads lie orders of magnitude apart, so the axes are logarithmic, and there are dots, since a
bar on such an axis has no foot.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from capnp_rig.loadtest.bench.stacks_figures import (
    CALLS,
    CLOSED,
    CPU,
    OPEN,
    PERCENTILES,
    RATIO_CALLS,
    RATIO_CPU,
)
from capnp_rig.loadtest.protocols import ECHO
from capnp_rig.loadtest.report.chart import Axis, RowChart, Value, decade_ticks
from capnp_rig.loadtest.report.codec_lines import key_of
from capnp_rig.loadtest.report.document import Paragraph, Part
from capnp_rig.loadtest.report.figures import figure_table, interval_of, row_series
from capnp_rig.loadtest.report.line_styles import PERCENTILES as LOOKS
from capnp_rig.loadtest.report.ratios import ratio_row, ratio_table
from capnp_rig.loadtest.report.units import (
    Text,
    compact,
    count_text,
    sentence,
    size_text,
    us_text,
)
from capnp_rig.loadtest.results import Figure

_RATIOS = {RATIO_CALLS: "Calls/s", RATIO_CPU: "Server CPU per call"}


@dataclass(frozen=True, slots=True, order=True)
class Payload:
    """What is sent: a kind, empty where it is not known, and a size."""

    kind: str
    size_bytes: float

    @property
    def text(self) -> str:
        """Its size and kind in words."""
        return f"{size_text(self.size_bytes)} {self.kind}".strip()


def payload_of(figure: Figure) -> Payload:
    """Return the payload of a figure."""
    labels = figure.labels
    return Payload(str(labels.get("payload_kind") or ""), labels.get("payload_bytes") or 0)


def ladder_parts(figures: Sequence[Figure], document: Mapping[str, Any]) -> Iterator[Part]:
    """Yield calls per second, CPU per call and percentiles of every stack, and a table."""
    for kind in dict.fromkeys(payload.kind for payload in _by_payload(_select(figures, CALLS))):
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


def _select(figures: Iterable[Figure], what: str, loop: str = CLOSED) -> list[Figure]:
    """Return one sort of figures in one loop, those with a value that a log axis can show."""
    return [
        figure
        for figure in figures
        if figure.labels.get("figure") == what
        and figure.labels.get("stack")
        and figure.labels.get("loop", CLOSED) == loop
        and figure.value is not None
        and figure.value > 0
    ]


def _by_payload(figures: Iterable[Figure]) -> dict[Payload, list[Figure]]:
    """Return figures by their payload: texts first, the smallest first."""
    grouped: dict[Payload, list[Figure]] = {}
    for figure in figures:
        grouped.setdefault(payload_of(figure), []).append(figure)
    return dict(sorted(grouped.items(), key=lambda item: (item[0].kind != "text", item[0])))


def telling_ratios(figures: Sequence[Figure]) -> list[Figure]:
    """Return the ratios of rates and CPU, of the smallest and the largest payload of each kind."""
    grouped = _by_payload([*_select(figures, RATIO_CALLS), *_select(figures, RATIO_CPU)])
    by_kind: dict[str, list[Payload]] = {}
    for payload in grouped:
        by_kind.setdefault(payload.kind, []).append(payload)
    ends = (payload for some in by_kind.values() for payload in (some[0], some[-1]))
    return [figure for payload in dict.fromkeys(ends) for figure in grouped[payload]]


def stack_ratio_text(ratio: Figure) -> str:
    """Return what a ratio of stacks compares."""
    what = _RATIOS.get(ratio.labels["figure"], "")
    over = ratio.labels.get("baseline", "the baseline")
    return f"{what}, {payload_of(ratio).text}: {_stack_of(ratio)} over {over}"


def _charts(kind: str, figures: Sequence[Figure]) -> Iterator[RowChart]:
    of_kind = f", {kind} payloads" if kind else ""
    for what, title, unit in (
        (CALLS, "Answered calls per second, closed loop", "calls per second"),
        (CPU, "Server CPU per call", "CPU µs per call"),
    ):
        by_payload = _by_payload(_select(figures, what))
        if by_payload:
            yield _ladder(
                key_of("ladder", what, kind),
                f"{title}{of_kind}",
                {payload.text: grouped for payload, grouped in by_payload.items()},
                unit,
                compact,
                finding=_finding(*next(iter(by_payload.items())), unit, is_most_best=what == CALLS),
                is_most_best=what == CALLS,
            )
    # Of the smallest payload only.
    by_payload = _by_payload(
        figure for name in PERCENTILES for figure in _select(figures, name, OPEN)
    )
    for payload, grouped in list(by_payload.items())[:1]:
        yield _ladder(
            key_of("ladder-latency", kind),
            f"Response time, open loop at half of each stack's own rate, {payload.text}",
            {name: _select(grouped, name, OPEN) for name in PERCENTILES},
            "response time",
            us_text,
            finding="Every stack is asked for half of the calls that it has just made. "
            "Whiskers are 95 % intervals; grey dots are void.",
            is_most_best=False,
        )


def _ladder(
    key: str,
    title: str,
    series: Mapping[str, Sequence[Figure]],
    x_title: str,
    tick_text: Text,
    *,
    finding: str,
    is_most_best: bool,
) -> RowChart:
    """Return a chart with a row per stack, the best one of the first series on top."""
    first = {_stack_of(figure): figure.value or 0.0 for figure in next(iter(series.values()))}
    every = dict.fromkeys(_stack_of(figure) for grouped in series.values() for figure in grouped)
    stacks = sorted(every, key=lambda stack: first.get(stack, 0.0), reverse=is_most_best)
    drawn = row_series(series, "stack", stacks, _value, LOOKS)
    every_value = [figure.value or 0.0 for grouped in series.values() for figure in grouped]
    axis = Axis(x_title, is_log=True, ticks=decade_ticks(every_value, tick_text))
    return RowChart(
        key, title, finding, axis, [_row_text(stack) for stack in stacks], drawn, "dots"
    )


def _value(figure: Figure) -> Value:
    text = us_text if figure.unit == "µs" else count_text
    said = f"{_stack_of(figure)}, {payload_of(figure).text}: {interval_of(figure, text)}"
    return Value(figure.value, figure.low, figure.high, figure.void_text, said)


def _finding(payload: Payload, figures: Sequence[Figure], unit: str, *, is_most_best: bool) -> str:
    good = [figure for figure in figures if not figure.is_void]
    if not good:
        return "A dot per payload; whiskers are 95 % intervals, grey dots are void."
    ordered = sorted(good, key=lambda figure: figure.value or 0.0, reverse=is_most_best)
    best, worst = (
        f"{_row_text(_stack_of(figure))}, {count_text(figure.value)}"
        for figure in (ordered[0], ordered[-1])
    )
    said = f"with {payload.text} payloads from {best}, to {worst} {unit}"
    return sentence(said) + " Whiskers are 95 % intervals; grey dots are void."


def _stack_of(figure: Figure) -> str:
    return str(figure.labels.get("stack", ""))


def _row_text(stack: str) -> str:
    # It reverses nothing: a floor, and no rival.
    return f"{stack} (floor)" if stack == ECHO else stack

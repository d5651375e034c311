"""Time against how much of the message is read (no I/O)."""

from collections.abc import Iterator, Sequence

from capnp_rig.loadtest.report.chart import Axis, LineChart, Mark, Panel, decade_ticks
from capnp_rig.loadtest.report.codec_lines import key_of, time_lines
from capnp_rig.loadtest.report.codec_view import CodecView, thing
from capnp_rig.loadtest.report.document import Part
from capnp_rig.loadtest.report.ratios import ahead_up_to
from capnp_rig.loadtest.report.units import capitalized, percent_text, size_text, time_text
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.contracts import Contract

# Fewer shares make no sweep.
_LEAST_SHARES = 3


def share_parts(view: CodecView) -> Iterator[Part]:
    """Yield a chart per message and size that was read by shares."""
    places = dict.fromkeys(
        (str(figure.labels.get("message")), figure.labels.get("size_bytes"))
        for figure in view.times()
        if figure.labels.get("k")
    )
    for message, size in sorted(places, key=lambda place: (place[0], place[1] or 0)):
        figures = [
            figure
            for figure in view.times()
            if (figure.labels.get("message"), figure.labels.get("size_bytes")) == (message, size)
            and figure.labels.get("k") is not None
            and figure.contract != Contract.COLD
        ]
        if len({figure.labels["k"] for figure in figures}) >= _LEAST_SHARES:
            yield share_chart(view, message, size, figures)


def share_chart(
    view: CodecView, message: str, size: float | None, figures: Sequence[Figure]
) -> LineChart:
    """Return time against the share of fields read, with where Cap'n Proto falls behind."""
    lines = time_lines(figures, "k")
    times = [point.y for line in lines for point in line.points]
    own, baselines = view.own_codec(), view.baselines()
    even = None
    if own is not None and baselines:
        even = view.break_even_at(own, baselines[0], message, size)
    marks = []
    if even is not None and even.value is not None:
        text = f"{own} = {baselines[0]} at {percent_text(even.value)}"
        marks.append(Mark("x", even.value, text, even.low, even.high))
    finding = "At 0 % the message is only opened."
    if even is not None:
        finding = f"Against {baselines[0]}, {own} is {ahead_up_to(even)}. {finding}"
    ticks = [(share, f"{share} %") for share in (0, 25, 50, 75, 100)]
    return LineChart(
        key=key_of("share", message, size_text(size)),
        title=capitalized(f"{thing(message)}, {size_text(size)}"),
        finding=finding,
        x=Axis("share of the fields that are read", ticks=ticks, low=0, high=100),
        panels=[
            Panel(
                Axis("time per message", is_log=True, ticks=decade_ticks(times, time_text)),
                lines,
                marks,
            )
        ],
    )

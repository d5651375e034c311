"""What a codec leaves of a call: round trips, and its share of the server's CPU (no I/O)."""

from collections.abc import Iterator, Mapping, Sequence

from capnp_rig.loadtest.report.chart import Axis, RowChart, Series, Value
from capnp_rig.loadtest.report.codec_trips import trip_parts
from capnp_rig.loadtest.report.codec_view import CodecView, matching
from capnp_rig.loadtest.report.document import Part
from capnp_rig.loadtest.report.line_styles import STACKS, look_of
from capnp_rig.loadtest.report.sources import Source
from capnp_rig.loadtest.report.units import digits, sentence, share_text, us_text
from capnp_rig.loadtest.stats.figure import Figure, FigureKind

_CPU = "server CPU per call"
# How a case in memory and a load over sockets belong together.
_IN_MEMORY: Mapping[str, str] = {
    "64 x 1": "served call, alone in its read",
    "8 x 16": "served call, 16 in a read",
}


def end_to_end_parts(source: Source) -> Iterator[Part]:
    """Yield what stands between codecs, of a bench, or what a call's CPU goes to."""
    if source.kind == "bench":
        yield from trip_parts(CodecView(source.figures))
    else:
        yield from _call_parts(source.figures)


def _call_parts(figures: Sequence[Figure]) -> Iterator[RowChart]:
    """Yield what of a call's CPU is the message and the protocol, and what sockets and loop."""
    in_memory = {
        figure.labels["case"]: figure.value or 0.0
        for figure in figures
        if figure.kind is FigureKind.IN_MEMORY and figure.value is not None
    }
    totals = {
        figure.labels["load"]: figure.value or 0.0
        for figure in matching(figures, kind="value", what=_CPU, subject="wire")
        if figure.value is not None
    }
    known = {
        load: (in_memory[case], totals[load])
        for load, case in _IN_MEMORY.items()
        if load in totals and case in in_memory
    }
    if not known:
        return
    parts = {
        "frames, messages and the service, in memory": [own for own, _ in known.values()],
        "sockets, event loop and kernel": [max(whole - own, 0.0) for own, whole in known.values()],
    }
    shares = [
        f"{share_text(own / whole)} at {load}" for load, (own, whole) in known.items() if whole
    ]
    yield RowChart(
        key="call-parts",
        title="What a call's CPU goes to, wire engine",
        finding=sentence(
            f"frames, messages and the service take {' and '.join(shares)} of the server's CPU: "
            "a codec that cost nothing could save no more"
        ),
        x=Axis("CPU µs per call", low=0),
        rows=[*known],
        series=[
            Series(name, [_part(name, value) for value in values], look_of(name, STACKS, number))
            for number, (name, values) in enumerate(parts.items())
        ],
        kind="stack",
    )


def _part(name: str, value_us: float) -> Value:
    return Value(value_us, text=f"{name}: {us_text(value_us)}", label=digits(value_us))

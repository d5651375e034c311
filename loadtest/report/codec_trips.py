"""What transports leave of a codec's gain: round trips in memory, over sockets, over RPC (no I/O).

Each trip writes the message, and reads back all of what the other process returned, which is the
same bytes. Bars show what each stage takes beyond the one before; nothing is subtracted from what
is compared.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from capnp_rig.loadtest.report.cells import cell, row
from capnp_rig.loadtest.report.chart import (
    Axis,
    Line,
    LineChart,
    Mark,
    RowChart,
    Series,
    Value,
    log_panel,
)
from capnp_rig.loadtest.report.codec_lines import key_of, time_cell
from capnp_rig.loadtest.report.codec_view import (
    EMPTY_CALL,
    FLOOR,
    CodecView,
    by_codec,
    by_size,
    grouped,
    matching,
    thing,
)
from capnp_rig.loadtest.report.document import Fold, Paragraph, Part, Row, Table
from capnp_rig.loadtest.report.line_styles import SHOWN_CODECS, STAGES, look_of
from capnp_rig.loadtest.report.ratios import ratio_point, ratio_row, ratio_table
from capnp_rig.loadtest.report.units import (
    capitalized,
    compact,
    digits,
    joined,
    ratio_text,
    sentence,
    share_text,
    size_text,
    time_text,
)
from capnp_rig.loadtest.stats.contracts import Contract, Stage
from capnp_rig.loadtest.stats.figure import Figure, FigureKind

# Each contract, where the message goes, and what the part of a bar is called.
_WHERE: Mapping[str, str] = {
    Contract.IN_MEMORY: "in memory",
    **{each: f"over {each.stage}" for each in Contract if each.stage is not None},
}
_PARTS = ("codec", *(each.removeprefix("a ") for each in Stage))
_FUNCTION_CALL = "function call"
_HOW = (
    "A message is written, goes to another process, comes back unchanged and is read, all of it; "
    "in memory it goes nowhere. Each codec sends its own bytes. RPC is a call of this project's "
    "server that has them as its Data. Bars show what each stage takes beyond the one before. "
    "A trip has two wake-ups, and how long those take depends on what both processes did before: "
    "where the codec's own time is short, they make the difference, either way."
)
# A number needs that share of the longest bar to be read in its part.
_LEAST_LABELLED = 0.09
_IN_MS_NS = 10_000_000
_BESIDE = 0.3


@dataclass(frozen=True, slots=True)
class Trip:
    """The round trips of one message of one size.

    `times` has a codec's figures by contract, `ratios` those of Cap'n Proto to the rival.
    """

    message: str
    size_bytes: float
    times: Mapping[str, Mapping[str, Figure]]
    ratios: Mapping[str, Figure]

    @property
    def name(self) -> str:
        """The message and its size."""
        return f"{self.message} {size_text(self.size_bytes)}"

    @property
    def title(self) -> str:
        """The same in words."""
        return f"{thing(self.message)} ({size_text(self.size_bytes)})"

    @property
    def stages(self) -> list[tuple[str, Figure]]:
        """Where the message goes, and the ratio there, in order."""
        return [
            (where, self.ratios[contract])
            for contract, where in _WHERE.items()
            if contract in self.ratios
        ]

    def codec_share(self, codec: str) -> float | None:
        """Return which share of the trip over RPC writing and reading is, None if unknown."""
        times = self.times.get(codec, {})
        own, call = (times.get(contract) for contract in (Contract.IN_MEMORY, Contract.OVER_RPC))
        if own is None or call is None or own.value is None or not call.value:
            return None
        # Of 1,000 records both take as long, and which is ahead is chance.
        return min(own.value / call.value, 1.0)


def trips_of(view: CodecView) -> list[Trip]:
    """Return every message and size that went over a transport."""
    times = [figure for figure in view.times() if figure.contract in _WHERE]
    pair = {"codec": view.own_codec, "baseline": view.rival}
    ratios = by_size(view.of_kind(FigureKind.RATIO, **pair))
    trips = []
    for (message, size), figures in sorted(grouped(times, "message", "size_bytes").items()):
        codecs = {
            codec: {figure.contract: figure for figure in some}
            for (codec,), some in grouped(figures, "codec").items()
            # A codec that stayed in memory has nothing to tell here.
            if any(figure.contract != Contract.IN_MEMORY for figure in some)
        }
        here = matching(ratios, message=message, size_bytes=size)
        if codecs:
            trips.append(Trip(message, size, codecs, {ratio.contract: ratio for ratio in here}))
    return trips


def telling_trips(trips: Sequence[Trip]) -> list[Trip]:
    """Return the larger half of each message's sizes: a call with a small one is all transport."""
    by_message = [list(some) for _, some in groupby(trips, key=lambda trip: trip.message)]
    return [trip for some in by_message for trip in some[len(some) // 2 :]]


# --- what is drawn ---------------------------------------------------------------------------


def trip_parts(view: CodecView) -> Iterator[Part]:
    """Yield the gain at each stage, a bar of stages per codec, the numbers, and the floors."""
    trips = trips_of(view)
    if not trips:
        return
    yield Paragraph(_HOW)
    compared = [trip for trip in trips if trip.stages]
    if compared:
        yield _gain_chart(compared, view.own_codec, view.rival)
        rows = [
            ratio_row(
                f"{capitalized(trip.title)}, {where}: {view.own_codec} over {view.rival}", ratio
            )
            for trip in compared
            for where, ratio in trip.stages
        ]
        yield ratio_table("trip-ratios", "Round trips, times as fast", rows)
    telling = telling_trips(trips)
    yield from _stage_charts(view, telling)
    rest = list(_stage_charts(view, [trip for trip in trips if trip not in telling]))
    if rest:
        yield Fold("Smaller messages", rest)
    headings = ["message", "size", "codec", *_WHERE.values(), "codec's share of the RPC"]
    rows = [_time_row(trip, codec) for trip in trips for codec in trip.times]
    yield Table("trip-times", "Round trips: median times", headings, rows, folded=True)
    yield _floors_table(view.times(contract=FLOOR))


def _gain_chart(trips: Sequence[Trip], own: str, rival: str) -> LineChart:
    """Return the ratio of Cap'n Proto to its rival from stage to stage, a line per message."""
    places = {where: place for place, where in enumerate(_WHERE.values())}
    lines = []
    for number, trip in enumerate(trips):
        points = [
            ratio_point(places[where], ratio, f"{trip.name}, {where}")
            for where, ratio in trip.stages
        ]
        lines.append(Line(trip.name, points, look_of(trip.name, {}, number)))
    most = max(telling_trips(trips), key=lambda trip: trip.stages[0][1].value or 0.0)
    gains = ", ".join(f"{ratio_text(ratio.value)} {where}" for where, ratio in most.stages)
    return LineChart(
        key="trip-gain",
        title=f"What is left of {own}'s gain over {rival}",
        finding=f"{capitalized(most.title)}: {gains}. Bands are 95 % intervals.",
        x=Axis(
            "where the message goes",
            ticks=[(place, where) for where, place in places.items()],
            # A little beyond, for the texts below the first and the last.
            low=-_BESIDE,
            high=len(places) - 1 + _BESIDE,
        ),
        panels=[log_panel(f"times as fast as {rival}", lines, compact, [Mark("y", 1.0, "")])],
    )


def _stage_charts(view: CodecView, trips: Sequence[Trip]) -> Iterator[RowChart]:
    """Yield a bar per codec that has made a trip over every transport: function call to RPC."""
    calls = view.times(contract=FLOOR, codec=EMPTY_CALL)
    call_ns = calls[-1].value if calls else None
    for trip in trips:
        bars = {
            codec: [times[contract].value or 0.0 for contract in _WHERE]
            for codec in SHOWN_CODECS
            if (times := trip.times.get(codec)) is not None
            and all(contract in times and times[contract].value for contract in _WHERE)
        }
        if bars:
            yield _stage_chart(trip, bars, call_ns, _shares(trip, view.own_codec, view.rival))


def _shares(trip: Trip, *codecs: str) -> str:
    shares = [
        f"{share_text(share)} with {codec}"
        for codec in codecs
        if (share := trip.codec_share(codec)) is not None
    ]
    if not shares:
        return "each part is what its stage takes beyond the one before"
    return f"of the RPC, the codec is {joined(shares)}"


def _stage_chart(
    trip: Trip, bars: Mapping[str, Sequence[float]], call_ns: float | None, finding: str
) -> RowChart:
    parts = dict(zip(_PARTS, (f"there and back {where}" for where in _WHERE.values()), strict=True))
    if call_ns is not None:
        parts = {_FUNCTION_CALL: "a call of a function that does nothing", **parts}
        bars = {codec: [call_ns, *bar] for codec, bar in bars.items()}
    longest = max(map(max, bars.values()))
    unit, scale = ("ms", 1e6) if longest >= _IN_MS_NS else ("µs", 1e3)

    def value(codec: str, at: int, what: str) -> Value:
        added = increments(bars[codec])[at]
        label = digits(added / scale, 2) if added > _LEAST_LABELLED * longest else ""
        reached = f"{time_text(bars[codec][at])}, {time_text(added)} more than before"
        return Value(added / scale, text=f"{codec}, {what}: {reached}", label=label)

    return RowChart(
        key=key_of("trip", trip.message, size_text(trip.size_bytes)),
        title=capitalized(f"{trip.title}, there and back by RPC"),
        finding=sentence(finding),
        x=Axis(f"{unit} per round trip", low=0),
        rows=list(bars),
        series=[
            Series(part, [value(codec, at, what) for codec in bars], STAGES[part])
            for at, (part, what) in enumerate(parts.items())
        ],
        kind="stack",
    )


def increments(values: Sequence[float]) -> list[float]:
    """Return how much each value adds to the largest before it, 0 where it adds nothing.

    For large messages TCP may be faster than a socket pair.
    """
    added, largest = [], 0.0
    for value in values:
        added.append(max(value - largest, 0.0))
        largest = max(largest, value)
    return added


def _time_row(trip: Trip, codec: str) -> Row:
    times = trip.times[codec]
    return row(
        trip.message,
        cell(trip.size_bytes, size_text),
        codec,
        *(time_cell(times.get(contract)) for contract in _WHERE),
        cell(trip.codec_share(codec), share_text),
        void=next(filter(None, (figure.void_text for figure in times.values())), ""),
    )


def _floors_table(floors: Sequence[Figure]) -> Table:
    """Return the times of what every codec is held against, by size."""
    sizes = sorted({figure.labels["size_bytes"] for figure in floors})
    rows = []
    for name, figures in by_codec(floors).items():
        times = {figure.labels["size_bytes"]: figure for figure in figures}
        rows.append(row(name, *(time_cell(times.get(size)) for size in sizes)))
    headings = [FLOOR, *(size_text(size) if size else "no bytes" for size in sizes)]
    return Table("floors", "Floors: printed, never subtracted", headings, rows)

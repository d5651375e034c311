"""What transports leave of a codec's gain: round trips in memory, over sockets, over RPC (no I/O).

Each trip writes the message, and reads back all of what the other process returned, which is the
same bytes. Bars show what each stage takes beyond the one before; nothing is subtracted from what
is compared.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from capnp_rig.loadtest.report.chart import (
    Axis,
    Line,
    LineChart,
    Mark,
    Panel,
    Point,
    RowChart,
    Series,
    Value,
    decade_ticks,
)
from capnp_rig.loadtest.report.codec_lines import key_of, ordered, time_cell
from capnp_rig.loadtest.report.codec_view import (
    EMPTY_CALL,
    FLOOR,
    CodecView,
    by_codec,
    thing,
)
from capnp_rig.loadtest.report.document import Cell, Fold, Paragraph, Part, Row, Table
from capnp_rig.loadtest.report.line_styles import SHOWN_CODECS, STAGES, look_of
from capnp_rig.loadtest.report.ratios import ratio_point, ratio_row, ratio_table
from capnp_rig.loadtest.report.units import (
    NOTHING,
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
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.contracts import Contract, Stage

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
    ratios: Mapping[str, Figure] = field(default_factory=dict)

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
    grouped: dict[tuple[str, float], dict[str, dict[str, Figure]]] = {}
    for figure in view.times():
        if figure.contract in _WHERE:
            codecs = grouped.setdefault((figure.labels["message"], figure.labels["size_bytes"]), {})
            codecs.setdefault(figure.labels["codec"], {})[figure.contract] = figure
    # A codec that stayed in memory has nothing to tell here.
    carried = {
        place: {
            codec: times for codec, times in codecs.items() if times.keys() - {Contract.IN_MEMORY}
        }
        for place, codecs in grouped.items()
    }
    ratios = _ratios(view)
    return [
        Trip(message, size, carried[message, size], ratios.get((message, size), {}))
        for message, size in sorted(place for place, codecs in carried.items() if codecs)
    ]


def _rival(view: CodecView) -> str:
    return (view.baselines() or [""])[0]


def _ratios(view: CodecView) -> dict[tuple[str, float], dict[str, Figure]]:
    own = view.own_codec()
    by_place: dict[tuple[str, float], dict[str, Figure]] = {}
    for curve in view.curves(own, _rival(view)) if own else ():
        if curve.contract in _WHERE:
            for ratio in curve.ratios:
                place = (curve.message, ratio.labels["size_bytes"])
                by_place.setdefault(place, {})[curve.contract] = ratio
    return by_place


def telling_trips(view: CodecView) -> list[Trip]:
    """Return the larger half of each message's sizes: a call with a small one is all transport."""
    return _telling(trips_of(view))


def _telling(trips: Sequence[Trip]) -> list[Trip]:
    grouped = [list(some) for _, some in groupby(trips, key=lambda trip: trip.message)]
    return [trip for some in grouped for trip in some[len(some) // 2 :]]


def _shares(trip: Trip, *codecs: str) -> str:
    shares = [
        f"{share_text(share)} with {codec}"
        for codec in codecs
        if (share := trip.codec_share(codec)) is not None
    ]
    return f"of the RPC, the codec is {joined(shares)}" if shares else ""


# --- what is drawn ---------------------------------------------------------------------------


def trip_parts(view: CodecView) -> Iterator[Part]:
    """Yield the gain at each stage, a bar of stages per codec, the numbers, and the floors."""
    trips = trips_of(view)
    if not trips:
        return
    yield Paragraph(_HOW)
    own, rival = view.own_codec(), _rival(view)
    compared = [trip for trip in trips if trip.ratios]
    if own is not None and compared:
        yield gain_chart(compared, own, rival)
        yield _gain_table(compared, own, rival)
    telling = _telling(trips)
    yield from _stage_charts(view, telling)
    rest = list(_stage_charts(view, [trip for trip in trips if trip not in telling]))
    if rest:
        yield Fold("Smaller messages", rest)
    yield _times(trips)
    yield floors_table(view)


def _stage_charts(view: CodecView, trips: Iterable[Trip]) -> Iterator[RowChart]:
    """Yield the bars of those trips that some codec has made over every transport."""
    charts = (stage_chart(view, trip) for trip in trips)
    yield from (chart for chart in charts if chart.rows)


def _gain_table(trips: Sequence[Trip], own: str, rival: str) -> Table:
    rows = [
        ratio_row(f"{capitalized(trip.title)}, {where}: {own} over {rival}", ratio)
        for trip in trips
        for where, ratio in trip.stages
    ]
    return ratio_table("trip-ratios", "Round trips, times as fast", rows)


def gain_chart(trips: Sequence[Trip], own: str, rival: str) -> LineChart:
    """Return the ratio of Cap'n Proto to its rival from stage to stage, a line per message."""
    places = {where: place for place, where in enumerate(_WHERE.values())}
    lines = [
        Line(trip.name, _ratio_points(trip, places), look_of(trip.name, {}, number))
        for number, trip in enumerate(trips)
    ]
    values = [point.y for line in lines for point in line.points]
    most = max(_telling(trips), key=lambda trip: trip.stages[0][1].value or 0.0)
    gains = ", ".join(f"{ratio_text(ratio.value)} {where}" for where, ratio in most.stages)
    y = Axis(f"times as fast as {rival}", is_log=True, ticks=decade_ticks([*values, 1.0], compact))
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
        panels=[Panel(y, lines, [Mark("y", 1.0, "")])],
    )


def _ratio_points(trip: Trip, places: Mapping[str, int]) -> list[Point]:
    return [
        ratio_point(places[where], ratio, f"{trip.name}, {where}") for where, ratio in trip.stages
    ]


def stage_chart(view: CodecView, trip: Trip) -> RowChart:
    """Return a bar per codec: a function call, the codec, sockets, RPC."""
    floors = {figure.labels["codec"]: figure.value for figure in view.floors()}
    call_ns = floors.get(EMPTY_CALL)
    parts = dict(zip(_PARTS, (f"there and back {where}" for where in _WHERE.values()), strict=True))
    bars = {
        codec: [trip.times[codec][contract].value or 0.0 for contract in _WHERE]
        for codec, _ in ordered(
            figure for times in trip.times.values() for figure in times.values()
        )
        if codec in SHOWN_CODECS and all(_is_known(trip.times[codec], each) for each in _WHERE)
    }
    if call_ns is not None:
        parts = {_FUNCTION_CALL: "a call of a function that does nothing", **parts}
        bars = {codec: [call_ns, *bar] for codec, bar in bars.items()}
    longest = max(map(max, bars.values()), default=0.0)
    unit, scale = ("ms", 1e6) if longest >= _IN_MS_NS else ("µs", 1e3)
    own = view.own_codec()
    shares = _shares(trip, own, _rival(view)) if own is not None else ""
    return RowChart(
        key=key_of("trip", trip.message, size_text(trip.size_bytes)),
        title=capitalized(f"{trip.title}, there and back by RPC"),
        finding=sentence(shares or "each part is what its stage takes beyond the one before"),
        x=Axis(f"{unit} per round trip", low=0),
        rows=list(bars),
        series=[
            Series(
                part,
                [_part(codec, bar, at, what, scale, longest) for codec, bar in bars.items()],
                STAGES[part],
            )
            for at, (part, what) in enumerate(parts.items())
        ],
        kind="stack",
    )


def _is_known(times: Mapping[str, Figure], contract: str) -> bool:
    return contract in times and times[contract].value is not None


def _part(
    codec: str, bar: Sequence[float], at: int, what: str, scale: float, longest: float
) -> Value:
    added = increments(bar)[at]
    label = digits(added / scale, 2) if added > _LEAST_LABELLED * longest else ""
    text = f"{codec}, {what}: {time_text(bar[at])}, {time_text(added)} more than before"
    return Value(added / scale, text=text, label=label)


def increments(values: Sequence[float]) -> list[float]:
    """Return how much each value adds to the largest before it, 0 where it adds nothing.

    For large messages TCP may be faster than a socket pair.
    """
    grouped, largest = [], 0.0
    for value in values:
        grouped.append(max(value - largest, 0.0))
        largest = max(largest, value)
    return grouped


def _times(trips: Sequence[Trip]) -> Table:
    rows = [
        Row(
            [
                Cell(trip.message),
                Cell(size_text(trip.size_bytes), trip.size_bytes),
                Cell(codec),
                *(time_cell(times.get(contract)) for contract in _WHERE),
                _share_cell(trip.codec_share(codec)),
            ],
            next(filter(None, (figure.void_text for figure in times.values())), ""),
        )
        for trip in trips
        for codec, times in trip.times.items()
    ]
    headings = ["message", "size", "codec", *_WHERE.values(), "codec's share of the RPC"]
    return Table("trip-times", "Round trips: median times", headings, rows, folded=True)


def _share_cell(share: float | None) -> Cell:
    return Cell(NOTHING) if share is None else Cell(share_text(share), share)


def floors_table(view: CodecView) -> Table:
    """Return the times of what every codec is held against, by size."""
    floors = view.floors()
    sizes = sorted({figure.labels["size_bytes"] for figure in floors})
    by_name = by_codec(floors)
    rows = [
        Row([Cell(name), *(time_cell(times.get(size)) for size in sizes)])
        for name, times in (
            (name, {figure.labels["size_bytes"]: figure for figure in figures})
            for name, figures in by_name.items()
        )
    ]
    headings = [FLOOR, *(size_text(size) if size else "no bytes" for size in sizes)]
    return Table("floors", capitalized("floors: printed, never subtracted"), headings, rows)

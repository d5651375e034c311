from collections.abc import Iterator, Mapping

import pytest
from sample_results import ratio, time

from capnp_rig.loadtest.report.chart import LineChart, RowChart
from capnp_rig.loadtest.report.codec_trips import (
    increments,
    telling_trips,
    trip_parts,
    trips_of,
)
from capnp_rig.loadtest.report.codec_view import CodecView
from capnp_rig.loadtest.report.document import Fold, Part, Table
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.contracts import Contract
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.reasons import reasons_of_text

PAIR, TCP, RPC = (f"round trip over {name}" for name in ("a socket pair", "TCP", "RPC"))
# ns per stage: TCP is no slower than a socket pair.
TIMES: Mapping[str, Mapping[str, float]] = {
    "wire": {Contract.IN_MEMORY: 10_000, PAIR: 60_000, TCP: 58_000, RPC: 100_000},
    "orjson": {Contract.IN_MEMORY: 90_000, PAIR: 140_000, TCP: 135_000, RPC: 180_000},
}


def _trip(message: str, size: int) -> Iterator[Figure]:
    for codec, times in TIMES.items():
        for contract, value in times.items():
            yield time(codec, message, contract, size, value)
    for contract in TIMES["wire"]:
        value = TIMES["orjson"][contract] / TIMES["wire"][contract]
        yield ratio(value, message=message, contract=contract, size_bytes=size)


def _figures() -> list[Figure]:
    return [
        *_trip("record", 136),
        *(one for size in (64, 65536, 1 << 20) for one in _trip("tensor", size)),
        # A codec that went nowhere.
        time("msgpack", "tensor", Contract.IN_MEMORY, 65536, 1.0),
        time("empty call", "", "floor", 0, 60.0),
        time("echo over TCP", "", "floor", 64, 50_000.0),
        time("echo over TCP", "", "floor", 65536, 55_000.0),
    ]


def _view(figures: list[Figure] | None = None) -> CodecView:
    return CodecView(_figures() if figures is None else figures)


def _table(parts: Iterator[Part], key: str) -> Table:
    return next(part for part in parts if isinstance(part, Table) and part.key == key)


def _bars(parts: Iterator[Part]) -> list[RowChart]:
    return [part for part in parts if isinstance(part, RowChart)]


@pytest.mark.parametrize(
    ("values", "added"),
    [([], []), ([1, 3, 6], [1, 2, 3]), ([1, 5, 4, 7], [1, 4, 0, 2]), ([3, 2], [3, 0])],
)
def test_a_stage_that_takes_no_longer_adds_nothing(values: list[float], added: list[float]) -> None:
    assert increments(values) == added


def test_every_message_and_size_that_was_carried_is_a_trip() -> None:
    trips = trips_of(_view())
    assert [trip.name for trip in trips] == [
        *("record 136 B", "tensor 64 B", "tensor 64 KiB", "tensor 1 MiB"),
    ]
    assert all(trip.times.keys() == TIMES.keys() for trip in trips)
    assert trips[0].codec_share("wire") == pytest.approx(0.1)
    assert trips[0].codec_share("msgpack") is None


def test_without_transports_nothing_is_said() -> None:
    figures = [one for one in _figures() if not one.contract.startswith("round trip over")]
    assert list(trip_parts(_view(figures))) == []
    assert trips_of(_view(figures)) == []


def test_the_larger_half_of_each_messages_sizes_tells_something() -> None:
    names = [trip.name for trip in telling_trips(trips_of(_view()))]
    assert names == ["record 136 B", "tensor 64 KiB", "tensor 1 MiB"]


def test_what_is_left_is_a_row_per_message_and_stage() -> None:
    table = _table(trip_parts(_view()), "trip-ratios")
    places = ("in memory", "over a socket pair", "over TCP", "over RPC")
    assert [row.cells[0].text for row in table.rows[:4]] == [
        f"A record (136 B), {place}: wire over orjson" for place in places
    ]
    assert [cell.text for cell in table.rows[0].cells[1:]] == [
        *("9", "8.57 to 9.45", "1 %", "12", "faster"),
    ]


def test_a_void_ratio_of_a_trip_says_why() -> None:
    figures = [
        time("wire", "record", TCP, 64, 1.0),
        ratio(2.0, verdict="void", reason="under 6 pairs", message="record", contract=TCP),
    ]
    (row,) = _table(trip_parts(_view(figures)), "trip-ratios").rows
    assert (row.cells[0].text, row.void) == (
        *("A record (64 B), over TCP: wire over orjson", "under 6 pairs"),
    )


def test_the_gain_is_a_line_per_message_from_stage_to_stage() -> None:
    (chart,) = [part for part in trip_parts(_view()) if isinstance(part, LineChart)]
    assert [text for _, text in chart.x.ticks] == [
        *("in memory", "over a socket pair", "over TCP", "over RPC"),
    ]
    assert [line.name for line in chart.lines] == [
        *("record 136 B", "tensor 64 B", "tensor 64 KiB", "tensor 1 MiB"),
    ]
    points = chart.lines[0].points
    assert [point.x for point in points] == [0, 1, 2, 3]
    assert [point.y for point in points] == pytest.approx([9, 140 / 60, 135 / 58, 1.8])
    assert [text for _, text in chart.panels[0].y.ticks] == ["1", "2", "5", "10"]
    assert [mark.at for mark in chart.panels[0].marks] == [1.0]


def test_a_bar_goes_from_a_function_call_to_rpc() -> None:
    charts = _bars(trip_parts(_view()))
    assert [chart.key for chart in charts] == [
        *("trip-record-136-b", "trip-tensor-64-kib", "trip-tensor-1-mib"),
    ]
    chart = charts[0]
    assert (chart.kind, chart.rows) == ("stack", ["wire", "orjson"])
    assert [(series.name, series.values[0].value) for series in chart.series] == [
        ("function call", pytest.approx(0.06)),
        ("codec", pytest.approx(9.94)),
        ("socket pair", pytest.approx(50)),
        ("TCP", 0),
        ("RPC", pytest.approx(40)),
    ]
    # What is too narrow has no number in it.
    assert [series.values[0].label for series in chart.series] == ["", "", "50", "", "40"]
    assert chart.series[4].values[0].text == (
        "wire, there and back over RPC: 100 µs, 40 µs more than before"
    )
    assert chart.finding == "Of the RPC, the codec is 10 % with wire and 50 % with orjson."


def test_a_codec_that_lacks_a_stage_has_no_bar() -> None:
    void = time("wire", "record", TCP, 136, 1.0)
    void = Figure(
        void.name,
        None,
        "ns",
        TCP,
        0,
        verdict=Verdict.VOID,
        reasons=reasons_of_text("wrong"),
        labels=void.labels,
    )
    figures = [one for one in _trip("record", 136) if one.name != void.name]
    view = _view([*figures, void])
    assert [chart.rows for chart in _bars(trip_parts(view))] == [["orjson"]]
    (times,) = [
        part for part in trip_parts(view) if isinstance(part, Table) and part.key == "trip-times"
    ]
    assert [row.void for row in times.rows] == ["wrong", ""]


def test_without_any_bar_there_is_no_chart() -> None:
    figures = [one for one in _trip("record", 136) if one.contract != TCP]
    assert not _bars(trip_parts(_view(figures)))


def test_smaller_messages_are_folded() -> None:
    (fold,) = [part for part in trip_parts(_view()) if isinstance(part, Fold)]
    assert [part.key for part in fold.parts if isinstance(part, RowChart)] == ["trip-tensor-64-b"]


def test_a_codec_is_never_more_than_the_whole_call() -> None:
    figures = [
        time("wire", "records", one, 136_000, 100.0) for one in (Contract.IN_MEMORY, PAIR, TCP)
    ]
    (trip,) = trips_of(_view([*figures, time("wire", "records", RPC, 136_000, 90.0)]))
    assert trip.codec_share("wire") == 1.0


def test_times_and_floors_have_tables() -> None:
    _, times, floors = (part for part in trip_parts(_view()) if isinstance(part, Table))
    assert [cell.text for cell in times.rows[0].cells] == [
        *("record", "136 B", "wire", "10 µs", "60 µs", "58 µs", "100 µs", "10 %"),
    ]
    assert floors.headings == ["floor", "no bytes", "64 B", "64 KiB"]
    assert [[cell.text for cell in row.cells] for row in floors.rows] == [
        ["empty call", "60 ns", "-", "-"],
        ["echo over TCP", "-", "50 µs", "55 µs"],
    ]

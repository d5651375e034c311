from collections.abc import Sequence

from capnp_rig.loadtest.codecs.codec import BUILD_ENCODE, OPEN, READ_ALL, READ_ONE
from capnp_rig.loadtest.report.codec_tables import codec_parts
from capnp_rig.loadtest.report.document import Paragraph, Table, Tone
from capnp_rig.loadtest.report.figures import LEGEND
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode

SIZES = (64, 4096, 1 << 20)


def time(codec: str, value: float | None, contract: str, size: int, **labels: object) -> Figure:
    place = {"kind": "time", "codec": codec, "message": "tensor", "contract": contract}
    wrong = (Verdict.VOID, (Reason.of(ReasonCode.OTHER, text="CodecMismatch: wrong"),))
    verdict, reasons = wrong if value is None else (Verdict.OK, ())
    return Figure(
        *(f"time: {codec}", value, "ns", contract, 6),
        verdict=verdict,
        reasons=reasons,
        labels={**place, "size_bytes": size, "subject": codec, "gc": False, **labels},
    )


def ratio(codec: str, value: float, verdict: str, contract: str, size: int) -> Figure:
    place = {"kind": "ratio", "codec": codec, "message": "tensor", "contract": contract}
    return Figure(
        *(f"ratio: {codec}", value, "times as fast", contract, 6),
        verdict=Verdict(verdict),
        labels={**place, "size_bytes": size, "baseline": "orjson"},
    )


BY_SIZE = [
    figure
    for size, value, verdict in zip(
        SIZES, (0.5, 1.001, 40.0), ("slower", "same", "faster"), strict=True
    )
    for figure in (
        time("orjson", 10.0 * size, READ_ONE, size),
        time("orjson", 1.0, READ_ONE, size, subject="orjson again"),
        ratio("wire", value, verdict, READ_ONE, size),
        ratio("msgpack", 1.1, "cannot tell", READ_ONE, size),
    )
]


def tables_of(figures: Sequence[Figure]) -> list[Table]:
    return [part for part in codec_parts(figures) if isinstance(part, Table)]


def rows(table: Table) -> list[list[str]]:
    return [[*table.headings], *([cell.text for cell in row.cells] for row in table.rows)]


def test_ratios_stand_by_size_below_the_baselines_own_time() -> None:
    (table,) = tables_of(BY_SIZE)
    assert table.caption == "tensor, open+read one field, by size: times as fast as orjson"
    assert rows(table) == [
        ["", "64 B", "4 KiB", "1 MiB"],
        ["baseline", "640 ns", "41 µs", "10.5 ms"],
        ["wire", "0.5", "=1", "40"],
        ["msgpack", "~1.1", "~1.1", "~1.1"],
    ]


def test_colours_follow_the_verdict() -> None:
    (table,) = tables_of(BY_SIZE)
    tones = [cell.tone for cell in table.rows[1].cells]
    assert tones == [Tone.PLAIN, Tone.BAD, Tone.QUIET, Tone.GOOD]


def test_contracts_stand_side_by_side_where_there_are_many() -> None:
    contracts = (BUILD_ENCODE, OPEN, READ_ONE, READ_ALL)
    found = [time("orjson", 1000.0, contract, 64) for contract in reversed(contracts)]
    found += [ratio("wire", 2.0, "faster", contract, 64) for contract in reversed(contracts)]
    found.append(ratio("pycapnp", 0.1, "slower", OPEN, 64))
    (table,) = tables_of(found)
    assert table.caption == "tensor of 64 B: times as fast as orjson"
    assert rows(table) == [
        ["", "build+encode", "open", "read one field", "read 100%"],
        ["baseline", *["1 µs"] * 4],
        ["wire", *["2"] * 4],
        ["pycapnp", "-", "0.1", "-", "-"],
    ]


def test_what_transports_leave_has_a_row_per_message_and_codec() -> None:
    trips = ("in memory", "over a socket pair", "over TCP", "over RPC")
    found = []
    for where, value in zip(trips, (8.0, 4.0, 2.0, 1.1), strict=True):
        contract = f"round trip {where}"
        found += [
            time("orjson", 1000.0, contract, 64),
            ratio("wire", value, "faster", contract, 64),
        ]
        # One size that went nowhere.
        if where == "in memory":
            found.append(ratio("wire", 8.0, "faster", contract, 4096))
    found.append(ratio("msgpack", 0.5, "slower", "round trip in memory", 64))
    (table,) = tables_of(found)
    assert table.caption == "Round trips: times as fast as orjson"
    assert rows(table) == [
        ["", "codec", *trips],
        ["tensor 64 B", "baseline", *["1 µs"] * 4],
        ["tensor 64 B", "wire", "8", "4", "2", "1.1"],
        ["tensor 64 B", "msgpack", "0.5", "-", "-", "-"],
    ]


def test_crossings_say_where_from_or_up_to_and_why_not() -> None:
    base = {"codec": "wire", "message": "tensor", "baseline": "orjson"}
    size = {**base, "kind": "crossover", "contract": READ_ONE}
    share = {**base, "kind": "break-even", "contract": "open+read k%", "size_bytes": 65536}
    other = {**size, "codec": "pycapnp packed"}
    found = [
        Figure("crossover: a", 1500.0, "B", READ_ONE, 12, 1024.0, 2048.0, labels=size),
        Figure("break-even: b", 12.34, "%", "open+read k%", 12, 10.0, 20.0, labels=share),
        Figure(
            "crossover: c", None, "B", READ_ONE, 3, reasons=(Reason(ReasonCode.AHEAD),), labels=size
        ),
        Figure("crossover: d", 1.0, "B", READ_ONE, 3, labels=other),
    ]
    (table,) = tables_of(found)
    places = ["wire", "orjson"]
    assert rows(table) == [
        ["", "contract", "codec", "over", "ahead", "95 % interval", "n", "reason"],
        ["tensor", READ_ONE, *places, "from 1.46 KiB", "1 to 2 KiB", "12", ""],
        ["tensor", READ_ONE, *places, "-", "", "3", "ahead throughout"],
        ["tensor 64 KiB", "open+read k%", *places, "up to 12.3 %", "10 to 20 %", "12", ""],
    ]


def test_memory_sizes_and_floors_have_tables() -> None:
    place = {"codec": "wire", "message": "tensor", "size_bytes": 1 << 24}
    sizes = [
        Figure(
            *(f"size: {method}", value, "B", "encoded size", 1),
            labels={**place, "kind": "size", "method": method},
        )
        for method, value in (("raw", 2048.0), ("zlib 6", 1000.0))
    ]
    place["kind"] = "memory"
    floor = {
        "kind": "time",
        "subject": "memcpy",
        "gc": False,
        "message": "",
        "size_bytes": 64,
        "codec": "memcpy",
    }
    found = [
        Figure("memory: a", 4096.0, "B", READ_ONE, 3, labels=place),
        Figure("memory: b", None, "B", READ_ALL, 0, verdict=Verdict.VOID, labels=place),
        *sizes,
        Figure("time: c", 50.0, "ns", "floor", 6, labels=floor),
    ]
    memory, raw, compressed, floors = tables_of(found)
    headings = [f"tensor 16 MiB, {contract}" for contract in (READ_ONE, READ_ALL)]
    assert rows(memory) == [["", *headings], ["wire", "4 KiB", "-"]]
    assert raw.caption == "Encoded size, raw"
    assert rows(raw) == [["", "tensor 16 MiB"], ["wire", "2 KiB"]]
    assert rows(compressed) == [["", "tensor 16 MiB"], ["wire", "1,000 B"]]
    assert rows(floors) == [["", "64 B"], ["memcpy", "50 ns"]]


def test_the_outcome_is_told_in_words_losses_and_voids_included() -> None:
    void = time("msgpack", None, READ_ALL, 64)
    parts = codec_parts([*BY_SIZE, void, void])
    assert [part.text for part in parts if isinstance(part, Paragraph)] == [
        f"{LEGEND}.",
        "wire against orjson: 1 faster, 1 slower, 1 same.",
        "msgpack is void: CodecMismatch: wrong",
    ]

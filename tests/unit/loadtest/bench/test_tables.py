import io

import pytest
from rich.console import Console
from rich.table import Table

from capnp_rig.loadtest.bench.tables import bench_lines, bench_tables, bytes_text, time_text
from capnp_rig.loadtest.codecs.codec import BUILD_ENCODE, OPEN, READ_ALL, READ_ONE
from capnp_rig.loadtest.results import Figure

SIZES = (64, 4096, 1 << 20)


def time(codec: str, value: float | None, contract: str, size: int, **labels: object) -> Figure:
    place = {"codec": codec, "message": "tensor", "contract": contract, "size_bytes": size}
    verdict = "void" if value is None else "ok"
    reason = "CodecMismatch: wrong" if value is None else ""
    return Figure(
        *(f"time: {codec}", value, "ns", contract, 6),
        verdict=verdict,
        reason=reason,
        labels={**place, "subject": codec, "gc": False, **labels},
    )


def ratio(codec: str, value: float, verdict: str, contract: str, size: int) -> Figure:
    place = {"codec": codec, "message": "tensor", "contract": contract, "size_bytes": size}
    return Figure(
        *(f"ratio: {codec}", value, "times as fast", contract, 6),
        verdict=verdict,
        labels={**place, "baseline": "orjson"},
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
        ratio("msgpack", 1.1, "inconclusive", READ_ONE, size),
    )
]


def shown(tables: list[Table]) -> str:
    console = Console(file=io.StringIO(), width=200)
    for table in tables:
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def rows(text: str) -> list[list[str]]:
    lines = [line.strip("│┃").replace("┃", "│") for line in text.splitlines() if line[0] in "│┃"]
    return [[cell.strip() for cell in line.split("│")] for line in lines]


def test_ratios_stand_by_size_below_the_baselines_own_time() -> None:
    (table,) = bench_tables(BY_SIZE)
    assert table.title == "tensor, open+read one field, by size: times as fast as orjson"
    assert rows(shown([table])) == [
        ["", "64 B", "4 KiB", "1 MiB"],
        ["baseline", "640 ns", "41 µs", "10.5 ms"],
        ["wire", "0.5", "=1", "40"],
        ["msgpack", "~1.1", "~1.1", "~1.1"],
    ]


def test_colours_follow_the_verdict() -> None:
    (table,) = bench_tables(BY_SIZE)
    cells = [list(column.cells)[1] for column in table.columns[1:]]
    assert [cell.style for cell in cells if not isinstance(cell, str)] == ["red", "dim", "green"]


def test_contracts_stand_side_by_side_where_there_are_many() -> None:
    contracts = (BUILD_ENCODE, OPEN, READ_ONE, READ_ALL)
    found = [time("orjson", 1000.0, contract, 64) for contract in reversed(contracts)]
    found += [ratio("wire", 2.0, "faster", contract, 64) for contract in reversed(contracts)]
    found.append(ratio("pycapnp", 0.1, "slower", OPEN, 64))
    (table,) = bench_tables(found)
    assert table.title == "tensor of 64 B: times as fast as orjson"
    assert rows(shown([table])) == [
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
    (table,) = bench_tables(found)
    assert table.title == "Round trips: times as fast as orjson"
    assert rows(shown([table])) == [
        ["", "codec", *trips],
        ["tensor 64 B", "baseline", *["1 µs"] * 4],
        ["tensor 64 B", "wire", "8", "4", "2", "1.1"],
        ["tensor 64 B", "msgpack", "0.5", "-", "-", "-"],
    ]


def test_crossings_say_where_from_or_up_to_and_why_not() -> None:
    base = {"codec": "wire", "message": "tensor", "baseline": "orjson"}
    size = {**base, "contract": READ_ONE}
    share = {**base, "contract": "open+read k%", "size_bytes": 65536}
    other = {**size, "codec": "pycapnp packed"}
    found = [
        Figure("crossover: a", 1500.0, "B", READ_ONE, 12, 1024.0, 2048.0, labels=size),
        Figure("break-even: b", 12.34, "%", "open+read k%", 12, 10.0, 20.0, labels=share),
        Figure("crossover: c", None, "B", READ_ONE, 3, reason="ahead throughout", labels=size),
        Figure("crossover: d", 1.0, "B", READ_ONE, 3, labels=other),
    ]
    assert rows(shown(bench_tables(found))) == [
        ["", "contract", "codec", "over", "ahead", "95 % interval", "n", "reason"],
        ["tensor", READ_ONE, "wire", "orjson", "from 1.46 KiB", "1 KiB to 2 KiB", "12", ""],
        [
            "tensor 64 KiB",
            "open+read k%",
            "wire",
            "orjson",
            "up to 12.3 %",
            "10 % to 20 %",
            "12",
            "",
        ],
        ["tensor", READ_ONE, "wire", "orjson", "-", "", "3", "ahead throughout"],
    ]


def test_memory_sizes_and_floors_have_tables() -> None:
    place = {"codec": "wire", "message": "tensor", "size_bytes": 1 << 24}
    sizes = [
        Figure(f"size: {method}", value, "B", "encoded size", 1, labels={**place, "method": method})
        for method, value in (("raw", 2048.0), ("zlib 6", 1000.0))
    ]
    floor = {"subject": "memcpy", "gc": False, "message": "", "size_bytes": 64, "codec": "memcpy"}
    found = [
        Figure("memory: a", 4096.0, "B", READ_ONE, 3, labels=place),
        Figure("memory: b", None, "B", READ_ALL, 0, verdict="void", labels=place),
        *sizes,
        Figure("time: c", 50.0, "ns", "floor", 6, labels=floor),
    ]
    memory, encoded, floors = bench_tables(found)
    headings = [f"tensor 16 MiB, {contract}" for contract in (READ_ONE, READ_ALL)]
    assert rows(shown([memory])) == [["", *headings], ["wire", "4 KiB", "-"]]
    assert rows(shown([encoded])) == [["", "tensor 16 MiB"], ["wire", "2 KiB, 1,000 B"]]
    assert rows(shown([floors])) == [["", "64 B"], ["memcpy", "50 ns"]]


def test_the_outcome_is_told_in_words_losses_and_voids_included() -> None:
    void = time("msgpack", None, READ_ALL, 64)
    assert bench_lines([*BY_SIZE, void, void]) == [
        "wire against orjson: 1 faster, 1 slower, 1 same.",
        "msgpack is void: CodecMismatch: wrong",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5 ns"), (999.4, "999 ns"), (999.6, "1 µs"), (12345, "12.3 µs"), (2e9, "2 s")],
)
def test_times_have_three_digits(value: float, text: str) -> None:
    assert time_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(64, "64 B"), (1000, "1,000 B"), (1024, "1 KiB"), (1 << 24, "16 MiB")]
)
def test_bytes_have_their_unit(value: float, text: str) -> None:
    assert bytes_text(value) == text

from pathlib import Path

from capnp_rig.loadtest.report.result_list import list_json, list_table
from capnp_rig.loadtest.results.catalog import Entry

RUN = Entry(
    Path("results/20261121T120000Z-abc"),
    "run",
    "2026-11-21T12:00:00.5+00:00",
    "yesterday",
    "abc+",
    {"calls_per_s": 116_045.2, "p50_us": 449.0, "p99_us": 1778.0, "errors": 0},
    verdict="valid",
)


def test_a_row_per_result() -> None:
    rate = {"rate_hz": 30_000.0, "failing_hz": None}
    table = list_table(
        [
            Entry(Path("results/x"), problem="cut short"),
            RUN,
            Entry(Path("s"), "search", "", "", "", rate, "p99<1ms", "verified"),
            Entry(Path("w"), "sweep", headline={"highest_calls_per_s": 116_045.0}, verdict="ok"),
            Entry(Path("b"), "bench", "", "", "", {"faster": 3, "ok": 9, "void": 1}),
        ]
    )
    assert [[cell.text for cell in row.cells] for row in table.rows] == [
        ["x", "-", "-", "-", "-", "-", "damaged: cut short"],
        [
            *("20261121T120000Z-abc", "yesterday", "run", "2026-11-21 12:00:00", "abc+"),
            *("116,045 calls/s, p50 449 µs, p99 1.78 ms", "valid"),
        ],
        ["s", "-", "search", "", "", "p99<1ms: 30,000/s, fails at -", "verified"],
        ["w", "-", "sweep", "", "", "up to 116,045 calls/s", "ok"],
        ["b", "-", "bench", "", "", "3 faster, 1 void", "-"],
    ]


def test_failed_calls_are_said() -> None:
    failed = Entry(RUN.folder, "run", headline=dict(RUN.headline) | {"errors": 3})
    assert list_table([failed]).rows[0].cells[5].text.endswith(", 3 failed")


def test_plain_values() -> None:
    (plain,) = list_json([RUN])
    assert plain["folder"] == "results/20261121T120000Z-abc"
    assert plain["headline"]["p99_us"] == 1778.0
    assert (plain["name"], plain["verdict"], plain["problem"]) == ("yesterday", "valid", "")

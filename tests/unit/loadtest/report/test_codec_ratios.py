from collections.abc import Sequence

from sample_results import crossover, ratio

from capnp_rig.loadtest.report.codec_ratios import codec_ratio_table
from capnp_rig.loadtest.report.codec_view import CodecView
from capnp_rig.loadtest.results import Figure

_OWN = Figure("time", 1.0, "ns", "open", 12, labels={"codec": "wire", "kind": "time"})


def _rows(*figures: Figure) -> list[Sequence[str]]:
    table = codec_ratio_table(CodecView([_OWN, *figures]))
    return [[cell.text for cell in row.cells] for row in table.rows]


def test_a_sweep_has_its_largest_and_its_smallest_size_with_the_crossover() -> None:
    figures = [ratio(value, size_bytes=size) for size, value in ((64, 0.5), (256, 1), (1024, 3))]
    rows = _rows(*figures, crossover(200.0, 150.0, 260.0))
    place = "Opening and reading all of a text"
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        (f"{place}, 1 KiB: wire over orjson", "3", "ahead from 200 B (150 to 260 B)"),
        (f"{place}, 64 B: wire over orjson", "0.5", "ahead from 200 B (150 to 260 B)"),
    ]


def test_a_message_of_one_size_has_one_row_with_the_break_even_of_reading() -> None:
    place = {"message": "records", "size_bytes": 136_000}
    contracts = ("open+read one field", "open+read 100%", "build+encode")
    figures = [ratio(2.0, contract=contract, **place) for contract in contracts]
    rows = _rows(*figures, crossover(11.0, 7.0, 21.0, kind="break-even", **place))
    even = "ahead up to 11 % of the fields (7 to 21 %)"
    assert [(row[0].partition(" 1,000")[0], row[-1]) for row in rows] == [
        ("Opening and reading one field of", even),
        ("Opening and reading all of", even),
        ("Writing", ""),
    ]


def test_round_trips_have_no_row_here() -> None:
    assert not _rows(ratio(2.0, message="record", contract="round trip in memory"))


def test_the_headline_rival_comes_first_and_the_standard_library_not_at_all() -> None:
    rivals = ("pickle 5 out of band", "json", "orjson")
    rows = _rows(*(ratio(2.0, baseline=baseline) for baseline in rivals))
    assert [row[0].partition(" over ")[2] for row in rows] == ["orjson", "pickle 5 out of band"]


def test_a_benchmark_without_capn_proto_has_no_rows() -> None:
    assert not codec_ratio_table(CodecView([ratio(2.0)])).rows

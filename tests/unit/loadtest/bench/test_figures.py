from collections.abc import Mapping

import pytest

from capnp_rig.loadtest.bench.case_times import (
    CaseTimes,
    case_times_of,
    case_times_to_json,
)
from capnp_rig.loadtest.bench.figures import figures
from capnp_rig.loadtest.bench.plan import BASELINES, PLANS, Case, order
from capnp_rig.loadtest.codecs import CODECS
from capnp_rig.loadtest.codecs.codec import BUILD_ENCODE, READ_ALL, READ_ONE
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.messages import AGAIN
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.reasons import ReasonCode, codes_of

PLAN = PLANS["tiny"]


def samples(processes: int, slower: Mapping[str, float], plan: str = "tiny") -> list[CaseTimes]:
    """Return a sample of every case; a codec takes as many times as long as `slower` says."""
    found = []
    for process in range(processes):
        for position, case in enumerate(order(PLANS[plan], process)):
            time_s = 1e-6 * slower.get(case.codec, 1) * (1 + process / 10)
            # The second timing of a baseline differs a little, now this way, now that.
            drift = 1 + 0.01 * (-1) ** process if case.subject.endswith(AGAIN) else 1
            found.append(CaseTimes(process, position, case, (time_s * drift,) * 3, 1))
    return found


def of_kind(found: list[Figure], kind: str) -> list[Figure]:
    return [figure for figure in found if figure.name.startswith(f"{kind}: ")]


def test_a_slower_codec_is_called_slower_against_every_baseline() -> None:
    ratios = of_kind(figures(PLAN, samples(6, {"pycapnp": 1.5, "wire": 0.5})), "ratio")
    by_codec = {
        name: [r for r in ratios if r.labels["codec"] == name] for name in ("wire", "pycapnp")
    }
    for name, verdict, value in (("wire", Verdict.FASTER, 2), ("pycapnp", Verdict.SLOWER, 1 / 1.5)):
        # Arrow's library need not be there.
        assert {figure.labels["baseline"] for figure in by_codec[name]} == {*BASELINES} & {*CODECS}
        for figure in by_codec[name]:
            assert figure.verdict == verdict
            assert figure.value == pytest.approx(value)


def test_a_difference_within_the_floor_is_none_that_anybody_can_tell() -> None:
    ratios = of_kind(figures(PLAN, samples(6, {"wire": 1.005})), "ratio")
    assert all(figure.labels["floor"] == pytest.approx(0.01, rel=0.02) for figure in ratios)
    for figure in ratios:
        told = Verdict.CANNOT_TELL if figure.labels["codec"] == "wire" else Verdict.SAME
        assert figure.verdict is told
        assert (ReasonCode.WITHIN_FLOOR in codes_of(figure.reasons)) is (told != Verdict.SAME)


def test_the_noise_of_the_baseline_does_not_widen_the_margin() -> None:
    noisy = [
        CaseTimes(
            s.process, s.position, s.case, (s.rounds_s[0] * (1.4 if s.process % 2 else 1),), 1
        )
        if s.case.subject.endswith(AGAIN)
        else s
        for s in samples(6, {})
    ]
    ratios = of_kind(figures(PLAN, noisy), "ratio")
    assert {figure.verdict for figure in ratios} == {Verdict.SAME}
    assert all(figure.labels["floor"] > 0.3 for figure in ratios)


def test_an_a_a_row_stands_beside_every_ratio() -> None:
    found = figures(PLAN, samples(6, {}))
    places = {
        (
            figure.labels["message"],
            figure.contract,
            figure.labels["size_bytes"],
            figure.labels["baseline"],
        )
        for figure in of_kind(found, "A/A")
    }
    for ratio in of_kind(found, "ratio"):
        labels = ratio.labels
        place = (labels["message"], ratio.contract, labels["size_bytes"], labels["baseline"])
        assert place in places


def test_ratios_never_mix_messages_contracts_or_sizes() -> None:
    for figure in of_kind(figures(PLAN, samples(6, {})), "ratio"):
        labels = figure.labels
        place = f"{labels['message']}, {figure.contract}, {labels['size_bytes']} B, "
        assert figure.name.startswith(f"ratio: {place}{labels['codec']}, against ")
        assert labels["contract"] == figure.contract


def test_too_few_processes_void_every_ratio() -> None:
    for figure in of_kind(figures(PLAN, samples(5, {})), "ratio"):
        assert (figure.verdict, figure.low) == (Verdict.VOID, None)


def test_every_case_has_a_time_with_its_interval() -> None:
    times = of_kind(figures(PLAN, samples(6, {"wire": 3})), "time")
    assert {figure.name for figure in times} == {f"time: {case.name}" for case in order(PLAN, 0)}
    wire = next(figure for figure in times if figure.labels["codec"] == "wire")
    assert (wire.low, wire.value, wire.high) == pytest.approx((3107, 3750, 4393), abs=1)
    assert wire.reason == ""


def test_the_size_from_which_a_codec_is_ahead_is_found() -> None:
    # Fixed costs of the candidate against a baseline that grows with the size: even at 256 B.
    found = []
    for sample in samples(6, {}):
        case = sample.case
        time_s = {"orjson": case.size_bytes / 256}.get(case.codec, 1.0)
        found.append(CaseTimes(sample.process, sample.position, case, (time_s,) * 3, 1))
    crossings = {figure.name: figure for figure in of_kind(figures(PLAN, found), "crossover")}
    for contract in (BUILD_ENCODE, READ_ONE, READ_ALL):
        figure = crossings[f"crossover: tensor, {contract}, wire over orjson"]
        assert figure.value == pytest.approx(256)
        assert (figure.unit, figure.contract) == ("B", contract)
    tie = crossings[f"crossover: tensor, {READ_ONE}, wire over pickle 5 out of band"]
    assert tie.value is None
    assert codes_of(tie.reasons) & {ReasonCode.BEHIND, ReasonCode.BEHIND_BY_ESTIMATE}


def test_the_share_up_to_which_a_codec_is_ahead_is_found() -> None:
    found = []
    for sample in samples(6, {}):
        percent = sample.case.percent or 1
        time_s = percent / 20 if sample.case.codec == "wire" else 1.0
        found.append(CaseTimes(sample.process, sample.position, sample.case, (time_s,) * 3, 1))
    (figure,) = [
        figure
        for figure in of_kind(figures(PLAN, found), "break-even")
        if figure.name == "break-even: tensor, 64 B, wire over orjson"
    ]
    assert figure.value == pytest.approx(20)
    assert (figure.unit, figure.contract) == ("%", "open+read k%")


def test_a_void_case_has_its_reason_and_no_ratio() -> None:
    found = samples(6, {})
    bad = Case("wire", "text", READ_ALL, 64)
    found = [
        CaseTimes(s.process, s.position, s.case, (), 0, "CodecMismatch: other values")
        if s.case == bad and s.process == 3
        else s
        for s in found
    ]
    done = figures(PLAN, found)
    (time,) = [figure for figure in done if figure.name == f"time: {bad.name}"]
    assert (time.value, time.verdict, time.reason) == (None, "void", "CodecMismatch: other values")
    assert not [f for f in of_kind(done, "ratio") if f.name.startswith(f"ratio: {bad.name}")]


def test_a_void_baseline_leaves_the_times_of_the_others() -> None:
    found = [
        CaseTimes(s.process, s.position, s.case, (), 0, "wrong")
        if s.case.subject == "orjson"
        else s
        for s in samples(6, {})
    ]
    done = figures(PLAN, found)
    assert not [
        figure for figure in of_kind(done, "ratio") if figure.labels["baseline"] == "orjson"
    ]
    assert [f for f in of_kind(done, "time") if f.labels["codec"] == "wire" and f.value is not None]


def test_memory_is_the_median_over_processes() -> None:
    place = {"codec": "wire", "message": "tensor", "contract": READ_ONE, "size_bytes": 1 << 20}
    measured = [{**place, "rss_bytes": value, "python_bytes": 10} for value in (1, 7, 5)]
    found = {figure.name: figure for figure in figures(PLAN, [], measured)}
    memory = found["memory: tensor, open+read one field, 1048576 B, wire"]
    assert (memory.value, memory.unit, memory.n) == (5, "B", 3)
    assert memory.labels == {"kind": "memory", **place}
    assert found["allocated: tensor, open+read one field, 1048576 B, wire"].value == 10


def test_memory_that_cannot_be_read_is_void() -> None:
    place = {"codec": "wire", "message": "tensor", "contract": READ_ONE, "size_bytes": 64}
    memory, _ = figures(PLAN, [], [{**place, "rss_bytes": None, "python_bytes": 1}])
    assert (memory.value, memory.verdict, memory.reason) == (None, "void", "not readable")


def test_sizes_have_the_time_to_compress_beside_them() -> None:
    one = {
        "codec": "wire",
        "message": "record",
        "size_bytes": 136,
        "method": "zlib 6",
        "encoded_bytes": 100,
        "compress_ns": 5000.0,
    }
    (figure,) = figures(PLAN, [], [], [one])
    assert figure.name == "size: record, 136 B, wire, zlib 6"
    assert (figure.value, figure.labels["compress_ns"]) == (100, 5000.0)


# --- samples ---------------------------------------------------------------------------------


def entry(case: Case, *rounds_s: float) -> dict[str, object]:
    return {
        "stats": {"data": list(rounds_s), "iterations": 7},
        "extra_info": {
            "case": {
                "subject": case.subject,
                "message": case.message,
                "contract": case.contract,
                "size_bytes": case.size_bytes,
                "gc": case.gc,
            }
        },
    }


def test_samples_come_from_pytest_benchmarks_file_with_six_digits() -> None:
    one, other = order(PLAN, 0)[:2]
    file = {"benchmarks": [entry(one, 1.23456789e-6, 3e-6, 2e-6), entry(other, 1.0)]}
    first, second = case_times_of(4, file)
    assert first == CaseTimes(4, 0, one, (1.23457e-6, 3e-6, 2e-6), 7)
    assert first.median_ns == pytest.approx(2000)
    assert (second.case, second.position) == (other, 1)


def test_a_void_case_is_a_sample_whether_it_was_timed_or_not() -> None:
    one, other = order(PLAN, 0)[:2]
    file = {"benchmarks": [entry(one, 1.0)]}
    found = list(case_times_of(4, file, {one: "changed", other: "wrong"}))
    assert [(s.case, s.void, s.median_ns, s.rounds_s) for s in found] == [
        (one, "changed", None, ()),
        (other, "wrong", None, ()),
    ]


def test_samples_say_all_that_a_reader_needs() -> None:
    sample = samples(1, {})[0]
    void = case_times_to_json(CaseTimes(0, -1, sample.case, (), 0, "wrong"))
    assert (void["void"], void["median_ns"], void["rounds_s"]) == ("wrong", None, ())
    plain = case_times_to_json(sample)
    assert (plain["median_ns"], plain["rounds_s"]) == (sample.median_ns, sample.rounds_s)
    assert plain["case"] == sample.case.name
    assert plain.keys() >= {
        *("process", "position", "case", "subject", "codec", "message", "contract", "size_bytes"),
        *("k", "gc", "iterations", "rounds", "median_ns", "rounds_s"),
    }
    assert "void" not in plain

import pytest

from capnp_rig.loadtest.bench.pair_figures import median_figure, ratio_figures
from capnp_rig.loadtest.stats.pair_statistics import Judgement, Verdict
from capnp_rig.loadtest.stats.reasons import reasons_of_text


def test_ratios_are_above_one_where_the_candidate_costs_less() -> None:
    costs = {"baseline": [10.0] * 6, "candidate": [2.5] * 6, "again": [10.1] * 6}
    names = {"baseline": "theirs", "candidate": "ours"}
    same, ratio = ratio_figures("8 x 1", "calls/s", names, costs)
    assert (same.name, same.verdict) == ("8 x 1: A/A, calls/s", "floor")
    assert round(same.value or 0, 3) == 0.99
    assert ratio.name == "8 x 1: ours over theirs, calls/s"
    assert (ratio.verdict, ratio.value) == ("faster", 4.0)
    place = {"load": "8 x 1", "what": "calls/s", "baseline": "theirs"}
    assert same.labels == {"kind": "A/A", "subject": "theirs", **place}
    assert ratio.labels.items() >= {"kind": "ratio", "subject": "ours", **place}.items()
    assert round(ratio.labels["floor"], 3) == 0.01
    assert (ratio.unit, ratio.contract, ratio.n) == ("ratio", "round trip", 6)


def test_a_median_has_its_interval_and_its_reason() -> None:
    figure = median_figure(
        "x",
        [1.0, 2.0, 3.0, 4.0, 5.0, 60.0],
        "µs",
        "c",
        {"a": 1},
        Judgement(Verdict.AT_LEAST, reasons_of_text("why")),
    )
    assert (figure.value, figure.n) == (3.5, 6)
    assert (figure.low, figure.high) == pytest.approx((1.357, 40.357), abs=0.001)
    assert (figure.verdict, figure.reason) == ("at least", "why")

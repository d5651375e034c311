from itertools import groupby

from capnp_rig.loadtest.bench.pair_run import ROLES, median_figure, ratio_figures, rounds
from capnp_rig.loadtest.bench.steps import Progress
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.reasons import reasons_of_text


def test_each_round_has_each_role_once_in_an_order_of_its_own() -> None:
    found = list(rounds(40, lambda _: None))
    orders = set()
    for number, group in groupby(found, key=lambda each: each[0]):
        numbers, orders_in, roles = zip(*group, strict=True)
        assert set(numbers) == {number}
        assert orders_in == (0, 1, 2)
        assert set(roles) == set(ROLES)
        orders.add(roles)
    # All six orders come up, and the same ones in every run.
    assert len(orders) == 6
    assert list(rounds(40, lambda _: None)) == found


def test_progress_is_told_after_each_measurement() -> None:
    told: list[Progress] = []
    for _ in rounds(2, told.append):
        pass
    assert [(each.done, each.total) for each in told] == [(done, 6) for done in range(7)]
    assert told[0].left_s is None
    assert told[-1].left_s == 0


def test_ratios_are_above_one_where_the_candidate_costs_less() -> None:
    costs = {"baseline": [10.0] * 6, "candidate": [2.5] * 6, "again": [10.1] * 6}
    names = {"baseline": "theirs", "candidate": "ours"}
    same, ratio = ratio_figures("8 x 1", "calls/s", names, costs, "round trip")
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
        verdict=Verdict.AT_LEAST,
        reasons=reasons_of_text("why"),
    )
    assert (figure.value, figure.low, figure.high, figure.n) == (3.5, 1.0, 60.0, 6)
    assert (figure.verdict, figure.reason) == ("at least", "why")

from dataclasses import replace

import pytest
from sample_results import stack_figures

from capnp_rig.loadtest.report.stack_claims import rates_text, ratios_text, stack_claims
from capnp_rig.loadtest.report.stack_view import CALLS, RATIO_CALLS, select
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.reasons import reasons_of_text


def test_the_smallest_and_the_largest_payload_have_a_sentence() -> None:
    small, large = stack_claims(stack_figures())
    assert small.text == (
        "With 32 B text payloads, capnp (99,364/s) makes 5 times the calls of http1 and "
        "5 times those of grpc."
    )
    assert small.detail == (
        "capnp over http1 5 (4.8 to 5.2), capnp over grpc 5 (4.8 to 5.2); A/A floor 2 %, 12 rounds"
    )
    # Without ratios there is no more to say.
    assert large.text == (
        "With 256 KiB text payloads, calls/s, most first: capnp 1,872, http1 374; void: grpc."
    )
    assert large.void == ""


def _ratio(rival: str, value: float, verdict: str, reason: str = "", floor: float = 0.01) -> Figure:
    found = next(one for one in select(stack_figures(), RATIO_CALLS))
    labels = {**found.labels, "baseline": rival, "floor": floor}
    return replace(
        found, value=value, verdict=Verdict(verdict), reasons=reasons_of_text(reason), labels=labels
    )


@pytest.mark.parametrize(
    ("ratios", "said"),
    [
        ([_ratio("a", 2.0, "faster")], "capnp makes 2 times the calls of a"),
        (
            [_ratio("a", 5.0, "faster", "a lower bound: busy"), _ratio("b", 2.0, "faster")],
            "capnp makes 2 times the calls of b and at least 5 times those of a",
        ),
        (
            [_ratio("a", 2.0, "faster"), _ratio("b", 0.5, "slower")],
            "capnp makes 2 times the calls of a; b makes 2 times the calls of capnp",
        ),
        ([_ratio("a", 1.0, "same")], "a and capnp tie"),
        ([_ratio("a", 1.0, "same", floor=0.5)], "a and capnp cannot be told apart"),
        (
            [_ratio("a", 1.1, "inconclusive"), _ratio("b", 1.2, "void", "died")],
            "a and capnp cannot be told apart; no verdict on b",
        ),
    ],
)
def test_stacks_by_their_verdicts(ratios: list[Figure], said: str) -> None:
    assert ratios_text([], ratios) == said


def test_where_all_ratios_are_void_so_is_the_sentence() -> None:
    void = [
        replace(one, verdict=Verdict.VOID, reasons=reasons_of_text("no A/A pairs"))
        if "over" in one.name
        else one
        for one in stack_figures()
    ]
    assert next(stack_claims(void)).void == "no A/A pairs"


def test_a_rate_that_the_generator_limits_is_a_lower_bound() -> None:
    rates = [replace(one, verdict=Verdict.AT_LEAST) for one in select(stack_figures(), CALLS)]
    assert rates_text(rates[:1]) == "calls/s, most first: capnp at least 99,364"

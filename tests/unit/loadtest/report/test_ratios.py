from dataclasses import replace

import pytest
from sample_results import crossover, ratio

from capnp_rig.loadtest.report.document import Tone
from capnp_rig.loadtest.report.ratios import (
    HEADINGS,
    ahead_text,
    ratio_line,
    ratio_point,
    ratio_row,
)
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode

BELOW, BEYOND = Reason(ReasonCode.BELOW_MEASURED), Reason(ReasonCode.BEYOND_MEASURED)
AHEAD, BEHIND = Reason(ReasonCode.AHEAD), Reason(ReasonCode.BEHIND)
AHEAD_MAYBE = Reason(ReasonCode.AHEAD_BY_ESTIMATE)
BEHIND_MAYBE = Reason(ReasonCode.BEHIND_BY_ESTIMATE)
FEW = Reason(ReasonCode.FEW_PROCESSES)


def _cells(figure: Figure) -> list[str]:
    return [cell.text for cell in ratio_row("what", figure).cells]


@pytest.mark.parametrize(
    ("figure", "cells", "tone"),
    [
        (ratio(1500.0), ["1,500", "1,430 to 1,580", "1 %", "12", "faster"], Tone.GOOD),
        (ratio(0.25), ["0.25", "0.238 to 0.263", "1 %", "12", "slower"], Tone.BAD),
        (ratio(1.0, verdict="same"), ["1", "0.952 to 1.05", "1 %", "12", "same"], Tone.QUIET),
        (
            replace(ratio(2.0, floor=None), low=None, high=None),
            *(["2", "-", "-", "12", "faster"], Tone.GOOD),
        ),
        (
            replace(ratio(3.0), reasons=(Reason(ReasonCode.LOWER_BOUND),)),
            *(["≥ 3", "2.86 to 3.15", "1 %", "12", "faster"], Tone.GOOD),
        ),
    ],
)
def test_a_ratio_is_a_row(figure: Figure, cells: list[str], tone: Tone) -> None:
    row = ratio_row("what", figure)
    assert [cell.text for cell in row.cells] == ["what", *cells]
    assert len(row.cells) == len(HEADINGS)
    assert (row.cells[1].value, row.cells[1].tone, row.void) == (figure.value, tone, "")


def test_a_void_ratio_says_why() -> None:
    row = ratio_row("what", ratio(3.0, verdict="void", reason="under 6 pairs"))
    assert (row.void, row.cells[-1].text) == ("under 6 pairs", "void")


def test_a_point_has_the_ratio_in_words() -> None:
    point = ratio_point(64, ratio(2.0), "wire over orjson, 64 B")
    assert (point.x, point.y, point.void) == (64, 2.0, "")
    assert point.text == "wire over orjson, 64 B: 2 (1.9 to 2.1), faster"
    bare = replace(ratio(2.0, verdict="void", reason="under 6 pairs"), low=None)
    assert ratio_line(bare) == "2 (no interval), void"
    assert ratio_point(64, bare, "").void == "under 6 pairs"


def _crossing(
    kind: str, value: float | None, low: float | None, high: float | None, *reasons: Reason
) -> Figure:
    return replace(crossover(value, low, high, kind=kind), reasons=reasons)


@pytest.mark.parametrize(
    ("value", "low", "high", "reasons", "text"),
    [
        (200.0, 150.0, 260.0, (), "ahead from 200 B (150 to 260 B)"),
        (200.0, None, None, (FEW,), "ahead from 200 B (no interval)"),
        (800e3, 700e3, 4 << 20, (BEYOND,), "ahead from 781 KiB (≥ 684 KiB)"),
        (200.0, 64.0, 260.0, (BELOW,), "ahead from 200 B (≤ 260 B)"),
        (200.0, 64.0, 4 << 20, (BELOW, BEYOND), "ahead from 200 B (not resolved)"),
        (None, None, None, (AHEAD,), "ahead throughout"),
        (None, None, None, (BEHIND,), "behind throughout"),
        (None, None, None, (AHEAD, FEW), "ahead throughout"),
        (None, 64.0, 1024.0, (AHEAD_MAYBE, BELOW), "ahead from ≤ 1 KiB"),
        (None, 1024.0, 4 << 20, (BEHIND_MAYBE, BEYOND), "ahead from ≥ 1 KiB"),
        (None, 64.0, 4 << 20, (AHEAD_MAYBE, BELOW, BEYOND), "crossover not resolved"),
        (None, None, None, (), "crossover not resolved"),
    ],
)
def test_from_which_size_a_codec_is_ahead(
    value: float | None,
    low: float | None,
    high: float | None,
    reasons: tuple[Reason, ...],
    text: str,
) -> None:
    assert ahead_text(_crossing("crossover", value, low, high, *reasons)) == text


@pytest.mark.parametrize(
    ("value", "low", "high", "reasons", "text"),
    [
        (11.0, 7.0, 21.0, (), "ahead up to 11 % of the fields (7 to 21 %)"),
        (None, 1.0, 1.9, (BEHIND_MAYBE, BELOW), "ahead up to ≤ 1.9 % of the fields"),
        (None, 44.0, 100.0, (AHEAD_MAYBE, BEYOND), "ahead up to ≥ 44 % of the fields"),
        (None, None, None, (AHEAD,), "ahead throughout"),
        (None, 1.0, 100.0, (AHEAD_MAYBE, BELOW, BEYOND), "crossover not resolved"),
    ],
)
def test_up_to_which_share_of_the_fields_a_codec_is_ahead(
    value: float | None,
    low: float | None,
    high: float | None,
    reasons: tuple[Reason, ...],
    text: str,
) -> None:
    assert ahead_text(_crossing("break-even", value, low, high, *reasons)) == text


def test_where_nobody_looked_nothing_is_said() -> None:
    assert ahead_text(None) == ""

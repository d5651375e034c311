"""The figures of rounds that measure a baseline, a candidate, and the baseline again (no I/O)."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from capnp_rig.loadtest.bench.rounds import AGAIN, BASELINE, CANDIDATE
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.pair_statistics import (
    Interval,
    Verdict,
    interval_of_median,
    judge,
    noise_floor,
    paired_ratio,
)
from capnp_rig.loadtest.stats.reasons import Reason

# What is timed: a call, from its sending to its answer.
CONTRACT = "round trip"


def median_figure(
    name: str,
    values: Sequence[float],
    unit: str,
    contract: str,
    *,
    verdict: Verdict = Verdict.OK,
    reasons: tuple[Reason, ...] = (),
    labels: Mapping[str, Any] = MappingProxyType({}),
) -> Figure:
    """Return the median of one value per process, with its interval."""
    middle = interval_of_median(values, seed=0)
    return Figure(
        name,
        middle.value,
        unit,
        contract,
        middle.n,
        middle.low,
        middle.high,
        verdict,
        reasons,
        labels=dict(labels),
    )


def value_figure(
    load: str, subject: str, what: str, unit: str, values: Sequence[float], *limits: Reason
) -> Figure:
    """Return the median of what `subject` did; where something limited it, a lower bound."""
    return median_figure(
        f"{load}: {subject} {what}",
        values,
        unit,
        CONTRACT,
        verdict=Verdict.AT_LEAST if limits else Verdict.OK,
        reasons=limits,
        labels=value_labels(load, subject, what),
    )


def value_labels(load: str, subject: str, what: str) -> dict[str, Any]:
    """Return the labels of what `subject` did under a load such as ``64 x 1``."""
    return {"kind": "value", "load": load, "subject": subject, "what": what}


def ratio_figures(
    load: str,
    what: str,
    names: Mapping[str, str],
    costs: Mapping[str, Sequence[float]],
) -> list[Figure]:
    """Return the ratio of the baseline to itself, and of the candidate to it.

    `names` are those of baseline and candidate. `costs` has, by role, one value per round, of which
    less is better: above 1 the candidate is better.
    """
    subject, baseline = names[CANDIDATE], names[BASELINE]
    place = {"load": load, "what": what, "baseline": baseline}
    same = paired_ratio(costs[BASELINE], costs[AGAIN])
    ratio = paired_ratio(costs[BASELINE], costs[CANDIDATE])
    floor = noise_floor(same)
    judgement = judge(ratio, floor)
    return [
        Figure(
            f"{load}: A/A, {what}",
            *_ratio(same),
            Verdict.FLOOR,
            labels={"kind": "A/A", "subject": baseline, **place},
        ),
        Figure(
            f"{load}: {subject} over {baseline}, {what}",
            *_ratio(ratio),
            judgement.verdict,
            judgement.reasons,
            labels={"kind": "ratio", "subject": subject, **place, "floor": floor},
        ),
    ]


def _ratio(of: Interval) -> tuple[float, str, str, int, float | None, float | None]:
    return (of.value, "ratio", CONTRACT, of.n, of.low, of.high)

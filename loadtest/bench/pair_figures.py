"""Figures from values of processes or rounds, and the ratios of pairs of them (no I/O)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from capnp_rig.loadtest.bench.rounds import AGAIN, BASELINE, CANDIDATE
from capnp_rig.loadtest.stats.crossover import Crossover
from capnp_rig.loadtest.stats.figure import Figure
from capnp_rig.loadtest.stats.pair_statistics import (
    Interval,
    Judgement,
    Verdict,
    interval_of_median,
    judge,
    noise_floor,
    paired_ratio,
)
from capnp_rig.loadtest.stats.reasons import Reason

# What is timed: a call, from its sending to its answer.
CONTRACT = "round trip"
OK = Judgement(Verdict.OK)


def interval_figure(
    name: str,
    measured: Interval | Crossover | None,
    unit: str,
    contract: str,
    labels: Mapping[str, Any],
    judged: Judgement = OK,
) -> Figure:
    """Return a value with its interval, None where nothing was measured."""
    figure = Figure(name, None, unit, contract, 0, labels=labels)
    if measured is not None:
        figure = replace(
            figure, value=measured.value, n=measured.n, low=measured.low, high=measured.high
        )
    return replace(figure, verdict=judged.verdict, reasons=judged.reasons)


def median_figure(
    name: str,
    values: Sequence[float],
    unit: str,
    contract: str,
    labels: Mapping[str, Any],
    judged: Judgement = OK,
) -> Figure:
    """Return the median of one value per process, with its interval; None without a value."""
    middle = interval_of_median(values) if values else None
    return interval_figure(name, middle, unit, contract, labels, judged)


def voided(figures: Iterable[Figure], reasons: tuple[Reason, ...]) -> list[Figure]:
    """Return figures as void for `reasons`, as they are without any."""
    if not reasons:
        return list(figures)
    return [
        replace(each, verdict=Verdict.VOID, reasons=(*reasons, *each.reasons)) for each in figures
    ]


def value_figure(
    load: str, subject: str, what: str, unit: str, values: Sequence[float], *limits: Reason
) -> Figure:
    """Return the median of what `subject` did; where something limited it, a lower bound."""
    judged = Judgement(Verdict.AT_LEAST, limits) if limits else OK
    labels = value_labels(load, subject, what)
    return median_figure(f"{load}: {subject} {what}", values, unit, CONTRACT, labels, judged)


def value_labels(load: str, subject: str, what: str) -> dict[str, Any]:
    """Return the labels of what `subject` did under a load such as ``64 x 1``."""
    return {"kind": "value", "load": load, "subject": subject, "what": what}


def ratio_figures(
    load: str,
    what: str,
    names: Mapping[str, str],
    costs: Mapping[str, Sequence[float]],
    *,
    twice: str = BASELINE,
) -> list[Figure]:
    """Return the ratio of a role to itself, and of the candidate to the baseline.

    `names` are those of baseline and candidate. `costs` has, by role, one value per round, of which
    less is better: above 1 the candidate is better. `twice` is the role that was measured again.
    """
    subject, baseline = names[CANDIDATE], names[BASELINE]
    place = {"load": load, "what": what, "baseline": baseline}
    same = paired_ratio(costs[twice], costs[AGAIN])
    ratio = paired_ratio(costs[BASELINE], costs[CANDIDATE])
    floor = noise_floor(same)
    return [
        interval_figure(
            f"{load}: A/A, {what}",
            same,
            "ratio",
            CONTRACT,
            {"kind": "A/A", "subject": names[twice], **place},
            Judgement(Verdict.FLOOR),
        ),
        interval_figure(
            f"{load}: {subject} over {baseline}, {what}",
            ratio,
            "ratio",
            CONTRACT,
            {"kind": "ratio", "subject": subject, **place, "floor": floor},
            judge(ratio, floor),
        ),
    ]

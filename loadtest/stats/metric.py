"""A figure of one result that another result's can be held against (no I/O)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from capnp_rig.loadtest.stats.figure import Figure
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.pair_statistics import Verdict, noise_floor
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode
from capnp_rig.loadtest.stats.resampling import LEAST_UNITS, Resampled, ratio_of, resample_median
from capnp_rig.loadtest.stats.run_summary import LIMITS


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of one result; `n` is the number of its units.

    `resampled` and `floor`, the far end of its A/A ratio as a share, are None where they cannot
    be had; `problems` say why, or why they should not be believed.
    """

    name: str
    unit: str
    value: float | None
    n: int
    resampled: Resampled | None = None
    floor: float | None = None
    problems: tuple[Reason, ...] = ()

    @property
    def is_higher_better(self) -> bool:
        """Whether more is better: of rates."""
        return self.unit == "calls/s"


def metric_of_values(
    name: str,
    unit: str,
    values: Sequence[float | None],
    seed: int,
    problems: tuple[Reason, ...] = (),
) -> Metric:
    """Return the metric that has a value per unit and is their median."""
    known = [value for value in values if value is not None]
    value = median(known) if known else None
    if len(known) < len(values):
        problems = problems or (Reason.of(ReasonCode.NOT_MEASURED),)
        return Metric(name, unit, value, len(values), problems=problems)
    if len(known) < LEAST_UNITS:
        few = Reason.of(ReasonCode.FEW_UNITS, count=len(known), least=LEAST_UNITS)
        return Metric(name, unit, value, len(known), problems=problems or (few,))
    odd, even = known[1::2], known[::2]
    floor = floor_of(resample_median(odd, seed=-seed), resample_median(even, seed=-seed - 1))
    return Metric(name, unit, value, len(known), resample_median(known, seed=seed), floor, problems)


def floor_of(odd: Resampled, even: Resampled) -> float | None:
    """Return the far end of the ratio of the odd units to the even ones, as a share."""
    same = ratio_of(even, odd, 0)
    return None if same is None else noise_floor(same)


def tail_problems(times: Histogram, percent: float) -> tuple[Reason, ...]:
    """Return why a percentile is not to be believed, empty where it is."""
    least = LIMITS["least_beyond"]
    is_short = times.beyond(percent) < least
    return (Reason.of(ReasonCode.FEW_BEYOND, least=least),) if is_short else ()


def doubts(figure: Figure) -> tuple[Reason, ...]:
    """Return why a figure is void or a lower bound, each with its verdict; empty where it is ok."""
    if figure.verdict not in {Verdict.VOID, Verdict.AT_LEAST}:
        return ()
    reasons = figure.reasons or (Reason.of(ReasonCode.OTHER, text="no reason given"),)
    return tuple(
        replace(reason, subject=": ".join(filter(None, (figure.verdict, reason.subject))))
        for reason in reasons
    )

"""A figure of one result that another result's can be held against (no I/O)."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.pair_statistics import noise_floor
from capnp_rig.loadtest.stats.resampling import LEAST_UNITS, Resampled, ratio_of, resample_median
from capnp_rig.loadtest.stats.run_summary import LIMITS


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of one result; `n` is the number of its units.

    `resampled` and `floor`, the far end of its A/A ratio as a share, are None where they cannot
    be had; `problem` says why, or why they should not be believed.
    """

    name: str
    unit: str
    value: float | None
    n: int
    resampled: Resampled | None = None
    floor: float | None = None
    problem: str = ""

    @property
    def is_higher_better(self) -> bool:
        """Whether more is better: of rates."""
        return self.unit == "calls/s"


def metric_of_values(
    name: str, unit: str, values: Sequence[float | None], seed: int, problem: str = ""
) -> Metric:
    """Return the metric that has a value per unit and is their median."""
    known = [value for value in values if value is not None]
    value = median(known) if known else None
    if len(known) < len(values):
        return Metric(name, unit, value, len(values), problem=problem or "not measured everywhere")
    if len(known) < LEAST_UNITS:
        problem = problem or f"{len(known)} measured, at least {LEAST_UNITS}"
        return Metric(name, unit, value, len(known), problem=problem)
    odd, even = known[1::2], known[::2]
    floor = floor_of(resample_median(odd, seed=-seed), resample_median(even, seed=-seed - 1))
    return Metric(name, unit, value, len(known), resample_median(known, seed=seed), floor, problem)


def floor_of(odd: Resampled, even: Resampled) -> float | None:
    """Return the far end of the ratio of the odd units to the even ones, as a share."""
    same = ratio_of(even, odd, 0)
    return None if same is None else noise_floor(same)


def tail_problem(times: Histogram, percent: float) -> str:
    """Return why a percentile is not to be believed, empty where it is."""
    least = LIMITS["least_beyond"]
    return f"under {least:g} calls beyond it" if times.beyond(percent) < least else ""

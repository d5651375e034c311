from itertools import islice, pairwise
from math import inf, nan

import pytest

from loadtest.schedule import Arrivals, due_offsets_ns


def test_fixed_arrivals_keep_their_distance_without_drift() -> None:
    found = list(islice(due_offsets_ns(3, Arrivals.FIXED, seed=0), 4))
    assert found == [0, 333_333_333, 666_666_667, 1_000_000_000]


def test_poisson_arrivals_have_the_rate_and_depend_on_the_seed_alone() -> None:
    first = list(islice(due_offsets_ns(1000, Arrivals.POISSON, seed=7), 20_000))
    again = list(islice(due_offsets_ns(1000, Arrivals.POISSON, seed=7), 20_000))
    other = list(islice(due_offsets_ns(1000, Arrivals.POISSON, seed=8), 20_000))
    assert first == again != other
    assert first == sorted(first)
    # 20,000 gaps of 1 ms: the mean is within 3 standard errors, 2.1 %.
    assert first[-1] / 20_000 == pytest.approx(1e6, rel=0.021)
    gaps = [after - before for before, after in pairwise(first)]
    # Exponential: as wide as its mean, and a third of the gaps are over it.
    assert sum(gap > 1e6 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.02)


@pytest.mark.parametrize("rate_hz", [0, -1, inf, nan])
def test_a_rate_that_is_none_is_refused(rate_hz: float) -> None:
    with pytest.raises(ValueError, match="the rate must be positive"):
        due_offsets_ns(rate_hz, Arrivals.FIXED, seed=0)

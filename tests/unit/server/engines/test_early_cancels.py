import pytest

from capnp_rig.server.engines.early_cancels import EarlyCancels


def closes_at(pairs: int, *, age_s: float = 0.0, good: int = 0) -> int | None:
    """Return after how many calls that are cancelled at `age_s` the connection is closed."""
    cancels = EarlyCancels()
    cancels.count(good)
    for number in range(1, pairs + 1):
        cancels.count()
        if cancels.cancelled(age_s):
            return number
    return None


def test_d7_a_peer_that_cancels_all_it_starts_is_closed_at_500_calls() -> None:
    assert closes_at(10_000) == 500


def test_d7_calls_cancelled_after_a_second_are_no_flood() -> None:
    assert closes_at(10_000, age_s=1.0) is None


@pytest.mark.parametrize("good", [1_000, 1_000_000])
def test_d7_a_good_past_is_forgotten(good: int) -> None:
    assert closes_at(10_000, good=good) < 2_000


def test_d7_half_of_the_calls_may_be_cancelled_early() -> None:
    cancels = EarlyCancels()
    for _ in range(10_000):
        cancels.count(2)
        assert not cancels.cancelled(0.0)


def test_d7_9_500_calls_with_515_past_a_short_deadline_are_an_ordinary_client() -> None:
    cancels = EarlyCancels()
    for number in range(9_500):
        cancels.count()
        if number % 18 == 0:
            assert not cancels.cancelled(0.03)

from itertools import count, islice

import pytest

from capnp_rig.loadtest.locust_rig.process_share import ProcessShare, share_of


def test_the_shares_of_a_run_count_past_each_other() -> None:
    # Three processes from the start, and two that join later.
    shares = [share_of(number, 3, 100) for number in range(5)]
    users = [set(islice(count(share.first_user, share.step), 1000)) for share in shares]
    calls = [set(islice(count(share.first_call, share.step), 1000)) for share in shares]
    assert len(set.union(*users)) == len(set.union(*calls)) == 5000
    # Those from the start leave no gaps.
    assert set.union(*users[:3]) == set.union(*calls[:3]) == set(range(3000))
    # A text's nonce has room for 32 bits of the user's number.
    assert max(set.union(*users)) < 2**32


def test_the_only_process_has_all() -> None:
    assert share_of(0, 1, 7) == ProcessShare(users=7, number=0, step=1, first_user=0, first_call=0)


@pytest.mark.parametrize(
    ("users", "here", "rate_hz"),
    [(10, 0, 0), (10, 1, 50), (10, 4, 200), (10, 10, 500), (10, 12, 500), (0, 0, 0)],
)
def test_the_rate_is_that_of_the_users_here(users: int, here: int, rate_hz: float) -> None:
    assert ProcessShare(users).rate_hz(500, here) == rate_hz

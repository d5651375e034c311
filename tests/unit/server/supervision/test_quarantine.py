import pytest

from capnp_rig.server.supervision.quarantine import Quarantine, is_suspect


def test_a16_the_second_death_within_a_minute_is_one_too_many() -> None:
    quarantine = Quarantine()
    assert not quarantine.blame("127.0.0.2", 100.0)
    assert quarantine.rest_s("127.0.0.2", 100.0) is None
    assert quarantine.blame("127.0.0.2", 159.9)
    assert quarantine.rest_s("127.0.0.2", 160.0) == pytest.approx(59.9)
    assert quarantine.rest_s("127.0.0.3", 160.0) is None
    assert quarantine.rest_s("127.0.0.2", 219.9) is None


def test_a16_deaths_a_minute_apart_do_not_add_up() -> None:
    quarantine = Quarantine()
    for time_s in (0.0, 60.0, 120.0):
        assert not quarantine.blame("a", time_s)


def test_a16_a_death_after_the_quarantine_counts_anew() -> None:
    quarantine = Quarantine()
    quarantine.blame("a", 0.0)
    quarantine.blame("a", 1.0)
    assert not quarantine.blame("a", 61.0)
    assert quarantine.blame("a", 62.0)


def test_what_is_over_is_forgotten() -> None:
    quarantine = Quarantine()
    for number in range(1000):
        quarantine.blame(str(number), float(number))
    assert len(quarantine._deaths_s) <= 61


@pytest.mark.parametrize(
    ("reads", "was_killed", "suspect"),
    [(1, True, True), (16, True, True), (17, True, False), (17, False, True), (1, False, True)],
)
def test_a16_a_busy_connection_is_not_to_blame_for_an_operators_kill(
    reads: int, *, was_killed: bool, suspect: bool
) -> None:
    assert is_suspect(reads, was_killed=was_killed) is suspect

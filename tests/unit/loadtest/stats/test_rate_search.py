"""A search is driven against servers whose capacity is known."""

import math
import random
from collections import Counter
from collections.abc import Callable

import pytest

from capnp_rig.loadtest.stats.rate_search import MOST_PROBES, Answer, Probe, Purpose, RateSearch
from capnp_rig.loadtest.stats.slo import Outcome

Server = Callable[[Probe], bool]


def drive(
    holds: Server,
    start: float = 1000,
    highest: float = 1e6,
    *,
    lowest: float = 1.0,
    seed: int = 1,
    tries_highest: bool = False,
    failing: Outcome = Outcome.FAILED,
) -> tuple[Answer, list[Probe]]:
    search = RateSearch(start, highest, seed=seed, lowest_hz=lowest, tries_highest=tries_highest)
    probes: list[Probe] = []
    while (probe := search.next_probe()) is not None:
        probes.append(probe)
        assert len(probes) <= MOST_PROBES
        search.add(probe, Outcome.HELD if holds(probe) else failing)
    return search.answer(), probes


def up_to(capacity: float) -> Server:
    return lambda probe: probe.rate_hz <= capacity


def noisy(capacity: float, seed: int, *, spread: float, disturbed: float) -> Server:
    """Return a server that is at its limit at `capacity`, give or take `spread`.

    Whatever the rate, a share `disturbed` of the probes fails.
    """
    rng = random.Random(seed)

    def holds(probe: Probe) -> bool:
        limit = capacity * math.exp(rng.gauss(0, spread))
        return probe.rate_hz <= limit and rng.random() >= disturbed

    return holds


def assert_near(answer: Answer, capacity: float, within: float = 1.05) -> None:
    assert answer.rate_hz is not None
    assert answer.failing_hz is not None
    assert answer.rate_hz < answer.failing_hz <= answer.rate_hz * 1.05
    assert capacity / within <= answer.rate_hz <= capacity * within
    assert answer.failing_hz <= capacity * within


@pytest.mark.parametrize("capacity", [3.0, 999.0, 1000.0, 1001.0, 54_321.0, 987_654.0])
def test_a_search_comes_within_five_percent(capacity: float) -> None:
    answer, probes = drive(up_to(capacity))
    assert_near(answer, capacity)
    assert answer.rate_hz is not None
    assert answer.failing_hz is not None
    assert answer.rate_hz <= capacity < answer.failing_hz
    assert (answer.limit, answer.verified) == ("server", 5)
    assert all(len(outcomes) >= 3 for outcomes in answer.outcomes.values())
    assert len(probes) <= 61


@pytest.mark.parametrize("capacity", [700.0, 33_333.0, 250_000.0])
def test_a_search_of_a_noisy_server_comes_within_five_percent(capacity: float) -> None:
    counts = []
    for seed in range(40):
        answer, probes = drive(noisy(capacity, seed, spread=0.01, disturbed=0.03), seed=seed)
        assert_near(answer, capacity, within=1.06)
        counts.append(len(probes))
    assert max(counts) <= 120, sorted(counts)


def test_after_a_failed_verification_it_goes_on_just_below() -> None:
    # The highest rate that holds at first does so three times only.
    answer, probes = drive(
        lambda probe: (
            probe.rate_hz <= 3000 or (probe.rate_hz <= 4000 and probe.purpose is not Purpose.VERIFY)
        )
    )
    assert_near(answer, 3000)
    assert answer.rate_hz is not None
    assert 3000 / 1.05 <= answer.rate_hz <= 3000
    assert len(probes) <= 110


def test_a_rate_that_fails_by_chance_does_not_hide_those_above() -> None:
    seen: Counter[float] = Counter()

    def holds(probe: Probe) -> bool:
        seen[probe.rate_hz] += 1
        is_first = probe.rate_hz == 4000 and seen[probe.rate_hz] == 1
        return probe.rate_hz <= 54_321 and not is_first

    answer, _ = drive(holds)
    assert_near(answer, 54_321)


def test_a_search_starts_from_the_ends_that_were_given() -> None:
    answer, probes = drive(up_to(54_321), 50_000, 60_000, tries_highest=True)
    assert [probe.rate_hz for probe in probes[:3]] == [50_000, 60_000, 54_800]
    assert_near(answer, 54_321)
    assert len(probes) <= 30


def test_a_start_that_fails_is_halved() -> None:
    answer, probes = drive(up_to(700), 2000, 9000, tries_highest=True)
    assert [probe.rate_hz for probe in probes[:3]] == [2000, 1000, 500]
    assert_near(answer, 700)


def test_what_failed_on_a_disturbed_machine_is_made_again() -> None:
    """Every second probe is disturbed, and fails: as if it had not been made."""
    quiet, _ = drive(up_to(54_321))
    search = RateSearch(1000, 1e6, seed=1)
    seen: Counter[float] = Counter()
    while (probe := search.next_probe()) is not None:
        seen[probe.rate_hz] += 1
        is_disturbed = seen[probe.rate_hz] % 2 and seen[probe.rate_hz] < 7
        holds = Outcome.HELD if probe.rate_hz <= 54_321 else Outcome.FAILED
        search.add(probe, Outcome.DISTURBED if is_disturbed else holds)
    answer = search.answer()
    assert (answer.rate_hz, answer.failing_hz) == (quiet.rate_hz, quiet.failing_hz)
    assert answer.limit == "server"


def test_a_search_that_ends_before_a_rate_failed_has_no_limit() -> None:
    search = RateSearch(1000, 4000, seed=1)
    for rate in (None, 1000, 2000, 4000):
        if rate is not None:
            probe = search.next_probe()
            assert probe is not None
            assert probe.rate_hz == rate
            search.add(probe, Outcome.HELD)
        answer = search.answer()
        assert (answer.rate_hz, answer.failing_hz) == (None, None)
        assert answer.limit == ("search" if rate == 4000 else "unknown")


def test_where_all_holds_the_answer_is_the_highest_rate() -> None:
    answer, probes = drive(up_to(1e9), highest=20_000)
    assert (answer.rate_hz, answer.failing_hz, answer.limit) == (20_000, None, "search")
    assert Counter(probe.rate_hz for probe in probes) == {
        **dict.fromkeys([1000.0, 2000.0, 4000.0, 8000.0, 16_000.0], 3),
        20_000.0: 8,
    }


def test_where_nothing_holds_there_is_no_answer() -> None:
    answer, probes = drive(up_to(0), 200, lowest=84)
    assert (answer.rate_hz, answer.failing_hz, answer.limit) == (None, 84, "server")
    assert Counter(probe.rate_hz for probe in probes) == {200: 3, 100: 3, 84: 3}


def test_a_server_that_gets_worse_with_each_verification_ends_the_search() -> None:
    capacity = 1e6

    def holds(probe: Probe) -> bool:
        nonlocal capacity
        if probe.purpose is Purpose.VERIFY:
            capacity = min(capacity, probe.rate_hz * 0.99)
        return probe.rate_hz <= capacity

    answer, probes = drive(holds)
    assert answer.rate_hz is None
    assert len(probes) <= 110


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_server_that_fails_at_random_ends_the_search(share: float) -> None:
    for seed in range(20):
        rng = random.Random(seed)
        drive(lambda _probe, rng=rng: rng.random() < share, seed=seed)


@pytest.mark.parametrize(
    ("failing", "limit"),
    [
        (Outcome.FAILED, "server"),
        (Outcome.GENERATOR, "generator"),
        (Outcome.DISTURBED, "machine"),
    ],
)
def test_who_was_the_limit_is_named(failing: Outcome, limit: str) -> None:
    answer, _ = drive(up_to(5000), failing=failing)
    assert answer.limit == limit


def test_what_is_left_is_known_once_the_bracket_is_closed() -> None:
    _, probes = drive(up_to(54_321))
    # While the rate doubles, it is not known how often it will.
    closed = next(at for at, probe in enumerate(probes) if probe.purpose is Purpose.REPEAT)
    lefts = [probe.left for probe in probes[closed:]]
    assert lefts == list(range(len(lefts), 0, -1))

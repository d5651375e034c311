import pytest

from capnp_rig.server.supervision.restarts import Brake, FirstStarts


def delays_s(*served_s: float | None) -> list[float]:
    brake, found = Brake(), []
    for each in served_s:
        brake = brake.ended(each)
        found.append(brake.delay_s)
    return found


def failed_at(*times_s: float) -> FirstStarts:
    state = FirstStarts()
    for time_s in times_s:
        state = state.failed(time_s)
    return state


def test_a3_the_delay_after_failed_starts_doubles_up_to_five_seconds() -> None:
    assert delays_s(*[None] * 9) == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5])


def test_a16_workers_that_die_soon_are_braked_from_the_second_on() -> None:
    assert delays_s(*[0.3] * 9) == pytest.approx([0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5])


def test_a1_a_worker_that_served_is_replaced_at_once_and_ends_the_delays() -> None:
    assert delays_s(None, None, 10.0, None) == pytest.approx([0.1, 0.2, 0, 0.1])
    assert delays_s(0.3, 0.3, 3600.0, 0.3, 9.9) == pytest.approx([0, 0.1, 0, 0, 0.1])


def test_a_failed_start_and_a_short_life_count_as_one_series() -> None:
    assert delays_s(0.3, None, 0.3, None) == pytest.approx([0, 0.1, 0.2, 0.4])


@pytest.mark.parametrize(
    ("times_s", "give_up"),
    [
        ([], False),
        ([0, 1, 2, 3], False),
        ([0, 1, 2, 3, 9.9], True),
        ([0, 1, 2, 3, 10.0], False),
        ([0, 1, 2, 3, 10.0, 10.5], True),
        ([0, 5, 10, 15, 20, 25], False),
    ],
)
def test_a3_five_failed_starts_in_ten_seconds_end_a_server_that_never_was_ready(
    times_s: list[float], *, give_up: bool
) -> None:
    assert failed_at(*times_s).give_up is give_up


def test_a3_a_server_that_was_ready_once_never_gives_up() -> None:
    state = failed_at(0, 1, 2).succeeded()
    for time_s in range(3, 40):
        state = state.failed(time_s)
        assert not state.give_up

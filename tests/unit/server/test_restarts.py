import pytest

from server.restarts import StartFailures


def failed_at(*times_s: float) -> StartFailures:
    state = StartFailures()
    for time_s in times_s:
        state = state.failed(time_s)
    return state


@pytest.mark.parametrize(
    ("in_a_row", "delay_s"),
    [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8), (6, 3.2), (7, 5.0), (50, 5.0)],
)
def test_the_delay_doubles_up_to_five_seconds(in_a_row: int, delay_s: float) -> None:
    assert StartFailures(in_a_row=in_a_row).delay_s == pytest.approx(delay_s)


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
def test_a3_five_failed_starts_in_ten_seconds_end_the_server(
    times_s: list[float], *, give_up: bool
) -> None:
    assert failed_at(*times_s).give_up is give_up


def test_a_good_start_resets_the_delay_and_keeps_the_count() -> None:
    state = failed_at(0, 1, 2).succeeded()
    assert state.delay_s == 0.0
    assert state.failed(3).delay_s == pytest.approx(0.1)
    assert state.failed(3).failed(4).give_up

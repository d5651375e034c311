"""What the Locust users need of a tally beside the engine."""

from capnp_rig.loadtest.stats.tally import Tally


def test_who_wants_to_know_is_told_of_each_call_once() -> None:
    told: list[tuple[int, int, int]] = []
    tally = Tally(open_ns=0)
    timer = tally.timer("a", told.extend)
    other = tally.timer("b")
    for number in range(1500):
        timer.record(number, number, number + 1)
        other.record(number, number, number + 1)
    # In bulk, as it comes; and the rest when it is asked for, or reported.
    assert 0 < len(told) < 1500
    timer.flush()
    assert told == [(number, number, number + 1) for number in range(1500)]
    tally.take()
    assert len(told) == 1500


def test_time_spent_waiting_for_the_next_call_is_no_work() -> None:
    tally = Tally(open_ns=0, is_open_loop=True)
    tally.spun_ns = 300
    assert tally.take(cpu_ns=1000).cpu_ns == 700
    assert tally.take(cpu_ns=1000).cpu_ns == 1000
    # It is measured by the wall clock, and may be more than the CPU time.
    tally.spun_ns = 2000
    assert tally.take(cpu_ns=1000).cpu_ns == 0

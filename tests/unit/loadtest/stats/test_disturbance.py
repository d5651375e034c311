from dataclasses import replace

import pytest

from capnp_rig.loadtest.stats.disturbance import (
    GENERATOR,
    SERVER,
    OtherProcess,
    ProcessWindow,
    Surroundings,
    busiest_others,
    disturbances,
    idleness,
    pooled,
    process_windows,
)
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.process_use import KernelCounts, ThreadSums, Usage
from capnp_rig.loadtest.stats.reasons import ReasonCode, codes_of, text_of

QUIET = KernelCounts(0.01, 5, 0, 0, 0.0)
CALM = Surroundings(
    (
        ProcessWindow(SERVER, "worker 0", 11, 10.0, 9.8, QUIET),
        ProcessWindow(GENERATOR, "engine 0", 12, 10.0, 6.0, QUIET),
    ),
    (OtherProcess("cron", 1, 0.01),),
    in_flight=64,
)


def beside(
    wait_s: float | None = 0.01, *, throttles: int = 0, cpu_s: float = 9.8, seconds: float = 10.0
) -> Surroundings:
    """Return a window whose worker waited so long for a CPU."""
    kernel = KernelCounts(wait_s, 5, 0, throttles, throttles * 0.05)
    worker = ProcessWindow(SERVER, "worker 0", 11, seconds, cpu_s, kernel)
    return replace(CALM, processes=(worker, CALM.processes[1]))


def test_a_quiet_machine_disturbs_nothing() -> None:
    assert list(disturbances([CALM, CALM])) == []


@pytest.mark.parametrize(
    ("window", "is_disturbed"),
    [
        (beside(0.49), False),
        (beside(0.51), True),
        # A slice of another process, in a window that is hardly longer, is no pattern.
        (beside(0.009, seconds=0.05), False),
        (beside(0.011, seconds=0.05), True),
        # Nothing is claimed of what is not readable.
        (beside(None), False),
    ],
)
def test_a_process_that_waits_for_a_cpu_is_disturbed(
    window: Surroundings, is_disturbed: bool
) -> None:
    codes = codes_of(disturbances([CALM, window]))
    assert codes == ({ReasonCode.CPU_WAIT} if is_disturbed else set())


def test_the_culprits_are_named_by_their_cpu_time() -> None:
    others = (OtherProcess("loop", 77, 0.98), OtherProcess("make", 78, 0.5), CALM.others[0])
    assert text_of(disturbances([replace(beside(2.0), others=others)])) == (
        "server worker 0 waited 20.0% of the time for a CPU, over 5%: "
        "loop (pid 77) used 98% of one, make (pid 78) used 50% of one"
    )


def test_without_a_culprit_the_processes_of_the_run_share_the_cpus() -> None:
    (reason,) = disturbances([beside(2.0)])
    assert "those of the run share the CPUs" in reason.text


def test_a_throttled_process_is_disturbed_however_short_it_was() -> None:
    (reason,) = disturbances([CALM, beside(throttles=3)])
    assert reason.code is ReasonCode.THROTTLED
    assert reason.text == "server worker 0 was throttled by its cgroup 3 times, for 0.15 s"


def test_processes_are_those_of_both_readings() -> None:
    before = [Usage("worker 0", 11, 5.0, 1, None, KernelCounts(1.0, 10, 2)), Usage("gone", 9, 1, 1)]
    after = [Usage("worker 0", 11, 9.0, 1, None, KernelCounts(1.5, 14, 2)), Usage("new", 8, 1, 1)]
    (window,) = process_windows(SERVER, before, after, 8.0)
    assert window == ProcessWindow(SERVER, "worker 0", 11, 8.0, 4.0, KernelCounts(0.5, 4, 0))
    assert (window.busy, window.wait_share) == (0.5, 0.0625)


def test_others_are_sorted_and_processes_of_the_run_left_out() -> None:
    # The second 7 is another process, given the pid of one that ended.
    before = {(7, 100): 5.0, (8, 100): 50.0, (9, 100): 0.0}
    after = {
        (7, 100): ("old", 5.5),
        (7, 900): ("new", 2.0),
        (8, 100): ("idle", 50.0),
        (9, 100): ("server", 9.0),
    }
    assert busiest_others(before, after, own=[9], seconds=10.0) == (
        OtherProcess("new", 7, 0.2),
        OtherProcess("old", 7, 0.05),
    )


def test_a_bench_judges_its_rounds_together() -> None:
    one_bad_round = pooled([CALM] * 11 + [beside(2.0)])
    assert [window.seconds for window in one_bad_round.processes] == [120, 120]
    assert list(disturbances([one_bad_round])) == []
    assert codes_of(disturbances([pooled([CALM, beside(2.0)])])) == {ReasonCode.CPU_WAIT}
    assert pooled([CALM, beside(None)]).processes[0].kernel.wait_s is None


# --- a closed loop in which nobody is busy -----------------------------------------------------

# 64 calls in flight, 16,000 a second: 4 ms a call.
RATE = 16_000.0
STOPPED = Histogram.of([2_400_000] * 900 + [18_400_000] * 100)
SLEPT = Histogram.of([3_900_000] * 500 + [4_100_000] * 500)


def _idle(paused: float, server_cpu_s: float = 5.7) -> Surroundings:
    return replace(beside(0.01, cpu_s=server_cpu_s), paused=paused)


def test_idle_sides_that_nothing_explains_are_void() -> None:
    reason = idleness(_idle(0.3), STOPPED, RATE)
    assert reason is not None
    assert reason.text == (
        "neither the server (57% busy) nor the generator (60%) was busy, and for 30% of the time "
        "none of 64 calls in flight was answered: a process was stopped, or the service stops all "
        "at once"
    )


@pytest.mark.parametrize(
    ("window", "service", "calls_per_s"),
    [
        # The service lets all of its calls wait alike, as one that answers many at once.
        (_idle(0.3), SLEPT, RATE),
        # A side is busy.
        (_idle(0.3, server_cpu_s=9.1), STOPPED, RATE),
        # Some calls wait long, and others are answered meanwhile.
        (_idle(0.04), STOPPED, RATE),
        # Calls were not always in flight, as those of users who think in between.
        (_idle(0.3), STOPPED, RATE / 4),
        # An open loop has no such rule, nor a server that is elsewhere.
        (replace(_idle(0.3), in_flight=None), STOPPED, RATE),
        (replace(_idle(0.3), processes=_idle(0.3).processes[1:]), STOPPED, RATE),
        (_idle(0.3), Histogram(), RATE),
    ],
)
def test_idle_sides_that_something_explains_are_good(
    window: Surroundings, service: Histogram, calls_per_s: float
) -> None:
    assert idleness(window, service, calls_per_s) is None


def test_calls_that_a_busy_generator_has_in_hand_are_in_flight_all_the_same() -> None:
    # A server that is stopped for 200 ms of each second, under 64 calls that go to and fro
    # together: 14 % of them are in hand, by Little's law.
    server = ProcessWindow(SERVER, "worker 0", 11, 10.0, 5.7, QUIET)
    engine = ProcessWindow(GENERATOR, "engine 0", 12, 10.0, 2.8, QUIET)
    window = replace(_idle(0.2), processes=(server, engine))
    assert idleness(window, STOPPED, 0.86 * RATE) is not None
    assert idleness(window, STOPPED, 0.6 * RATE) is None


# --- what the kernel counts per thread ---------------------------------------------------------


def test_a_thread_that_ends_takes_nothing_away() -> None:
    sums = ThreadSums()
    assert sums.add({}) is None
    assert sums.add({1: 100, 2: 50}) == 150
    assert sums.add({1: 110}) == 160
    # An older look that comes late takes nothing away either.
    assert sums.add({1: 105, 2: 49}) == 160
    assert sums.add({1: 120, 3: 9}) == 179


def test_counts_that_one_reading_has_not_are_none() -> None:
    assert KernelCounts(2.0, 7).since(KernelCounts(0.5, None)) == KernelCounts(1.5)
    assert KernelCounts.total([KernelCounts(2.0, 7), KernelCounts(1.0)]) == KernelCounts(3.0)

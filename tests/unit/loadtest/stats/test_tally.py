import json

import pytest

from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.tally import (
    WARMUP,
    PackedWindows,
    Report,
    Tally,
    Times,
    Window,
    add,
    add_windows,
)
from capnp_rig.objects.errors import Disconnected, RemoteError

READ = "ReverseUser MessageStream.read"
SECOND = 10**9


def _report(times_ns: list[int], *, final: bool = True, start_ns: int = SECOND) -> Report:
    tally = Tally(open_ns=0)
    record = tally.timer(READ).record
    for number, time_ns in enumerate(times_ns):
        sent_ns = start_ns + number * 10_000
        record(sent_ns, sent_ns, sent_ns + time_ns)
    return tally.take(cpu_ns=1_000, final=final)


def test_reports_add_up_to_what_one_process_would_have_seen() -> None:
    total = add(add(_report([5_000, 6_000], final=False), _report([7_000])), _report([8_000]))
    assert total.calls == 4
    assert total.total.calls[READ].service == Histogram.of([5_000, 6_000, 7_000, 8_000])
    assert total.cpu_ns == 3_000
    assert total.final


def test_an_open_loop_keeps_three_clocks() -> None:
    tally = Tally(open_ns=0, is_open_loop=True)
    tally.timer(READ).record(1_000, 4_000, 11_000)
    times = tally.take().total.times
    assert times.response == Histogram.of([10_000])
    assert times.service == Histogram.of([7_000])
    assert times.lateness == Histogram.of([3_000])


def test_who_settles_has_its_calls_binned_then_and_no_later_than_at_4096() -> None:
    told: list[int] = []
    tally = Tally(open_ns=0)
    timer = tally.timer(READ, lambda calls: told.append(len(calls)), is_settled=True)
    for number in range(5_000):
        timer.record(number, number, number + 1)
        if number in (126, 127):
            timer.settle()
    assert told == [128, 4096]
    assert tally.take().calls == 5_000


def test_a_closed_loop_keeps_one() -> None:
    times = _report([5_000]).total.times
    assert (times.service.count, times.response.count, times.lateness.count) == (1, 0, 0)


# Clocks near 0, in the middle of a second, across its edge, and of a host that is up for 31 years.
CLOCKS_NS = [0, 400_000_000, SECOND - 1, SECOND, 7 * SECOND - 300_000_000, 10**9 * SECOND + 1]


@pytest.mark.parametrize("booted_ns", CLOCKS_NS)
@pytest.mark.parametrize("warm_calls", [0, 1, 9, 30])
def test_seconds_count_from_the_opening_whatever_the_clock(booted_ns: int, warm_calls: int) -> None:
    # As an engine does it: connected, then opened, then loaded, with ten calls a second.
    tally, tenth_ns = Tally(), SECOND // 10
    record = tally.timer(READ).record
    tally.connected(booted_ns, booted_ns + 1_000, again=False)
    tally.failed(READ, booted_ns, booted_ns + 2_000, Disconnected("gone"))
    open_ns = booted_ns + tenth_ns * (warm_calls + 1)
    tally.open(open_ns)
    for number in range(-warm_calls, 30):
        sent_ns = open_ns + number * tenth_ns
        record(sent_ns, sent_ns, sent_ns + 1_000)
    report = tally.take()
    in_seconds = {second: window.answered for second, window in report.windows.items()}
    assert in_seconds.pop(WARMUP, 0) == warm_calls
    assert in_seconds == {0: 10, 1: 10, 2: 10}
    assert report.windows[0].failed == report.windows[0].connects.count == 1
    assert report.first_ns == open_ns


@pytest.mark.parametrize("open_ns", CLOCKS_NS)
def test_a_second_ends_where_the_next_one_begins(open_ns: int) -> None:
    tally = Tally(open_ns=open_ns)
    record = tally.timer(READ).record
    for received_ns in (0, SECOND - 1, SECOND, 2 * SECOND - 1, 2 * SECOND):
        record(open_ns, open_ns, open_ns + received_ns)
    windows = tally.take().windows
    assert {second: window.answered for second, window in windows.items()} == {0: 2, 1: 2, 2: 1}


def test_before_the_window_is_opened_every_call_is_warm_up() -> None:
    tally = Tally()
    tally.timer(READ).record(SECOND, SECOND, 3 * SECOND)
    assert list(tally.take().windows) == [WARMUP]


def test_a_window_opens_once() -> None:
    tally = Tally(open_ns=SECOND)
    with pytest.raises(AssertionError):
        tally.open(2 * SECOND)


def test_calls_lie_in_the_second_of_their_answer() -> None:
    tally = Tally(open_ns=10 * SECOND)
    record = tally.timer(READ).record
    for sent_s, received_s in ((10.0, 10.5), (10.6, 10.9), (10.7, 11.0), (12.9, 13.1)):
        sent_ns = round(sent_s * SECOND)
        record(sent_ns, sent_ns, round(received_s * SECOND))
    windows = tally.take().windows
    assert {second: window.answered for second, window in windows.items()} == {0: 2, 1: 1, 3: 1}


def test_what_was_due_before_the_window_opened_is_the_warm_up() -> None:
    tally = Tally(open_ns=10 * SECOND, is_open_loop=True)
    record = tally.timer(READ).record
    record(9 * SECOND, 9 * SECOND, 9 * SECOND + 2_000)
    record(10 * SECOND, 10 * SECOND, 10 * SECOND + 1_000)
    # Answered in the window, but due before it; and not the first of its batch.
    record(9 * SECOND, 10 * SECOND, 10 * SECOND + 3_000)
    report = tally.take()
    assert report.calls == 1
    assert report.windows[WARMUP].answered == 2
    assert report.total.times.response == Histogram.of([1_000])
    assert tally.answered == 3


def test_a_report_is_given_away_once() -> None:
    tally = Tally(open_ns=0, is_open_loop=True)
    tally.timer(READ).record(0, 0, 5_000)
    tally.failed(READ, 0, 5_000, Disconnected("gone"))
    tally.unfinished, tally.scheduled, tally.held = 3, 5, 2
    first, second = tally.take(), tally.take()
    assert (first.calls, first.total.failures) == (1, {"Disconnected: gone": 1})
    assert (first.unfinished, first.scheduled, first.held) == (3, 5, 2)
    assert (second.calls, second.windows, second.unfinished) == (0, {}, 0)
    assert (second.scheduled, second.held) == (0, 0)


def test_failed_calls_are_timed_apart() -> None:
    tally = Tally(open_ns=0)
    tally.failed(READ, 0, 5_000, Disconnected("gone"))
    report = tally.take()
    assert report.calls == 0
    assert report.total.calls[READ] == Times(failed=Histogram.of([5_000]))


def test_connects_and_reconnects_are_counted_and_timed_apart() -> None:
    tally = Tally(open_ns=0)
    tally.connected(0, 2_000, again=False)
    tally.connected(5_000, 8_000, again=True)
    total = tally.take().total
    assert total.connects == Histogram.of([2_000])
    assert total.reconnects == Histogram.of([3_000])
    assert total.answered == 0


def test_reasons_with_numbers_do_not_fill_the_table() -> None:
    tally = Tally(open_ns=0)
    for number in range(1_000):
        error = RemoteError(f"internal error {number}\nTraceback of {number}")
        short = tally.failed(READ, 0, 1, error)
        assert "\n" not in str(short)
        assert isinstance(short, RemoteError)
    failures = tally.take().total.failures
    assert len(failures) == 17
    assert failures["RemoteError: (other reasons)"] == 1_000 - 16


def test_the_window_goes_from_the_first_sending_to_the_last_answer() -> None:
    report = _report([10_000] * 100)
    assert (report.first_ns, report.last_ns) == (SECOND, SECOND + 1_000_000)


def test_packed_windows_are_what_was_put_in() -> None:
    packed, window = PackedWindows(), _report([5_000]).windows[1]
    packed.add(3, window)
    packed.add(3, window)
    assert dict(packed) == {3: add_windows([window, window])}
    del packed[3]
    assert not packed


@pytest.mark.parametrize("count", [0, 1, 2_000])
def test_a_report_survives_json(count: int) -> None:
    report = _report([5_000] * count)
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_windows_add_up_label_by_label() -> None:
    one = Window({"a": Times(Histogram.of([5_000]))}, failures={"x": 1})
    other = Window({"a": Times(Histogram.of([6_000])), "b": Times(Histogram.of([7_000]))})
    both = add_windows([one, other, one])
    assert both.calls["a"].service == Histogram.of([5_000, 5_000, 6_000])
    assert both.times.service.count == both.answered == 4
    assert both.failures == {"x": 2}


def _paused_ns(gaps_us: list[int], in_flight: int) -> int:
    """Record a call after each gap, and return how long all of them waited."""
    tally = Tally(open_ns=0, in_flight=in_flight)
    record = tally.timer("read").record
    now_ns = 1
    for gap_us in gaps_us:
        now_ns += gap_us * 1000
        record(now_ns - 1, now_ns - 1, now_ns)
    return tally.take(final=True).paused_ns


def test_times_in_which_all_calls_wait_are_added_up() -> None:
    # 20,000 answers a second, and twice nothing for 20 ms, in which 400 come else.
    stopped = ([50] * 1000 + [20_000]) * 2 + [50] * 100
    assert _paused_ns(stopped, in_flight=64) == 40_000_000
    # As many as are in flight come at once when a service answers all together.
    assert _paused_ns(([50] * 1000 + [2_000]) * 2, in_flight=64) == 0
    # So they do on one connection, where half of the rounds are longer than the mean.
    rounds = ([1_000] + [1] * 63 + [1_400] + [1] * 63) * 50
    assert _paused_ns(rounds, in_flight=64) == 0
    # A call that waits alone stops all that there are, or few of them.
    assert _paused_ns(stopped, in_flight=1) == 0
    assert _paused_ns([1] * 63 + ([20_000] + [1] * 63) * 50, in_flight=64) == 0

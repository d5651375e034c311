from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from capnp_rig.loadtest.engine.schedule import Arrivals, Pace
from capnp_rig.loadtest.locust_rig.call_pacer import CallPacer
from capnp_rig.loadtest.stats.tally import Tally

MS = 1_000_000


class FakeTimer:
    def __init__(self, delay_s: float) -> None:
        self.delay_ns = round(delay_s * 1e9)
        self.callback: Callable[[], None] | None = None

    def start(self, callback: Callable[[], None]) -> None:
        self.callback = callback

    def stop(self) -> None:
        self.callback = None


class FakeLoop:
    """Time goes on by the timers alone, and a millisecond is lost where they sleep."""

    SPIN_NS = 10_000
    LATE_NS = MS

    def __init__(self) -> None:
        self.now_ns = 0
        self.timers: list[FakeTimer] = []
        self.turns = 0

    def timer(self, delay_s: float) -> FakeTimer:
        self.timers.append(FakeTimer(delay_s))
        return self.timers[-1]

    def run(self, until_ns: int) -> None:
        while True:
            (timer,) = [each for each in self.timers if each.callback] or [None]
            late_ns = self.LATE_NS if timer and timer.delay_ns else self.SPIN_NS
            next_ns = until_ns if timer is None else self.now_ns + timer.delay_ns + late_ns
            if timer is None or next_ns > until_ns:
                self.now_ns = until_ns
                return
            self.now_ns = next_ns
            self.turns += 1
            callback, timer.callback = timer.callback, None
            assert callback is not None
            callback()


@dataclass
class FakeSender:
    sent: list[tuple[int, int]] = field(default_factory=list)
    flushed: int = 0

    def send(self, due_ns: int, now_ns: int) -> None:
        self.sent.append((due_ns, now_ns))

    def flush(self) -> None:
        self.flushed += 1

    # As an object: two senders that have sent the same are not one.
    __hash__ = object.__hash__


class Rig:
    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.tally = Tally(open_ns=0, is_open_loop=True)
        self.bugs: list[Exception] = []
        self.pacer = CallPacer(
            Pace(Arrivals.FIXED, seed=0),
            self.tally,
            bug=self.bugs.append,
            loop=self.loop,
            clock=lambda: self.loop.now_ns,
        )

    def offer(self, sender: FakeSender, slots: int) -> None:
        self.pacer.offer(sender, slots, self.loop.now_ns)


@pytest.mark.parametrize("rate_hz", [20, 300, 900, 50_000])
def test_calls_leave_when_they_are_due(rate_hz: int) -> None:
    rig, sender = Rig(), FakeSender()
    rig.offer(sender, 100_000)
    rig.pacer.set_rate(rate_hz)
    rig.loop.run(10**9 + FakeLoop.SPIN_NS)
    assert len(sender.sent) == rig.tally.scheduled == rate_hz
    # Not a millisecond too late: the pacer spins before they are due.
    assert max(now - due for due, now in sender.sent) <= FakeLoop.SPIN_NS
    assert rig.tally.held == 0


def test_it_sleeps_while_nothing_is_due_soon() -> None:
    rig = Rig()
    rig.offer(FakeSender(), 100)
    rig.pacer.set_rate(10)
    rig.loop.run(10**9)
    # 2 ms before each call in turns of 10 µs, and a few sleeps.
    assert rig.loop.turns < 10 * (200 + 10)
    # What was spun away is no work.
    assert 0 < rig.tally.spun_ns <= 10 * 2 * MS


def test_without_a_free_slot_calls_wait_and_keep_their_due_time() -> None:
    rig, sender = Rig(), FakeSender()
    rig.pacer.set_rate(1000)
    rig.loop.run(10 * MS)
    rig.offer(sender, 4)
    assert sender.sent == [(due_ms * MS, 10 * MS) for due_ms in (1, 2, 3, 4)]
    assert rig.tally.scheduled == rig.tally.held == 4
    # Nor is there any spinning for them.
    assert rig.loop.turns < 10
    rig.loop.run(20 * MS)
    # What became due since the pacer last looked goes with the rest.
    rig.loop.now_ns += 3 * MS
    rig.offer(sender, 100)
    assert [due for due, _ in sender.sent] == [due_ms * MS for due_ms in range(1, 24)]
    assert rig.tally.held == 23
    rig.loop.run(30 * MS)
    assert len(sender.sent) == 30
    assert rig.tally.held == 23


def test_slots_take_turns() -> None:
    rig = Rig()
    senders = [FakeSender(), FakeSender(), FakeSender()]
    for sender in senders:
        rig.offer(sender, 2)
    rig.pacer.set_rate(1000)
    rig.loop.run(4 * MS)
    assert [len(sender.sent) for sender in senders] == [2, 1, 1]
    # Whoever frees a slot waits until the others had their turn.
    rig.offer(senders[0], 2)
    rig.loop.run(6 * MS)
    assert [len(sender.sent) for sender in senders] == [2, 2, 2]
    rig.loop.run(8 * MS)
    assert [len(sender.sent) for sender in senders] == [4, 2, 2]


def test_all_that_is_due_leaves_with_one_write_per_sender() -> None:
    rig, sender = Rig(), FakeSender()
    rig.offer(sender, 1000)
    rig.pacer.set_rate(1_000_000)
    rig.loop.run(FakeLoop.SPIN_NS)
    assert (len(sender.sent), sender.flushed) == (10, 1)


def test_a_sender_that_is_withdrawn_gets_nothing() -> None:
    rig, gone, stays = Rig(), FakeSender(), FakeSender()
    rig.offer(gone, 3)
    rig.offer(stays, 3)
    rig.pacer.withdraw(gone)
    rig.pacer.set_rate(1000)
    rig.loop.run(5 * MS)
    assert (len(gone.sent), len(stays.sent)) == (0, 3)


def test_the_rate_may_change_and_stop() -> None:
    rig, sender = Rig(), FakeSender()
    rig.offer(sender, 10_000)
    for rate_hz in (1000, 2000, 0, 500):
        rig.pacer.set_rate(rate_hz)
        rig.loop.run(rig.loop.now_ns + 100 * MS)
    dues = [due for due, _ in sender.sent]
    assert len(dues) == 100 + 200 + 0 + 50
    assert {after - before for before, after in pairwise(dues)} == {
        MS,
        MS // 2,
        # The half of a gap that was left when the rate became 0 is part of none.
        100 * MS + 2 * MS,
        2 * MS,
    }


def test_calls_that_wait_in_the_end_are_told() -> None:
    rig, sender = Rig(), FakeSender()
    rig.pacer.set_rate(1000)
    rig.loop.run(8 * MS)
    # What became due since the last turn is not part of the run.
    rig.loop.now_ns = 100 * MS
    for _ in range(2):
        rig.pacer.stop()
        assert (rig.tally.scheduled, rig.tally.held, rig.tally.unsent) == (8, 8, 8)
    rig.offer(sender, 1)
    rig.loop.run(200 * MS)
    assert (sender.sent, rig.tally.scheduled) == ([], 8)


@pytest.mark.parametrize("rate_hz", [1000, 10_000_000])
def test_whatever_the_rate_a_turn_costs_what_it_sends(rate_hz: int) -> None:
    """Four slots that take 10 ms a call: what they cannot take is only counted."""
    rig, sender = Rig(), FakeSender()
    rig.pacer.set_rate(rate_hz)
    for _ in range(100):
        rig.offer(sender, 4)
        rig.loop.run(rig.loop.now_ns + 10 * MS)
    rig.pacer.stop()
    tally, sent = rig.tally, len(sender.sent)
    assert sent == 400
    # In the order in which they were due, and none left out between them.
    assert [due for due, _ in sender.sent] == [
        round(number * 1e9 / rate_hz) for number in range(1, sent + 1)
    ]
    # The last turn was up to a millisecond or two before the end.
    assert rate_hz * 0.997 <= tally.scheduled <= rate_hz
    assert tally.unsent == tally.scheduled - sent
    # All but the first few, for which slots were free, waited.
    assert tally.scheduled - 8 <= tally.held <= tally.scheduled
    assert rig.loop.turns < 3000


def test_a_bug_is_told_and_does_not_vanish_in_the_loop() -> None:
    class Broken(FakeSender):
        def send(self, due_ns: int, now_ns: int) -> None:
            raise KeyError(due_ns, now_ns)

    rig = Rig()
    rig.offer(Broken(), 1)
    rig.pacer.set_rate(1000)
    rig.loop.run(5 * MS)
    assert [type(error) for error in rig.bugs] == [KeyError]

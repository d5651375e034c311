"""B6, B7, B16: when a connection has taken too long, on a clock that is an argument."""

import pytest

from capnp_rig.server.config import ConnectionLimits
from capnp_rig.server.connections.sweeper import Sweeper
from capnp_rig.server.connections.time_limits import (
    GRACE_S,
    QUIET_S,
    WINDOW_S,
    ConnectionClock,
    Overdue,
    Progress,
)

LIMITS = ConnectionLimits(
    first_frame_timeout_s=10, min_rate=500, idle_timeout_s=600, max_age_s=3600
)
# Time, bytes received, where the latest message began, and what holds besides.
Look = tuple[float, int, int, str]


def looked(looks: list[Look], limits: ConnectionLimits = LIMITS) -> tuple[Overdue | None, float]:
    """Return which limit is passed, and in which look; None if none is."""
    clock = ConnectionClock(limits, 0.0, uniform=lambda _low, _high: 1.0)
    for now_s, received, begun_at, words in looks:
        unread = 100 if "unread" in words else 0
        progress = Progress(received, begun_at, "within" in words, "busy" in words, unread)
        verdict = clock.look(now_s, progress)
        if isinstance(verdict, Overdue):
            return verdict, now_s
        assert verdict > now_s
    return None, looks[-1][0]


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        pytest.param([(9.9, 0, 0, ""), (10, 0, 0, "")], (Overdue.FIRST_FRAME, 10), id="silent"),
        pytest.param(
            [(10, 1, 0, "within"), (10.1, 2, 0, "within")],
            (Overdue.FIRST_FRAME, 10.1),
            id="a byte now and then",
        ),
        pytest.param([(10.9, 500, 0, "within"), (11, 500, 0, "within")], (Overdue.FIRST_FRAME, 11)),
        pytest.param(
            [(39.9, 50_000, 0, "within"), (40, 50_000, 0, "within")],
            (Overdue.FIRST_FRAME, 40),
            id="four times as long at most",
        ),
        pytest.param([(10, 20, 20, ""), (599, 20, 20, "")], (None, 599), id="a waiting client"),
        pytest.param([(10, 20, 20, ""), (609, 20, 20, ""), (610, 20, 20, "")], (Overdue.IDLE, 610)),
        pytest.param(
            [(10, 20, 20, ""), (300, 60, 60, ""), (899, 60, 60, ""), (900, 60, 60, "")],
            (Overdue.IDLE, 900),
            id="idle since the latest call",
        ),
        pytest.param(
            [(10, 30, 20, "within"), (19, 31, 20, "within"), (20, 32, 20, "within")],
            (Overdue.SLOW_FRAME, 20),
            id="within a later message",
        ),
        pytest.param(
            [(10, 30, 20, "within"), (20, 5_030, 20, "within"), (30, 10_029, 20, "within")],
            (Overdue.SLOW_FRAME, 30),
            id="each window counts",
        ),
        pytest.param(
            [(10, 30, 20, "within"), (20, 40, 35, "within"), (30, 50, 45, "within")],
            (None, 30),
            id="other messages each time",
        ),
        pytest.param(
            [(10, 20, 20, ""), (300, 20, 20, ""), (310, 30, 20, "within"), (319, 40, 20, "within")],
            (None, 319),
            id="a message that has just begun, after a long silence",
        ),
        pytest.param(
            [(300, 20, 20, ""), (310, 30, 20, "within"), (320, 5_029, 20, "within")],
            (Overdue.SLOW_FRAME, 320),
            id="its window begins with it",
        ),
        pytest.param(
            [(10, 30, 30, "busy"), (2_000, 30, 30, "busy"), (2_599, 30, 30, "")],
            (None, 2_599),
            id="a call that runs is not idle",
        ),
        pytest.param(
            [(10, 30, 20, "within busy"), (100, 30, 20, "within busy"), (109, 30, 20, "within")],
            (None, 109),
            id="a message that waits for us",
        ),
        pytest.param(
            [(10, 30, 30, "unread"), (19, 30, 30, "unread"), (20, 30, 30, "unread")],
            (Overdue.STALLED, 20),
        ),
        pytest.param(
            [(10, 30, 30, "unread"), (19, 30, 30, ""), (20, 30, 30, "unread")], (None, 20)
        ),
    ],
)
def test_b7_a_connection_is_judged_by_what_came(
    looks: list[Look], expected: tuple[Overdue | None, float]
) -> None:
    assert looked(looks) == expected


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        pytest.param([(3600, 9, 9, ""), (3600.5, 9, 9, "")], (Overdue.AGE, 3600.5), id="quiet"),
        pytest.param([(3599, 9, 9, ""), (3599.9, 9, 9, "")], (None, 3599.9), id="not yet"),
        pytest.param([(3601, 9, 9, ""), (3602, 18, 18, "")], (None, 3602), id="in use"),
        pytest.param([(3601, 9, 9, "busy"), (3609, 9, 9, "busy")], (None, 3609), id="with calls"),
        pytest.param([(3609, 9, 9, "busy"), (3610, 9, 9, "busy")], (Overdue.AGE, 3610), id="grace"),
    ],
)
def test_b16_an_old_connection_ends_in_a_quiet_moment(
    looks: list[Look], expected: tuple[Overdue | None, float]
) -> None:
    limits = ConnectionLimits(idle_timeout_s=0, max_age_s=3600)
    assert GRACE_S == 10
    assert QUIET_S <= 0.2
    assert looked([(10.0, 5, 5, ""), *looks], limits) == expected


def test_b16_connections_that_came_together_do_not_end_together() -> None:
    clocks = [ConnectionClock(ConnectionLimits(max_age_s=5), 0.0) for _ in range(20)]
    looks_s = {clock.first_look_s for clock in clocks}
    assert len(looks_s) > 1
    assert all(4.5 <= look_s <= 5.5 for look_s in looks_s)


def test_b7_a_limit_of_0_does_not_hold() -> None:
    never = ConnectionLimits(first_frame_timeout_s=0, min_rate=0, idle_timeout_s=0)
    looks: list[Look] = [(1e3, 0, 0, ""), (2e3, 9, 0, "within"), (1e5, 9, 0, "within")]
    assert looked(looks, never) == (None, 1e5)
    assert not Sweeper(never).is_needed


def test_b7_a_half_sent_message_is_idle_where_there_is_no_least_rate() -> None:
    limits = ConnectionLimits(min_rate=0, idle_timeout_s=60)
    looks: list[Look] = [(10, 30, 20, "within"), (69, 30, 20, "within"), (70, 30, 20, "within")]
    assert looked(looks, limits) == (Overdue.IDLE, 70)


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        pytest.param(
            [(3, 90_000, 20, "within"), (6, 180_000, 20, "within"), (13, 270_000, 20, "within")],
            (None, 13),
            id="a long message at a good rate",
        ),
        pytest.param(
            [(3, 30, 20, "within"), (5, 31, 20, "within"), (13, 32, 20, "within")],
            (Overdue.SLOW_FRAME, 13),
            id="a byte now and then",
        ),
        pytest.param(
            [(3, 30, 20, "within"), (5, 31, 20, "within"), (8, 31, 20, "within")],
            (Overdue.IDLE, 8),
            id="half-sent",
        ),
    ],
)
def test_b7_what_comes_within_a_message_is_not_idle_for_less_than_a_window(
    looks: list[Look], expected: tuple[Overdue | None, float]
) -> None:
    limits = ConnectionLimits(min_rate=500, idle_timeout_s=3)
    assert looked([(1, 20, 20, ""), *looks], limits) == expected


class Peer:
    """A connection on which nothing comes but what the test says."""

    def __init__(self, received: int = 0) -> None:
        self.received = received
        self.looks = 0
        self.overdue: Overdue | None = None

    def progress(self) -> Progress:
        self.looks += 1
        return Progress(self.received, self.received, is_within=False, is_busy=False)

    def end_overdue(self, overdue: Overdue) -> None:
        self.overdue = overdue


def test_b7_every_connection_is_looked_at_when_it_is_due() -> None:
    sweeper = Sweeper(LIMITS)
    silent, idle, gone = Peer(), Peer(8), Peer()
    sweeper.add(silent, 0.5)
    sweeper.add(idle, 0.5)
    sweeper.add(gone, 0.5)
    sweeper.discard(gone)
    now_s = 0.0
    while silent.overdue is None:
        now_s += sweeper.tick_s
        sweeper.sweep(now_s)
    assert (silent.overdue, now_s) == (Overdue.FIRST_FRAME, 11)
    while idle.overdue is None:
        now_s += sweeper.tick_s
        sweeper.sweep(now_s)
    assert idle.overdue is Overdue.IDLE
    assert 610 <= now_s <= 612 + WINDOW_S
    # One in ten seconds: what an idle connection costs.
    assert idle.looks <= 62
    assert (gone.looks, len(sweeper), sweeper.ended.total()) == (0, 0, 2)
    assert not any(sweeper._due.values())


def test_b7_a_sweep_that_comes_late_looks_at_all_that_were_due() -> None:
    sweeper = Sweeper(LIMITS)
    peers = [Peer() for _ in range(5)]
    for number, peer in enumerate(peers):
        sweeper.add(peer, float(number))
    sweeper.sweep(100.0)
    assert [peer.overdue for peer in peers] == [Overdue.FIRST_FRAME] * 5
    late = Peer()
    sweeper.add(late, 5_000.0)
    sweeper.sweep(5_005.0)
    assert (late.looks, len(sweeper)) == (0, 1)


def test_b7_the_end_of_one_connection_may_end_another() -> None:
    sweeper = Sweeper(LIMITS)

    class Rude(Peer):
        def end_overdue(self, overdue: Overdue) -> None:
            super().end_overdue(overdue)
            for peer in peers:
                sweeper.discard(peer)

    peers = [Rude(), Rude()]
    for peer in peers:
        sweeper.add(peer, 0.0)
    sweeper.sweep(20.0)
    assert sorted(peer.looks for peer in peers) == [0, 1]
    assert len(sweeper) == 0

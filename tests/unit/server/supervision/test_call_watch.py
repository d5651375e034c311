import pytest

from capnp_rig.server.supervision.call_watch import Standing, Verdict

NOTHING, WARN, KILL = Verdict.NOTHING, Verdict.WARN, Verdict.KILL


def verdicts(looks: list[tuple[int, int]], timeout_s: float) -> list[tuple[int, Verdict]]:
    """Return at which looks, each of a call and the missed beats, there was something to do."""
    standing, found = Standing(), []
    for number, (call, missed) in enumerate(looks):
        standing = standing.after(call, missed)
        verdict = standing.verdict(timeout_s)
        if verdict is not NOTHING:
            found.append((number, verdict))
    return found


def stuck(call: int, beats: int) -> list[tuple[int, int]]:
    return [(call, missed) for missed in range(beats)]


@pytest.mark.parametrize(
    ("looks", "timeout_s", "expected"),
    [
        # In no method: 5 s, whatever the timeout.
        (stuck(0, 200), 0, [(20, KILL)]),
        (stuck(0, 200), 30, [(20, KILL)]),
        # In one: a warning at 1 s, and the timeout.
        (stuck(7, 200), 30, [(4, WARN), (120, KILL)]),
        (stuck(7, 200), 2, [(4, WARN), (8, KILL)]),
        (stuck(7, 200), 0, [(4, WARN)]),
        (stuck(7, 200), 1, [(4, KILL)]),
        (stuck(7, 3), 0.001, [(1, KILL)]),
        # A worker that answers does not stand, whatever it is in when it is looked at.
        ([(7, 0)] * 200, 2, []),
        # Many calls of one read, each of them a second long.
        ([(1 + beat // 4, beat) for beat in range(200)], 2, []),
        # A method ended, and then the worker hangs.
        ([*stuck(7, 6), *((0, beat) for beat in range(6, 60))], 30, [(4, WARN), (26, KILL)]),
    ],
)
def test_a5_a_worker_in_a_method_is_judged_by_its_time(
    looks: list[tuple[int, int]], timeout_s: float, expected: list[tuple[int, Verdict]]
) -> None:
    assert verdicts(looks, timeout_s) == expected


def test_the_time_of_a_call_is_counted_in_beats() -> None:
    standing = Standing()
    for look in stuck(3, 9):
        standing = standing.after(*look)
    assert standing.seconds == 2.0

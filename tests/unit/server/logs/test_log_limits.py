from capnp_rig.server.logs.log_limits import (
    BURST,
    CALM_BURST,
    CALM_LINES_PER_S,
    LeftOut,
    LineLimits,
)


def admitted(limits: LineLimits, count: int, now_s: float, kind: str = "a") -> int:
    return sum(limits.admit(kind, "error", now_s) for _ in range(count))


def test_h5_a_burst_passes_and_the_rest_is_counted() -> None:
    limits = LineLimits()
    assert admitted(limits, 1_234 + BURST, 5.0) == BURST
    assert limits.take_left_out(5.9) == []
    (left_out,) = limits.take_left_out(6.0)
    assert left_out == LeftOut("a", "error", 1_234, 1.0)
    assert str(left_out) == "a: 1,234 more left out in 1 s"
    assert limits.take_left_out(100.0) == []


def test_h5_a_lasting_flood_writes_two_lines_a_second() -> None:
    limits = LineLimits()
    passed = sum(limits.admit("a", "error", turn / 1000) for turn in range(60_000))
    assert BURST + 118 <= passed <= BURST + 120


def test_h5_every_line_is_written_or_counted() -> None:
    limits = LineLimits()
    written = counted = 0
    for turn in range(10_000):
        written += limits.admit("a", "error", turn / 777)
        counted += sum(each.count for each in limits.take_left_out(turn / 777))
    counted += sum(each.count for each in limits.take_left_out(13.0, all_of_it=True))
    assert written + counted == 10_000


def test_h5_one_kind_leaves_room_for_the_others() -> None:
    limits = LineLimits()
    admitted(limits, 1_000, 0.0)
    assert admitted(limits, 1_000, 0.0, kind="b") == BURST
    assert [each.kind for each in limits.take_left_out(1.0)] == ["a", "b"]


def test_h5_quiet_makes_room_for_a_whole_burst_again_and_no_more() -> None:
    limits = LineLimits()
    admitted(limits, 1_000, 0.0)
    assert admitted(limits, 1_000, 3_600.0) == BURST


def test_h5_the_last_count_is_told_at_the_end() -> None:
    limits = LineLimits()
    admitted(limits, BURST + 3, 0.0)
    assert [each.count for each in limits.take_left_out(0.1, all_of_it=True)] == [3]


def test_h5_lines_that_tell_of_no_fault_have_a_higher_limit_and_have_one() -> None:
    limits = LineLimits()
    passed = sum(limits.admit("a", "info", turn / 1000) for turn in range(10_000))
    assert passed == CALM_BURST + 10 * CALM_LINES_PER_S - 1
    assert [each.level for each in limits.take_left_out(10.0)] == ["info"]

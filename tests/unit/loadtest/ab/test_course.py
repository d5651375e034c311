import pytest

from capnp_rig.loadtest.ab.course import Course, NoTime


def _follow(course: Course, block_s: float) -> float:
    """Add blocks that take so long as long as there is room; return when the last one ended."""
    passed_s = 0.0
    while course.has_room(passed_s):
        passed_s += block_s
        course.add(block_s, passed_s)
    return passed_s


def test_the_first_block_tells_how_many_there_is_time_for() -> None:
    course = Course(max_time_s=181.0)
    assert course.left_s(0.0) is None
    course.add(6.0, 6.0)
    assert course.planned == 30
    assert [look.blocks for look in course.looks] == [10, 20, 30]
    assert course.left_s(6.0) == pytest.approx(174.0)


@pytest.mark.parametrize("block_s", [0.5, 3.9, 20.0])
def test_it_ends_within_its_time(block_s: float) -> None:
    course = Course(max_time_s=180.0)
    assert 180.0 - 2 * block_s <= _follow(course, block_s) <= 180.0
    assert course.done == course.planned


def test_no_more_blocks_than_were_asked_for() -> None:
    course = Course(max_time_s=180.0, blocks=7)
    assert _follow(course, 1.0) == 7.0
    assert course.planned == 7


def test_blocks_that_become_slower_end_it_in_time_too() -> None:
    course = Course(max_time_s=61.0)
    course.add(3.0, 3.0)
    assert course.planned == 20
    course.add(10.0, 13.0)
    assert course.has_room(50.0)
    assert not course.has_room(50.1)


def test_under_six_blocks_are_refused_with_the_time_that_they_take() -> None:
    course = Course(max_time_s=30.0)
    with pytest.raises(NoTime, match=r"a block takes 6\.0 s: 6 of them need --max-time 38s"):
        course.add(6.0, 6.0)


def test_a_look_is_due_at_its_block_and_once() -> None:
    course = Course(max_time_s=1000.0, blocks=9)
    due = []
    for block in range(1, 10):
        course.add(1.0, float(block))
        if course.is_due():
            due.append((block, round(course.level, 4)))
    assert due == [(6, 0.015), (9, 0.035)]
    course.end()
    # The last look was taken.
    assert course.level == pytest.approx(0.035)


def test_the_end_before_its_time_has_the_level_of_the_looks_that_were_not_taken() -> None:
    course = Course(max_time_s=1000.0, blocks=30)
    for block in range(1, 16):
        course.add(1.0, float(block))
        course.is_due()
    course.end()
    assert course.level == pytest.approx(0.045)
    assert course.taken == 3

import pytest

from capnp_rig.loadtest.cli.progress import _Lines, shown_progress
from capnp_rig.loadtest.engine.progress import STEADY, Progress, Rhythm, StepClock, Steps


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_lines_are_seconds_apart_but_for_the_first_and_the_last() -> None:
    said: list[str] = []
    clock = Clock()
    lines = _Lines(said.append, STEADY, clock)
    lines.show(Progress(0, 300, None))
    for done in range(1, 301):
        clock.now_s += 0.1
        lines.show(Progress(done, 300, (300 - done) * 0.5))
    assert said[0] == "0 of 300 done, starting"
    assert said[1] in {
        "50 of 300 done, about 2 min 05 s left",
        "51 of 300 done, about 2 min 04 s left",
    }
    assert said[-1] == "300 of 300 done, about 0 s left"
    assert len(said) == 7


def test_brackets_in_a_progress_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_progress(STEADY) as show:
        show(Progress(0, 1, None, "of [id 7] and [bold]"))
    assert "of [id 7] and [bold]" in capsys.readouterr().err


def test_slow_steps_are_all_shown() -> None:
    said: list[str] = []
    clock = Clock()
    lines = _Lines(said.append, STEADY, clock)
    for done in range(4):
        lines.show(Progress(done, 3, 10.4 * (3 - done)))
        clock.now_s += 6
    assert [line.rpartition(", ")[2] for line in said] == [
        *("about 31 s left", "about 21 s left", "about 10 s left", "about 0 s left"),
    ]


def test_what_is_left_counts_each_kind_of_step_at_its_own_pace() -> None:
    told: list[Progress] = []
    clock = Clock()
    cases, weighings = Steps(4), Steps(2, guess_s=10)
    steps = StepClock(told.append, cases, weighings, now_s=clock)
    for _ in range(4):
        clock.now_s += 2
        steps.step(cases)
    clock.now_s += 100
    steps.pass_over()
    for _ in range(2):
        clock.now_s += 5
        steps.step(weighings)
    assert [(one.done, one.total) for one in told] == [(done, 6) for done in range(7)]
    lefts = [one.left_s for one in told]
    assert lefts == [None, 3 * 2 + 20, 2 * 2 + 20, 2 + 20, 20, 5, 0]


def test_a_note_stands_for_the_count() -> None:
    assert Progress(3.5, 10.0, 6.5, "70 calls, 20/s").text == "70 calls, 20/s, about 6 s left"
    assert Progress(0, 10, None, "70 calls").text == "70 calls, starting"


def test_every_step_has_a_line_where_that_is_asked_for() -> None:
    said: list[str] = []
    lines = _Lines(said.append, Rhythm(every_s=0.0), Clock())
    for done in range(4):
        lines.show(Progress(done, 3, 3 - done, f"step {done}"))
    assert said == [
        *("step 0, about 3 s left", "step 1, about 2 s left"),
        *("step 2, about 1 s left", "step 3, about 0 s left"),
    ]


def test_what_is_short_has_no_line() -> None:
    said: list[str] = []
    clock = Clock()
    lines = _Lines(said.append, Rhythm(first_s=5.0), clock)
    for done in range(4):
        lines.show(Progress(done, 3, 3 - done))
        clock.now_s += 1
    assert said == []
    clock.now_s += 2
    lines.show(Progress(1, 3, 2))
    lines.show(Progress(3, 3, 0))
    assert said == ["1 of 3 done, about 2 s left", "3 of 3 done, about 0 s left"]

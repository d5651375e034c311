import os

from capnp_rig.server.worker.start import _one_line, _pin


def test_a_pin_that_fails_is_told_and_changes_nothing() -> None:
    before = os.sched_getaffinity(0)
    assert _pin(100_000) == "Invalid argument"
    assert os.sched_getaffinity(0) == before


def test_an_error_is_told_in_one_line() -> None:
    assert _one_line(ValueError("a\n  b")) == "ValueError: a b"
    assert _one_line(TimeoutError()) == "TimeoutError"

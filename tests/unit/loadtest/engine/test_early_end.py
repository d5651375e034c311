import signal
from collections.abc import Iterator

import pytest

from capnp_rig.loadtest.engine.child_process import Terminated
from capnp_rig.loadtest.engine.early_end import EarlyEnd, kept_steps


def steps(count: int, error: BaseException | None) -> Iterator[int]:
    yield from range(count)
    if error is not None:
        raise error


def test_all_steps_are_kept() -> None:
    assert kept_steps(steps(3, None), ValueError) == ([0, 1, 2], None)


@pytest.mark.parametrize(
    ("error", "end", "status"),
    [
        (KeyboardInterrupt(), EarlyEnd("Ctrl-C", signal.SIGINT), 130),
        (Terminated(), EarlyEnd("SIGTERM", signal.SIGTERM), 143),
        (ValueError("the server died"), EarlyEnd("the server died"), 1),
    ],
)
def test_the_steps_that_are_over_are_kept(error: BaseException, end: EarlyEnd, status: int) -> None:
    done, early_end = kept_steps(steps(2, error), ValueError)
    assert (done, early_end) == ([0, 1], end)
    assert end.exit_status == status


def test_without_a_step_there_is_nothing_to_keep() -> None:
    with pytest.raises(ValueError, match="no server"):
        kept_steps(steps(0, ValueError("no server")), ValueError)


def test_a_bug_is_not_kept_quiet() -> None:
    with pytest.raises(LookupError):
        kept_steps(steps(2, LookupError()), ValueError)

"""One status for a command for which several things are true."""

import pytest

from capnp_rig.loadtest.stats.exit_status import ExitStatus, exit_status


@pytest.mark.parametrize(
    ("holding", "status"),
    [
        ((), 0),
        (("VOID",), 5),
        (("VOID", "FAILED"), 1),
        (("SLOWER", "VOID"), 5),
        (("CANNOT_TELL", "SLOWER"), 3),
        (("CANNOT_TELL",), 4),
        (("FAILED", "USAGE"), 2),
    ],
)
def test_the_gravest_is_the_status(holding: tuple[str, ...], status: int) -> None:
    """A failed call is told before a void run, and a void run before a slow one."""
    assert exit_status(*(ExitStatus[name] for name in holding)) == status


def test_an_allowed_void_run_is_good() -> None:
    """Nothing else is lifted with it."""
    assert exit_status(ExitStatus.VOID, allow_void=True) == 0
    assert exit_status(ExitStatus.VOID, ExitStatus.SLOWER, allow_void=True) == 3

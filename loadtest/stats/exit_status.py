"""The exit status of every command of the rig: one table (no I/O)."""

from enum import IntEnum


class ExitStatus(IntEnum):
    """What the status of a command says; click itself exits with `USAGE`.

    The shell's own convention stands beside it: 128 + the signal that ended the command, so 130
    after SIGINT and 143 after SIGTERM.
    """

    GOOD = 0
    FAILED = 1
    USAGE = 2
    SLOWER = 3
    CANNOT_TELL = 4
    VOID = 5


# Where several hold, the first of these is the status.
_PRECEDENCE = (
    ExitStatus.USAGE,
    ExitStatus.FAILED,
    ExitStatus.VOID,
    ExitStatus.SLOWER,
    ExitStatus.CANNOT_TELL,
)


def exit_status(*holding: ExitStatus, allow_void: bool = False) -> ExitStatus:
    """Return the status of a command for which all of `holding` are true; `GOOD` without any.

    With `allow_void` a void result counts as a good one.
    """
    for status in _PRECEDENCE:
        if status in holding and not (allow_void and status is ExitStatus.VOID):
            return status
    return ExitStatus.GOOD

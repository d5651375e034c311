"""The exit status of every command of the rig: one table (no I/O)."""

from collections.abc import Iterable, Iterator
from enum import IntEnum

from capnp_rig.loadtest.stats.figure import Figure
from capnp_rig.loadtest.stats.rate_search import LOWER_BOUNDS, Answer
from capnp_rig.loadtest.stats.reasons import doubts_of
from capnp_rig.loadtest.stats.run_summary import Summary


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


def load_statuses(
    summary: Summary, *, violated: bool, tolerates_errors: bool
) -> Iterator[ExitStatus]:
    """Yield what holds of a load run, for `exit_status`.

    `violated` is whether a --fail-if holds, `tolerates_errors` whether failed calls alone are no
    failure. A run without a call that was answered rightly has failed in any case.
    """
    if violated or not summary.calls or (summary.errors and not tolerates_errors):
        yield ExitStatus.FAILED
    if doubts_of(summary.reasons):
        yield ExitStatus.VOID


def search_statuses(answer: Answer, *, has_failed: bool = False) -> Iterator[ExitStatus]:
    """Yield what holds of a search, for `exit_status`.

    That the service failed where no load explains it, and whose fault it is that there is no rate.
    """
    if has_failed:
        yield ExitStatus.FAILED
    if answer.rate_hz is None:
        yield ExitStatus.VOID if answer.limit in LOWER_BOUNDS else ExitStatus.FAILED


def figure_statuses(figures: Iterable[Figure]) -> Iterator[ExitStatus]:
    """Yield what holds of figures of several loads, for `exit_status`: that a call failed."""
    if any(reason.is_failure for figure in figures for reason in figure.reasons):
        yield ExitStatus.FAILED

"""A series of steps that ends early keeps the steps that are over."""

import signal
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from capnp_rig.loadtest.engine.child_process import Terminated

Step = TypeVar("Step")


@dataclass(frozen=True, slots=True)
class EarlyEnd:
    """Why a series of steps ended before its last: `signal` is None where a step failed."""

    text: str
    signal: int | None = None

    @property
    def exit_status(self) -> int:
        """The status of the command: 130 after Ctrl-C, 143 after SIGTERM, 1 after a failure."""
        return 1 if self.signal is None else 128 + self.signal


def kept_steps(
    steps: Iterable[Step], *failures: type[Exception], per_round: int = 1
) -> tuple[list[Step], EarlyEnd | None]:
    """Take all steps, and return them; with why they ended, where that was too early.

    Steps of a round that is not over are left out; a round has `per_round` of them.

    Raises:
        BaseException: Ctrl-C, SIGTERM or one of the `failures` came before a round was over.
    """
    ends: tuple[type[BaseException], ...] = (KeyboardInterrupt, Terminated, *failures)
    done: list[Step] = []
    try:
        for step in steps:
            done.append(step)  # noqa: PERF402 - what is done by then is kept
    except ends as error:
        whole = len(done) - len(done) % per_round
        if not whole:
            raise
        return done[:whole], _why(error)
    return done, None


def _why(error: BaseException) -> EarlyEnd:
    if isinstance(error, KeyboardInterrupt):
        return EarlyEnd("Ctrl-C", signal.SIGINT)
    if isinstance(error, Terminated):
        return EarlyEnd("SIGTERM", signal.SIGTERM)
    return EarlyEnd(str(error))

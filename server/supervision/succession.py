"""Workers that start beside those that serve, to take their places: all of them or none."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from capnp_rig.server.control.messages import Setup
from capnp_rig.server.supervision.worker_process import WorkerProcess


@dataclass(frozen=True, slots=True)
class FailedStart:
    """Why a worker could not start, in one line; `trace` are the user's own frames."""

    cause: str
    trace: str | None = None


# Called once, with None when the new workers are in their places.
Done = Callable[[FailedStart | None], None]


@dataclass(frozen=True, slots=True)
class Succession:
    """The `heirs`, as they were started; `setups` are those of all places when they are in them.

    Fewer setups than there were before end the workers of the last places.
    """

    setups: Sequence[Setup]
    heirs: Sequence[WorkerProcess]
    done: Done

    def without(self, heir: WorkerProcess) -> "Succession":
        """Return what is left when one of them has ended."""
        return Succession(self.setups, [each for each in self.heirs if each is not heir], self.done)

    @property
    def is_ready(self) -> bool:
        """Whether all of them serve."""
        return all(worker.ready for worker in self.heirs)

"""Which worker gets the next connection: decisions on plain values."""

from collections.abc import Sequence
from dataclasses import dataclass

# The tutorial's channel holds 100; a worker this far behind will not catch up by being sent more.
MAX_UNACKNOWLEDGED = 128
# One late beat is a busy moment; two are a worker that may be stuck.
MAX_MISSED_BEATS = 2


@dataclass(frozen=True, slots=True)
class Slot:
    """What the supervisor knows of one worker when it chooses.

    `unacknowledged` counts the connections sent and not yet taken; `blocked` says that the
    control socket took no more; `connections` are those served and on their way.
    """

    ready: bool = True
    blocked: bool = False
    unacknowledged: int = 0
    missed_beats: int = 0
    connections: int = 0

    @property
    def open(self) -> bool:
        """Whether this worker may be sent a connection."""
        return (
            self.ready
            and not self.blocked
            and self.unacknowledged < MAX_UNACKNOWLEDGED
            and self.missed_beats < MAX_MISSED_BEATS
        )


def round_robin(slots: Sequence[Slot], last: int) -> int | None:
    """Return the first open slot after `last`, or None when no worker can take a connection."""
    for step in range(1, len(slots) + 1):
        index = (last + step) % len(slots)
        if slots[index].open:
            return index
    return None


def least_connections(slots: Sequence[Slot], last: int) -> int | None:
    """Return the open slot with the fewest connections, the first after `last` of several."""
    turn = [(last + step) % len(slots) for step in range(1, len(slots) + 1)]
    return min(
        (index for index in turn if slots[index].open),
        key=lambda index: slots[index].connections,
        default=None,
    )


DISPATCH = {"round-robin": round_robin, "least-connections": least_connections}

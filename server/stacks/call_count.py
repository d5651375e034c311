"""How the stacks besides capnp count calls, where a worker is replaced after so many.

Each of their jobs tells of its call where there is somebody to tell (`services.reverse`), so
counting costs nothing where nobody asks for it.
"""

from capnp_rig.server.control.call_stamp import STEPS, Stamp
from capnp_rig.server.control.messages import Setup
from capnp_rig.server.logs.log import Log
from capnp_rig.server.services.reverse import Note


def note_of(setup: Setup, log: Log, stamp: Stamp) -> Note:
    """Return who is told of each call; None if nobody is."""
    note = log.debug if setup.config.log_level == "debug" else None
    if not setup.config.recycling.max_requests:
        return note

    def count(text: str) -> None:
        stamp[STEPS] += 1
        if note is not None:
            note(text)

    return count

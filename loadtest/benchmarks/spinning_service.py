"""The tutorial's service, made slower by a known number of CPU ns per call.

``SPIN_NS=700 server run ADDR --service capnp_rig.loadtest.benchmarks.spinning_service:Spinning``

It spins a fixed number of times, which the process finds out when it starts: a loop that reads
a clock would itself cost as much as what it is to add.
"""

import os
import time
from collections.abc import Mapping
from typing import Any

from capnp_rig.schema import message

_TRIES, _SPINS = 50, 10_000


def spins_of(ns: float) -> int:
    """Return how many times to go round an empty loop for so many ns of CPU time.

    The fastest of 50 tries counts: whatever disturbs one makes it slower.
    """
    tries_ns = []
    for _ in range(_TRIES):
        started_ns = time.perf_counter_ns()
        for _ in range(_SPINS):
            pass
        tries_ns.append(time.perf_counter_ns() - started_ns)
    return round(ns * _SPINS / min(tries_ns))


class Spinning:
    """`MessageStream` as in the tutorial, after ``SPIN_NS`` ns of empty loop."""

    interface = message.MessageStream
    spins = spins_of(float(os.environ.get("SPIN_NS", "0")))

    def read(self, params: Any) -> Mapping[str, bytes]:
        """Answer with the content reversed, as UTF-8."""
        for _ in range(self.spins):
            pass
        return {"chunk": params.request.content[::-1].encode()}

"""What is counted at one endpoint: with the whole run and, of several, by its name, too.

A single endpoint costs nothing beside: its calls go straight to the run's timer.
"""

from collections.abc import Callable
from typing import NamedTuple

from capnp_rig.loadtest.stats.tally import Tally, Tell


class CallRecorder(NamedTuple):
    """Records answered calls: gets when each was due, sent and received, in ns.

    `settle` and `flush` bin them, as those of `Timer` do.
    """

    record: Callable[[int, int, int], None]
    settle: Callable[[], None]
    flush: Callable[[], None]


class EndpointTally:
    """Counts for the endpoint called `name`; with an empty name there is no other."""

    def __init__(self, tally: Tally, name: str = "") -> None:
        self.name = name
        self._tally = tally
        self._part = tally.at(name) if name else None

    def recorder(
        self, label: str, tell: Tell | None = None, *, is_settled: bool = False
    ) -> CallRecorder:
        """Return what records the answered calls of `label`; the options are `Tally.timer`'s."""
        if self._part is None:
            only = self._tally.timer(label, tell, is_settled=is_settled)
            return CallRecorder(only.record, only.settle, only.flush)
        whole = self._tally.timer(label, is_settled=is_settled)
        part = self._part.timer(label, tell, is_settled=is_settled)
        record_whole, record_part = whole.record, part.record

        def record(due_ns: int, sent_ns: int, received_ns: int) -> None:
            record_whole(due_ns, sent_ns, received_ns)
            record_part(due_ns, sent_ns, received_ns)

        def settle() -> None:
            whole.settle()
            part.settle()

        def flush() -> None:
            whole.flush()
            part.flush()

        return CallRecorder(record, settle, flush)

    def failed(self, label: str, started_ns: int, now_ns: int, error: Exception) -> Exception:
        """Count a call that failed, as `Tally.failed`."""
        short = self._tally.failed(label, started_ns, now_ns, error)
        if self._part is not None:
            self._part.failed(label, started_ns, now_ns, short)
        return short

    def connected(
        self, started_ns: int, now_ns: int, *, again: bool, walk_ns: int | None = None
    ) -> None:
        """Count a connection that was made, as `Tally.connected`."""
        for tally in self._tallies:
            tally.connected(started_ns, now_ns, again=again, walk_ns=walk_ns)

    def disconnected(self, now_ns: int) -> None:
        """Count a connection that ended before the run did."""
        for tally in self._tallies:
            tally.disconnected(now_ns)

    def unfinished(self, count: int) -> None:
        """Count calls without an answer in the end."""
        for tally in self._tallies:
            tally.unfinished += count

    def changed(self, now_ns: int, *, is_lost: bool) -> None:
        """Note that the endpoint was lost or came back, where there are several."""
        if self._part is not None:
            self._part.changed(now_ns, is_lost=is_lost)

    @property
    def _tallies(self) -> tuple[Tally, ...]:
        return (self._tally,) if self._part is None else (self._tally, self._part)

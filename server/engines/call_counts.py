"""Counts the calls of a worker for its metrics: by method, outcome and time.

Only a server with `--metrics` has one; without it nothing here runs. A plain method of the `wire`
engine is timed from when its params were found until its results are words, an async one from when
its task was made until it has answered: neither holds what a call waited for before, nor what its
answer waited for behind it.
"""

from collections import Counter
from time import monotonic_ns
from typing import Any, Protocol, runtime_checkable

from capnp_rig.objects.async_calls import RunningCall
from capnp_rig.objects.binding import BoundMethod
from capnp_rig.server.control.call_stamp import COUNTS, Stamp
from capnp_rig.server.control.counts import (
    BYTES_IN,
    BYTES_OUT,
    CANCELLED,
    FAILED,
    LAG,
    LIMITS,
    LIMITS_AT,
    METHOD_WORDS,
    REFUSED,
    SUM_NS,
    WORKER_WORDS,
)
from capnp_rig.server.engines.engine import Traffic
from capnp_rig.server.engines.method_stamps import MethodStamps
from capnp_rig.wire.encoding.pointers import StructTuple
from capnp_rig.wire.rpc.inline_methods import InlineMethod
from capnp_rig.wire.rpc.messages import RemoteError


@runtime_checkable
class CountingEngine(Protocol):
    """An engine that can count."""

    counts: "CallCounts | None"

    def traffic(self) -> Traffic:
        """Return what all connections received and sent so far."""


class CallCounts:
    """The counts of one worker; `stamps` numbers its methods."""

    def __init__(self, stamps: MethodStamps) -> None:
        self._stamps = stamps
        # By number.
        self._methods: dict[int, list[int]] = {}
        self._lag = [0] * METHOD_WORDS
        self.limits: Counter[str] = Counter()

    def of(self, label: str) -> list[int]:
        """Return the counts of a method."""
        number = self._stamps.number(label)
        return self._methods.setdefault(number, [0] * METHOD_WORDS)

    def counted(self, bound: BoundMethod, answer: InlineMethod) -> InlineMethod:
        """Return a plain method that is counted; a call costs 0.3 us."""
        counts = self.of(bound.label)

        def counted_answer(content: StructTuple | None) -> Any:
            started_ns = monotonic_ns()
            outcome = answer(content)
            took_ns = monotonic_ns() - started_ns
            counts[took_ns.bit_length()] += 1
            counts[SUM_NS] += took_ns
            if type(outcome) is RemoteError:
                counts[FAILED] += 1
            return outcome

        return counted_answer

    def ended(self, call: RunningCall, now_s: float) -> None:
        """Count an async call whose task is over."""
        counts = self.of(call.label)
        if call.is_answered:
            self.answered(counts, now_s - call.started_s, has_failed=call.has_failed)
        else:
            counts[CANCELLED] += 1

    @staticmethod
    def answered(counts: list[int], took_s: float, *, has_failed: bool) -> None:
        """Count a call that ran to an answer."""
        took_ns = max(int(took_s * 1e9), 0)
        counts[took_ns.bit_length()] += 1
        counts[SUM_NS] += took_ns
        counts[FAILED] += has_failed

    def refused(self, limit: str, label: str | None = None) -> None:
        """Count a call that was refused, or a connection that was ended, by a limit."""
        self.limits[limit] += 1
        if label is not None:
            self.of(label)[REFUSED] += 1

    def lagged(self, late_s: float) -> None:
        """Count by how much the event loop was late for a timer."""
        late_ns = max(int(late_s * 1e9), 0)
        self._lag[late_ns.bit_length()] += 1
        self._lag[SUM_NS] += late_ns

    def publish(self, stamp: Stamp, traffic: Traffic) -> None:
        """Copy all into the page."""
        stamp[COUNTS + BYTES_IN], stamp[COUNTS + BYTES_OUT] = traffic.bytes_in, traffic.bytes_out
        _copy(self._lag, stamp, COUNTS + LAG)
        for at, limit in enumerate(LIMITS, COUNTS + LIMITS_AT):
            stamp[at] = self.limits[limit] + (limit == "in-flight") * traffic.overloads
        for number, counts in self._methods.items():
            _copy(counts, stamp, COUNTS + WORKER_WORDS + METHOD_WORDS * number)


def _copy(words: list[int], stamp: Stamp, start: int) -> None:
    for at, word in enumerate(words, start):
        stamp[at] = word

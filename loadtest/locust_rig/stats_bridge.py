"""Locust's own statistics, fed in bulk with the calls that the rig has recorded.

Firing `events.request` costs 3.4 µs a call, a fifth of all that a call costs; in bulk it is 0.3.
A `StatsBridge` counts the calls, and adds them to Locust's entries every `BRIDGE_EVERY_S` and
before those are sent to the master. So consoles, charts, CSV files and reports are as if each call
had been fired. Where others listen to `events.request`, each call is fired, late by as much at
most; the length that an event gives is then the mean of those fired with it.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import locust.stats
from locust.env import Environment
from locust.exception import (
    InterruptTaskSet,
    RescheduleTask,
    RescheduleTaskImmediately,
    StopTest,
    StopUser,
)
from locust.stats import RequestStats, StatsEntry, StatsError

REQUEST_TYPE = "capnp"
# Adding takes up to 1 ms, which delays the calls under way; consoles and pages ask every second.
BRIDGE_EVERY_S = 0.2

_SECOND_NS = 1_000_000_000
_NO_CONTEXT: dict[str, Any] = {}
# What a listener raises for the user that made the request.
FOR_A_USER = (InterruptTaskSet, RescheduleTask, RescheduleTaskImmediately, StopUser)


class StatsBridge:
    """What one process adds to its Locust statistics."""

    def __init__(self, environment: Environment) -> None:
        self._stats: RequestStats = environment.stats
        # Locust's hooks are untyped.
        self._event: Any = environment.events.request
        # Locust keeps time by the wall clock, which may be set during a run.
        self.epoch_ns = time.time_ns() - time.monotonic_ns()
        self._entries: dict[tuple[str, str], UntoldCalls] = {}
        self._handlers: list[Callable[..., object]] = self._event._handlers
        self._known_handlers: list[Callable[..., object]] = []
        self._is_heard = False

    def entry(self, name: str, request_type: str = REQUEST_TYPE) -> "UntoldCalls":
        """Return what counts the calls that Locust shows under this name and type."""
        key = (name, request_type)
        if key not in self._entries:
            self._entries[key] = UntoldCalls(name, request_type, self)
        return self._entries[key]

    @property
    def is_heard(self) -> bool:
        """Whether others than Locust's statistics listen to each request."""
        # Asked for every call: looking at each takes 1 µs.
        if self._handlers != self._known_handlers:
            self._known_handlers = list(self._handlers)
            modules = [getattr(each, "__module__", None) for each in self._handlers]
            self._is_heard = any(module != "locust.runners" for module in modules)
        return self._is_heard

    def add(self) -> None:
        """Add what is new to Locust's entries, and fire what is to be fired.

        Raises:
            StopTest: A listener wants the run to end.
            StopUser, RescheduleTask, ...: It has something to say to the user. All is fired
                nevertheless; the first of them is raised in the end.
        """
        raised: Exception | None = None
        for entry in list(self._entries.values()):
            entry.add_to(self._stats)
            for event in entry.take_events():
                try:
                    self._fire(event)
                except (*FOR_A_USER, StopTest) as wish:
                    raised = raised or wish
        if raised is not None:
            raise raised

    def _fire(self, event: dict[str, Any]) -> None:
        self._event.fire(response=None, context=_NO_CONTEXT, url=None, **event)


class UntoldCalls:
    """The calls of one name that Locust does not know of yet."""

    def __init__(self, name: str, request_type: str, bridge: StatsBridge) -> None:
        self._name, self._type = name, request_type
        self._bridge = bridge
        # Of replies, framing included.
        self.received_bytes = 0
        # To be fired: when each ended and was due, or sent where it failed, and the failure.
        self._events: list[tuple[int, int, Exception | None]] = []
        self._forget()

    def _forget(self) -> None:
        # How often each time came, in ns, rounded as `bucket_ms` does it: few different ones.
        self._times: Counter[int] = Counter()
        self._sum_ns = self._last_ns = self._highest_ns = 0
        self._lowest_ns: int | None = None
        self._ended: Counter[int] = Counter()
        self._failed: Counter[int] = Counter()
        self._errors: dict[str, StatsError] = {}

    def answered(self, calls: list[tuple[int, int, int]]) -> None:
        """Count answered calls: when each was due, sent and answered, in ns."""
        if self._bridge.is_heard:
            self._events += [(received, due, None) for due, _, received in calls]
            return
        epoch_ns = self._bridge.epoch_ns
        first = (calls[0][2] + epoch_ns) // _SECOND_NS
        # They come in the order in which they were answered.
        if first == (calls[-1][2] + epoch_ns) // _SECOND_NS:
            self._ended[first] += len(calls)
        else:
            self._ended.update([(received + epoch_ns) // _SECOND_NS for _, _, received in calls])
        self._count([received - due for due, _, received in calls], calls[-1][2] + epoch_ns)

    def failed(self, error: Exception, started_ns: int, now_ns: int) -> None:
        """Count a failed call."""
        if self._bridge.is_heard:
            self._events.append((now_ns, started_ns, error))
            return
        ended_ns = now_ns + self._bridge.epoch_ns
        self._count([now_ns - started_ns], ended_ns)
        self._ended[ended_ns // _SECOND_NS] += 1
        self._failed[ended_ns // _SECOND_NS] += 1
        text = StatsError.parse_error(error)
        if text not in self._errors:
            self._errors[text] = StatsError(self._type, self._name, text, first_seen=ended_ns / 1e9)
        known = self._errors[text]
        known.occurrences += 1
        known.last_seen = ended_ns / 1e9

    def _count(self, times_ns: list[int], ended_ns: int) -> None:
        # Spelled out, as it is done for every call: 0.1 µs.
        self._times.update(
            [
                (time + 500) // 1_000 * 1_000
                if time < 1_000_000
                else (time + 5_000) // 10_000 * 10_000
                if time < 10_000_000
                else (time + 50_000) // 100_000 * 100_000
                if time < 100_000_000
                else _rounded_ns(time)
                for time in times_ns
            ]
        )
        self._sum_ns += sum(times_ns)
        low, high = min(times_ns), max(times_ns)
        self._highest_ns = max(self._highest_ns, high)
        self._lowest_ns = low if self._lowest_ns is None else min(low, self._lowest_ns)
        self._last_ns = max(self._last_ns, ended_ns)

    def add_to(self, stats: RequestStats) -> None:
        """Add the calls that need not be fired to Locust's entries, the total among them."""
        if not self._times:
            return
        new = self._entry(stats)
        for entry in (stats.entries[self._name, self._type], stats.total):
            entry.extend(new)
        for text, error in self._errors.items():
            key = StatsError.create_key(self._type, self._name, text)
            if key in stats.errors:
                stats.errors[key].occurrences += error.occurrences
                stats.errors[key].last_seen = error.last_seen
            else:
                stats.errors[key] = error
        self._forget()

    def _entry(self, stats: RequestStats) -> StatsEntry:
        """Return the new calls as an entry of their own."""
        entry = StatsEntry(stats, self._name, self._type)
        # Locust declares whole milliseconds, and takes any number.
        plain: Any = entry
        plain.total_response_time = self._sum_ns / 1e6
        plain.min_response_time = None if self._lowest_ns is None else self._lowest_ns / 1e6
        plain.max_response_time = self._highest_ns / 1e6
        plain.response_times = Counter[float]()
        for time_ns, count in self._times.items():
            plain.response_times[_bucket_ms(time_ns)] += count
        entry.num_requests = self._ended.total()
        entry.num_reqs_per_sec = dict(self._ended)
        entry.num_failures = self._failed.total()
        entry.num_fail_per_sec = dict(self._failed)
        entry.last_request_timestamp = self._last_ns / 1e9
        entry.total_content_length, self.received_bytes = self.received_bytes, 0
        return entry

    def take_events(self) -> Iterator[dict[str, Any]]:
        """Yield what is particular to each event, in the order in which the calls ended."""
        events, self._events = self._events, []
        if not events:
            return
        # Timers hand over their calls in bulk, later than failures.
        events.sort(key=lambda event: event[0])
        answered = sum(error is None for _, _, error in events)
        mean, more = divmod(self.received_bytes, max(answered, 1))
        self.received_bytes = 0
        epoch_ns = self._bridge.epoch_ns
        for now_ns, started_ns, error in events:
            length = 0
            if error is None:
                length, more = mean + more, 0
            yield {
                "request_type": self._type,
                "name": self._name,
                "response_time": (now_ns - started_ns) / 1e6,
                "response_length": length,
                "exception": error,
                "start_time": (started_ns + epoch_ns) / 1e9,
            }


def _rounded_ns(time_ns: int) -> int:
    """Return a time from 100 ms up in its first three digits."""
    step_ns: int = 10 ** (len(str(time_ns)) - 3)
    return (time_ns + step_ns // 2) // step_ns * step_ns


@lru_cache(maxsize=16_384)
def _bucket_ms(time_ns: int) -> float:
    return locust.stats.bucket_response_time(time_ns / 1e6)

"""What one generator process has seen, second by second, and how the processes' reports add up.

The engine and the Locust users share this. Times go into three histograms per label (a method,
or a user class and its method): response (received - due), service (received - sent) and
lateness (sent - due). In a closed loop a call is due when it is sent, so only service is kept.

A second is one of the measured window, by when the answer came, counted from its opening; calls
that were due before it opened are the warm-up, second -1, kept apart. A process reports what is
new since its last report, and the collector adds it. The last report is marked: without it
the run lost samples and says so.

Where several servers share the load, what happens at each endpoint is counted twice: in the tally
of the run, and in that of the endpoint, whose windows are part of the run's (`Tally.at`).
"""

import math
import pickle
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Self

from capnp_rig.loadtest.stats.failures import (
    Examples,
    FailedCall,
    FailureNames,
    first_examples,
    kind_of,
)
from capnp_rig.loadtest.stats.histogram import Histogram, Recorder, merge
from capnp_rig.loadtest.stats.reasons import Reason

WARMUP = -1
_SECOND_NS = 1_000_000_000
_NEVER_NS = sys.maxsize
_AT_ONCE = 64

# The digest of a first reply, by which it is compared; the texts of its request and of it, cut.
FirstReply = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Times:
    """Histograms of calls in ns: the answered ones by clock, and how long failed ones took.

    `response` and `lateness` are empty in a closed loop.
    """

    service: Histogram = field(default_factory=Histogram)
    response: Histogram = field(default_factory=Histogram)
    lateness: Histogram = field(default_factory=Histogram)
    failed: Histogram = field(default_factory=Histogram)

    def to_json(self) -> dict[str, Any]:
        """Return plain values that JSON and msgpack keep; empty histograms are left out."""
        parts = {name: getattr(self, name) for name in _CLOCKS}
        return {name: part.to_json() for name, part in parts.items() if part.count}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote; raises as `Histogram.from_json`."""
        return cls(**{name: Histogram.from_json(part) for name, part in plain.items()})


_CLOCKS = ("service", "response", "lateness", "failed")


def add_times(parts: Iterable[Times]) -> Times:
    """Add times, clock by clock."""
    parts = list(parts)
    return Times(*(merge(getattr(part, name) for part in parts) for name in _CLOCKS))


@dataclass(frozen=True, slots=True)
class Window:
    """One second of one process, or of several together.

    `calls` has the times by label; `connects` and `reconnects` how long it took to connect, the
    first time and after a loss; `walks` how long the calls took, once per connection, that lead to
    what is called. `failures` counts by kind, failed connects among them; `ended` counts the
    connections that ended before the run did. `endpoints` has the same of each server by its
    address, nothing where there is one.
    """

    calls: Mapping[str, Times] = field(default_factory=dict)
    connects: Histogram = field(default_factory=Histogram)
    reconnects: Histogram = field(default_factory=Histogram)
    failures: Mapping[str, int] = field(default_factory=dict)
    walks: Histogram = field(default_factory=Histogram)
    ended: int = 0
    endpoints: Mapping[str, "Window"] = field(default_factory=dict)

    @property
    def times(self) -> Times:
        """The times of all labels together."""
        return add_times(self.calls.values())

    @property
    def answered(self) -> int:
        """How many calls were answered rightly."""
        return sum(times.service.count for times in self.calls.values())

    @property
    def failed(self) -> int:
        """How many calls and connects failed."""
        return sum(self.failures.values())

    def to_json(self) -> dict[str, Any]:
        """Return plain values that JSON and msgpack keep.

        Walks, connections that ended and endpoints are there where there are some.
        """
        more: dict[str, Any] = {"walks": self.walks.to_json()} if self.walks.count else {}
        if self.ended:
            more["ended"] = self.ended
        if self.endpoints:
            more["endpoints"] = {name: part.to_json() for name, part in self.endpoints.items()}
        return {
            "calls": {label: times.to_json() for label, times in self.calls.items()},
            "connects": self.connects.to_json(),
            "reconnects": self.reconnects.to_json(),
            "failures": dict(self.failures),
            **more,
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote; raises as `Histogram.from_json`."""
        return cls(
            {label: Times.from_json(times) for label, times in plain["calls"].items()},
            Histogram.from_json(plain["connects"]),
            Histogram.from_json(plain["reconnects"]),
            dict(plain["failures"]),
            Histogram.from_json(plain["walks"]) if "walks" in plain else Histogram(),
            plain.get("ended", 0),
            {name: cls.from_json(part) for name, part in plain.get("endpoints", {}).items()},
        )


def add_windows(parts: Iterable[Window]) -> Window:
    """Add windows into one."""
    parts = list(parts)
    failures: Counter[str] = Counter()
    for part in parts:
        failures.update(part.failures)
    return Window(
        {
            label: add_times(part.calls[label] for part in parts if label in part.calls)
            for label in dict.fromkeys(label for part in parts for label in part.calls)
        },
        merge(part.connects for part in parts),
        merge(part.reconnects for part in parts),
        dict(failures),
        merge(part.walks for part in parts),
        sum(part.ended for part in parts),
        {
            name: add_windows(part.endpoints[name] for part in parts if name in part.endpoints)
            for name in dict.fromkeys(name for part in parts for name in part.endpoints)
        },
    )


def _fold(parts: Iterable[Window]) -> Window:
    """Add windows a few at a time: all of a long run at once would fill the memory."""
    total, left = Window(), iter(parts)
    while some := list(islice(left, _AT_ONCE)):
        total = add_windows([total, *some])
    return total


class PackedWindows(MutableMapping[int, Window]):
    """Windows by second, compressed: some 3 kB each, where a dict of them takes 100.

    A run of hours has tens of thousands. Packing one takes 0.4 ms, reading it the same.
    """

    def __init__(self) -> None:
        self._packed: dict[int, bytes] = {}

    def __getitem__(self, second: int) -> Window:
        window: Window = pickle.loads(zlib.decompress(self._packed[second]))  # noqa: S301 - our own
        return window

    def __setitem__(self, second: int, window: Window) -> None:
        self._packed[second] = zlib.compress(pickle.dumps(window), 1)

    def __delitem__(self, second: int) -> None:
        del self._packed[second]

    def __iter__(self) -> Iterator[int]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def add(self, second: int, window: Window) -> None:
        """Add to the window of a second."""
        known = self.get(second)
        self[second] = window if known is None else add_windows([known, window])


@dataclass(frozen=True, slots=True)
class EndpointChange:
    """An endpoint was lost, so that no connection to it stands, or it came back.

    `at_s` counts from the opening of the measured window, and is negative in the warm-up.
    """

    endpoint: str
    at_s: float
    is_lost: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What a process newly reports, or all that it, or several, have reported.

    `windows` go by second. Of the calls due in the measured window, `scheduled` were due (None
    in a closed loop), `held` of them found no room at first, `unsent` were never sent, and
    `unfinished` were, but had no answer when the run ended. `cpu_ns` is what the process itself
    used for work; `first_ns` and `last_ns` are its monotonic clock at the first sending and the
    last answer, None without a call. `paused_ns` is how long, in a closed loop, all calls waited
    together and none was answered. `examples` are the first failed calls, `unchecked` says what
    of the replies nobody compared, `firsts` are the first replies to constant params, as
    `stats.first_replies` has them. `changes` has which of several endpoints were lost and came
    back, in the order of time.
    """

    windows: Mapping[int, Window] = field(default_factory=dict)
    scheduled: int | None = None
    held: int = 0
    unsent: int = 0
    unfinished: int = 0
    cpu_ns: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    final: bool = False
    paused_ns: int = 0
    examples: tuple[FailedCall, ...] = ()
    unchecked: tuple[Reason, ...] = ()
    firsts: Mapping[str, FirstReply] = field(default_factory=dict)
    changes: tuple[EndpointChange, ...] = ()

    @property
    def total(self) -> Window:
        """All of the measured window, the warm-up left out."""
        return _fold(part for second, part in self.windows.items() if second != WARMUP)

    @property
    def calls(self) -> int:
        """Calls of the measured window that were answered rightly."""
        return sum(part.answered for at, part in self.windows.items() if at != WARMUP)

    def to_json(self) -> dict[str, Any]:
        """Return plain values that JSON and msgpack keep."""
        windows = [[second, part.to_json()] for second, part in sorted(self.windows.items())]
        plain = {name: getattr(self, name) for name in _PLAIN}
        firsts = {place: list(first) for place, first in self.firsts.items()}
        return {"windows": windows, "firsts": firsts, **lists_to_json(self), **plain}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote; raises as `Histogram.from_json`."""
        windows = {second: Window.from_json(part) for second, part in plain["windows"]}
        firsts: dict[str, FirstReply] = {at: tuple(first) for at, first in plain["firsts"].items()}
        plain_parts = {name: plain[name] for name in _PLAIN}
        return cls(windows, **plain_parts, **lists_from_json(plain), firsts=firsts)


def lists_to_json(report: Report) -> dict[str, Any]:
    """Return in plain values what a report lists.

    That is calls that failed, what of the replies was not compared, and changes of endpoints.
    """
    return {
        "examples": [each.to_json() for each in report.examples],
        "unchecked": [reason.to_json() for reason in report.unchecked],
        "changes": [asdict(each) for each in report.changes],
    }


def lists_from_json(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `lists_to_json` wrote, by the names of a report; older results have none.

    Raises:
        ValueError, TypeError, KeyError: It is not as it was written.
    """
    return {
        "examples": tuple(FailedCall.from_json(each) for each in plain.get("examples", ())),
        "unchecked": tuple(Reason.from_json(each) for each in plain.get("unchecked", ())),
        "changes": tuple(_read_change(**each) for each in plain.get("changes", ())),
    }


def _read_change(endpoint: object, at_s: object, is_lost: object) -> EndpointChange:
    if not isinstance(endpoint, str) or not isinstance(is_lost, bool):
        raise TypeError(f"the change of an endpoint is {endpoint!r}, {is_lost!r}")
    if not isinstance(at_s, int | float) or not math.isfinite(at_s):
        raise TypeError(f"the change of an endpoint is at {at_s!r}")
    return EndpointChange(endpoint, at_s, is_lost)


_PLAIN = (
    *("scheduled", "held", "unsent", "unfinished", "cpu_ns", "first_ns", "last_ns", "final"),
    "paused_ns",
)


def add(report: Report, other: Report) -> Report:
    """Return two reports as one."""
    seconds = dict.fromkeys([*report.windows, *other.windows])
    scheduled = [part for part in (report.scheduled, other.scheduled) if part is not None]
    return Report(
        windows={
            second: add_windows(
                part.windows[second] for part in (report, other) if second in part.windows
            )
            for second in seconds
        },
        scheduled=sum(scheduled) if scheduled else None,
        held=report.held + other.held,
        unsent=report.unsent + other.unsent,
        unfinished=report.unfinished + other.unfinished,
        cpu_ns=report.cpu_ns + other.cpu_ns,
        first_ns=_chosen(min, report.first_ns, other.first_ns),
        last_ns=_chosen(max, report.last_ns, other.last_ns),
        final=report.final or other.final,
        paused_ns=report.paused_ns + other.paused_ns,
        examples=first_examples([*report.examples, *other.examples]),
        unchecked=tuple(dict.fromkeys([*report.unchecked, *other.unchecked])),
        firsts={**other.firsts, **report.firsts},
        changes=(*report.changes, *other.changes),
    )


def _chosen(choose: Callable[..., int], *values: int | None) -> int | None:
    known = [value for value in values if value is not None]
    return choose(known) if known else None


# Binning delays what is measured meanwhile: with 512 the service p99 of 16 Locust users was
# 963 µs, with 128 it is 610, for 0.06 µs more a call.
_BIN_EVERY = 128
# An owner who has a better moment for it, once its bytes have left, bins by `Timer.settle`. So many
# wait for it at most.
_BIN_AT_LAST = 4096
# Calls that wait for things of their own do not all wait at once. Where answers come at random,
# none comes for the time of 20 with a chance of exp(-20); with under 8 calls in flight, one slow
# call after the other may do it. Where all go to and fro together, a round may be twice as long as
# the mean. Shorter than a millisecond is a slice of another process.
_PAUSE_CALLS, _PAUSE_ROUNDS, _PAUSE_LEAST, _PAUSE_NS = 20, 2, 8, 1_000_000

# Gets calls that were answered since it was last told: when due, sent and received, in ns. The
# list is emptied afterwards.
Tell = Callable[[list[tuple[int, int, int]]], None]


class Timer:
    """Records the answered calls of one label; made by `Tally.timer`, and bound before the run."""

    __slots__ = (
        *("_bin_at", "_binned", "_calls", "_clocks", "_heard", "_heard_from_ns", "_heard_ns"),
        *("_tally", "_tell", "_warm_clocks"),
    )

    def __init__(self, tally: "Tally", tell: Tell | None, *, is_settled: bool) -> None:
        self._tally = tally
        self._tell = tell
        self._bin_at = _BIN_AT_LAST if is_settled else _BIN_EVERY
        # Due, sent and received, not binned yet.
        self._calls: list[tuple[int, int, int]] = []
        self._binned = 0
        # Answers of the measured window: how many, and when the first and the last came.
        self._heard = self._heard_from_ns = self._heard_ns = 0
        self._clocks = (Recorder(), Recorder(), Recorder())
        self._warm_clocks = (Recorder(), Recorder(), Recorder())

    def record(self, due_ns: int, sent_ns: int, received_ns: int) -> None:
        """Count a call that was answered as it should be; in a closed loop it is due when sent."""
        tally = self._tally
        if received_ns >= tally.turn_ns:
            tally.turn(sent_ns, received_ns)
        calls = self._calls
        calls.append((due_ns, sent_ns, received_ns))
        if len(calls) >= self._bin_at:
            self.flush()

    def settle(self) -> None:
        """Bin what was recorded, if that pays by now; for a moment when nothing waits for it."""
        if len(self._calls) >= _BIN_EVERY:
            self.flush()

    @property
    def answered(self) -> int:
        """How many calls were recorded, the warm-up's among them."""
        return self._binned + len(self._calls)

    def take(self) -> tuple[Times, Times]:
        """Return what is new: in the measured window and in the warm-up."""
        self.flush()
        measured, warm = (
            Times(*(clock.take() for clock in clocks))
            for clocks in (self._clocks, self._warm_clocks)
        )
        return measured, warm

    def flush(self) -> None:
        """Bin what was recorded, and tell who wants to know."""
        calls, open_ns = self._calls, self._tally.open_ns
        if not calls:
            return
        self._tally.last_ns = calls[-1][2]
        self._binned += len(calls)
        if self._tell is not None:
            self._tell(calls)
        if min(calls)[0] < open_ns:
            self._add(self._warm_clocks, [call for call in calls if call[0] < open_ns])
            calls = [call for call in calls if call[0] >= open_ns]
        self._add(self._clocks, calls)
        if calls and self._tally.in_flight >= _PAUSE_LEAST:
            self._note_pauses(calls)
        self._calls.clear()

    def _note_pauses(self, calls: list[tuple[int, int, int]]) -> None:
        """Add up the times without an answer; it costs 0.05 µs a call."""
        if not self._heard:
            self._heard_from_ns = self._heard_ns = calls[0][2]
        heard_ns = self._heard_ns
        for _, _, received_ns in calls:
            pause_ns = received_ns - heard_ns
            if pause_ns > _PAUSE_NS:
                # How many answers come in that time, at the rate so far.
                usual = pause_ns * self._heard / (received_ns - self._heard_from_ns)
                if usual > max(_PAUSE_CALLS, _PAUSE_ROUNDS * self._tally.in_flight):
                    self._tally.paused_ns += pause_ns
            heard_ns = received_ns
        self._heard_ns = heard_ns
        self._heard += len(calls)

    def _add(self, clocks: tuple[Recorder, ...], calls: list[tuple[int, int, int]]) -> None:
        service, response, lateness = clocks
        service.extend([received - sent for _, sent, received in calls])
        if self._tally.is_open_loop:
            response.extend([received - due for due, _, received in calls])
            lateness.extend([sent - due for due, sent, _ in calls])


class Tally:
    """Records the calls of this process. It reads no clock: callers pass the times.

    `open_ns` is when the measured window opens; calls due earlier are the warm-up. Where it is not
    known yet, `open` sets it: until then, every call is warm-up, and connects and failures count
    in second 0. `in_flight` is how many calls a closed loop always has in flight, 0 where that
    varies. A call costs 0.7 µs with three clocks and 0.4 with one, binning included.
    """

    def __init__(
        self, *, open_ns: int | None = None, is_open_loop: bool = False, in_flight: int = 0
    ) -> None:
        self._open_ns = _NEVER_NS
        self.is_open_loop = is_open_loop
        self.in_flight = in_flight
        self.paused_ns = 0
        # Answers from here on belong to another second than the one that is being recorded.
        self.turn_ns = _NEVER_NS
        self.last_ns: int | None = None
        self.scheduled = self.held = self.unsent = self.unfinished = 0
        # Of an open loop: time spent going round until the next call is due, which is no work.
        self.spun_ns = 0
        self._second = 0
        # What of the replies nobody compares, and the first ones, which others are compared with.
        self._unchecked: dict[Reason, None] = {}
        self._firsts: Mapping[str, FirstReply] = {}
        self._told_firsts = 0
        self._names = FailureNames()
        self._examples = Examples()
        self._timers: dict[str, Timer] = {}
        self._failed: dict[str, Recorder] = {}
        self._failures: Counter[str] = Counter()
        self._connects, self._reconnects, self._walks = Recorder(), Recorder(), Recorder()
        self._ended = 0
        # Gets what is new of the run whenever a second ends.
        self.tell_window: Callable[[Window], None] | None = None
        self._endpoints: dict[str, Tally] = {}
        # Of the tally of an endpoint: whether it is lost, and when it was lost or came back.
        self._is_lost = False
        self._changes: list[tuple[int, bool]] = []
        self._done = PackedWindows()
        self._first_ns: int | None = None
        if open_ns is not None:
            self.open(open_ns)

    @property
    def open_ns(self) -> int:
        """When the measured window opens; past every clock while nobody has said."""
        return self._open_ns

    def open(self, open_ns: int) -> None:
        """Let the measured window open at `open_ns`, from which its seconds count.

        It is opened once: seconds that were counted from another opening could not be told apart.
        """
        assert self._open_ns == _NEVER_NS
        self._open_ns = open_ns
        # Whatever comes next begins its second.
        self.turn_ns = 0
        for part in self._endpoints.values():
            part.open(open_ns)

    def at(self, endpoint: str) -> "Tally":
        """Return the tally of one of several endpoints: who counts there counts in both.

        What it counts is under the endpoint's name in the windows that `take` returns here.
        """
        if endpoint not in self._endpoints:
            known = None if self._open_ns == _NEVER_NS else self._open_ns
            part = self._endpoints[endpoint] = Tally(open_ns=known, is_open_loop=self.is_open_loop)
            # One without any call is told of, too.
            self._done.add(0, Window(endpoints={endpoint: Window()}))
            return part
        return self._endpoints[endpoint]

    @property
    def answered(self) -> int:
        """How many calls were answered rightly, the warm-up's among them."""
        return sum(timer.answered for timer in self._timers.values())

    def timer(self, label: str, tell: Tell | None = None, *, is_settled: bool = False) -> Timer:
        """Return what records the answered calls of `label`.

        The first to ask may have `tell` called with the same calls, in bulk. Who says `is_settled`
        calls `settle` between the calls, so that binning does not keep the next ones from leaving.
        """
        if label not in self._timers:
            self._timers[label] = Timer(self, tell, is_settled=is_settled)
        return self._timers[label]

    def turn(self, started_ns: int, now_ns: int) -> None:
        """Begin the second in which `now_ns` lies; `started_ns` is when what ends now began."""
        if self._first_ns is None:
            self._first_ns = max(started_ns, self.open_ns)
        self._cut()
        self._second = max(0, (now_ns - self.open_ns) // _SECOND_NS)
        self.turn_ns = self.open_ns + (self._second + 1) * _SECOND_NS

    def failed(self, label: str, started_ns: int, now_ns: int, error: Exception) -> Exception:
        """Count a call that failed; return its exception, shortened so as to be counted."""
        if now_ns >= self.turn_ns:
            self.turn(started_ns, now_ns)
        if label not in self._failed:
            self._failed[label] = Recorder()
        self._failed[label].record(now_ns - started_ns)
        short = self._names.shorten(error)
        kind = kind_of(short)
        self._failures[kind] += 1
        self._examples.add(kind, error)
        return short

    def connected(
        self, started_ns: int, now_ns: int, *, again: bool, walk_ns: int | None = None
    ) -> None:
        """Count a connection that was made, for the first time or `again` after a loss.

        `walk_ns` is how much of that the calls took that lead to what is called, None without any.
        """
        if now_ns >= self.turn_ns:
            self.turn(started_ns, now_ns)
        if walk_ns is not None:
            self._walks.record(walk_ns)
            now_ns -= walk_ns
        (self._reconnects if again else self._connects).record(now_ns - started_ns)

    def disconnected(self, now_ns: int) -> None:
        """Count a connection that ended before the run did."""
        if now_ns >= self.turn_ns:
            self.turn(now_ns, now_ns)
        self._ended += 1

    def changed(self, now_ns: int, *, is_lost: bool) -> None:
        """Note, in the tally of an endpoint, that it was lost or came back; once is enough."""
        if is_lost != self._is_lost:
            self._is_lost = is_lost
            self._changes.append((now_ns, is_lost))

    def take_changes(self) -> list[tuple[int, bool]]:
        """Return what `changed` has noted since the last time, with when it was."""
        changes, self._changes = self._changes, []
        return changes

    def check(
        self, unchecked: Iterable[Reason], firsts: Mapping[str, FirstReply] | None = None
    ) -> None:
        """Note what of the replies nobody compares; `firsts` fills with the first replies."""
        self._unchecked.update(dict.fromkeys(unchecked))
        if firsts is not None:
            self._firsts = firsts

    def take(self, *, cpu_ns: int = 0, final: bool = False) -> Report:
        """Return what is new since the last `take`."""
        self._cut()
        changes = [change for name in self._endpoints for change in self._take_endpoint(name)]
        report = Report(
            windows=self._done,
            scheduled=self.scheduled if self.is_open_loop else None,
            held=self.held,
            unsent=self.unsent,
            unfinished=self.unfinished,
            cpu_ns=max(cpu_ns - self.spun_ns, 0),
            first_ns=self._first_ns,
            last_ns=self.last_ns,
            final=final,
            paused_ns=self.paused_ns,
            examples=self._examples.take(),
            unchecked=tuple(self._unchecked),
            # They come at the beginning: a report has all of them, or none.
            firsts=dict(self._firsts) if len(self._firsts) > self._told_firsts else {},
            changes=tuple(sorted(changes, key=lambda change: change.at_s)),
        )
        self._told_firsts = len(self._firsts)
        self._done = PackedWindows()
        self.scheduled = self.held = self.unsent = self.unfinished = self.spun_ns = 0
        self.paused_ns = 0
        return report

    def _take_endpoint(self, name: str) -> list[EndpointChange]:
        """Put what is new of an endpoint into the windows; return its changes."""
        part = self._endpoints[name]
        changes = part.take_changes()
        report = part.take()
        for second, window in report.windows.items():
            self._done.add(second, Window(endpoints={name: window}))
        if report.unfinished:
            window = Window(failures={"unfinished": report.unfinished})
            self._done.add(self._second, Window(endpoints={name: window}))
        return [
            EndpointChange(name, (at_ns - self._open_ns) / _SECOND_NS, is_lost)
            for at_ns, is_lost in changes
        ]

    def _cut(self) -> None:
        """Put what was recorded under its second."""
        taken = {label: timer.take() for label, timer in self._timers.items()}
        failed = {label: Times(failed=each.take()) for label, each in self._failed.items()}
        measured = {label: times for label, (times, _) in taken.items() if times.service.count}
        for label, times in failed.items():
            if times.failed.count:
                measured[label] = add_times([measured.get(label, Times()), times])
        window = Window(
            measured,
            self._connects.take(),
            self._reconnects.take(),
            dict(self._failures),
            self._walks.take(),
            self._ended,
        )
        self._failures.clear()
        self._ended = 0
        warmup = {label: times for label, (_, times) in taken.items() if times.service.count}
        for second, part in ((self._second, window), (WARMUP, Window(warmup))):
            if part != Window():
                self._done.add(second, part)
                if self.tell_window is not None:
                    self.tell_window(part)


@dataclass(frozen=True, slots=True)
class Clocks:
    """The three histograms of answered calls, in ns, whatever the loop."""

    response: Histogram
    service: Histogram
    lateness: Histogram

    @classmethod
    def of(cls, times: Times, *, is_open_loop: bool) -> Self:
        """Return the clocks of `times`; in a closed loop a call is due when it is sent."""
        if is_open_loop:
            return cls(times.response, times.service, times.lateness)
        count = times.service.count
        edge_ns = 0 if count else None
        zeros = Histogram(count=count, below=count, min_ns=edge_ns, max_ns=edge_ns)
        return cls(times.service, times.service, zeros)

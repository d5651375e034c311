"""The users of one Locust process: their part of the run, and what they share.

A run has one `Crew` per process that has users, from Locust's `test_start` to its `test_stop`.
The master tells each worker its part before it spawns there, among the parsed options, which
travel with every order to spawn: a message of its own could come before a worker that joins
late listens to it.

What a callback in gevent's hub must not do itself, because it might block, a greenlet of the crew
does ten times a second: it looks for overdue calls, logs, and feeds Locust's statistics.
"""

import inspect
import logging
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any, Protocol

import gevent
from gevent.event import Event
from locust import events
from locust.env import Environment
from locust.exception import StopTest
from locust.runners import LocalRunner, MasterRunner, Runner, WorkerRunner

from capnp_rig.loadtest.engine.schedule import Arrivals, Pace
from capnp_rig.loadtest.locust_rig import listeners as locust_report
from capnp_rig.loadtest.locust_rig.call_pacer import Pacer
from capnp_rig.loadtest.locust_rig.process_share import Part, part_of
from capnp_rig.loadtest.locust_rig.stats_bridge import FEED_EVERY_S, FOR_A_USER, REQUEST_TYPE, Feed
from capnp_rig.loadtest.locust_rig.workload import workload_config
from capnp_rig.loadtest.protocols import AnyWorkload, load_any_workload
from capnp_rig.loadtest.stats.failures import WrongReply
from capnp_rig.loadtest.stats.tally import Timer

# What is counted under the name alone, whichever user class it befell.
CONNECT, _NOT_SENT, _FAULT = "connect", "not sent", "bug"
_CLASSLESS = {CONNECT, _NOT_SENT, _FAULT}
# A call that is overdue is found this late at most.
_WATCH_S = 0.1
_PART = "capnp_rig_part"
_USERS = "capnp_rig_users"
_BUG = "capnp_rig_bug"

_logger = logging.getLogger(__name__)
# Locust's hooks are untyped.
_events: Any = events


class Bug(Exception):
    """An error that no server can cause; it ends the run."""


class Overdue(Protocol):
    """What is asked now and then whether a call is overdue."""

    def expire(self, now_ns: int) -> None:
        """Deal with it."""


class Counts:
    """Counts the calls of one user class and method, with the rig and with Locust.

    `answered` gets due, sent and received, in ns. The rig's label is the class's name and
    `name`; Locust's entry is `name`, of the type `request_type`.
    """

    def __init__(self, crew: "Crew", user_class: str, name: str, request_type: str) -> None:
        label = name if name in _CLASSLESS else f"{user_class} {name}"
        self._crew = crew
        self._label = label
        self._named = crew.feed.named(name, request_type)
        self.timer: Timer = crew.tally.timer(label, self._named.answered)
        self.answered: Callable[[int, int, int], None] = self.timer.record

    def failed(self, error: Exception, started_ns: int, now_ns: int) -> Exception:
        """Count a failed call; return its exception, shortened so as to be counted."""
        short = self._crew.tally.failed(self._label, started_ns, now_ns, error)
        self._named.failed(short, started_ns, now_ns)
        if isinstance(error, WrongReply):
            self._crew.note(f"Wrong reply: {self._label}: {short}")
        return short

    def received(self, size: int) -> None:
        """Count bytes of replies, framing included."""
        self._named.received_bytes += size


class Crew:
    """What the users of this process share in the current run."""

    def __init__(self, environment: Environment, part: Part) -> None:
        self.part = part
        self.environment = environment
        self.options = _options(environment)
        self.tally = locust_report.tally()
        self.feed = Feed(environment)
        self._counts: dict[tuple[str, str], Counts] = {}
        self._workloads: dict[str, AnyWorkload] = {}
        self._numbers = count(part.first_user, part.step)
        self._users = 0
        self._watched: set[Overdue] = set()
        self._notes: list[str] = []
        self._bug: Exception | None = None
        self._ended = False
        self._wake = Event()
        self.pacer: Pacer | None = None
        # A user on its own, in a debugger, has no runner, and no schedule either.
        if self.options.rate is not None and environment.runner is not None:
            self.pacer = self._make_pacer()
        gevent.spawn(self._watch)

    def _make_pacer(self) -> Pacer:
        # One seed per process, so that the processes' calls do not come together.
        seed = f"{self.options.data_seed} {self.part.number}"
        pace = Pace(Arrivals(self.options.arrivals), seed=seed)
        return Pacer(pace, self.tally, not_sent=self._not_sent, bug=self.bug)

    def _not_sent(self, error: Exception, due_ns: int, now_ns: int) -> None:
        self.counts("", _NOT_SENT).failed(error, due_ns, now_ns)

    def workload(self, stack: str) -> AnyWorkload:
        """Return what the options ask to send on a stack.

        Raises:
            WorkloadError: That is unusable.
        """
        if stack not in self._workloads:
            self._workloads[stack] = load_any_workload(
                stack,
                workload_config(self.options),
                authority=self.options.host or "",
                first=self.part.first_call,
                step=self.part.step,
            )
        return self._workloads[stack]

    def counts(self, user_class: str, name: str, request_type: str = REQUEST_TYPE) -> Counts:
        """Return what counts the calls of a user class that have this name."""
        key = (user_class, name)
        if key not in self._counts:
            self._counts[key] = Counts(self, user_class, name, request_type)
        return self._counts[key]

    def join(self) -> int:
        """Count a user that starts; return a number that no other user of the run has."""
        self._users += 1
        self._set_rate()
        return next(self._numbers)

    def leave(self, unfinished: int) -> None:
        """Count a user that has ended, and its calls that were given up."""
        self._users -= 1
        self.tally.unfinished += unfinished
        self._set_rate()

    def _set_rate(self) -> None:
        if self.pacer is not None:
            self.pacer.set_rate(self.part.rate_hz(self.options.rate, self._users))

    def grow(self, users: int) -> None:
        """Take note of how many users the whole run has, if it is more than it ever had."""
        if users > self.part.users:
            self.part = replace(self.part, users=users)
            self._set_rate()

    def watch(self, one: Overdue) -> None:
        """Ask `one` for overdue calls from now on."""
        self._watched.add(one)

    def unwatch(self, one: Overdue) -> None:
        """Ask no more."""
        self._watched.discard(one)

    def note(self, text: str) -> None:
        """Log a text soon, one of few."""
        if len(self._notes) < 3:
            self._notes.append(text)

    def bug(self, error: Exception) -> None:
        """End the run: this error can have no other cause than a mistake in the program."""
        if self._bug is None:
            self._bug = error
            self._wake.set()

    def tell_locust(self) -> None:
        """Tell Locust of all calls so far.

        Raises:
            StopTest, StopUser, RescheduleTask, ...: As `Feed.add`.
        """
        for counts in self._counts.values():
            counts.timer.flush()
        self.feed.add()

    def feed_locust(self) -> None:
        """Tell Locust of all calls so far, where there is no user to hear what a listener wants."""
        try:
            self.tell_locust()
        except FOR_A_USER:
            return
        except StopTest as wish:
            self.bug(wish)

    def stop_sending(self) -> None:
        """Start no more calls of an open loop; those that still wait for a slot are unfinished."""
        if self.pacer is not None:
            self.tally.unfinished += self.pacer.stop()

    def stop(self) -> None:
        """End; the users are gone."""
        # Not killed: a listener that the crew itself called may have ended the run.
        self._ended = True
        self._wake.set()
        self._log_notes()
        self.feed_locust()

    def _watch(self) -> None:
        fed_s = time.monotonic()
        while self._bug is None:
            self._wake.wait(_WATCH_S)
            if self._ended:
                return
            now_ns = time.monotonic_ns()
            for one in list(self._watched):
                one.expire(now_ns)
            self._log_notes()
            if isinstance(self.environment.runner, LocalRunner):
                self.grow(self.environment.runner.target_user_count)
            if now_ns / 1e9 - fed_s >= FEED_EVERY_S:
                fed_s = now_ns / 1e9
                self.feed_locust()
        if isinstance(self._bug, StopTest):
            _logger.error("The run ends: %s", self._bug)
            _end_run(self.environment)
        else:
            self._report_bug(self._bug)

    def _log_notes(self) -> None:
        notes, self._notes = self._notes, []
        for text in notes:
            locust_report.log_few(text)

    def _report_bug(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        _logger.critical("The run ends: %s", text, exc_info=error)
        now_ns = time.monotonic_ns()
        self.counts("", _FAULT).failed(Bug(text), now_ns, now_ns)
        runner = self.environment.runner
        if isinstance(runner, WorkerRunner):
            # Its master ends the run, for all workers.
            runner.send_message(_BUG, {"text": text})
        else:
            self.environment.process_exit_code = 1
            _end_run(self.environment)


_crews: list[Crew] = []


def crew() -> Crew:
    """Return what the users of this process share in the current run."""
    assert _crews, "users start after test_start"
    return _crews[0]


def _options(environment: Environment) -> Namespace:
    options = environment.parsed_options
    assert isinstance(options, Namespace)
    return options


def _end_run(environment: Environment) -> None:
    runner = environment.runner
    assert runner is not None
    # In a greenlet of its own: ending a run ends the crew's.
    gevent.spawn(runner.quit if _options(environment).headless else runner.stop)


# --- the parts of the workers ----------------------------------------------------------------


class _Parts:
    """The parts, as the master gives them to its workers."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._processes = 0
        self._users = 0

    def start(self, environment: Environment, runner: MasterRunner) -> None:
        """Give a part to each worker that is there."""
        self._numbers = {name: number for number, name in enumerate(runner.clients)}
        self._processes = len(self._numbers)
        self._users = _target(environment, runner.target_user_count)
        self._tell(environment)
        gevent.spawn(self._watch, runner, environment)

    def join(self, environment: Environment, client_id: str) -> None:
        """Give a part to a worker that joins."""
        self._numbers.setdefault(client_id, len(self._numbers))
        self._tell(environment)

    def _tell(self, environment: Environment) -> None:
        told = {"numbers": self._numbers, "processes": self._processes, "users": self._users}
        setattr(environment.parsed_options, _PART, told)

    def _watch(self, runner: MasterRunner, environment: Environment) -> None:
        # Locust does not say when a run is given more users while it goes on.
        while runner.state not in {"stopping", "stopped"}:
            if runner.target_user_count > self._users:
                self._users = runner.target_user_count
                self._tell(environment)
                runner.send_message(_USERS, {"users": self._users})
            gevent.sleep(_WATCH_S)


_parts = _Parts()


def _target(environment: Environment, users: int) -> int:
    """Return how many users a run is to have in all, started with `users`."""
    # A shape starts with few.
    return max(users, int(getattr(environment.shape_class, "peak_users", None) or 0))


def _own_part(environment: Environment, runner: Runner | None) -> Part:
    if not isinstance(runner, WorkerRunner):
        users = 1 if runner is None else runner.target_user_count
        return part_of(0, 1, _target(environment, users))
    told = getattr(environment.parsed_options, _PART, None)
    assert told is not None, "master and workers need the same locustfile"
    return part_of(told["numbers"][runner.client_id], told["processes"], told["users"])


# --- the life of a crew ----------------------------------------------------------------------


def _on_init(environment: Environment, **_: object) -> None:
    runner = environment.runner
    if isinstance(runner, MasterRunner):
        # Fired by Locust with the id alone.
        def join(client_id: str, **_: object) -> None:
            _parts.join(environment, client_id)

        _events.worker_connect.add_listener(join)
        runner.register_message(_BUG, _on_bug)
    elif isinstance(runner, WorkerRunner):
        runner.register_message(_USERS, _on_users)


def _on_start(environment: Environment, **_: object) -> None:
    runner = environment.runner
    if isinstance(runner, MasterRunner):
        _parts.start(environment, runner)
    else:
        _crews[:] = [Crew(environment, _own_part(environment, runner))]
        # Locust looks through the stack to log who ended a run, before it tells anybody. The first
        # look takes 21 ms, in which no call is sent and no reply read; the next ones 0.5.
        inspect.stack()


def _on_users(msg: Any, **_: object) -> None:
    for each in _crews:
        each.grow(msg.data["users"])


def _on_bug(environment: Environment, msg: Any, **_: object) -> None:
    _logger.critical("The run ends: %s", msg.data["text"])
    environment.process_exit_code = 1
    _end_run(environment)


def _on_stopping(**_: object) -> None:
    for each in _crews:
        each.stop_sending()


def _on_stop(**_: object) -> None:
    for each in _crews:
        each.stop()


def _on_report(**_: object) -> None:
    for each in _crews:
        each.feed_locust()


_events.init.add_listener(_on_init)
# After the rig's own, which makes the tally, since that module is imported first; and before
# Locust's, which report and reset the statistics, since those are added with the runner.
_events.test_start.add_listener(_on_start)
_events.test_stopping.add_listener(_on_stopping)
_events.test_stop.add_listener(_on_stop)
_events.report_to_master.add_listener(_on_report)
_events.spawning_complete.add_listener(_on_report)

"""The users of one Locust process, and what they share in the current run.

What a callback in gevent's hub must not do itself, because it might block, a greenlet of the group
does ten times a second: it logs, and brings Locust's statistics up to date.
"""

import logging
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import gevent
from gevent.event import Event
from locust.env import Environment
from locust.exception import StopTest
from locust.runners import LocalRunner, WorkerRunner

from capnp_rig.loadtest.engine.schedule import Arrivals, Pace
from capnp_rig.loadtest.locust_rig.call_pacer import CallPacer
from capnp_rig.loadtest.locust_rig.process_share import ProcessShare
from capnp_rig.loadtest.locust_rig.stats_bridge import (
    BRIDGE_EVERY_S,
    FOR_A_USER,
    REQUEST_TYPE,
    StatsBridge,
)
from capnp_rig.loadtest.locust_rig.user_places import UserServers
from capnp_rig.loadtest.locust_rig.workload import workload_config
from capnp_rig.loadtest.protocols import (
    CAPNP,
    AnyWorkload,
    firsts_of,
    load_any_workload,
    unchecked_of,
)
from capnp_rig.loadtest.stats.endpoint_tally import EndpointTally
from capnp_rig.loadtest.stats.failures import FailedCall, WrongReply
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode
from capnp_rig.loadtest.stats.tally import Tally
from capnp_rig.loadtest.workload import Workload, message_limits
from capnp_rig.loadtest.workload.checks import json_text
from capnp_rig.objects.errors import ClientError
from capnp_rig.rigcli.address import parse_addresses

# The message that tells the master of a bug in a worker.
BUG_MESSAGE = "capnp_rig_bug"
# What is counted under the name alone, whichever user class it happened to.
CONNECT, _BUG = "connect", "bug"
_WITHOUT_CLASS = {CONNECT, _BUG}
_WATCH_S = 0.1
# In a run: a broken server breaks every call.
_MOST_NOTES = 3

_logger = logging.getLogger(__name__)


class Bug(Exception):
    """An error that no server can cause; it ends the run."""


class CallCounter:
    """Counts the calls of one user class and method, with the rig and with Locust.

    `answered` gets due, sent and received, in ns. The rig's label is the class's name and
    `name`; Locust's entry is `name`, of the type `request_type`. Of several servers each has
    counters of its own, and entries with its address.
    """

    def __init__(
        self,
        group: "UserGroup",
        user_class: str,
        name: str,
        request_type: str,
        tally: EndpointTally,
    ) -> None:
        label = name if name in _WITHOUT_CLASS else f"{user_class} {name}"
        self._group = group
        self._tally = tally
        self.label, self.user_class = label, user_class
        # Whether the user's own code got results that nothing had compared.
        self.has_unchecked = False
        shown = f"{name} at {tally.name}" if tally.name else name
        self._entry = group.bridge.entry(shown, request_type)
        recorder = tally.recorder(label, self._entry.answered)
        self.answered: Callable[[int, int, int], None] = recorder.record
        self.flush: Callable[[], None] = recorder.flush

    def failed(self, error: Exception, started_ns: int, now_ns: int) -> Exception:
        """Count a failed call; return its exception, shortened so as to be counted."""
        short = self._tally.failed(self.label, started_ns, now_ns, error)
        self._entry.failed(short, started_ns, now_ns)
        if isinstance(error, WrongReply):
            self._group.log_soon(self.label, error)
        return short

    def received(self, size: int) -> None:
        """Count bytes of replies, framing included."""
        self._entry.received_bytes += size


class UserGroup:
    """The users of this process from Locust's `test_start` to its `test_stop`."""

    def __init__(self, environment: Environment, share: ProcessShare, tally: Tally) -> None:
        self.share = share
        self.options = options_of(environment)
        self.frame_limits = message_limits(self.options.max_message)
        self.tally = tally
        self.bridge = StatsBridge(environment)
        self.pacer: CallPacer | None = None
        # The user classes whose code compares results by itself.
        self.expecting: set[str] = set()
        self._environment = environment
        self._counters: dict[tuple[str, str, str], CallCounter] = {}
        self._servers: dict[str, UserServers] = {}
        self._workloads: dict[tuple[str, str], AnyWorkload] = {}
        self._numbers = count(share.first_user, share.step)
        self._size = 0
        self._notes: list[str] = []
        self._logged = 0
        self._bug: Exception | None = None
        self._has_ended = self._has_shown = False
        self._wake = Event()
        # A user on its own, in a debugger, has no runner, and no schedule either.
        if self.options.rate is not None and environment.runner is not None:
            self.pacer = self._make_pacer()
        gevent.spawn(self._watch)

    def _make_pacer(self) -> CallPacer:
        # One seed per process, so that the processes' calls do not come together.
        seed = f"{self.options.data_seed} {self.share.number}"
        pace = Pace(Arrivals(self.options.arrivals), seed=seed)
        return CallPacer(pace, self.tally, bug=self.bug)

    def servers(self, host: str) -> UserServers:
        """Return the servers that a user's host names.

        Raises:
            AddressError: It names none.
        """
        if host not in self._servers:
            self._servers[host] = UserServers(
                parse_addresses(host), self.tally, self.share.number, self._connect_failed
            )
        return self._servers[host]

    def _connect_failed(
        self, endpoint: str, error: ClientError, started_ns: int, now_ns: int
    ) -> None:
        """Count a connection that no user has tried to make."""
        tally = EndpointTally(self.tally, endpoint)
        self.counter("", CONNECT, REQUEST_TYPE, tally).failed(error, started_ns, now_ns)

    def workload(self, stack: str, authority: str = "") -> AnyWorkload:
        """Return what the options ask to send on a stack; `authority` is what HTTP calls a server.

        Raises:
            WorkloadError: That is unusable.
        """
        if stack == CAPNP:
            # All servers answer the same.
            authority = ""
        key = stack, authority
        if key not in self._workloads:
            workload = load_any_workload(
                stack,
                workload_config(self.options),
                authority=authority,
                first=self.share.first_call,
                step=self.share.step,
            )
            unchecked = unchecked_of(workload, checks_content=self.checks_content)
            self.tally.check(unchecked, firsts_of(workload))
            if self.options.show and self.share.number == 0 and isinstance(workload, Workload):
                workload = workload.watched(self._show, 1, compares=self.checks_content)
            self._workloads[key] = workload
        return self._workloads[key]

    def _show(self, results: Any) -> None:
        """Log the first of some replies soon: it comes in gevent's hub, which must not wait."""
        if not self._has_shown:
            self._has_shown = True
            gevent.spawn(_logger.info, "The first reply: %s", json_text(results))

    @property
    def checks_content(self) -> bool:
        """Whether the content of replies is compared, as far as something is expected."""
        return bool(self.options.check != "id")

    def counter(
        self,
        user_class: str,
        name: str,
        request_type: str = REQUEST_TYPE,
        tally: EndpointTally | None = None,
    ) -> CallCounter:
        """Return what counts the calls of a user class that have this name, at a server."""
        counted = tally or EndpointTally(self.tally)
        key = (user_class, name, counted.name)
        if key not in self._counters:
            self._counters[key] = CallCounter(self, user_class, name, request_type, counted)
        return self._counters[key]

    def join(self) -> int:
        """Count a user that starts; return a number that no other user of the run has."""
        self._size += 1
        self._resize()
        return next(self._numbers)

    def leave(self, unfinished: int, tally: EndpointTally) -> None:
        """Count a user that has ended, and its calls at a server that were given up."""
        self._size -= 1
        tally.unfinished(unfinished)
        self._resize()

    def _resize(self) -> None:
        self.tally.in_flight = 0 if self.pacer else self._size * self.options.in_flight
        self._set_rate()

    def _set_rate(self) -> None:
        if self.pacer is not None:
            self.pacer.set_rate(self.share.rate_hz(self.options.rate, self._size))

    def grow(self, users: int) -> None:
        """Take note of how many users the whole run has, if it is more than it ever had."""
        if users > self.share.users:
            self.share = replace(self.share, users=users)
            self._set_rate()

    def log_soon(self, label: str, error: WrongReply) -> None:
        """Log a wrong reply soon, with its call, if it is one of the first."""
        if len(self._notes) < _MOST_NOTES:
            example = FailedCall.of(f"{error}", error)
            self._notes.append("; ".join([f"Wrong reply: {label}: {error}", *example.lines]))

    def bug(self, error: Exception) -> None:
        """End the run: this error can have no other cause than a mistake in the program."""
        if self._bug is None:
            self._bug = error
            self._wake.set()

    def tell_locust(self) -> None:
        """Tell Locust of all calls so far.

        Raises:
            StopTest, StopUser, RescheduleTask, ...: As `StatsBridge.add`.
        """
        for counter in self._counters.values():
            counter.flush()
        self.bridge.add()

    def update_locust(self) -> None:
        """Tell Locust of all calls so far, outside of a user: what is meant for one is dropped."""
        try:
            self.tell_locust()
        except FOR_A_USER:
            return
        except StopTest as wish:
            self.bug(wish)

    def stop_sending(self) -> None:
        """Start no more calls of an open loop; those that still wait for a slot are never sent."""
        for servers in self._servers.values():
            servers.is_over = True
        if self.pacer is not None:
            self.pacer.stop()
        self.tally.check(
            Reason.of(ReasonCode.NO_CHECK, label=counter.label)
            for counter in self._counters.values()
            if counter.has_unchecked and counter.user_class not in self.expecting
        )

    def stop(self) -> None:
        """End; the users are gone."""
        # Not killed: a listener that the group itself called may have ended the run.
        self._has_ended = True
        self._wake.set()
        self._log_notes()
        self.update_locust()

    def _watch(self) -> None:
        updated_s = time.monotonic()
        while self._bug is None:
            self._wake.wait(_WATCH_S)
            if self._has_ended:
                return
            self._log_notes()
            if isinstance(self._environment.runner, LocalRunner):
                self.grow(self._environment.runner.target_user_count)
            if time.monotonic() - updated_s >= BRIDGE_EVERY_S:
                updated_s = time.monotonic()
                self.update_locust()
        if isinstance(self._bug, StopTest):
            _logger.error("The run ends: %s", self._bug)
            end_run(self._environment)
        else:
            self._report_bug(self._bug)

    def _log_notes(self) -> None:
        # Those that were logged stay, so that few are kept.
        for text in self._notes[self._logged :]:
            self._logged += 1
            last = " (no more such lines follow)" if self._logged == _MOST_NOTES else ""
            _logger.error("%s%s", text, last)

    def _report_bug(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        _logger.critical("The run ends: %s", text, exc_info=error)
        now_ns = time.monotonic_ns()
        self.counter("", _BUG).failed(Bug(text), now_ns, now_ns)
        runner = self._environment.runner
        if isinstance(runner, WorkerRunner):
            # Its master ends the run, for all workers.
            runner.send_message(BUG_MESSAGE, {"text": text})
        else:
            end_run(self._environment, exit_status=1)


def options_of(environment: Environment) -> Namespace:
    """Return the options of the run."""
    options = environment.parsed_options
    assert isinstance(options, Namespace)
    return options


def end_run(environment: Environment, *, exit_status: int | None = None) -> None:
    """End the run in a while; a status of None leaves it to the verdict."""
    runner: Any = environment.runner
    assert runner is not None
    if exit_status is not None:
        environment.process_exit_code = exit_status
    # In a greenlet of its own: ending a run ends the users'.
    gevent.spawn(runner.quit if options_of(environment).headless else runner.stop)

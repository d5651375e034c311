"""Locust users that call a Cap'n Proto server: ``locust -f loadtest/capnp_user.py -H ADDR``.

`ReverseUser` calls the tutorial's ``MessageStream.read`` and compares every reply, or calls the
method that ``--schema``, ``--interface`` and ``--method`` name. Its replies are taken in gevent's
hub (`locust_rig.user_connection`), so one process makes more calls than most servers answer.

For a scenario of your own, subclass `CapnpUser` in your own locustfile::

    from locust import between, task
    from capnp_rig import load_schema
    from capnp_rig.loadtest import CapnpUser

    class AdderUser(CapnpUser):
        interface = load_schema("./adder.capnp").Adder
        wait_time = between(0.1, 0.5)

        @task
        def add(self):
            results = self.call("add", {"a": 1, "b": 2})
            self.expect(results.sum == 3)

`call` counts the call in Locust's statistics and in the rig's microsecond histograms, and
returns a view of the results. Where it fails, it is counted as failed, the task
ends there, and Locust starts the next; catch `CallFailed` to go on instead. A lost
connection is made anew before the next call, after a wait that grows and is jittered.

Without ``--rate`` the loop is closed: a user waits for its replies, and then for `wait_time`, so a
server that stalls is asked less, and the times are service times. With it the loop is open:
calls are due on a schedule, and times count from then (`locust_rig.call_pacer`). `call` then
waits until one is due; there must be enough users for the rate.
"""

import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import gevent
from gevent.event import AsyncResult, Event
from gevent.pool import Group
from locust import User, task
from locust.env import Environment
from locust.exception import RescheduleTask, StopTest
from locust.user.task import LOCUST_STATE_STOPPING

from capnp_rig.client import Client, ClientError, Disconnected, ProtocolError
from capnp_rig.client.connecting import connect_socket
from capnp_rig.client.reverse import MESSAGE_STREAM
from capnp_rig.client.timeouts import CONNECT_TIMEOUT_S
from capnp_rig.loadtest.engine.backoff import Backoff
from capnp_rig.loadtest.locust_rig import listeners as locust_report
from capnp_rig.loadtest.locust_rig.run_context import CONNECT, Counts, crew
from capnp_rig.loadtest.locust_rig.user_connection import Flow
from capnp_rig.loadtest.stats.failures import WrongReply
from capnp_rig.loadtest.workload import WorkloadError
from capnp_rig.rigcli.address import AddressError, parse_address
from capnp_rig.wire.errors import WireError
from capnp_rig.wire.rpc.interfaces import Interface, compile_interface

_EXPECT = "expect"


class CallFailed(RescheduleTask):
    """A call of `CapnpUser.call` failed and has been counted; `__cause__` says how."""


class CapnpUser(User):
    """A user with one connection to the server at `host`; subclass it, see the module."""

    abstract = True
    # What it speaks; `loadtest.stack_user` has users of others.
    stack = "capnp"
    interface: Interface = MESSAGE_STREAM
    connect_timeout_s = CONNECT_TIMEOUT_S

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.interface = compile_interface(cls.interface)
        locust_report.needs_host(cls)

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        try:
            self._address = parse_address(self.host or "")
        except AddressError as error:
            raise StopTest(f"no server to load: {error}") from error
        self._crew = crew()
        self.call_timeout_s: float = self._crew.options.call_timeout
        # Workers are forked: only what is made here differs between them.
        self.rng = random.Random()
        self._number = 0
        self._backoff = Backoff(self.rng)
        self._stopping = Event()
        # Whether there was a connection before.
        self._again = False
        self._client: Client | None = None
        self._turn: _Turn | None = None
        self._in_flight = 0
        self._connects = self._count(CONNECT)
        self._by_method: dict[str, Counts] = {}

    @property
    def running(self) -> bool:
        """Whether the user may go on: loop on it inside a task, each return costs a sleep."""
        return bool(self._state != LOCUST_STATE_STOPPING)

    def start(self, group: Group) -> gevent.Greenlet:
        """Start the user's greenlet, as Locust's own, and count it in and out."""
        self._number = self._crew.join()
        greenlet = super().start(group)
        # Not `on_stop`, which subclasses override, and which Locust leaves out after an error. The
        # links run in order: this one before whoever waits for the user's end.
        greenlet.rawlink(lambda _: self._crew.leave(self._give_up()))
        return greenlet

    def stop(self, force: bool = False) -> bool:
        """Stop as Locust's own, and let what waits know."""
        ended = bool(super().stop(force))
        self._stopping.set()
        if not ended:
            self._finish()
        return ended

    def call(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        check: Callable[[Any], object] | None = None,
    ) -> Any:
        """Call a method by its schema name, count the call, return a view of the results.

        `check` gets the results and raises, `WrongReply` for example, where they are wrong.

        Raises:
            CallFailed: The call failed, or `check` did; it is counted already.
        """
        client = self.connected()
        counts = self._by_method.get(method) or self._method(method)
        due_ns = self._await_due()
        self._in_flight = 1
        sent_ns = time.monotonic_ns()
        try:
            results = client.call(method, params, timeout_s=self.call_timeout_s)
            received_ns = time.monotonic_ns()
            self._in_flight = 0
            if check is not None:
                check(results)
        except Exception as error:
            # Unlike the end of the user, which is no Exception, and leaves it in flight.
            self._in_flight = 0
            if not isinstance(error, (ClientError, WireError, WrongReply)):
                raise
            counts.failed(error, sent_ns, time.monotonic_ns())
            self._tell()
            self._recover(error)
            raise CallFailed from error
        self._backoff.reset()
        counts.answered(sent_ns if due_ns is None else due_ns, sent_ns, received_ns)
        self._tell()
        # Without this, a user whose reply is always there already keeps the others, and Locust's
        # heartbeats, waiting. It also pays: replies come in meanwhile, and gevent's wait for
        # a socket costs more than a sleep (15,100 calls/s with 16 users, 11,300 without).
        gevent.sleep(0)
        return results

    def expect(self, ok: bool, what: str = "the results are not as expected") -> None:
        """Count a failure where `ok` is false; `what` must not vary from call to call.

        Raises:
            CallFailed: `ok` is false.
        """
        if not ok:
            now_ns = time.monotonic_ns()
            error = WrongReply(what)
            self._count(_EXPECT).failed(error, now_ns, now_ns)
            self._tell()
            raise CallFailed from error

    def connected(self) -> Client:
        """Return the connection, made anew where it was lost.

        Raises:
            CallFailed: It cannot be made; counted, and waited for a moment.
        """
        if self._client is not None:
            return self._client
        started_ns = time.monotonic_ns()
        self._client = Client(self._connect(), interface=self.interface)
        self._count_connect(started_ns, time.monotonic_ns())
        return self._client

    def disconnect(self) -> None:
        """Close the connection; the next call makes a new one."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _count(self, name: str) -> Counts:
        return self._crew.counts(type(self).__name__, name, self.stack)

    def _method(self, method: str) -> Counts:
        counts = self._by_method[method] = self._count(f"{self.interface.name}.{method}")
        return counts

    def _await_due(self) -> int | None:
        """Return when the next call is due, once it is; None at once in a closed loop.

        Raises:
            RescheduleTask: The user is to stop.
        """
        pacer = self._crew.pacer
        if pacer is None:
            return None
        if self._stopping.is_set():
            raise RescheduleTask
        self._turn = _Turn()
        try:
            pacer.offer(self._turn, 1, time.monotonic_ns())
            return self._turn.wait()
        finally:
            pacer.withdraw(self._turn)
            self._turn = None

    def _connect(self) -> Any:
        """Return a connected socket.

        Raises:
            CallFailed: As `connected`.
        """
        started_ns = time.monotonic_ns()
        try:
            return connect_socket(self._address, self.connect_timeout_s)
        except ClientError as error:
            self._connects.failed(error, started_ns, time.monotonic_ns())
            self._tell()
            self._recover(error)
            raise CallFailed from error

    def _count_connect(self, started_ns: int, now_ns: int) -> None:
        self._crew.tally.connected(started_ns, now_ns, again=self._again)
        self._again = True

    def _recover(self, error: Exception) -> None:
        """Drop a lost connection, and wait a moment, so that no busy loop of reconnects results."""
        # Overloaded may be the answer to one call, or to the whole connection.
        is_lost = self._client is not None and not self._client.is_open
        if is_lost or isinstance(error, (Disconnected, ProtocolError)):
            self.disconnect()
            self._pause()

    def _pause(self) -> None:
        self._stopping.wait(self._backoff.next_s())

    def _tell(self) -> None:
        # Here a listener may end the task, or stop the user, as Locust allows it to.
        if self._crew.feed.is_heard:
            self._crew.tell_locust()

    def _finish(self) -> None:
        """Come to an end soon: start no more calls."""
        if self._turn is not None:
            self._turn.cancel()

    def _give_up(self) -> int:
        """Close the connection; return how many calls are given up."""
        self.disconnect()
        unfinished, self._in_flight = self._in_flight, 0
        return unfinished


class _Turn:
    """The one slot of a user that waits until a call is due; a `Sender` for the pacer."""

    def __init__(self) -> None:
        self._due_ns: int | None = None
        self._result: AsyncResult[int] = AsyncResult()

    def send(self, due_ns: int, now_ns: int) -> None:
        """Take the call."""
        self._due_ns = due_ns
        self._result.set(due_ns)

    def flush(self) -> None:
        """Do nothing: the user's greenlet sends the call, in the next turn of the hub."""

    def cancel(self) -> None:
        """Wait no longer, unless a call has come."""
        if self._due_ns is None:
            self._result.set_exception(RescheduleTask())

    def wait(self) -> int:
        """Return when the call was due.

        Raises:
            RescheduleTask: None comes any more.
        """
        due_ns: int = self._result.get()
        return due_ns


class ReverseUser(CapnpUser):
    """Calls what the options ask for, with ``--in-flight`` calls under way, and checks each reply.

    By default that is the tutorial's service: each reply must be the text reversed. In a closed
    loop, a subclass with a `wait_time` of its own waits for that between two rounds of calls.
    """

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        try:
            self._workload = self._crew.workload(self.stack)
        except WorkloadError as error:
            raise StopTest(str(error)) from error
        self._depth: int = self._crew.options.in_flight
        self._calls = self._count(self._workload.label)
        self._flow: Flow | None = None
        self._opened_ns = 0
        is_paced = self._crew.pacer is not None
        waits = type(self).wait_time is not User.wait_time
        self._round = self._depth if waits and not is_paced else None

    @task
    def keep_calling(self) -> None:
        """Keep calls in flight until the user is stopped, or make a round of them."""
        flow = self._flow or self._open()
        try:
            flow.run(self._round)
        except ClientError as error:
            if not flow.lost_calls:
                # It never stood, or was lost while nothing was in flight.
                now_ns = time.monotonic_ns()
                started_ns = now_ns if flow.is_ready else self._opened_ns
                self._connects.failed(error, started_ns, now_ns)
            if flow.has_answered:
                self._backoff.reset()
            self._drop(flow)
            self._pause()

    def ready(self, now_ns: int) -> None:
        """Count the connection: its flow says that it can be called."""
        self._count_connect(self._opened_ns, now_ns)

    def bug(self, error: Exception) -> None:
        """End the run: its flow has met an error that no server can cause."""
        self._crew.bug(error)

    def _open(self) -> Flow:
        self._opened_ns = time.monotonic_ns()
        flow = self._flow = Flow(
            self._connect(),
            self._workload,
            user=self._number,
            in_flight=self._depth,
            counts=self._calls,
            owner=self,
            pacer=self._crew.pacer,
            timeout_s=self.call_timeout_s,
        )
        self._crew.watch(flow)
        flow.start()
        return flow

    def _drop(self, flow: Flow) -> int:
        self._crew.unwatch(flow)
        self._flow = None
        return flow.close()

    def _finish(self) -> None:
        super()._finish()
        if self._flow is not None:
            self._flow.finish()

    def _give_up(self) -> int:
        unfinished = super()._give_up()
        return unfinished if self._flow is None else unfinished + self._drop(self._flow)

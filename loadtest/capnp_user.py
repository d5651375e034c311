"""Locust users that call a Cap'n Proto server: ``locust -f loadtest/capnp_user.py -H ADDR``.

`ReverseUser` calls the tutorial's ``MessageStream.read`` and compares every reply, or calls the
method that ``--schema``, ``--interface`` and ``--method`` name.

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
returns a view of the results. A capability in them can be called in turn, as in
``results.session.call("read", {"number": 1})``, with the same counts and errors, and given to other
calls as a param (`locust_rig.user_capability`). A call that fails is counted as failed and ends the
task; Locust starts the next one. Catch `CallFailed` to go on instead. A lost connection is made
anew before the next call, after a wait that grows and is jittered.

Both read their replies in gevent's hub (`locust_rig.user_connection`), so one process makes more
calls than most servers answer. Without a `wait_time`, loop inside the task while `running`: Locust
sleeps after each task. With 16 such users a process makes 0.74 of the calls that it makes with 16
`ReverseUser`, whose requests are encoded once; by CPU per call it is 0.61 (medians of 15 pairs on a
busy machine). ``loadtest bench-locust --calls`` measures both.

Without ``--rate`` the loop is closed: a user waits for its replies, and then for `wait_time`, so a
server that stalls is asked less, and the times are service times. With it the loop is open:
calls are due on a schedule, and times count from then (`locust_rig.call_pacer`). `call` then
waits until one is due; there must be enough users for the rate.
"""

import os
import random
import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import gevent
from gevent.event import AsyncResult, Event
from gevent.pool import Group
from locust import User, task
from locust.env import Environment
from locust.exception import RescheduleTask, StopTest
from locust.user.task import LOCUST_STATE_STOPPING

# Nothing is opened in place of a standard input that is closed: not the schema, which comes with
# the imports that follow, and no connection. Locust itself reads keys from it, and fails on None.
if sys.stdin is None:
    sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))

from capnp_rig.client.channels.backoff import backoff_s
from capnp_rig.client.connecting import connect_socket
from capnp_rig.client.reverse import MESSAGE_STREAM
from capnp_rig.client.tls import TlsArgument
from capnp_rig.loadtest.locust_rig.call_pacer import CallPacer
from capnp_rig.loadtest.locust_rig.listeners import context
from capnp_rig.loadtest.locust_rig.user_capability import (
    CheckResults,
    UserCapability,
    interface_of,
)
from capnp_rig.loadtest.locust_rig.user_connection import CallConnection, WorkloadConnection
from capnp_rig.loadtest.locust_rig.user_group import CONNECT, CallCounter
from capnp_rig.loadtest.locust_rig.user_tls import security_of, tls_of_options
from capnp_rig.loadtest.protocols import make_exchange
from capnp_rig.loadtest.protocols.capnp_calls import Reference
from capnp_rig.loadtest.stats.failures import CallTexts, WrongReply, with_call
from capnp_rig.loadtest.workload import WorkloadError
from capnp_rig.loadtest.workload.checks import readable
from capnp_rig.objects.errors import ClientError, Disconnected, ProtocolError
from capnp_rig.objects.timeouts import CONNECT_TIMEOUT_S
from capnp_rig.rigcli.address import AddressError
from capnp_rig.wire.errors import WireError
from capnp_rig.wire.rpc.interfaces import Interface, Method, compile_interface

_EXPECT = "expect"


class CallFailed(RescheduleTask):
    """A call of `CapnpUser.call` failed and has been counted; `__cause__` says how."""


class CapnpUser(User):
    """A user with one connection to the server at `host`; subclass it, see the module.

    `interface` is what `capnp_rig.schema.load` returns of an interface, or that compiled.
    """

    abstract = True
    # The protocol, under which Locust lists the calls; `loadtest.stack_user` has the others.
    stack = "capnp"
    interface: Any = MESSAGE_STREAM
    connect_timeout_s = CONNECT_TIMEOUT_S
    # A `capnp_rig.Tls` or an `ssl.SSLContext`; the options --capnp-tls... come before it.
    tls: TlsArgument = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.interface = compile_interface(cls.interface)
        context.user_classes.append(cls)

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        assert context.users is not None, "users start after test_start"
        self._users = context.users
        try:
            self._place = self._users.servers(self.host or "").join(self)
        except AddressError as error:
            raise StopTest(f"no server to load: {error}") from error
        options = self._users.options
        self.call_timeout_s: float = options.call_timeout
        self._security = security_of(tls_of_options(options) or self.tls, self.stack)
        # Workers are forked: only what is made here differs between them.
        self.rng = random.Random()
        self._number = 0
        # Connections in a row that were lost, or could not be made, without an answer.
        self._failures = 0
        self._stopping = Event()
        self._has_connected = False
        self._connection: CallConnection | None = None
        # Whether the present server has answered, and whether another one is to be called instead.
        self._has_answered = self._goes_home = False
        self._due_wait: _DueWait | None = None
        # By server, and then by the id of their interface; those of the present server.
        self._all_methods: dict[str, dict[int, dict[str, tuple[Method, CallCounter]]]] = {}
        self._methods: dict[str, tuple[Method, CallCounter]] = {}
        self._methods_of: dict[int, dict[str, tuple[Method, CallCounter]]] = {}
        self._turn_to_server()
        self._last_call: tuple[Mapping[str, Any], Any] = {}, None

    @property
    def running(self) -> bool:
        """Whether the user may go on: loop on it inside a task, each return costs a sleep."""
        return bool(self._state != LOCUST_STATE_STOPPING)

    def start(self, group: Group) -> gevent.Greenlet:
        """Start the user's greenlet, as Locust's own, and count it in and out."""
        self._number = self._users.join()
        greenlet = super().start(group)
        # Not `on_stop`, which subclasses override, and which Locust leaves out after an error. The
        # links run in order: this one before whoever waits for the user's end.
        greenlet.rawlink(lambda _: self._users.leave(self._give_up(), self._place.tally))
        return greenlet

    def stop(self, force: bool = False) -> bool:
        """Stop as Locust's own, and let what waits know.

        A worker may be told twice, by a terminal's Ctrl-C and by its master; Locust's own raises.
        """
        if not self.running and not force:
            return False
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
        check: CheckResults | None = None,
    ) -> Any:
        """Call a method by its schema name, count the call, return a view of the results.

        `check` gets the results and raises, `WrongReply` for example, where they are wrong.

        Raises:
            AttributeError: The interface has no such method.
            CallFailed: The call failed, or `check` did; it is counted already.
        """
        connection = self._connection
        if connection is None or self._goes_home:
            connection = self.connected()
        compiled, counter = self._methods.get(method) or self._method(method)
        return self._call(connection, None, compiled, counter, params, check)

    def call_on(
        self,
        capability: UserCapability,
        method: str,
        params: Mapping[str, Any],
        check: CheckResults | None,
    ) -> Any:
        """Call a method of a capability, as `UserCapability.call` does."""
        interface = capability.interface
        connection = self._connection or self.connected()
        entry = self._methods_of.setdefault(interface.id, {}).get(method)
        compiled, counter = entry or self._method(method, interface)
        return self._call(connection, capability.reference, compiled, counter, params, check)

    def _call(
        self,
        connection: CallConnection,
        to: Reference | None,
        compiled: Method,
        counter: CallCounter,
        params: Mapping[str, Any],
        check: CheckResults | None,
    ) -> Any:
        pacer = self._users.pacer
        due_ns = None if pacer is None else self._await_due(pacer)
        sent_ns = time.monotonic_ns()
        # For `expect`, which does not get them.
        self._last_call = params, None
        try:
            if compiled.params.has_capabilities:
                packed, given = compiled.params.pack_with_capabilities(params)
                references = [UserCapability.reference_of(each) for each in given]
                answered = connection.call(compiled, packed, sent_ns, to, references)
            else:
                answered = connection.call(compiled, compiled.params.pack(params), sent_ns, to)
            self._last_call = params, answered.results
            if check is None:
                counter.has_unchecked = True
            else:
                check(answered.results)
        except (ClientError, WireError, WrongReply) as error:
            counter.failed(with_call(error, self._call_texts), sent_ns, time.monotonic_ns())
            self._tell()
            self._recover(error)
            raise CallFailed from error
        self._failures = 0
        self._has_answered = True
        counter.answered(sent_ns if due_ns is None else due_ns, sent_ns, answered.received_ns)
        self._tell()
        return answered.results

    def expect(self, ok: bool, what: str = "the results are not as expected") -> None:
        """Count a failure where `ok` is false; `what` must not vary from call to call.

        Raises:
            CallFailed: `ok` is false.
        """
        self._users.expecting.add(type(self).__name__)
        if not ok:
            now_ns = time.monotonic_ns()
            error = with_call(WrongReply(what), self._call_texts)
            self._counter(_EXPECT).failed(error, now_ns, now_ns)
            self._tell()
            raise CallFailed from error

    def connected(self) -> CallConnection:
        """Return the connection; connect if there is none.

        A user that is called home connects anew as soon as neither a call nor a capability needs
        its connection.

        Raises:
            CallFailed: It cannot be made; counted, and waited for a moment.
        """
        if self._goes_home and self._connection is not None:
            # Results hold the capabilities in them.
            self._last_call = {}, None
            exchange = self._connection.exchange
            if not exchange.held and not exchange.in_flight:
                self._close_connection()
        if self._connection is None:
            started_ns = time.monotonic_ns()
            self._connection = CallConnection(
                self._connect(),
                bug=self._users.bug,
                timeout_s=self.call_timeout_s,
                wrap=self._capability,
                limits=self._users.frame_limits,
            )
            self._connection.start()
            self._count_connect(started_ns, time.monotonic_ns())
        return self._connection

    def disconnect(self) -> None:
        """Close the connection; the next call makes a new one."""
        self._close_connection()

    def _close_connection(self) -> int:
        """Close the connection; return how many calls are given up."""
        connection, self._connection = self._connection, None
        return 0 if connection is None else self._end(connection)

    @property
    def has_answered(self) -> bool:
        """Whether a call was answered on the present connection."""
        return self._has_answered

    def _end(self, connection: CallConnection | WorkloadConnection) -> int:
        """End a connection; return how many calls are given up."""
        self._place.ended(connection.error)
        return connection.close()

    def come_home(self) -> None:
        """Connect to another server before the next call for which that can be done."""
        self._goes_home = True

    def _turn_to_server(self) -> None:
        """Count for the server that is to be connected to from now on."""
        self._methods_of = self._all_methods.setdefault(
            self._place.endpoint, {self.interface.id: {}}
        )
        self._methods = self._methods_of[self.interface.id]
        self._connects = self._counter(CONNECT)

    def _call_texts(self) -> CallTexts:
        params, results = self._last_call
        return CallTexts(readable(params), came="" if results is None else readable(results))

    def _counter(self, name: str) -> CallCounter:
        return self._users.counter(type(self).__name__, name, self.stack, self._place.tally)

    def _capability(self, reference: Reference, schema: Any) -> UserCapability:
        interface = None if schema is None else interface_of(schema)
        return UserCapability(self, reference, interface)

    def _method(self, name: str, interface: Interface | None = None) -> tuple[Method, CallCounter]:
        called: Interface = interface or self.interface
        method = called.methods.get(name)
        if method is None:
            raise AttributeError(f"{called.name} has no method {name!r}")
        entry = method, self._counter(f"{called.name}.{name}")
        self._methods_of[called.id][name] = entry
        return entry

    def _await_due(self, pacer: CallPacer) -> int:
        """Return when the next call is due, once it is.

        Raises:
            RescheduleTask: The user is to stop.
        """
        if self._stopping.is_set():
            raise RescheduleTask
        self._due_wait = _DueWait()
        try:
            pacer.offer(self._due_wait, 1, time.monotonic_ns())
            return self._due_wait.wait()
        finally:
            pacer.withdraw(self._due_wait)
            self._due_wait = None

    def _connect(self) -> Any:
        """Return a connected socket.

        Raises:
            CallFailed: As `connected`.
            RescheduleTask: No server can be tried yet; that has been waited for.
        """
        wait_s = self._place.choose()
        if wait_s:
            self._stopping.wait(wait_s)
            raise RescheduleTask
        self._has_answered = self._goes_home = False
        self._turn_to_server()
        started_ns = time.monotonic_ns()
        try:
            return connect_socket(self._place.address, self.connect_timeout_s, self._security)
        except ClientError as error:
            self._place.ended(error)
            self._connects.failed(error, started_ns, time.monotonic_ns())
            self._tell()
            self._recover(error)
            raise CallFailed from error

    def _count_connect(self, started_ns: int, now_ns: int, walk_ns: int | None = None) -> None:
        again = self._has_connected
        self._place.tally.connected(started_ns, now_ns, again=again, walk_ns=walk_ns)
        self._has_connected = True
        self._place.connected()

    def _recover(self, error: Exception) -> None:
        """Drop a lost connection, and wait a moment, so that no busy loop of reconnects results."""
        # Overloaded may be the answer to one call, or to the whole connection.
        is_lost = self._connection is not None and self._connection.error is not None
        if is_lost or isinstance(error, (Disconnected, ProtocolError)):
            self._close_connection()
            self._pause()

    def _pause(self) -> None:
        # Of several servers, there may be another one to go to.
        if not self._place.endpoint:
            self._failures += 1
            self._stopping.wait(backoff_s(self._failures, self.rng))

    def _tell(self) -> None:
        # Here a listener may end the task, or stop the user, as Locust allows it to.
        if self._users.bridge.is_heard:
            self._users.tell_locust()

    def _finish(self) -> None:
        """Come to an end soon: start no more calls."""
        if self._due_wait is not None:
            self._due_wait.cancel()

    def _give_up(self) -> int:
        """Close the connection; return how many calls are given up."""
        return self._close_connection()


class _DueWait:
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
            self._users.workload(self.stack, str(self._place.address))
        except WorkloadError as error:
            raise StopTest(str(error)) from error
        self._depth: int = self._users.options.in_flight
        self._workload_connection: WorkloadConnection | None = None
        self._opened_ns = 0
        is_paced = self._users.pacer is not None
        waits = type(self).wait_time is not User.wait_time
        self._round = self._depth if waits and not is_paced else None

    @task
    def keep_calling(self) -> None:
        """Keep calls in flight until the user is stopped, or make a round of them."""
        connection = self._workload_connection or self._open()
        try:
            connection.run(self._round)
        except ClientError as error:
            if not connection.lost_calls:
                # It never stood, or was lost while nothing was in flight.
                now_ns = time.monotonic_ns()
                started_ns = now_ns if connection.is_ready else self._opened_ns
                self._connects.failed(error, started_ns, now_ns)
            if connection.has_answered:
                self._failures = 0
            self._drop(connection)
            self._pause()
        else:
            if self._goes_home:
                self._drop(connection)

    def come_home(self) -> None:
        """Connect to another server as soon as the calls in flight have ended."""
        super().come_home()
        if self._workload_connection is not None:
            self._workload_connection.finish()

    def ready(self, now_ns: int, walk_ns: int | None) -> None:
        """Count the connection: it says that it can be called."""
        self._count_connect(self._opened_ns, now_ns, walk_ns)

    def bug(self, error: Exception) -> None:
        """End the run: the connection has met an error that no server can cause."""
        self._users.bug(error)

    def _open(self) -> WorkloadConnection:
        self._opened_ns = time.monotonic_ns()
        sock = self._connect()
        workload = self._users.workload(self.stack, str(self._place.address))
        make = partial(
            make_exchange,
            workload,
            self._number,
            self._depth,
            checks_content=self._users.checks_content,
        )
        connection = self._workload_connection = WorkloadConnection(
            sock,
            make,
            counts=self._counter(workload.label),
            owner=self,
            pacer=self._users.pacer,
            timeout_s=self.call_timeout_s,
        )
        connection.start()
        return connection

    def _drop(self, connection: WorkloadConnection) -> int:
        unfinished = self._end(connection)
        self._workload_connection = None
        return unfinished

    @property
    def has_answered(self) -> bool:
        """Whether a call was answered on the present connection."""
        connection = self._workload_connection
        return connection is not None and connection.has_answered

    def _finish(self) -> None:
        super()._finish()
        if self._workload_connection is not None:
            self._workload_connection.finish()

    def _give_up(self) -> int:
        connection = self._workload_connection
        return super()._give_up() + (0 if connection is None else self._drop(connection))

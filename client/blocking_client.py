"""The blocking client: plain sockets only, so gevent makes it concurrent."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    NamedTuple,
    ParamSpec,
    Self,
    TypeVar,
    overload,
)

from capnp_rig.client.callbacks import LEFT_UNREAD, explain, most_unread_bytes
from capnp_rig.client.connecting import connect_socket, secured
from capnp_rig.client.duplex_choice import duplex
from capnp_rig.client.message_limit import MESSAGE_BYTES, limits_of
from capnp_rig.objects.capabilities import AnyCapability, Params
from capnp_rig.objects.closing import close_plainly
from capnp_rig.objects.errors import (
    ClientError,
    DeadlineExceeded,
    Disconnected,
    UsageError,
    fresh,
    given_up,
    not_sent,
)
from capnp_rig.objects.pipelines import Names, Path, PipelinedResults, capability_in
from capnp_rig.objects.serving import Serving
from capnp_rig.objects.session import MakeCapability, PreparedCall, Session
from capnp_rig.objects.streams import STREAM_WINDOW_BYTES, StreamWindow
from capnp_rig.objects.timeouts import CALL_TIMEOUT_S, CONNECT_TIMEOUT_S, check_timeout
from capnp_rig.objects.typed_calls import (
    Interface_co,
    Named,
    OtherInterface,
    Results_co,
    Typed,
    blocking_call,
    blocking_pipeline,
    blocking_submit,
)
from capnp_rig.rigcli.address import Address, parse_address
from capnp_rig.wire.errors import EncodeError, UnusableCapability
from capnp_rig.wire.rpc.client_connection import ClientConnection
from capnp_rig.wire.rpc.interfaces import compile_interface

if TYPE_CHECKING:
    from capnp_rig.client.tls import TlsArgument

_SERVING = Serving(explain, lambda target: close_plainly(target, explain), takes_async=False)
_RECEIVE_BYTES = 65536

P = ParamSpec("P")
Result = TypeVar("Result")


class PendingCall(Generic[Results_co]):
    """A call that was sent: `results` or `error` once it is `done`, and when it was.

    `sent_ns` and `received_ns` are `time.monotonic_ns()` around the socket's own calls.
    """

    __slots__ = (
        "done",
        "error",
        "is_submitted",
        "question_id",
        "received_ns",
        "results",
        "sent_ns",
        "window",
    )

    def __init__(self, *, is_submitted: bool = True, window: StreamWindow | None = None) -> None:
        self.done = False
        self.results: Results_co | Any = None
        self.error: ClientError | None = None
        self.sent_ns = 0
        self.received_ns = 0
        # For the client: whether `wait` returns it, and its number once it has begun.
        self.is_submitted = is_submitted
        self.question_id: int | None = None
        # That of its stream.
        self.window = window


class _Failure(NamedTuple):
    """A regular end of a call that is no result."""

    error: Exception


# The errors that leave a client as it is, or have ended its session.
_REGULAR = (ClientError, EncodeError, UnusableCapability)


def _outcome(work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result | _Failure:
    try:
        return work(*args, **kwargs)
    except _REGULAR as error:
        return _Failure(error)


class Capability(AnyCapability, Typed[Interface_co]):
    """A capability whose calls block, as those of `Client` do."""

    __slots__ = ()

    owner: "Client"

    if TYPE_CHECKING:

        def cast(self, interface: Named[OtherInterface]) -> "Capability[OtherInterface]":
            """Return one more reference to the same object, with the methods of `interface`."""

    @blocking_call
    def call(self, method: str, params: Params = None, *, timeout_s: float | None = None) -> Any:
        """Call a method by its schema name; return a view of its results.

        A streaming method returns None as soon as the next call may be sent.

        Raises:
            AttributeError: The interface has no such method, or is not known.
            UnusableCapability: It, or one in the params, was closed or is another connection's.
            EncodeError, UsageError, ClientError: As `Client.call`.
        """
        return self.owner.perform(self, method, params, timeout_s)

    @blocking_pipeline
    def pipeline(
        self, method: str, params: Params = None, *, timeout_s: float | None = None
    ) -> "Pipeline":
        """Call a method whose results are used before they come, as `Client.pipeline`."""
        return self.owner.begin_pipeline(self, method, params, timeout_s)


class Pipeline(PipelinedResults):
    """The results of a call that is on its way: `wait` for them, or call what will be in them."""

    def wait(self) -> Any:
        """Return a view of the results.

        Raises:
            ClientError: As `Client.call`.
        """
        return self._wait()


class Client(Typed[Interface_co]):
    """A blocking connection to a server, whose methods `call` calls by name.

    `interface` says which methods there are. It is an interface of a schema, such as
    ``load_schema("adder.capnp").Adder``; a subclass may name it once, as a class attribute.

    Threads may share one: their calls take turns, and a call's deadline covers the wait for its
    turn. `close` may be called at any time, by any thread, and ends all calls. After
    `Disconnected` or `ProtocolError`, or whenever `is_open` is false, a client is of no further
    use; connect anew. So must the child of a fork: there, everything but `close` raises
    `UsedAfterFork`.

    A call that an exception interrupts, such as KeyboardInterrupt, is cancelled. If that came
    while bytes were moved, the connection is given up: the next call raises `Disconnected`.
    """

    # The thread that has the turn has set `_owner`, and alone may touch the session and the socket.
    # Only the lock knows its owner for certain: an exception can come right after it was taken.
    # `_unfinished` is set while session, tables and stream may not agree. If it is set at the
    # start of a turn, an exception interrupted the one before. It is not set during a wait, which
    # moves nothing.

    interface: ClassVar[Any] = None

    def __init__(
        self,
        sock: socket.socket,
        *,
        interface: Named[Interface_co] = None,
        timeout_s: float = CALL_TIMEOUT_S,
        stream_window_bytes: int = STREAM_WINDOW_BYTES,
        max_message_bytes: int = MESSAGE_BYTES,
    ) -> None:
        """Take over a connected socket.

        `interface` is the class's own if it is None; `timeout_s` is the default deadline of a
        call, in seconds. Of the calls of a streaming method `stream_window_bytes` may be on their
        way to one object. No message in either direction has more than `max_message_bytes`.

        Raises:
            NotAnInterface: `interface` is no interface of a schema.
            UsageError: `timeout_s` is not 0 to a year, `max_message_bytes` not 64 KiB to 512 MiB.
        """
        compiled = compile_interface(self.interface if interface is None else interface)
        self._timeout_s = check_timeout(timeout_s)
        self._socket = duplex(sock)
        self._wire = ClientConnection(limits_of(max_message_bytes))
        self._session = Session(self._wire, MakeCapability(self, Capability), _SERVING)
        self.stream_window_bytes = stream_window_bytes
        self._interface = compiled
        self._window = StreamWindow(stream_window_bytes)
        self._pending: dict[int, PendingCall] = {}
        # Submitted calls that are done, until `wait` returns them.
        self._finished: dict[PendingCall, None] = {}
        self._lock = threading.RLock()
        self._owner: int | None = None
        self._unfinished = False
        # While what came is taken, which calls objects of ours.
        self._takes = False
        # Of answers, since the server reads no more.
        self._unread_bytes = 0
        # The Bootstrap: a server does not wait long for the first message of a connection.
        self._send()

    @classmethod
    def connect(
        cls,
        address: str | Address,
        *,
        interface: Named[Interface_co] = None,
        timeout_s: float = CALL_TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        stream_window_bytes: int = STREAM_WINDOW_BYTES,
        max_message_bytes: int = MESSAGE_BYTES,
        tls: "TlsArgument" = None,
    ) -> Self:
        """Connect to ``host:port``, ``[ipv6]:port`` or ``unix:/path``, over TLS if `tls` is given.

        `interface` is the class's own if it is None; `timeout_s` is the default deadline of a
        call, in seconds. Of the calls of a streaming method `stream_window_bytes` may be on their
        way to one object. No message in either direction has more than `max_message_bytes`.

        Raises:
            AddressError: `address` is not an address.
            NotAnInterface: `interface` is no interface of a schema.
            UsageError: A timeout is not 0 to a year, `max_message_bytes` not 64 KiB to 512 MiB, or
                a file of `tls` cannot be used.
            ConnectError: Nobody answers there within `connect_timeout_s`, over all addresses
                that the host name has; or one of both sides refuses the other's certificate.
        """
        # Before the connection is made: a mistake in the arguments costs the server nothing.
        compiled = compile_interface(cls.interface if interface is None else interface)
        check_timeout(timeout_s)
        limits_of(max_message_bytes)
        if isinstance(address, str):
            address = parse_address(address)
        sock = connect_socket(address, connect_timeout_s, secured(tls))
        return cls(
            sock,
            interface=compiled,
            timeout_s=timeout_s,
            stream_window_bytes=stream_window_bytes,
            max_message_bytes=max_message_bytes,
        )

    @property
    def is_open(self) -> bool:
        """Whether calls can be made: the connection stands, as far as is known here."""
        return self._session.error is None and self._socket.owner.is_here

    # --- what channels need

    @property
    def ending(self) -> ClientError:
        """Why it is not open any more."""
        return self._session.error or Disconnected("the connection is another process's")

    @property
    def holds_capabilities(self) -> bool:
        """Whether one side has a capability of the other."""
        return self._wire.holds_capabilities

    def fileno(self) -> int:
        """Return the socket's descriptor, to wait for bytes; -1 once it is closed."""
        return self._socket.fileno()

    def is_readable(self) -> bool:
        """Return whether there are bytes, or the end of the connection, that nobody has taken."""
        return self._socket.is_readable()

    def is_alive(self) -> bool:
        """Take what has come, without a wait; return whether calls can be made."""
        with suppress(ClientError):
            self._in_turn(time.monotonic(), self._take_what_came)
        return self.is_open

    def until_heard(self, deadline_s: float) -> None:
        """Wait until the server has shown its bootstrap interface.

        Raises:
            DeadlineExceeded: `deadline_s`, a `time.monotonic`, is over.
            ClientError: The connection has ended, or the server refuses it.
        """
        self._in_turn(deadline_s, self._hear, deadline_s)
        error = self._session.error
        if error is not None:
            raise error

    def cancel(self, pending: PendingCall) -> None:
        """Give up a submitted call: `wait` will not return it."""
        with suppress(ClientError):
            self._in_turn(time.monotonic(), self._give_up, pending)
        self._finished.pop(pending, None)

    # --- its life

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls still in flight, in any thread, end in `Disconnected`.

        The child of a fork closes its descriptor only: the connection is its parent's.
        """
        if not self._socket.owner.is_here:
            self._socket.close()
            return
        self._session.lose(Disconnected("the client is closed"))
        if self._socket.is_secured:
            self._say_goodbye()
        self._socket.shut_down()
        self._bury()

    @blocking_call
    def call(self, method: str, params: Params = None, *, timeout_s: float | None = None) -> Any:
        """Call a method by its schema name; return a view of its results.

        Capabilities in the results are `Capability` objects. Those in params are such ones, or
        objects with an `interface` and plain methods, which are called while this client waits;
        in there, a call of this client or of its capabilities raises `UsageError`.

        Raises:
            AttributeError: The interface has no such method.
            EncodeError: The params do not fit the schema or the message limit.
            UnusableCapability: One in the params was closed, or belongs to another connection.
            UsageError: `timeout_s` is not 0 to a year.
            DeadlineExceeded: No answer within `timeout_s`; the call is cancelled.
            RemoteError: The server answered with an exception.
            Overloaded: It refused the call, or the connection.
            Disconnected: The connection ended first.
            ProtocolError: The server broke the protocol.
            UsedAfterFork: The connection was made in another process.
        """
        return self.perform(None, method, params, timeout_s)

    @blocking_pipeline
    def pipeline(
        self, method: str, params: Params = None, *, timeout_s: float | None = None
    ) -> Pipeline:
        """Begin a call, and use its results before they come.

        The attributes of what is returned are the structs and the capabilities in the results. A
        call of one of these leaves in one write with this call:
        ``client.pipeline("login", {...}).session.call("read", {...})``. Nothing is sent before;
        `Pipeline.wait` sends it as well, and returns the results, within `timeout_s` from now.

        Raises:
            ClientError: As `call`; what the server answers is told to who waits for it.
        """
        return self.begin_pipeline(None, method, params, timeout_s)

    @overload
    def bootstrap(self, interface: None = None) -> Capability[Interface_co]: ...
    @overload
    def bootstrap(self, interface: Named[OtherInterface]) -> Capability[OtherInterface]: ...
    def bootstrap(self, interface: Any = None) -> Capability[Any]:
        """Return the server's own object as a capability, of another interface if one is named.

        Raises:
            NotAnInterface: `interface` is no interface of a schema.
        """
        compiled = self._interface if interface is None else compile_interface(interface)
        return Capability(self, self._wire.main.copy(), compiled)

    def perform(
        self, target: Capability | None, method: str, params: Params, timeout_s: float | None
    ) -> Any:
        """Call a capability, as `Capability.call`."""
        deadline_s = self._deadline_s(timeout_s)
        prepared = self._prepare(target, method, params, deadline_s)
        if prepared.method.is_streaming:
            window = self._window if target is None else target.window
            pending = PendingCall(is_submitted=False, window=window)
            self._in_turn(deadline_s, self._stream, prepared, target, pending, deadline_s)
            return None
        pending = PendingCall(is_submitted=False)
        self._in_turn(deadline_s, self._call, prepared, target, pending, deadline_s)
        if pending.error is not None:
            raise pending.error
        return pending.results

    def begin_pipeline(
        self, target: Capability | None, method: str, params: Params, timeout_s: float | None
    ) -> Pipeline:
        """Call a capability, as `Capability.pipeline`."""
        deadline_s = self._deadline_s(timeout_s)
        prepared = self._prepare(target, method, params, deadline_s)
        pending = PendingCall(is_submitted=False)
        self._in_turn(deadline_s, self._begin, prepared, target, pending, deadline_s)

        def wait() -> Any:
            self._in_turn(deadline_s, self._finish_pipeline, pending, deadline_s)
            if pending.error is not None:
                raise fresh(pending.error)
            return pending.results

        def to_come(path: Path, interface: Any) -> AnyCapability | None:
            question_id = pending.question_id
            if pending.done or question_id is None:
                return None
            return self._session.pipeline(question_id, path, interface)

        def promised(names: Names, path: Path, interface: Any) -> AnyCapability | None:
            # In one turn: another thread may be taking the answer.
            capability = self._in_turn(deadline_s, to_come, path, interface)
            return capability or capability_in(wait(), names)

        return Pipeline(wait, promised, prepared.method.results)

    def _prepare(
        self, target: Capability | None, name: str, params: Params, deadline_s: float
    ) -> PreparedCall:
        interface = self._interface if target is None else target.interface
        method = None if interface is None else interface.methods.get(name)
        if method is None or not method.params.has_capabilities:
            return self._session.prepare(interface, name, params)
        # The tables are touched.
        return self._in_turn(deadline_s, self._session.prepare, interface, name, params)

    @blocking_submit
    def submit(self, method: str, params: Params = None) -> PendingCall:
        """Send a call without waiting for its answer; `wait` completes it.

        Raises:
            AttributeError: The interface has no such method.
            EncodeError: The params do not fit the schema or the message limit.
            ClientError: The call could not be sent.
        """
        return self.submit_by(self._deadline_s(None), method, params)

    def submit_by(self, deadline_s: float, method: str, params: Params) -> PendingCall:
        """Send a call as `submit` does, by `deadline_s`, a `time.monotonic`.

        Raises:
            AttributeError, EncodeError, ClientError: As `submit`.
        """
        prepared = self._prepare(None, method, params, deadline_s)
        pending = PendingCall()
        try:
            self._in_turn(deadline_s, self._submit, prepared, pending, deadline_s)
        except BaseException:
            # The caller does not get the call, so `wait` must not return it later.
            pending.is_submitted = False
            self._finished.pop(pending, None)
            raise
        return pending

    def wait(self, *, timeout_s: float | None = None) -> list[PendingCall]:
        """Wait until at least one submitted call is done; return all that are done by then.

        Each is returned once. Returns an empty list when no call is in flight.

        Raises:
            UsageError: `timeout_s` is not 0 to a year.
            DeadlineExceeded: None was done within `timeout_s`; all stay in flight.
            UsedAfterFork: The connection was made in another process.
        """
        deadline_s = self._deadline_s(timeout_s)
        return self._in_turn(deadline_s, self._wait, deadline_s)

    # --- what capabilities need (`capabilities.CapabilityOwner`) --------------------------

    def released(self) -> None:
        """Tell the server that a reference was given back, unless another thread is about to."""
        # What a callback gives back leaves with its answer.
        if self.is_open and not (self._takes and self._has_turn()):
            with suppress(ClientError):
                self._in_turn(time.monotonic(), self._send_whole)

    def forgotten(self) -> None:
        """Nothing: what was garbage collected goes with the next call."""

    def _deadline_s(self, timeout_s: float | None) -> float:
        timeout_s = self._timeout_s if timeout_s is None else check_timeout(timeout_s)
        return time.monotonic() + timeout_s

    def _has_turn(self) -> bool:
        return self._owner == threading.get_ident()

    # --- turns ---------------------------------------------------------------------------

    def _in_turn(
        self, deadline_s: float, work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs
    ) -> Result:
        """Return what `work` does while no other thread touches the connection."""
        self._socket.owner.check()
        if self._takes and self._has_turn():
            raise UsageError("a callback cannot call: its client waits for it; see AsyncClient")
        try:
            self._enter(deadline_s)
            outcome = _outcome(work, *args, **kwargs)
            # In here, so that an interrupt on the way out does not leave the lock taken.
            self._owner = None
            self._lock.release()
        except BaseException:
            self._leave()
            self._bury()
            raise
        if self._session.has_ended:
            self._bury()
        if not isinstance(outcome, _Failure):
            return outcome
        try:
            raise outcome.error
        finally:
            # Its traceback has this frame.
            del outcome

    def _enter(self, deadline_s: float) -> None:
        if not self._lock.acquire(blocking=False) and not self._lock.acquire(
            timeout=max(deadline_s - time.monotonic(), 0.0)
        ):
            raise not_sent(DeadlineExceeded("other calls had the connection until the deadline"))
        if self._unfinished or self._owner is not None:
            # The latter also where a signal handler makes a call in the middle of one.
            self._session.lose(Disconnected("an earlier call was interrupted"))
        self._owner = threading.get_ident()
        if self._session.has_ended:
            self._fail_all()

    def _leave(self) -> None:
        """Give up the turn, if this thread has it."""
        if self._has_turn():
            self._owner = None
        try:
            while True:
                self._lock.release()
        except RuntimeError:
            # It is not this thread's any more.
            return

    def _say_goodbye(self) -> None:
        """End TLS in good order, unless another thread has the turn, and with it the socket."""
        try:
            if self._lock.acquire(blocking=False):
                self._socket.say_goodbye()
                self._lock.release()
        except BaseException:
            self._leave()
            raise

    def _bury(self) -> None:
        """Close the socket of a session that has ended, unless another thread has the turn.

        That one does it at its end: a descriptor that is closed in the middle of a call may
        be somebody else's by its next system call.
        """
        if not self._session.has_ended:
            return
        try:
            if self._lock.acquire(blocking=False):
                self._fail_all()
                # Once: a signal handler may close in the middle of a call of its own thread.
                self._lock.release()
        except BaseException:
            self._leave()
            raise

    # --- what is done in turn --------------------------------------------------------------

    def _take_what_came(self) -> None:
        while not self._session.has_ended and self._socket.is_readable():
            self._exchange(time.monotonic())

    def _hear(self, deadline_s: float) -> None:
        self._send_whole()
        while self._wire.is_unheard and not self._session.has_ended:
            self._exchange(deadline_s)

    def _call(
        self,
        prepared: PreparedCall,
        target: Capability | None,
        pending: PendingCall,
        deadline_s: float,
    ) -> None:
        try:
            self._start(prepared, target, pending, deadline_s)
            self._finish(pending, deadline_s)
        finally:
            if not pending.done:
                self._give_up(pending)

    def _begin(
        self,
        prepared: PreparedCall,
        target: Capability | None,
        pending: PendingCall,
        deadline_s: float,
    ) -> None:
        self._start(prepared, target, pending, deadline_s, sends=False)

    def _finish(self, pending: PendingCall, deadline_s: float) -> None:
        while not pending.done:
            self._exchange(deadline_s)

    def _finish_pipeline(self, pending: PendingCall, deadline_s: float) -> None:
        """Send what is queued, and wait for the end of a call."""
        try:
            self._send_whole()
            self._finish(pending, deadline_s)
        finally:
            if not pending.done:
                self._give_up(pending)
                # Its number is another call's from now on.
                pending.error, pending.done = given_up(), True

    def _stream(
        self,
        prepared: PreparedCall,
        target: Capability | None,
        pending: PendingCall,
        deadline_s: float,
    ) -> None:
        """Send a call of a streaming method; wait until the window has room for another."""
        window = pending.window
        assert window is not None
        window.check()
        self._start(prepared, target, pending, deadline_s)
        while not window.has_room:
            self._exchange(deadline_s)
        window.check()

    def _submit(self, prepared: PreparedCall, pending: PendingCall, deadline_s: float) -> None:
        try:
            self._start(prepared, None, pending, deadline_s)
            while self._socket.is_blocked and not pending.done:
                self._exchange(deadline_s)
        except BaseException:
            self._give_up(pending)
            raise
        if pending.error is not None and self._session.error is not None:
            raise pending.error

    def _wait(self, deadline_s: float) -> list[PendingCall]:
        while not self._finished and any(call.is_submitted for call in self._pending.values()):
            self._exchange(deadline_s)
        finished, self._finished = self._finished, {}
        return list(finished)

    def _start(
        self,
        prepared: PreparedCall,
        target: Capability | None,
        pending: PendingCall,
        deadline_s: float,
        *,
        sends: bool = True,
    ) -> None:
        # One message at a time waits to be sent, so that those of a server that does not
        # read do not pile up.
        while self._socket.is_blocked and not self._session.has_ended:
            self._exchange(deadline_s)
        self._unfinished = True
        try:
            reference = None if target is None else target.reference
            question_id = self._session.begin(prepared, reference)
        except _REGULAR:
            self._unfinished = False
            raise
        self._pending[question_id] = pending
        pending.question_id = question_id
        pending.sent_ns = time.monotonic_ns()
        if pending.window is not None:
            pending.window.sent(question_id, prepared.size)
        if sends:
            self._send()
        self._unfinished = False

    def _exchange(self, deadline_s: float) -> None:
        """Wait, then send and receive what can be."""
        if self._wire.has_events:
            # Calls of objects of ours that came back, or the end of one.
            self._unfinished = True
            self._take(b"")
            self._send()
            self._unfinished = False
            return
        can_receive = self._socket.wait(deadline_s)
        self._unfinished = True
        if self._socket.is_blocked:
            self._socket.flush()
        if can_receive:
            self._receive()
        self._unfinished = False

    def _send(self) -> None:
        if self._wire.has_large:
            self._socket.send_buffers(self._wire.buffers_to_send())
        else:
            self._socket.send(self._wire.data_to_send())

    def _send_whole(self) -> None:
        """Send what is queued outside of a call."""
        self._unfinished = True
        self._send()
        self._unfinished = False

    def _receive(self) -> None:
        # It may be called, and given back, in what comes now.
        serves = self._session.serves
        try:
            data = self._socket.receive(_RECEIVE_BYTES)
        except Disconnected as error:
            self._session.lose(error)
        else:
            if data:
                self._take(data)
            elif data is not None:
                self._session.receive_eof()
        if self._session.has_ended:
            # The server may have to be told why.
            self._send()
            self._fail_all()
        elif serves:
            # What callbacks have answered.
            self._send_answers()

    def _take(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        outcomes = self._session.receive_data(
            data, self._session.refuse, _ignore, self._send_answers
        )
        self._takes = True
        try:
            for question_id, results, error in outcomes:
                self._settle(self._pending[question_id], results, error, now_ns)
                # Last: until then it is failed where this is interrupted.
                del self._pending[question_id]
        finally:
            self._takes = False

    def _send_answers(self) -> None:
        """Send in the midst of what comes; give up a server that calls and does not read."""
        before = self._socket.unsent_bytes
        self._send()
        if not self._socket.is_blocked:
            self._unread_bytes = 0
            return
        self._unread_bytes += max(self._socket.unsent_bytes - before, 0)
        if self._unread_bytes > most_unread_bytes(self._wire.limits):
            self._session.lose(Disconnected(LEFT_UNREAD))

    def _settle(
        self, pending: PendingCall, results: Any, error: ClientError | None, now_ns: int
    ) -> None:
        pending.results, pending.error, pending.received_ns = results, error, now_ns
        pending.done = True
        if pending.window is not None and pending.question_id is not None:
            pending.window.answered(pending.question_id, error)
        if pending.is_submitted:
            self._finished[pending] = None

    def _give_up(self, pending: PendingCall) -> None:
        """Cancel a call that is not done; its late answer will be dropped, the connection lives on.

        Nothing blocks here.
        """
        question_id = pending.question_id
        if pending.done or question_id is None or self._unfinished:
            return
        self._unfinished = True
        del self._pending[question_id]
        self._session.cancel(question_id)
        self._send()
        self._unfinished = False

    def _fail_all(self) -> None:
        """End every call with what ended the session, and close."""
        now_ns = time.monotonic_ns()
        for pending in list(self._pending.values()):
            if pending.done:
                self._settle(pending, pending.results, pending.error, pending.received_ns)
            else:
                self._settle(pending, None, self._session.error, now_ns)
        self._pending.clear()
        self._socket.close()


def _ignore(question_id: int) -> None:
    """Cancel a call that runs: there is none, all are answered on the spot."""

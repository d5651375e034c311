"""A connection by the names of schemas, without I/O: calls, and the objects of both sides."""

import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from capnp_rig.objects.capabilities import AnyCapability
from capnp_rig.objects.errors import (
    ClientError,
    Disconnected,
    ProtocolError,
    ending_error,
    fresh,
    not_sent,
    remote_error,
)
from capnp_rig.objects.serving import Served, Serving
from capnp_rig.wire.encoding.capability_fields import CapabilityParts
from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.field_types import name_of
from capnp_rig.wire.encoding.frames import FrameLimits
from capnp_rig.wire.encoding.pointers import Buffer, StructTuple
from capnp_rig.wire.encoding.structs import StructCodec
from capnp_rig.wire.errors import (
    EncodeError,
    LocalProtocolError,
    UnusableCapability,
)
from capnp_rig.wire.rpc.capabilities import Capability as Reference
from capnp_rig.wire.rpc.capabilities import CapabilityTable
from capnp_rig.wire.rpc.client_connection import ClientConnection
from capnp_rig.wire.rpc.connection import (
    Answered,
    Answers,
    BootstrapFailed,
    Called,
    Cancelled,
    Connection,
    Ended,
    Event,
    Failed,
    Released,
    Unreadable,
)
from capnp_rig.wire.rpc.interfaces import Interface, Method
from capnp_rig.wire.rpc.message_encoder import CALL_HEAD_WORDS
from capnp_rig.wire.rpc.messages import ExceptionType
from capnp_rig.wire.rpc.messages import RemoteError as WireRemoteError


# Makes the capability that users see of a reference and a schema's interface, if that is known.
class MakeCapability:
    """Makes the capabilities of a connection, without keeping that alive."""

    __slots__ = ("_kind", "_owner")

    def __init__(self, owner: Any, kind: type[AnyCapability]) -> None:
        self._owner = weakref.ref(owner)
        self._kind = kind

    def __call__(self, reference: Reference, interface: Any) -> AnyCapability:
        """Take over a reference."""
        return self._kind(self._owner(), reference, interface)

    def forgotten(self) -> None:
        """Take note that references went that nobody had made capabilities of."""
        owner = self._owner()
        if owner is not None:
            owner.forgotten()


class PreparedCall(NamedTuple):
    """A call whose params are encoded."""

    method: Method
    params: EncodedTuple
    references: list[Reference]

    @property
    def size(self) -> int:
        """How many bytes its message takes, but for capabilities in it: what C++ counts, too."""
        return 8 * (self.params[2] + CALL_HEAD_WORDS)


class Outcome(NamedTuple):
    """How one call ended: `results` is a view, or None if there is an `error`."""

    question_id: int
    results: Any
    error: ClientError | None


class Session:
    """The calls of one connection, its objects, and how it ended.

    After `error` is set no call can start, and those still waiting will get no outcome:
    the owner fails each of them with it.
    """

    __slots__ = (
        *("_error", "_make", "_methods", "_served", "_serving"),
        *("__weakref__", "has_ended", "takes_traces", "trace_probe", "wire"),
    )

    def __init__(self, wire: Connection, make: MakeCapability, serving: Serving) -> None:
        self.wire = wire
        self._make = make
        self._serving = serving
        self._error: ClientError | None = None
        # Whether there is an `error`: asked several times per call, where a property counts.
        self.has_ended = False
        self._methods: dict[int, Method] = {}
        # Whether the peer takes announcements of traces, as far as is known, and the question of
        # the first one: None before that, -1 once it is answered.
        self.takes_traces = True
        self.trace_probe: int | None = None
        # By `id` of the object, which its entry keeps.
        self._served: dict[int, Served] = {}

    @property
    def error(self) -> ClientError | None:
        """Why the session has ended, None before that: an exception of its own per reading."""
        return None if self._error is None else fresh(self._error)

    @property
    def frame_limits(self) -> FrameLimits:
        """What a message may hold."""
        return self.wire.limits.frame

    # --- calls

    def prepare(
        self, interface: Interface | None, name: str, params: Mapping[str, Any] | None
    ) -> PreparedCall:
        """Encode a call of the method `name` for `begin`, which has to follow.

        Raises:
            AttributeError: The interface has no such method.
            EncodeError: The params do not fit the schema.
            UnusableCapability: One in the params was closed, or belongs to another connection.
            ClientError: The params have capabilities, and the session has ended.
        """
        if interface is None:
            raise AttributeError(f"{name!r}: the capability's interface is not known: cast it")
        method = interface.methods.get(name)
        if method is None:
            raise AttributeError(f"{interface.name} has no method {name!r}")
        if params is None:
            params = {}
        if not method.params.has_capabilities:
            return PreparedCall(method, method.params.pack(params), [])
        if self._error is not None:
            raise not_sent(self._error)
        return PreparedCall(method, *self.pack(method.params, params))

    def begin(self, call: PreparedCall, target: Reference | None = None) -> int:
        """Queue a call of `target`, the bootstrap interface if it is None; return its question id.

        Raises:
            EncodeError: The params do not fit the message limit, or too many calls are in flight.
            UnusableCapability: The target was closed.
            ClientError: The session has ended.
        """
        if self._error is not None:
            raise not_sent(self._error)
        method, body, references = call
        ids = method.interface_id, method.method_id
        try:
            if target is None:
                assert isinstance(self.wire, ClientConnection)
                question_id = self.wire.call(*ids, body, references)
            else:
                question_id = Connection.call(self.wire, target, *ids, body, references)
        except UnusableCapability:
            raise
        except LocalProtocolError as error:
            raise not_sent(Disconnected(str(error))) from error
        finally:
            if references:
                # The message has counted its own.
                release_all(references)
        self._methods[question_id] = method
        return question_id

    def pipeline(self, question_id: int, path: tuple[int, ...], interface: Any) -> AnyCapability:
        """Return the capability that `path` will lead to in the results of a call in flight.

        Raises:
            Disconnected: The session has ended.
        """
        try:
            return self._make(self.wire.pipeline(question_id, path), interface)
        except LocalProtocolError as error:
            raise Disconnected(str(error)) from error

    def cancel(self, question_id: int) -> None:
        """Give up a call; no outcome will come for it."""
        if self._methods.pop(question_id, None) is not None:
            self.wire.cancel(question_id)

    # --- what came

    def receive_data(
        self,
        data: Buffer,
        run: Callable[[Called], None],
        cancel: Callable[[int], None],
        answered: Callable[[], None],
    ) -> Iterator[Outcome]:
        """Take received bytes; yield the calls that ended.

        Their results are valid as long as `data`. `run` gets the calls of objects of ours that are
        not answered on the spot, `cancel` the question ids of those that are not wanted any more.
        `answered` is called when there are many answers to be sent.
        Run it to its end.
        """
        for event in self.wire.events(data):
            # First, and here: most are this, and a look at others and a call take 0.4 µs.
            if isinstance(event, Answered):
                method = self._methods.pop(event.question_id, None)
                if method is not None:
                    codec = method.results
                    open_ = self.open if codec.has_capabilities else StructCodec.open
                    yield Outcome(event.question_id, open_(codec, event.content), None)
                elif event.question_id == self.trace_probe:
                    self.trace_probe = -1
            elif isinstance(event, Called):
                run(event)
            elif isinstance(event, Cancelled):
                cancel(event.question_id)
            elif isinstance(event, Answers):
                answered()
            else:
                outcome = self.take(event)
                if outcome is not None:
                    yield outcome

    def take(self, event: Event) -> Outcome | None:
        """Take an event; return how a call ended, if it says that."""
        # First: most are this.
        if isinstance(event, Answered):
            question_id = event.question_id
            method = self._methods.pop(question_id, None)
            if method is None:
                return None
            return Outcome(question_id, self.open(method.results, event.content), None)
        if isinstance(event, (Failed, Unreadable)):
            # None where the session ended within these events: its owner knows.
            if self._methods.pop(event.question_id, None) is None:
                if event.question_id == self.trace_probe:
                    self.takes_traces, self.trace_probe = False, -1
                return None
            if isinstance(event, Unreadable):
                return Outcome(event.question_id, None, ProtocolError(event.reason))
            return Outcome(event.question_id, None, remote_error(event.error))
        if isinstance(event, Released):
            # It may have been given to the peer again meanwhile.
            if not self.wire.hosts(event.target):
                self._release(event.target)
        elif isinstance(event, BootstrapFailed):
            self.lose(remote_error(event.error))
        elif isinstance(event, Ended):
            is_unheard = isinstance(self.wire, ClientConnection) and self.wire.is_unheard
            self.lose(ending_error(event.error, is_unheard=is_unheard))
        return None

    def receive_eof(self) -> None:
        """Take the end of the stream."""
        for event in self.wire.receive_eof():
            if isinstance(event, Ended):
                # Between any two bytes: a server that is killed has broken no rule.
                where = "" if event.error is None else " within a message"
                self.lose(Disconnected(f"the server closed the connection{where}"))
            else:
                self.take(event)

    def lose(self, error: ClientError) -> None:
        """Record that the transport failed, unless the session had ended before."""
        self._error = self._error or error
        self.has_ended = True
        self._methods.clear()
        if not self.wire.ended:
            self.wire.receive_eof()
        for served in tuple(self._served.values()):
            self._release(served)

    # --- capabilities in messages

    def open(self, codec: StructCodec, content: StructTuple | None) -> Any:
        """Return a view of what came, in which capabilities are what users see."""
        if content is not None and codec.has_capabilities:
            message = content[0]
            table = getattr(message, "capabilities", None)
            if table is not None:
                message.capabilities = _LiftedTable(self._make, table)
        return codec.open(content)

    def pack(
        self, codec: StructCodec, values: Mapping[str, Any]
    ) -> tuple[EncodedTuple, list[Reference]]:
        """Return the words of a struct, and a reference for each capability in it, to be released.

        Raises:
            EncodeError: As `StructCodec.pack`; a value is no capability of the interface it is for.
            UnusableCapability: One was closed, or belongs to another connection.
        """
        parts = _LoweredParts(self._lower)
        return codec.pack(values, parts), parts.capabilities

    def _lower(self, value: Any, interface: Any) -> Reference:
        """Return a reference to a capability, or to an object of ours, which it makes served."""
        if isinstance(value, (AnyCapability, Reference)):
            reference = value if isinstance(value, Reference) else value.reference
            if isinstance(value, AnyCapability) and value.interface is not None:
                check_interface((value.interface,), interface, value)
            if not self.wire.owns(reference):
                raise UnusableCapability(f"{value!r} belongs to another connection")
            return reference.copy()
        served = self._served.get(id(value))
        if served is None:
            served = self._serving.served(value, self)
            check_interface(served.interfaces, interface, value)
            self._served[id(value)] = served
            self._serving.references.add(value)
        else:
            check_interface(served.interfaces, interface, value)
        return self.wire.host(served, served.inline)

    # --- objects of ours

    def serve_bootstrap(self, target: Any) -> Served:
        """Return an object of ours that the peer may ask for, which is never released."""
        return self._serving.served(target, self)

    @property
    def serves(self) -> bool:
        """Whether the peer may call something of ours: an object, or what is only a promise."""
        return self.wire.has_exports

    def refuse(self, called: Called) -> None:
        """Answer a call of a method that there is not."""
        what = "method" if called.target.knows(called.interface_id) else "interface"
        error = WireRemoteError(f"this {what} is not implemented", ExceptionType.UNIMPLEMENTED)
        self.wire.send_exception(called.question_id, error)

    def stop_inline(self) -> None:
        """From now on every call to objects of ours is a `Called`."""
        for served in self._served.values():
            served.inline.clear()

    def _release(self, served: Served) -> None:
        if self._served.pop(id(served.target), None) is not None:
            self._serving.references.drop(served.target)


class _LoweredParts(CapabilityParts):
    """The parts of a struct whose capabilities become references as they are written."""

    def __init__(self, lower: Callable[[Any, Any], Reference]) -> None:
        super().__init__()
        self._lower = lower

    def add(self, capability: Any, interface: Any = None) -> int:
        return super().add(self._lower(capability, interface), interface)


class _LiftedTable:
    """The capabilities of a message that came, as users see them, each one object."""

    __slots__ = ("_made", "_make", "_table")

    def __init__(self, make: MakeCapability, table: CapabilityTable) -> None:
        self._make = make
        self._table = table
        self._made: dict[int, AnyCapability] = {}

    def __len__(self) -> int:
        return len(self._table)

    def field(self, index: int, interface: Any) -> AnyCapability | None:
        """Return the capability at `index`, None if it is null."""
        made = self._made.get(index)
        if made is None:
            reference = self._table[index]
            if reference is not None:
                made = self._made[index] = self._make(reference, interface)
        return made

    def __del__(self) -> None:
        # Nobody has looked at these, so nobody else tells.
        if len(self._made) < len(self._table):
            self._make.forgotten()


def release_all(references: list[Reference]) -> None:
    """Release each."""
    for reference in references:
        reference.release()


def check_interface(interfaces: tuple[Interface, ...], wanted: Any, value: Any) -> None:
    """Check that a value of these interfaces fits a field of pycapnp's schema `wanted`.

    Raises:
        EncodeError: None of them is it, or extends it.
    """
    if wanted is not None and not any(wanted.node.id in each.ids for each in interfaces):
        raise EncodeError(
            f"expected a capability of {name_of(wanted)}, not {_what_is(value)} "
            f"of {', '.join(each.name for each in interfaces)}"
        )


def _what_is(value: Any) -> str:
    return "one" if isinstance(value, AnyCapability) else f"an object ({type(value).__name__})"

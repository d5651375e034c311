"""What both clients share: calls by schema name over `wire.ClientConnection`, without I/O."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from capnp_rig.client.errors import (
    ClientError,
    Disconnected,
    ProtocolError,
    ending_error,
    fresh,
    remote_error,
)
from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.pointers import Buffer
from capnp_rig.wire.errors import LocalProtocolError
from capnp_rig.wire.rpc.client_connection import ClientConnection
from capnp_rig.wire.rpc.connection import (
    Answered,
    BootstrapFailed,
    Ended,
    Failed,
    Unreadable,
)
from capnp_rig.wire.rpc.interfaces import Interface, Method


class PreparedCall(NamedTuple):
    """A call whose params are encoded."""

    method: Method
    params: EncodedTuple


class Outcome(NamedTuple):
    """How one call ended: `results` is a view, or None if there is an `error`."""

    question_id: int
    results: Any
    error: ClientError | None


class Session:
    """The calls of one connection, and how the connection ended.

    After `error` is set no call can start, and those still waiting will get no outcome:
    the owner fails each of them with it.
    """

    def __init__(self, interface: Interface) -> None:
        self._error: ClientError | None = None
        # Whether there is an `error`: asked several times per call, where a property counts.
        self.has_ended = False
        self._interface = interface
        self._wire = ClientConnection()
        self._methods: dict[int, Method] = {}

    @property
    def error(self) -> ClientError | None:
        """Why the session has ended, None before that: an exception of its own per reading."""
        return None if self._error is None else fresh(self._error)

    def start(self, name: str, params: Mapping[str, Any]) -> int:
        """Queue a call of the method `name`; return its question id.

        Raises:
            AttributeError: The interface has no such method.
            EncodeError: The params do not fit the schema or the message limit.
            ClientError: The session has ended.
        """
        if self._error is not None:
            raise fresh(self._error)
        return self.begin(self.prepare(name, params))

    def prepare(self, name: str, params: Mapping[str, Any]) -> PreparedCall:
        """Encode a call of the method `name` for `begin`; the session stays as it is.

        Raises:
            AttributeError: The interface has no such method.
            EncodeError: The params do not fit the schema.
        """
        method = self._interface.methods.get(name)
        if method is None:
            raise AttributeError(f"{self._interface.name} has no method {name!r}")
        return PreparedCall(method, method.params.pack(params))

    def begin(self, call: PreparedCall) -> int:
        """Queue a call; return its question id.

        Raises:
            EncodeError: The params do not fit the message limit.
            ClientError: The session has ended.
        """
        if self._error is not None:
            raise fresh(self._error)
        method, body = call
        try:
            question_id = self._wire.call(method.interface_id, method.method_id, body)
        except LocalProtocolError as error:
            raise Disconnected(str(error)) from error
        self._methods[question_id] = method
        return question_id

    def cancel(self, question_id: int) -> None:
        """Give up a call; no outcome will come for it."""
        if self._methods.pop(question_id, None) is not None:
            self._wire.cancel(question_id)

    def data_to_send(self) -> bytes:
        """Return the bytes to send now."""
        return self._wire.data_to_send()

    @property
    def has_large(self) -> bool:
        """Whether to send `buffers_to_send`, which does not copy large parts."""
        return self._wire.has_large

    def buffers_to_send(self) -> list[Buffer]:
        """Return the bytes to send now, in order."""
        return self._wire.buffers_to_send()

    def receive_data(self, data: Buffer) -> Iterator[Outcome]:
        """Take received bytes; yield the calls that ended.

        Their results are valid as long as `data`. Run it to its end.
        """
        for event in self._wire.events(data):
            # First, and here: most are this, and two looks at others and a call take 0.5 µs.
            if isinstance(event, Answered):
                question_id = event.question_id
                method = self._methods.pop(question_id, None)
                if method is not None:
                    yield Outcome(question_id, method.results.open(event.content), None)
            elif isinstance(event, BootstrapFailed):
                self.lose(remote_error(event.error))
            elif isinstance(event, Ended):
                self.lose(ending_error(event.error, is_unheard=self._wire.is_unheard))
            # None where the session ended within these events: its owner knows.
            elif (
                isinstance(event, (Failed, Unreadable))
                and self._methods.pop(event.question_id, None) is not None
            ):
                error = (
                    ProtocolError(event.reason)
                    if isinstance(event, Unreadable)
                    else remote_error(event.error)
                )
                yield Outcome(event.question_id, None, error)

    def receive_eof(self) -> None:
        """Take the end of the stream."""
        for event in self._wire.receive_eof():
            if not isinstance(event, Ended):
                continue
            # Between any two bytes: a server that is killed has broken no rule.
            where = "" if event.error is None else " within a message"
            self.lose(Disconnected(f"the server closed the connection{where}"))

    def lose(self, error: ClientError) -> None:
        """Record that the transport failed, unless the session had ended before."""
        self._error = self._error or error
        self.has_ended = True
        self._methods.clear()

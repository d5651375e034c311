"""What both clients share: calls by schema name over `wire.ClientConnection`, without I/O."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from client.errors import ClientError, Disconnected, ProtocolError, remote_error
from wire.client_connection import ClientConnection
from wire.connection import Answered, BootstrapFailed, ClientEvent, Ended, Failed, Unreadable
from wire.errors import LocalProtocolError, RemoteProtocolError
from wire.interfaces import Interface, Method
from wire.messages import RemoteError as WireRemoteError
from wire.pointers import Buffer


class Outcome(NamedTuple):
    """How one call ended: `results` is a view of them, or `error` says why there are none."""

    question_id: int
    results: Any
    error: ClientError | None


class Session:
    """The calls of one connection, and how the connection ended.

    After `error` is set no call can start, and those still waiting will get no outcome:
    the owner fails them with it.
    """

    def __init__(self, interface: Interface) -> None:
        self.error: ClientError | None = None
        self._interface = interface
        self._wire = ClientConnection()
        self._methods: dict[int, Method] = {}

    def start(self, name: str, params: Mapping[str, Any]) -> int:
        """Queue a call of the method `name`; return its question id.

        Raises:
            AttributeError: The interface has no such method.
            EncodeError: The params do not fit the schema or the message limit.
            ClientError: The session has ended.
        """
        if self.error is not None:
            raise self.error
        method = self._interface.methods.get(name)
        if method is None:
            raise AttributeError(f"{self._interface.name} has no method {name!r}")
        body = method.params.pack(params)
        try:
            question_id = self._wire.call(method.interface_id, method.method_id, body)
        except LocalProtocolError as error:
            raise Disconnected(str(error)) from error
        self._methods[question_id] = method
        return question_id

    def cancel(self, question_id: int) -> None:
        """Give up a call; no outcome will come for it."""
        self._methods.pop(question_id, None)
        self._wire.cancel(question_id)

    def data_to_send(self) -> bytes:
        """Return the bytes to send now."""
        return self._wire.data_to_send()

    def receive_data(self, data: Buffer) -> Iterator[Outcome]:
        """Take received bytes; yield the calls that ended.

        Their results are valid as long as `data`. Run it to its end.
        """
        return self._outcomes(self._wire.events(data))

    def receive_eof(self) -> None:
        """Take the end of the stream."""
        for ended in self._wire.receive_eof():
            # Between any two bytes: a server that is killed has broken no rule.
            where = "" if ended.error is None else " within a message"
            self.lose(Disconnected(f"the server closed the connection{where}"))

    def lose(self, error: ClientError) -> None:
        """Record that the transport failed, unless the session had ended before."""
        self.error = self.error or error

    def _outcomes(self, events: Iterable[ClientEvent]) -> Iterator[Outcome]:
        for event in events:
            match event:
                case Answered():
                    question_id = event.question_id
                    results = self._methods.pop(question_id).results.open(event.content)
                    yield Outcome(question_id, results, None)
                case Unreadable(question_id, reason):
                    self._methods.pop(question_id)
                    yield Outcome(question_id, None, ProtocolError(reason))
                case Failed(question_id, failure):
                    self._methods.pop(question_id)
                    yield Outcome(question_id, None, remote_error(failure))
                case BootstrapFailed(failure):
                    self.lose(remote_error(failure))
                case Ended(ending):
                    self.lose(_ending(ending))


def _ending(reason: WireRemoteError | RemoteProtocolError | None) -> ClientError:
    if reason is None:
        return Disconnected("the server closed the connection")
    if isinstance(reason, WireRemoteError):
        return Disconnected(f"the server ended the connection: {reason.reason}")
    return ProtocolError(f"not a Cap'n Proto server, or a broken one: {reason}")

"""The blocking client: plain sockets only, so gevent makes it concurrent."""

import socket
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from client.connecting import connect_socket
from client.errors import (
    ClientError,
    DeadlineExceeded,
    Disconnected,
    ProtocolError,
)
from client.session import Session
from schema import message
from wire.address import Address, parse_address
from wire.errors import MalformedMessage
from wire.interfaces import Interface, compile_interface

CONNECT_TIMEOUT_S = 1.0
CALL_TIMEOUT_S = 15.0
_RECEIVE_BYTES = 65536

MESSAGE_STREAM = compile_interface(message.MessageStream)


class PendingCall:
    """A call that was sent: `results` or `error` once it is `done`, and when it was.

    `sent_ns` and `received_ns` are `time.monotonic_ns()` around the socket's own calls.
    """

    __slots__ = ("done", "error", "received_ns", "results", "sent_ns")

    def __init__(self) -> None:
        self.done = False
        self.results: Any = None
        self.error: ClientError | None = None
        self.sent_ns = 0
        self.received_ns = 0


class Client:
    """A blocking connection to a server.

    One may be shared by threads: calls then take turns. After `Disconnected` or
    `ProtocolError` it is of no further use; connect anew.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        interface: Interface = MESSAGE_STREAM,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        """Take over a connected socket; `timeout_s` is the default deadline of a call."""
        self._socket = sock
        self._timeout_s = timeout_s
        self._session = Session(interface)
        self._pending: dict[int, PendingCall] = {}
        self._lock = threading.Lock()

    @classmethod
    def connect(
        cls,
        address: str | Address,
        *,
        interface: Interface = MESSAGE_STREAM,
        timeout_s: float = CALL_TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> Self:
        """Connect to ``host:port``, ``[ipv6]:port`` or ``unix:/path``.

        Raises:
            AddressError: `address` is none.
            ConnectError: Nobody answers there within `connect_timeout_s`, over all addresses
                that the host name has.
        """
        if isinstance(address, str):
            address = parse_address(address)
        sock = connect_socket(address, connect_timeout_s)
        return cls(sock, interface=interface, timeout_s=timeout_s)

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
        """Close the connection; calls still in flight are given up."""
        self._session.lose(Disconnected("the client is closed"))
        self._socket.close()

    def read(self, text: str, *, timeout_s: float | None = None) -> bytes:
        """Call ``MessageStream.read``: return the text reversed, as UTF-8.

        Raises:
            EncodeError: The text holds a lone surrogate, or is over the message limit.
            ClientError: As `call`.
        """
        try:
            return bytes(
                self.call("read", {"request": {"content": text}}, timeout_s=timeout_s).chunk
            )
        except MalformedMessage as error:
            raise ProtocolError(str(error)) from error

    def reverse(self, text: str, *, timeout_s: float | None = None) -> str:
        """Return `text` reversed.

        Raises:
            ProtocolError: The answer is not UTF-8.
            ClientError: As `call`.
        """
        return decode_text(self.read(text, timeout_s=timeout_s))

    def call(
        self, method: str, params: Mapping[str, Any], *, timeout_s: float | None = None
    ) -> Any:  # noqa: ANN401 - a view of the schema's results
        """Call a method by its schema name; return a view of its results.

        Raises:
            AttributeError: The interface has no such method.
            EncodeError: The params do not fit the schema or the message limit.
            DeadlineExceeded: No answer within `timeout_s`; the call is cancelled.
            RemoteError: The server answered with an exception.
            Disconnected: The connection ended first.
            ProtocolError: The server broke the protocol.
        """
        deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        with self._lock:
            question_id, pending = self._submit(method, params, deadline)
            try:
                while not pending.done:
                    self._receive(deadline)
            finally:
                if not pending.done:
                    self._give_up(question_id)
        if pending.error is not None:
            raise pending.error
        return pending.results

    def submit(self, method: str, params: Mapping[str, Any]) -> PendingCall:
        """Send a call without waiting for its answer; `wait` completes it.

        Raises:
            AttributeError: The interface has no such method.
            EncodeError: The params do not fit the schema or the message limit.
            ClientError: The call could not be sent.
        """
        with self._lock:
            return self._submit(method, params, time.monotonic() + self._timeout_s)[1]

    def wait(self, *, timeout_s: float | None = None) -> list[PendingCall]:
        """Wait until at least one submitted call is done; return all that are done by then.

        Returns an empty list when no call is in flight.

        Raises:
            DeadlineExceeded: None was done within `timeout_s`; all stay in flight.
        """
        deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        with self._lock:
            while self._pending:
                done = self._receive(deadline)
                if done:
                    return done
        return []

    def _submit(
        self, method: str, params: Mapping[str, Any], deadline: float
    ) -> tuple[int, PendingCall]:
        question_id = self._session.start(method, params)
        pending = self._pending[question_id] = PendingCall()
        pending.sent_ns = time.monotonic_ns()
        try:
            self._send(deadline)
        except BaseException:
            # A message that left in part leaves no boundary to go on from.
            self._fail_all(Disconnected("sending was interrupted"))
            raise
        return question_id, pending

    def _send(self, deadline: float) -> None:
        self._socket.settimeout(max(deadline - time.monotonic(), 1e-6))
        try:
            self._socket.sendall(self._session.data_to_send())
        except TimeoutError as error:
            raise DeadlineExceeded("the server does not read: sending took too long") from error
        except OSError as error:
            raise self._lost_while_sending(error) from error

    def _lost_while_sending(self, error: OSError) -> ClientError:
        """Return why the connection ended: a server that aborts says so before it closes."""
        try:
            self._socket.settimeout(0.1)
            while self._session.error is None:
                self._take(self._socket.recv(_RECEIVE_BYTES))
        except OSError:
            self._session.lose(Disconnected(f"the connection was lost: {error.strerror}"))
        assert self._session.error is not None
        return self._session.error

    def _receive(self, deadline: float) -> list[PendingCall]:
        """Read once; return the calls that it completes."""
        remaining_s = deadline - time.monotonic()
        if self._session.error is None:
            try:
                self._socket.settimeout(max(remaining_s, 1e-6))
                data = self._socket.recv(_RECEIVE_BYTES)
            except TimeoutError as error:
                raise DeadlineExceeded("no answer within the deadline") from error
            except OSError as error:
                self._session.lose(Disconnected(f"the connection was lost: {error.strerror}"))
            else:
                return self._take(data)
        assert self._session.error is not None
        return self._fail_all(self._session.error)

    def _take(self, data: bytes) -> list[PendingCall]:
        now = time.monotonic_ns()
        done: list[PendingCall] = []
        if not data:
            self._session.receive_eof()
        for question_id, results, error in self._session.receive_data(data):
            pending = self._pending.pop(question_id)
            pending.done, pending.received_ns = True, now
            pending.results, pending.error = results, error
            done.append(pending)
        if self._session.error is not None:
            done += self._fail_all(self._session.error)
        return done

    def _give_up(self, question_id: int) -> None:
        """Cancel a call; its late answer will be dropped, the connection lives on."""
        del self._pending[question_id]
        self._session.cancel(question_id)
        # The Finish leaves with the next call: nothing may block here.

    def _fail_all(self, error: ClientError) -> list[PendingCall]:
        self._session.lose(error)
        self._socket.close()
        failed = list(self._pending.values())
        self._pending.clear()
        now = time.monotonic_ns()
        for pending in failed:
            pending.done, pending.error, pending.received_ns = True, error, now
        return failed


def decode_text(data: bytes) -> str:
    """Return the text of an answer.

    Raises:
        ProtocolError: It is not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"the answer is not UTF-8: {error.reason}") from error

"""Blocking clients of the stacks that stand beside capnp: one connection, one call at a time.

All of them take a text and return the server's answer as bytes: reversed, or as it is from the
echo. The wire formats are told where they are served, in ``server/stacks``.
"""

import json
import struct
from collections.abc import Callable
from socket import socket
from typing import Any, Protocol

from capnp_rig.client.blocking_client import CALL_TIMEOUT_S, CONNECT_TIMEOUT_S
from capnp_rig.client.connecting import connect_socket
from capnp_rig.client.errors import Disconnected, ProtocolError, RemoteError
from capnp_rig.client.session import check_timeout
from capnp_rig.client.stack_socket import StackSocket
from capnp_rig.rigcli.address import Address
from capnp_rig.wire.errors import EncodeError

STACKS = ("capnp", "echo", "json", "http", "grpc", "selectors")

_LENGTH = struct.Struct("<I")
# What a broken server could announce is not waited for.
_MAX_ANSWER_BYTES = 268_435_456


class LibraryMissingError(Exception):
    """A stack needs a library that is not installed; the message says how to get it."""


class StackClient(Protocol):
    """A connection to the server of one stack, made and used in one process.

    After `Disconnected` it is of no further use, nor after a call that was overdue or
    interrupted: where calls have no numbers, its late answer would be the next call's.
    """

    def read(self, text: str) -> bytes:
        """Return the server's answer to `text`, in UTF-8.

        Raises:
            EncodeError: The text holds a lone surrogate.
            ClientError: There is no such answer.
        """

    def ping(self) -> None:
        """Make the smallest call there is.

        Raises:
            ClientError: It was not answered as it should.
        """

    def close(self) -> None:
        """Close the connection."""


def connect_stack(
    stack: str,
    address: Address,
    *,
    timeout_s: float = CALL_TIMEOUT_S,
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
    http2: bool = False,
) -> StackClient:
    """Connect to the server of a stack other than capnp; `timeout_s` is for each call.

    Raises:
        UsageError: A timeout is none.
        ConnectError: Nobody answers there.
        LibraryMissingError: The stack needs a library that is not installed.
    """
    check_timeout(timeout_s)
    try:
        if stack == "grpc":
            from capnp_rig.client.stack_grpc import GrpcClient

            # It makes its connections itself.
            return GrpcClient(address, timeout_s=timeout_s, connect_timeout_s=connect_timeout_s)
        kind = _client_type(stack, http2=http2)
    except ModuleNotFoundError as error:
        raise LibraryMissingError(
            f"--stack {stack} needs {error.name}: pip install 'capnp-rig[stacks]'"
        ) from error
    return kind(connect_socket(address, connect_timeout_s), address, timeout_s)


def _client_type(stack: str, *, http2: bool) -> Callable[[socket, Address, float], StackClient]:
    if http2:
        from capnp_rig.client.stack_http2 import Http2Client

        return Http2Client
    if stack == "http":
        from capnp_rig.client.stack_http import HttpClient

        return HttpClient
    others: dict[str, Callable[[socket, Address, float], StackClient]] = {
        "echo": EchoClient,
        "json": JsonClient,
        "selectors": FrameClient,
    }
    return others[stack]


def utf8(text: str) -> bytes:
    """Return the bytes of a text.

    Raises:
        EncodeError: It holds a lone surrogate.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise EncodeError(f"the text is no valid Unicode: {error.reason}") from error


def read_text(value: Any, name: str) -> bytes:
    """Return the text in a decoded JSON answer.

    Raises:
        ProtocolError: It is none, or holds a lone surrogate.
    """
    if not isinstance(value, str):
        raise ProtocolError(f"the server's answer has no {name}")
    try:
        return utf8(value)
    except EncodeError as error:
        raise ProtocolError(f"the server's answer: {error}") from error


class _SocketClient:
    def __init__(self, sock: socket, _address: Address, timeout_s: float) -> None:
        self._socket = StackSocket(sock, timeout_s)

    def close(self) -> None:
        self._socket.close()

    def _send(self, data: bytes) -> None:
        self._socket.start()
        self._socket.queue(data)

    def _receive(self) -> bytes:
        data = self._socket.receive()
        if not data:
            raise Disconnected("the server closed the connection")
        return data


class EchoClient(_SocketClient):
    """Sends a text and reads as many bytes."""

    def read(self, text: str) -> bytes:
        """Return what came back, which is the text itself."""
        data = utf8(text)
        self._send(data)
        at = 0
        while at < len(data):
            part = self._receive()
            if not data.startswith(part, at):
                raise ProtocolError("not an echo: other bytes came back")
            at += len(part)
        self._socket.finish()
        return data

    def ping(self) -> None:
        """Send one byte and wait for it."""
        self.read("!")


class JsonClient(_SocketClient):
    """Makes calls of ``read``, numbered, and the tutorial's Ping."""

    def __init__(self, sock: socket, address: Address, timeout_s: float) -> None:
        super().__init__(sock, address, timeout_s)
        self._number = 0

    def read(self, text: str) -> bytes:
        """Return the text reversed."""
        self._number += 1
        utf8(text)
        call = {"method": "read", "params": {"content": text}, "id": self._number}
        self._send(json.dumps(call, ensure_ascii=False).encode() + b"\n")
        answer = self._load(self._receive_line())
        if not isinstance(answer, dict):
            raise ProtocolError("the server's answer is no JSON object")
        if "error" in answer:
            self._socket.finish()
            raise RemoteError(str(answer["error"]))
        if answer.get("id") != self._number:
            raise ProtocolError("the server answered another call")
        self._socket.finish()
        return read_text(answer.get("result"), "result")

    def ping(self) -> None:
        """Send ``"Ping"`` and wait for ``"Ack"``, which no line end follows."""
        self._send(b'"Ping"')
        answer = bytearray()
        while not answer.endswith(b'"') or len(answer) < 2:
            answer += self._receive()
            if len(answer) > _LENGTH.size * 2 or answer[:1] != b'"':
                raise ProtocolError('the server did not answer "Ack"')
        if self._load(answer) != "Ack":
            raise ProtocolError('the server did not answer "Ack"')
        self._socket.finish()

    def _receive_line(self) -> bytes:
        line = bytearray()
        while not line.endswith(b"\n"):
            line += self._receive()
            if len(line) > _MAX_ANSWER_BYTES:
                raise ProtocolError("the server's answer has no end")
        return bytes(line)

    def _load(self, data: bytes | bytearray) -> Any:
        try:
            return json.loads(data)
        except ValueError as error:
            raise ProtocolError("the server's answer is no JSON") from error


class FrameClient(_SocketClient):
    """Sends a length-prefixed frame and reads one: the stack ``selectors``."""

    def read(self, text: str) -> bytes:
        """Return the text reversed."""
        data = utf8(text)
        self._send(_LENGTH.pack(len(data)) + data)
        answer = bytearray()
        needed = _LENGTH.size
        while len(answer) < needed:
            answer += self._receive()
            if needed == _LENGTH.size <= len(answer):
                needed += _LENGTH.unpack_from(answer)[0]
                if needed > _MAX_ANSWER_BYTES:
                    raise ProtocolError("the server's answer is too long, or no frame")
        if len(answer) > needed:
            raise ProtocolError("the server answered more than was asked")
        self._socket.finish()
        return bytes(answer[_LENGTH.size :])

    def ping(self) -> None:
        """Reverse nothing."""
        self.read("")

"""The clients of the stacks that need no library: echo, json and selectors."""

import json
import struct
from socket import socket
from typing import Any

from capnp_rig.client.stacks.stack_socket import SocketClient
from capnp_rig.client.stacks.texts import read_text, utf8
from capnp_rig.objects.errors import ProtocolError, RemoteError
from capnp_rig.rigcli.address import Address

_LENGTH = struct.Struct("<I")
# A broken server may announce more; the client does not wait for it.
_MAX_ANSWER_BYTES = 268_435_456


class EchoClient(SocketClient):
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


class JsonClient(SocketClient):
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


class FrameClient(SocketClient):
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

"""The client of the stack ``http`` over HTTP/1.1, by the standard library."""

import io
import socket
from http.client import (
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    NotConnected,
    RemoteDisconnected,
)
from typing import Any, cast

from capnp_rig.client.stacks.http_messages import JsonOverHttp
from capnp_rig.client.stacks.stack_socket import StackSocket
from capnp_rig.objects.errors import Disconnected, ProtocolError
from capnp_rig.rigcli.address import Address

# Of what a server says instead of HTTP.
_MOST_SAID = 80


class HttpClient(JsonOverHttp):
    """The client over HTTP/1.1."""

    def __init__(self, sock: socket.socket, address: Address, timeout_s: float) -> None:
        super().__init__(sock, address, timeout_s)
        self._http = HTTPConnection(self._host)
        self._http.auto_open = 0
        self._http.sock = cast("socket.socket", _FileSocket(self._socket))

    def _request(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        self._socket.start()
        try:
            self._http.request(
                method, path, body or None, {"content-type": "application/json"} if body else {}
            )
            response: HTTPResponse = self._http.getresponse()
            answer = response.status, response.read()
        except (RemoteDisconnected, NotConnected) as error:
            raise Disconnected("the server closed the connection") from error
        except HTTPException as error:
            # Some hold a line as it came, of up to 64 KiB.
            said = repr(error)
            said = said if len(said) <= _MOST_SAID else f"{said[:_MOST_SAID]}…"
            raise ProtocolError(f"not an HTTP server, or a broken one: {said}") from error
        self._socket.finish()
        return answer


class _FileSocket:
    """What `http.client` asks of a socket, all within the deadline of the request."""

    def __init__(self, sock: StackSocket) -> None:
        self._socket = sock
        self._rest = b""
        self.sendall = sock.queue

    def close(self) -> None:
        """Leave the socket to its client: the answer that says `Connection: close` has a body."""

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return a reader for one response, closed with it while the connection stays."""
        return io.BufferedReader(_Reader(self))

    def receive_into(self, buffer: Any) -> int:
        data = self._rest or self._socket.receive()
        size = min(len(data), len(buffer))
        buffer[:size] = data[:size]
        self._rest = data[size:]
        return size


class _Reader(io.RawIOBase):
    def __init__(self, sock: _FileSocket) -> None:
        self._socket = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._socket.receive_into(buffer)

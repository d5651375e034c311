"""Ends refused connections so that their peers can read why.

A socket that is closed while bytes of the peer wait in it resets the connection, and the peer loses
the reason that was sent. So the server ends its half first, and drops what the peer still sends
until it closes, for `LINGER_S` and `LINGER_BYTES` at most. `MAX_LINGERING` connections may be in
this state; one more ends the oldest.
"""

import asyncio
import contextlib
import json
import socket

from capnp_rig.wire.rpc.message_encoder import encode_abort
from capnp_rig.wire.rpc.messages import ExceptionType, RemoteError

LINGER_S = 1.0
# A peer may write its first calls before it reads: two frames at the limit, and some.
LINGER_BYTES = 16_777_216
_RECEIVE_BYTES = 65_536
MAX_LINGERING = 128


class RefusedConnections:
    """The connections that are refused and not yet closed, oldest first."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._rest_bytes: dict[socket.socket, int] = {}
        self._timers: dict[socket.socket, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._rest_bytes)

    def end(self, sock: socket.socket, last_words: bytes) -> None:
        """Send the last words, and close the connection when they are read."""
        sock.settimeout(0)
        try:
            # Into an empty send buffer, so it does not block.
            sock.send(last_words)
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            sock.close()
            return
        if len(self) >= MAX_LINGERING:
            self._close(next(iter(self._rest_bytes)))
        self._rest_bytes[sock] = LINGER_BYTES
        self._timers[sock] = self._loop.call_later(LINGER_S, self._close, sock)
        self._loop.add_reader(sock.fileno(), self._on_bytes, sock)

    def close(self) -> None:
        """Close them all."""
        for sock in tuple(self._rest_bytes):
            self._close(sock)

    def _on_bytes(self, sock: socket.socket) -> None:
        try:
            received = len(sock.recv(_RECEIVE_BYTES))
        except BlockingIOError:
            return
        except OSError:
            received = 0
        self._rest_bytes[sock] -= received
        if not received or self._rest_bytes[sock] <= 0:
            self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        del self._rest_bytes[sock]
        self._timers.pop(sock).cancel()
        self._loop.remove_reader(sock.fileno())
        with contextlib.suppress(OSError):
            # Unless more came than may be read, nothing is left that would cause a reset.
            sock.recv(_RECEIVE_BYTES)
        sock.close()


def overload_reply(
    stack: str, reason: str, type_: ExceptionType = ExceptionType.OVERLOADED
) -> bytes:
    """Return the bytes that tell a client of `stack` why its connection is closed.

    `type_` is sent where the protocol has types of errors. The result is empty where the protocol
    has no error messages.
    """
    match stack:
        case "capnp":
            return encode_abort(RemoteError(reason, type_))
        case "json":
            return json.dumps({"id": None, "error": reason}).encode() + b"\n"
        case "http":
            body = json.dumps({"error": reason}).encode()
            return (
                b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body)
            )
        case _:
            return b""

"""Sends back every frame that comes on a socket that it was handed, until that ends.

    python -m capnp_rig.loadtest.benchmarks.echo_peer FD

A frame stands behind its length, 64 bits little-endian. It is received whole before it goes back,
as a service would do.
"""

import socket
import struct
import sys
from contextlib import suppress

from capnp_rig.wire.encoding.pointers import Buffer

_length = struct.Struct("<Q")


def send_frame(sock: socket.socket, frame: Buffer) -> None:
    """Send bytes, or a buffer of them, uncopied.

    Raises:
        OSError: The peer is gone.
    """
    head = _length.pack(len(frame))
    sent = sock.sendmsg((head, frame)) - len(head)
    # Less than all only where a signal came in between.
    if sent < len(frame):
        sock.sendall(memoryview(frame)[sent:])


def receive_frame(sock: socket.socket) -> bytes:
    """Wait for a frame and return it.

    Raises:
        OSError: The connection broke.
        EOFError: The peer has ended.
    """
    (length,) = _length.unpack(_receive(sock, _length.size))
    return _receive(sock, length)


def _receive(sock: socket.socket, length: int) -> bytes:
    # Straight into the bytes that the codec gets: a call, and no copy, for any length.
    data = sock.recv(length, socket.MSG_WAITALL)
    if len(data) < length:
        raise EOFError("the peer has ended")
    return data


def main() -> None:
    """Echo until the other end is closed, or its process gone."""
    with socket.socket(fileno=int(sys.argv[1])) as sock, suppress(EOFError, ConnectionError):
        while True:
            send_frame(sock, receive_frame(sock))


if __name__ == "__main__":
    main()

"""One end of the control socket: whole messages, with a descriptor if need be, never blocking."""

import array
import errno
import socket
from collections.abc import Sequence

from capnp_rig.server.control import messages

# The send buffer is full; or the kernel already carries as many descriptors as this user may open.
_FULL = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS})


class ChannelClosedError(Exception):
    """The process at the other end is gone."""


class Channel:
    """Sends and receives `messages` over a connected SOCK_SEQPACKET socket, which it owns."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        self._sock = sock

    @classmethod
    def pair(cls) -> "tuple[Channel, socket.socket]":
        """Return our end, and the socket to pass to a child."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    def fileno(self) -> int:
        """Return the descriptor to watch."""
        return self._sock.fileno()

    def send(self, message: messages.Message, fd: int | None = None) -> bool:
        """Send one message, or return False when the other side does not keep up.

        Raises:
            ChannelClosedError: The other side is gone.
        """
        fds = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        try:
            self._sock.sendmsg([messages.encode(message)], fds, socket.MSG_NOSIGNAL)
        except ConnectionError as error:
            raise ChannelClosedError from error
        except OSError as error:
            if error.errno in _FULL:
                return False
            raise
        return True

    def receive(self) -> tuple[messages.Message, int | None] | None:
        """Return the next message and its descriptor, or None if none has come.

        Raises:
            ChannelClosedError: The other side is gone.
        """
        try:
            packet, rights, _, _ = self._sock.recvmsg(
                messages.MAX_MESSAGE_BYTES,
                socket.CMSG_SPACE(array.array("i").itemsize),
                socket.MSG_CMSG_CLOEXEC,
            )
        except BlockingIOError:
            return None
        except ConnectionError as error:
            raise ChannelClosedError from error
        if not packet:
            raise ChannelClosedError
        return messages.decode(packet), _descriptor(rights)

    def close(self) -> None:
        """Close this end."""
        self._sock.close()


def _descriptor(rights: Sequence[tuple[int, int, bytes]]) -> int | None:
    """Return the one descriptor that came along; None if none did, or the kernel had to drop it."""
    fds = array.array("i")
    for level, kind, data in rights:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return fds[0] if fds else None

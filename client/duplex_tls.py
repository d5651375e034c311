"""The socket of a blocking client over TLS.

OpenSSL reads records of up to 16 KiB whole, and our reads ask for more than that: so nothing that
was decrypted is left in it, and what `poll` says of the descriptor holds. A write that did not fit
must be repeated with the same bytes first, to which more may be added behind.
"""

import socket
import ssl
from contextlib import suppress

from capnp_rig.client.duplex import DuplexSocket
from capnp_rig.client.tls import say_goodbye
from capnp_rig.objects.errors import Disconnected
from capnp_rig.rigcli.tls import tls_reason

_AGAIN = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)


class SecuredSocket(DuplexSocket):
    """A connected socket whose handshake is done, which it owns."""

    is_secured = True
    _socket: ssl.SSLSocket

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock)
        # gevent's cannot peek over TLS.
        self._waits_itself = False

    def is_readable(self) -> bool:
        """Return whether there are bytes, or the end of the stream."""
        return self.fileno() >= 0 and (self._socket.pending() > 0 or super().is_readable())

    def send(self, data: bytes) -> None:
        """Send `data`."""
        self.queue(data)
        self.flush()

    def flush(self) -> None:
        """Send what the kernel takes at once; the rest goes with the next `flush`."""
        unsent = self._unsent
        if len(unsent) > 1:
            # A record each would cost more than the copy. What was tried before stays in front.
            unsent[:] = [memoryview(b"".join(unsent))]
        try:
            while unsent:
                sent = self._socket.send(unsent[0])
                if not sent:
                    # gevent's, in place of the exception.
                    return
                unsent[0] = unsent[0][sent:]
                if not unsent[0]:
                    unsent.clear()
        except _AGAIN:
            return
        except OSError as error:
            self._failure = tls_reason(error)
            unsent.clear()

    def receive(self, size: int) -> bytes | None:
        """Return what is there: nothing at the end of the stream, None if it is too early."""
        try:
            return self._socket.recv(size)
        except _AGAIN:
            if self._failure is None:
                return None
            raise Disconnected(f"the connection was lost: {self._failure}") from None
        except OSError as error:
            reason = self._failure or tls_reason(error)
            raise Disconnected(f"the connection was lost: {reason}") from error

    def say_goodbye(self) -> None:
        """Send close_notify."""
        if self.owner.is_here:
            say_goodbye(self._socket)

    def shut_down(self) -> None:
        """End the connection; every thread that waits for it wakes up."""
        if self.owner.is_here:
            # Not by the SSL socket's own way, after which it reads what is encrypted as it is.
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

"""TLS of Locust's users: what they are asked for, and a socket that never waits."""

import ssl
from argparse import Namespace
from contextlib import suppress
from functools import cache
from typing import Any

from capnp_rig.client.tls import Security, Tls, TlsArgument, secure
from capnp_rig.loadtest.protocols import alpn_of
from capnp_rig.rigcli.tls import tls_reason

_AGAIN = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


def tls_of_options(options: Namespace) -> Tls | None:
    """Return what ``--capnp-tls…`` asks for: None for no TLS."""
    names = ("ca", "cert", "key", "name")
    files = {name: getattr(options, f"capnp_tls_{name}") or None for name in names}
    return Tls(**files) if options.capnp_tls or any(files.values()) else None


@cache
def security_of(tls: TlsArgument, stack: str) -> Security | None:
    """Load the files of users, once for all of a process.

    Raises:
        UsageError: One cannot be used.
    """
    return secure(tls, alpn_of(stack))


class SecuredSocket:
    """A socket whose handshake is done, with the errors of one in the clear.

    As much is read at once as a record holds, so nothing is left in OpenSSL that a watcher of the
    descriptor does not see.
    """

    def __init__(self, sock: Any) -> None:
        self._socket = sock
        self.settimeout = sock.settimeout
        self.fileno = sock.fileno

    def recv(self, size: int) -> bytes:
        """Return what is there.

        Raises:
            BlockingIOError: Nothing is.
        """
        try:
            data: bytes = self._socket.recv(size)
        except _AGAIN:
            raise BlockingIOError from None
        except ssl.SSLError as error:
            raise ConnectionError(0, tls_reason(error)) from error
        return data

    def send(self, data: bytes | memoryview) -> int:
        """Send what the kernel takes; what it does not is to be given again, as it is.

        Raises:
            BlockingIOError: It takes nothing.
        """
        try:
            sent: int = self._socket.send(data)
        except _AGAIN:
            raise BlockingIOError from None
        except ssl.SSLError as error:
            raise ConnectionError(0, tls_reason(error)) from error
        return sent

    def close(self) -> None:
        """Send close_notify, and close."""
        with suppress(OSError, ValueError):
            self._socket.unwrap()
        self._socket.close()

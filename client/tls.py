"""How a client secures its connections, and the handshake of a blocking one.

>>> Tls(ca="ca.pem", name="server.internal")
Tls(ca='ca.pem', cert=None, key=None, name='server.internal')
"""

import select
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from capnp_rig.objects.errors import ConnectError, UsageError
from capnp_rig.rigcli.address import Address
from capnp_rig.rigcli.tls import TlsFileError, load_ca, load_chain, tls_reason


@dataclass(frozen=True, slots=True)
class Tls:
    """What a client needs for TLS; each file is in PEM.

    Attributes:
        ca: The certificates that are trusted; None for those of the system.
        cert: The client's own, with those up to the server's client CA; None to show none.
        key: Its key, if that is in another file.
        name: What the server's certificate must name; None for the host that is connected to.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    name: str | None = None

    def context(self) -> ssl.SSLContext:
        """Return a context with the files as they are now.

        Raises:
            UsageError: A file cannot be used.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            if self.ca is None:
                context.load_default_certs()
            else:
                load_ca(context, self.ca)
            if self.cert is not None:
                load_chain(context, self.cert, self.key)
            elif self.key is not None:
                raise UsageError("a TLS key needs the certificate that it belongs to")
        except TlsFileError as error:
            raise UsageError(str(error)) from error
        return context


class Security(NamedTuple):
    """What `secure` made of a client's `tls`: load it once, use it for many connections."""

    context: ssl.SSLContext
    name: str | None

    def name_of(self, address: Address) -> str | None:
        """Return whom the server must be.

        Raises:
            UsageError: The address does not say, and nobody else does.
        """
        name = self.name or address.host
        if name is None and self.context.check_hostname:
            raise UsageError(
                f"TLS over {address} needs the name in the server's certificate: Tls(name=...)"
            )
        return name


# What a client takes as `tls`.
TlsArgument = Tls | ssl.SSLContext | Security | None


def secure(tls: TlsArgument, protocols: Sequence[str] = ()) -> Security | None:
    """Load the files of `tls`; `protocols` are offered by ALPN.

    Raises:
        UsageError: A file cannot be used.
    """
    if tls is None or isinstance(tls, Security):
        return tls
    if isinstance(tls, ssl.SSLContext):
        return Security(tls, None)
    context = tls.context()
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return Security(context, tls.name)


def shake_hands(
    sock: socket.socket, address: Address, security: Security, deadline_s: float
) -> ssl.SSLSocket:
    """Make the handshake on a connected socket, which is closed if it fails.

    Raises:
        ConnectError: It fails, or `deadline_s`, a `time.monotonic`, is over.
    """
    name = security.name_of(address)
    sock.settimeout(0)
    try:
        # It takes over the descriptor.
        secured = security.context.wrap_socket(
            sock, server_hostname=name, do_handshake_on_connect=False
        )
    except (OSError, ValueError) as error:
        sock.close()
        raise handshake_error(address, error) from error
    try:
        _shake_hands(secured, deadline_s)
    except OSError as error:
        secured.close()
        raise handshake_error(address, error) from error
    except BaseException:
        secured.close()
        raise
    return secured


def _shake_hands(sock: ssl.SSLSocket, deadline_s: float) -> None:
    while True:
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            wanted = select.POLLIN
        except ssl.SSLWantWriteError:
            wanted = select.POLLOUT
        else:
            return
        waiting = select.poll()
        waiting.register(sock, wanted)
        if not waiting.poll(max(deadline_s - time.monotonic(), 0) * 1000):
            raise TimeoutError


def handshake_error(address: Address, error: Exception) -> ConnectError:
    """Return the error of a handshake that failed, in the words of all connects."""
    reason = tls_reason(error) if isinstance(error, OSError) else str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"the server's certificate is refused: {reason}"
        if error.verify_code in _NAME_MISMATCH:
            reason += " (its name may be given: --tls-name, Tls(name=...))"
    return ConnectError(f"cannot connect to {address} over TLS: {reason}")


# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH, x509_vfy(3).
_NAME_MISMATCH = frozenset({62, 64})


def say_goodbye(sock: ssl.SSLSocket) -> None:
    """Send close_notify, as far as that needs no wait."""
    with suppress(OSError, ValueError):
        sock.unwrap()

"""TLS of a server: its contexts, and the way of a connection from its first byte to its engine.

The supervisor checks the files before it listens (`check_files`), and decrypts nothing: a worker
gets the connection as it was accepted, and loads the files itself when it starts. So workers that
replace others have new certificates.

An engine does not see a connection before its handshake is done (`Secured`): whoever fails it has
reached no protocol of ours, and has left nothing there.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

from capnp_rig.rigcli.tls import check_own_certificate, load_ca, load_chain
from capnp_rig.server.config import ServerConfig, TlsOptions
from capnp_rig.server.connections.limits import LINGER_S

# What a client asks for that can speak several protocols over TLS. The others have no name there.
_ALPN = {"http": ["h2", "http/1.1"], "grpc": ["h2"]}
# A fatal alert, "internal error", as it looks before any key is agreed: a client's library names
# it, where another protocol's words would be garbage (RFC 8446, 6.2).
REFUSAL = bytes([21, 3, 3, 0, 2, 2, 80])


def server_context(options: TlsOptions, stack: str) -> ssl.SSLContext:
    """Load the certificates of a server.

    Raises:
        TlsFileError: One cannot be used.
    """
    assert options.tls_cert is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    # A session that is resumed must find the worker that has its key: of several, seldom. And the
    # tickets would lie unread at clients that only write, whose close is a reset then.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    load_chain(context, options.tls_cert, options.tls_key)
    if options.tls_client_ca is not None:
        load_ca(context, options.tls_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    if stack in _ALPN:
        context.set_alpn_protocols(_ALPN[stack])
    return context


def check_files(config: ServerConfig) -> None:
    """Find out whether clients could connect with the certificates as they are now.

    Raises:
        TlsFileError: They could not.
    """
    options = config.tls
    if options.tls_cert is not None:
        # As it asks for no certificate, no client has to have one.
        plain = TlsOptions(tls_cert=options.tls_cert, tls_key=options.tls_key)
        check_own_certificate(server_context(plain, config.stack), options.tls_cert)
        server_context(options, config.stack)


def adoption(config: ServerConfig) -> dict[str, Any]:
    """Return what `connect_accepted_socket` needs beside its socket, nothing without TLS.

    Raises:
        TlsFileError: A certificate cannot be used.
    """
    if config.tls.tls_cert is None:
        return {}
    return {
        "ssl": server_context(config.tls, config.stack),
        "ssl_handshake_timeout": config.tls.tls_handshake_timeout_s,
        # For the peer's part in the end of a connection that we close.
        "ssl_shutdown_timeout": LINGER_S,
    }


class Secured(asyncio.Protocol):
    """The protocol of a connection until its handshake is done; then an engine's takes over."""

    def __init__(self, make: Callable[[], asyncio.BaseProtocol]) -> None:
        self._make = make

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Make room for the engine's, which learns of the transport before it is asked for room."""
        protocol = self._make()
        protocol.connection_made(transport)
        transport.set_protocol(protocol)

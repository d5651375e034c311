"""Which socket a blocking client has: with TLS or without."""

import socket
from typing import Any

from capnp_rig.client.duplex import DuplexSocket


def duplex(sock: socket.socket) -> DuplexSocket:
    """Take over a connected socket."""
    # `ssl` takes 10 ms to import, and gevent has a type of its own.
    if not hasattr(sock, "do_handshake"):
        return DuplexSocket(sock)
    from capnp_rig.client.duplex_tls import SecuredSocket

    secured: Any = sock
    return SecuredSocket(secured)

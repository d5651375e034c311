"""Make a connection to an address, within one deadline."""

import socket
import time
from typing import Any

from client.errors import ConnectError
from wire.address import Address


def connect_socket(address: Address, timeout_s: float) -> socket.socket:
    """Return a connected socket; tries each address of a host name within one deadline.

    Raises:
        ConnectError: None of them answers.
    """
    deadline = time.monotonic() + timeout_s
    error: OSError | None = None
    for family, kind, protocol, where in _resolve(address):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(max(deadline - time.monotonic(), 1e-3))
            sock.connect(where)
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as failure:
            sock.close()
            error = failure
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    assert error is not None
    reason = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or error
    raise ConnectError(f"cannot connect to {address}: {reason}") from error


def _resolve(address: Address) -> list[tuple[Any, Any, int, Any]]:
    if address.path is not None:
        return [(socket.AF_UNIX, socket.SOCK_STREAM, 0, address.path)]
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConnectError(f"cannot resolve {address.host}: {error}") from error
    return [(family, kind, protocol, where) for family, kind, protocol, _, where in found]

"""Socket options of every connection, at both ends."""

import socket

# A peer that vanished without a word is noticed after 60 + 3 x 10 s; Linux alone waits two hours.
_KEEPALIVE_IDLE_S = 60
_KEEPALIVE_INTERVAL_S = 10
_KEEPALIVE_PROBES = 3
# The same for data that is never acknowledged, or that the peer never has room for.
SERVER_TIMEOUT_S = 20
# A server may have good reason not to read for a while: it works on what it has.
CLIENT_TIMEOUT_S = 90

_TCP_OPTIONS = (
    # Stock asyncio sets it only on sockets whose protocol number it knows.
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_S),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES),
)


def set_options(sock: socket.socket, unsent_timeout_s: int = SERVER_TIMEOUT_S) -> None:
    """Set the options of a TCP connection; a Unix one needs none.

    `unsent_timeout_s` is how long data may wait for the peer to take it.

    Raises:
        OSError: The peer has already reset the connection.
    """
    if sock.family == socket.AF_UNIX:
        return
    for level, option, value in _TCP_OPTIONS:
        sock.setsockopt(level, option, value)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unsent_timeout_s * 1000)

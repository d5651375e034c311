"""Socket options of every adopted connection."""

import socket

# A peer that vanished without a word is noticed after 60 + 3 x 10 s; Linux alone waits two hours.
_KEEPALIVE_IDLE_S = 60
_KEEPALIVE_INTERVAL_S = 10
_KEEPALIVE_PROBES = 3
# The same for data that is never acknowledged.
_USER_TIMEOUT_MS = 20_000

_TCP_OPTIONS = (
    # Stock asyncio sets it only on sockets whose protocol number it knows.
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_S),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS),
)


def set_options(sock: socket.socket) -> None:
    """Set the options of a TCP connection; a Unix one needs none.

    Raises:
        OSError: The peer has already reset the connection.
    """
    if sock.family == socket.AF_UNIX:
        return
    for level, option, value in _TCP_OPTIONS:
        sock.setsockopt(level, option, value)

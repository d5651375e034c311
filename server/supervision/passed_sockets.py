"""Takes over a listening socket that whoever started the server has opened: ADDR is fd://3.

systemd says in LISTEN_FDS how many it passes, from descriptor 3 on, and in LISTEN_PID to whom
(sd_listen_fds(3)). Other programs say nothing, and the socket itself tells whether it is one.
"""

import errno
import os
import socket
from collections.abc import MutableMapping

from capnp_rig.rigcli.address import Address
from capnp_rig.server.supervision.listener import (
    Listener,
    ListenError,
    NotLoopbackError,
    is_loopback,
    not_loopback_text,
)

_FIRST = 3
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


def passed_fds(environ: MutableMapping[str, str]) -> range:
    """Return the descriptors that systemd passes to this process; none if it passes none.

    Its variables are taken out of `environ`: workers, and what services start, get none.
    """
    count = environ.pop("LISTEN_FDS", "")
    pid = environ.pop("LISTEN_PID", "")
    environ.pop("LISTEN_FDNAMES", None)
    # They may be for a process that started us, which does not concern us.
    is_ours = count.isdecimal() and pid == str(os.getpid())
    return range(_FIRST, _FIRST + int(count)) if is_ours else range(0)


def check_passed(address: Address, passed: range) -> None:
    """Refuse to leave the sockets that systemd passes without a server.

    Raises:
        ListenError: `address` is none of those.
    """
    # A range is walked through for None, however long it is.
    if passed and (address.fd is None or address.fd not in passed):
        last = f" to fd://{passed[-1]}" if passed[-1] > _FIRST else ""
        raise ListenError(
            f"systemd passes fd://{_FIRST}{last}, and the address is {address}: use one of those, "
            "or start the server without the socket unit"
        )


def adopt_listener(address: Address, *, insecure: bool) -> Listener:
    """Return the listening socket that is descriptor `address.fd`; its file, if any, stays.

    Raises:
        ListenError: It is no listening TCP or Unix socket.
        NotLoopbackError: It is bound where other machines reach it and `insecure` is False.
    """
    assert address.fd is not None
    sock = _open(address, address.fd)
    try:
        bound = _bound_address(address, sock, insecure=insecure)
    except BaseException:
        sock.close()
        raise
    sock.set_inheritable(False)
    sock.settimeout(0)
    return Listener(sock=sock, address=bound)


def _open(address: Address, fd: int) -> socket.socket:
    try:
        return socket.socket(fileno=fd)
    except OSError as error:
        advice = {
            errno.EBADF: "it is not open: start the server with a listening socket there",
            errno.ENOTSOCK: "it is no socket: pass a listening socket",
        }
        reason = advice.get(error.errno or 0, error.strerror)
        raise ListenError(f"cannot listen on {address}: {reason}") from error


def _bound_address(address: Address, sock: socket.socket, *, insecure: bool) -> Address:
    if sock.family not in _FAMILIES or sock.type != socket.SOCK_STREAM:
        raise ListenError(f"cannot listen on {address}: it is no stream socket of TCP or Unix")
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ListenError(
            f"cannot listen on {address}: nobody has called listen on it, or it is a connection "
            "(with systemd: Accept=no)"
        )
    name = sock.getsockname()
    if isinstance(name, bytes):
        # As in `rigcli.address`.
        raise ListenError(
            f"cannot listen on {address}: anyone on the machine can connect to an abstract name, "
            "bind it to a file"
        )
    if isinstance(name, str):
        return Address(path=name)
    bound = Address(host=name[0], port=name[1])
    if not insecure and not is_loopback(sock.family, name[0]):
        raise NotLoopbackError(not_loopback_text(bound))
    return bound

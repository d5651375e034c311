"""Opens the listening socket; its errors say what to do."""

import contextlib
import errno
import os
import socket
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from capnp_rig.rigcli.address import Address
from capnp_rig.server.logs.log import Log

_LOOPBACK_V6 = socket.inet_pton(socket.AF_INET6, "::1")
_MAPPED_LOOPBACK = bytes(10) + b"\xff\xff\x7f"


class ListenError(Exception):
    """The address cannot be listened on; the message says what to do."""


class NotLoopbackError(Exception):
    """The address can be reached from other machines, which was not asked for."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket, where it really listens, and the file to remove in the end."""

    sock: socket.socket
    address: Address
    file_id: tuple[int, int] | None = None

    def close(self) -> None:
        """Stop listening; remove the Unix socket's file if it is still this one."""
        path = self.address.path
        if path is not None:
            with contextlib.suppress(OSError):
                if _file_id(path) == self.file_id:
                    Path(path).unlink()
        self.sock.close()


def open_listener(
    address: Address,
    *,
    backlog: int,
    insecure: bool,
    workers_listen: bool = False,
    socket_mode: int = 0o600,
) -> Listener:
    """Bind and listen; connections queue up from now on.

    With `workers_listen`, the TCP port is only held, so that workers can listen on it.

    Raises:
        ListenError: The system refuses.
        NotLoopbackError: `address` is not local and `insecure` is False.
    """
    if address.path is not None:
        return _open_unix(address.path, backlog, socket_mode)
    return _open_tcp(address, None if workers_listen else backlog, insecure=insecure)


def is_loopback(family: int, host: str) -> bool:
    """Return whether a numeric host can be reached from this machine only."""
    if family == socket.AF_INET:
        return socket.inet_pton(family, host)[0] == 127
    packed = socket.inet_pton(family, host.partition("%")[0])
    return packed == _LOOPBACK_V6 or packed.startswith(_MAPPED_LOOPBACK)


def not_loopback_text(address: Address) -> str:
    """Return why an address is refused that other machines reach."""
    return (
        f"refusing to listen on {address}: other machines could connect, and nothing is "
        "encrypted or authenticated; use TLS (--tls-cert, --tls-client-ca), 127.0.0.1, [::1] or "
        "unix:/path, or add --insecure"
    )


def _metrics_refusal(address: Address) -> str:
    # TLS would not help: it is for calls.
    return (
        f"--metrics: refusing to listen on {address}: other machines could connect, and metrics "
        "are neither encrypted nor authenticated, whatever calls are; use 127.0.0.1, [::1] or "
        "unix:/path, or add --insecure"
    )


def check_metrics_address(address: Address, *, insecure: bool) -> None:
    """Refuse an address for metrics that other machines reach.

    Raises:
        ListenError: There is no such host.
        NotLoopbackError: It is not local and `insecure` is False.
    """
    if address.port is not None:
        resolve(address, insecure=insecure, refusal=_metrics_refusal)


def caution_of_strangers(listener: Listener, log: Log) -> None:
    """Warn where TLS encrypts, but lets every client in that comes from another machine."""
    sock = listener.sock
    if listener.address.path is None and not is_loopback(sock.family, sock.getsockname()[0]):
        log.warning(
            f"TLS without --tls-client-ca: any client that reaches {listener.address} may call",
            address=str(listener.address),
        )


def uid_of(sock: socket.socket) -> int:
    """Return the user whose process connected to a Unix socket, as the kernel noted it then."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", data)[1]
    return uid


def peer_of(sock: socket.socket, name: tuple[str, int] | str | bytes) -> tuple[str, str]:
    """Return how the log names a connection's other end, and its origin.

    The origin is the host, or the user on a Unix socket, whose peers have a process for a name.
    """
    if isinstance(name, tuple):
        return str(Address(host=name[0], port=name[1])), name[0]
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", data)
    return f"unix:pid={pid},uid={uid}", f"uid {uid}"


def resolve(
    address: Address,
    *,
    insecure: bool,
    refusal: Callable[[Address], str] = not_loopback_text,
) -> tuple[int, tuple[str, int]]:
    """Return the family and the socket address of a TCP address that may be listened on.

    `refusal` says why it may not.

    Raises:
        ListenError: There is no such host.
        NotLoopbackError: It is not local and `insecure` is False.
    """
    family, sockaddr = _resolve(address)
    if not insecure and not is_loopback(family, sockaddr[0]):
        raise NotLoopbackError(refusal(address))
    return family, sockaddr


def has_bytes(sock: socket.socket) -> bool:
    """Return whether the peer of a connection has sent something, and is there."""
    try:
        return bool(sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False


def _open_tcp(address: Address, backlog: int | None, *, insecure: bool) -> Listener:
    family, sockaddr = resolve(address, insecure=insecure)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(sockaddr)
        if backlog is None:
            # Not before: bind would then share the port of another server of this user's.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        else:
            sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise ListenError(_refusal(address, error)) from error
    sock.settimeout(0)
    host, port = sock.getsockname()[:2]
    return Listener(sock=sock, address=Address(host=host, port=port))


def _resolve(address: Address) -> tuple[int, tuple[str, int]]:
    try:
        answers = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:
        raise ListenError(
            f"cannot find the host of {address}: check its name, or use an IP address"
        ) from error
    family, _, _, _, sockaddr = answers[0]
    return family, sockaddr  # type: ignore[return-value] # IPv6 addresses are longer tuples


def _open_unix(path: str, backlog: int, mode: int) -> Listener:
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mode must be right from the first moment, so it cannot be set after bind.
    umask = os.umask(0o777 & ~mode)
    try:
        sock.bind(path)
        sock.listen(backlog)
        file_id = _file_id(path)
    except OSError as error:
        sock.close()
        raise ListenError(_refusal(Address(path=path), error)) from error
    finally:
        os.umask(umask)
    sock.settimeout(0)
    return Listener(sock=sock, address=Address(path=path), file_id=file_id)


def _file_id(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _remove_stale(path: str) -> None:
    """Remove the socket of a server that is gone: one that refuses to be connected to."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ListenError(f"cannot listen on unix:{path}: the file exists and is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(0)
            probe.connect(path)
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        Path(path).unlink(missing_ok=True)
        return
    except BlockingIOError:
        # Its backlog is full, so somebody listens.
        pass
    except OSError as error:
        raise ListenError(_refusal(Address(path=path), error)) from error
    raise ListenError(_refusal(Address(path=path), OSError(errno.EADDRINUSE, "in use")))


def _refusal(address: Address, error: OSError) -> str:
    advice = {
        errno.EADDRINUSE: "it is in use: stop the other server, or choose another address",
        errno.EADDRNOTAVAIL: "this machine has no such address: use one of its own",
        errno.EACCES: "no permission: use a port from 1024 up, or a folder you may write to",
        errno.EPERM: "no permission: use a port from 1024 up, or a folder you may write to",
        errno.ENOENT: "the folder does not exist: create it first",
        errno.EAFNOSUPPORT: "this machine has no such address family: use 127.0.0.1",
    }
    reason = advice.get(error.errno or 0, error.strerror or str(error))
    return f"cannot listen on {address}: {reason}"

import os
import socket
from pathlib import Path

import pytest

from capnp_rig.rigcli.address import Address
from capnp_rig.server.supervision.listener import ListenError, NotLoopbackError
from capnp_rig.server.supervision.passed_sockets import adopt_listener, check_passed, passed_fds

US = str(os.getpid())


@pytest.mark.parametrize(
    ("environ", "fds"),
    [
        ({}, []),
        ({"LISTEN_FDS": "1", "LISTEN_PID": US}, [3]),
        ({"LISTEN_FDS": "2", "LISTEN_PID": US, "LISTEN_FDNAMES": "a:b"}, [3, 4]),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "1"}, []),
        ({"LISTEN_FDS": "1"}, []),
        ({"LISTEN_FDS": "many", "LISTEN_PID": US}, []),
    ],
)
def test_systemd_says_what_it_passes_and_the_variables_go(
    environ: dict[str, str], fds: list[int]
) -> None:
    assert list(passed_fds(environ)) == fds
    assert environ == {}


def test_sockets_of_systemd_are_not_left_without_a_server() -> None:
    check_passed(Address(fd=4), range(3, 5))
    check_passed(Address(fd=7), range(0))
    check_passed(Address(path="/s"), range(0))
    for address, passed, words in [
        (Address(path="/s"), range(3, 4), "systemd passes fd://3, and the address is unix:/s: "),
        (
            Address(fd=5),
            range(3, 5),
            "systemd passes fd://3 to fd://4, and the address is fd://5: ",
        ),
        (Address(path="/s"), range(3, 10**20), f"systemd passes fd://3 to fd://{10**20 - 1}, "),
    ]:
        with pytest.raises(ListenError, match=words):
            check_passed(address, passed)


def adopted(sock: socket.socket, *, insecure: bool = False) -> tuple[Address, int]:
    """Adopt a copy of a socket, and return what it is bound to and its new descriptor's flags."""
    listener = adopt_listener(Address(fd=os.dup(sock.fileno())), insecure=insecure)
    flags = listener.sock.gettimeout() == 0, os.get_inheritable(listener.sock.fileno())
    assert flags == (True, False)
    listener.close()
    return listener.address, listener.sock.fileno()


def test_a_listening_tcp_socket_is_adopted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address, _ = adopted(sock)
        assert str(address) == f"127.0.0.1:{sock.getsockname()[1]}"


def test_a_passed_unix_socket_keeps_its_file(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        assert adopted(sock)[0] == Address(path=str(path))
        assert path.is_socket()


def test_h1_a_passed_socket_that_others_reach_needs_a_word() -> None:
    with socket.create_server(("0.0.0.0", 0)) as sock:  # noqa: S104 - for a moment
        with pytest.raises(NotLoopbackError, match=r"refusing to listen on 0\.0\.0\.0:\d+: "):
            adopted(sock)
        assert adopted(sock, insecure=True)[0].host == "0.0.0.0"  # noqa: S104


def refusal(fd: int) -> str:
    with pytest.raises(ListenError) as raised:
        adopt_listener(Address(fd=fd), insecure=False)
    return str(raised.value).removeprefix(f"cannot listen on fd://{fd}: ")


def test_a17_what_is_no_listening_socket_is_refused(tmp_path: Path) -> None:
    closed = os.open(tmp_path, os.O_RDONLY)
    os.close(closed)
    assert refusal(closed).startswith("it is not open: ")
    file = os.open(tmp_path / "f", os.O_CREAT)
    assert refusal(file) == "it is no socket: pass a listening socket"
    os.close(file)
    # Those that are refused later are ours then, and closed.
    for family, kind, words in [
        (socket.AF_INET, socket.SOCK_DGRAM, "it is no stream socket of TCP or Unix"),
        (socket.AF_UNIX, socket.SOCK_SEQPACKET, "it is no stream socket of TCP or Unix"),
        (socket.AF_INET, socket.SOCK_STREAM, "nobody has called listen on it"),
    ]:
        assert refusal(socket.socket(family, kind).detach()).startswith(words)
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0capnp-rig.{US}")
    abstract.listen()
    assert refusal(abstract.detach()).startswith("anyone on the machine can connect")

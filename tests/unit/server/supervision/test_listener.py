import os
import socket
import stat
from pathlib import Path

import pytest

from capnp_rig.rigcli.address import Address
from capnp_rig.server.supervision.listener import (
    Listener,
    ListenError,
    NotLoopbackError,
    check_metrics_address,
    is_loopback,
    open_listener,
)


@pytest.mark.parametrize(
    ("family", "host", "loopback"),
    [
        (socket.AF_INET, "127.0.0.1", True),
        (socket.AF_INET, "127.9.9.9", True),
        (socket.AF_INET, "0.0.0.0", False),  # noqa: S104 - not bound
        (socket.AF_INET, "10.0.0.1", False),
        (socket.AF_INET6, "::1", True),
        (socket.AF_INET6, "::ffff:127.0.0.1", True),
        (socket.AF_INET6, "::", False),
        (socket.AF_INET6, "::ffff:10.0.0.1", False),
        (socket.AF_INET6, "fe80::1%lo", False),
    ],
)
def test_h1_only_this_machine_is_loopback(family: int, host: str, *, loopback: bool) -> None:
    assert is_loopback(family, host) is loopback


def test_metrics_are_for_this_machine_and_tls_is_no_help() -> None:
    everywhere = Address(host="0.0.0.0", port=1)  # noqa: S104 - not bound
    with pytest.raises(NotLoopbackError, match=r"^--metrics: .*0\.0\.0\.0:1: ") as refusal:
        check_metrics_address(everywhere, insecure=False)
    assert "--tls" not in str(refusal.value)
    check_metrics_address(everywhere, insecure=True)
    check_metrics_address(Address(host="127.0.0.1", port=1), insecure=False)
    check_metrics_address(Address(path="/a"), insecure=False)


def listen(path: Path) -> Listener:
    return open_listener(Address(path=str(path)), backlog=5, insecure=False)


def test_h2_a_unix_socket_is_its_owners_alone_and_goes_with_the_listener(tmp_path: Path) -> None:
    path = tmp_path / "s"
    umask = os.umask(0)
    try:
        listener = listen(path)
        assert os.umask(0) == 0
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    listener.close()
    assert not path.exists()
    listener.close()


def test_a17_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    listen(path).close()


def test_a17_a_live_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = listen(path)
    with pytest.raises(ListenError, match="in use"):
        listen(path)
    assert path.exists()
    first.close()


def test_another_servers_socket_is_not_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = listen(path)
    path.unlink()
    second = listen(path)
    first.close()
    assert path.exists()
    second.close()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(ListenError, match="is no socket"):
        listen(path)
    assert path.read_text() == "precious"


def test_a_port_that_is_held_for_workers_is_nobody_elses() -> None:
    here = Address(host="127.0.0.1", port=0)
    held = open_listener(here, backlog=5, insecure=False, workers_listen=True)
    try:
        where = (held.address.host, held.address.port)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(where, 5)
        with socket.socket() as worker, socket.socket() as other:
            for sock in (worker, other):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                sock.bind(where)
                sock.listen()
            with pytest.raises(ListenError, match="in use"):
                open_listener(held.address, backlog=5, insecure=False, workers_listen=True)
    finally:
        held.close()

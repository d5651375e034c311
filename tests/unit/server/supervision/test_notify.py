import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from capnp_rig.server.supervision.notify import ServiceManager


@pytest.fixture(params=["path", "abstract"])
def listening(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[str, socket.socket]]:
    """The name of a service manager's socket as NOTIFY_SOCKET has it, and the socket."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@capnp-rig.{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.bind(name if request.param == "path" else f"\0{name[1:]}")
        yield name, sock


def test_each_message_is_a_datagram(listening: tuple[str, socket.socket]) -> None:
    name, sock = listening
    manager = ServiceManager.of_environment({"NOTIFY_SOCKET": name})
    manager.ready("Listening on x")
    manager.reloading()
    manager.status("busy")
    manager.watchdog()
    manager.stopping()
    assert sock.recv(1000) == b"READY=1\nSTATUS=Listening on x"
    reloading, _, time_us = sock.recv(1000).partition(b"\nMONOTONIC_USEC=")
    assert (reloading, time_us.isdigit()) == (b"RELOADING=1", True)
    assert sock.recv(1000) == b"STATUS=busy"
    assert sock.recv(1000) == b"WATCHDOG=1"
    assert sock.recv(1000) == b"STOPPING=1\nSTATUS=Draining"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/no/such"}])
def test_nobody_waits_to_hear(environ: dict[str, str]) -> None:
    ServiceManager.of_environment(environ).ready("unheard")


def test_a_service_manager_that_does_not_read_holds_nothing_up(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        for _ in range(1000):
            ServiceManager(path).watchdog()
        # Signs of life are lost then, and no change of state is if it reads after all.
        sock.settimeout(5)
        reader = threading.Thread(target=lambda: all(iter(lambda: is_life(sock), False)))
        reader.start()
        ServiceManager(path).ready("now")
        reader.join(5)
        assert not reader.is_alive()


def is_life(sock: socket.socket) -> bool:
    return sock.recv(1000) == b"WATCHDOG=1"


def test_the_variables_are_inherited_by_nobody() -> None:
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "5", "WATCHDOG_PID": "1", "HOME": "/"}
    ServiceManager.of_environment(environ)
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "often"}, None),
        ({"WATCHDOG_USEC": "1"}, 0.01),
        ({"WATCHDOG_USEC": "9" * 400}, None),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_time(
    environ: dict[str, str], interval_s: float | None
) -> None:
    assert ServiceManager.of_environment(environ).watchdog_s == interval_s

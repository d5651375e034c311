"""`client ping`: what it prints of any server, and how it exits."""

import re
import socket
import time
from collections.abc import Iterator

import pytest
from command_line import RunCommand, runner
from fake_server import Behaviour, answering, fake_server, finish, reset
from running_peer import running_peer

from capnp_rig.client.cli import cli
from capnp_rig.wire.rpc.connection import Connection
from capnp_rig.wire.rpc.server_connection import ServerConnection

_CONNECTED = re.compile(r"connected to \S+ in \d+ µs")
_REPLY = re.compile(r"reply \d in \d+ µs")
_SUMMARY = re.compile(r"3 of 3 answered: min \d+, median \d+, p99 \d+, max \d+ µs")


@pytest.fixture
def client(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> RunCommand:
    return runner(cli, "client", capsys, monkeypatch)


@pytest.fixture(scope="module")
def peer() -> Iterator[str]:
    with running_peer("named_call_server.py") as address:
        yield address


def is_pings(out: str) -> bool:
    connected, *replies, summary = out.splitlines()
    return bool(
        _CONNECTED.fullmatch(connected)
        and len(replies) == 3
        and all(map(_REPLY.fullmatch, replies))
        and _SUMMARY.fullmatch(summary)
    )


def test_any_server_is_timed_by_its_bootstrap(client: RunCommand, peer: str) -> None:
    status, out, err = client("ping", peer, "-c", "3")
    assert (status, is_pings(out), err) == (0, True, ""), out
    with fake_server(answering(lambda _: None)) as address:
        status, out, err = client("ping", address, "--count", "3", "--interval", "0.01")
    assert (status, is_pings(out), err) == (0, True, ""), out


def test_each_ping_gives_back_what_it_got(client: RunCommand) -> None:
    left: list[tuple[int, int]] = []

    def behave(connection: socket.socket) -> None:
        server = ServerConnection()
        while data := connection.recv(65536):
            server.receive_data(data)
            connection.sendall(server.data_to_send())
            references = sum(node.references for node in server._exports.values())
            left.append((len(server._answers), references))

    with fake_server(behave) as address:
        assert client("ping", address, "-c", "20")[0] == 0
    assert len(left) >= 20
    assert max(answers for answers, _ in left) == 1
    # The bootstrap interface, of which the last reply goes back with the next ping.
    assert max(references for _, references in left) <= 2


def test_the_next_ping_waits_for_the_interval(client: RunCommand) -> None:
    with fake_server(answering(lambda _: None)) as address:
        started_s = time.monotonic()
        assert client("ping", address, "-c", "3", "-i", "0.1")[0] == 0
    assert time.monotonic() - started_s >= 0.2


def test_a_server_without_a_bootstrap_interface_is_timed_and_told(client: RunCommand) -> None:
    def behave(connection: socket.socket) -> None:
        server = Connection()
        while data := connection.recv(65536):
            server.receive_data(data)
            connection.sendall(server.data_to_send())

    with fake_server(behave) as address:
        status, out, err = client("ping", address, "-c", "3")
    assert status == 1
    assert [line.endswith(", an error") for line in out.splitlines()] == [
        *(False, True, True, True),
        False,
    ]
    assert _SUMMARY.fullmatch(out.splitlines()[-1])
    assert err.startswith("client: the server has no bootstrap interface: ")


def silent_at_first(connection: socket.socket) -> None:
    """Answer the first Bootstrap late, with the second one."""
    server = ServerConnection()
    server.receive_data(connection.recv(65536))
    while data := connection.recv(65536):
        server.receive_data(data)
        connection.sendall(server.data_to_send())


def silent(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def test_a_late_answer_is_told_and_the_next_is_its_own(client: RunCommand) -> None:
    with fake_server(silent_at_first) as address:
        status, out, err = client("ping", address, "-c", "2", "--timeout", "0.2")
    assert (status, err) == (4, "client: 1 of 2 pings had no answer in time\n")
    _, first, second, summary = out.splitlines()
    assert first == "no reply 1 within 0.2 s"
    assert second.startswith("reply 2 in ")
    assert summary.startswith("1 of 2 answered: min ")
    with fake_server(silent) as address:
        status, out, err = client("ping", address, "-c", "1", "--timeout", "0.05")
    assert (status, err) == (4, "client: 1 of 1 pings had no answer in time\n")
    assert out.splitlines()[1:] == ["no reply 1 within 0.05 s", "0 of 1 answered"]


def http(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def within_a_message(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(bytes(4))
    finish(connection)


@pytest.mark.parametrize(
    ("behave", "error"),
    [
        (finish, "the server closed the connection"),
        (within_a_message, "the server closed the connection within a message"),
        (reset, "the connection was lost: Connection reset by peer"),
        (http, "not a Cap'n Proto server: it speaks HTTP"),
    ],
)
def test_a_connection_that_ends_is_told(client: RunCommand, behave: Behaviour, error: str) -> None:
    def late(connection: socket.socket) -> None:
        if behave is reset:
            # Else it might come before the connection is used.
            connection.recv(1)
        behave(connection)

    with fake_server(late) as address:
        assert client("ping", address)[::2] == (5, f"client: {error}\n")


def test_a_server_that_is_not_there_has_a_status(client: RunCommand) -> None:
    assert client("ping", "127.0.0.1:1") == (
        3,
        "",
        "client: cannot connect to 127.0.0.1:1: Connection refused\n",
    )
    assert client("ping", "nowhere")[0] == 2
    assert client("ping", "127.0.0.1:1", "--http2")[0] == 2
    assert client("ping", "127.0.0.1:1", "--stack", "echo")[0] == 3
    assert client("ping", "127.0.0.1:1", "--interval", "-1")[0] == 2


def test_the_statuses_are_in_the_help(client: RunCommand) -> None:
    for command in ("ping", "call"):
        status, out, _ = client(command, "--help")
        assert status == 0
        assert "    4  no answer came in time\n" in out

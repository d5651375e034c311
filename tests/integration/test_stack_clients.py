"""F-3, F-7: the blocking clients of the other stacks after a late answer, an interrupt, a fork."""

import json
import select
import socket
from collections.abc import Callable, Iterator

import pytest
from fake_server import Behaviour, fake_server
from forked import error_of, in_child

from capnp_rig.client.duplex import DuplexSocket
from capnp_rig.client.stacks.registry import StackClient, connect_stack
from capnp_rig.objects.errors import DeadlineExceeded, Disconnected, UsageError, UsedAfterFork
from capnp_rig.rigcli.address import parse_address

# Answers "late" only after the next call has come, and that one with its own answer.


def echoes(connection: socket.socket) -> None:
    kept = b""
    while data := connection.recv(65536):
        kept += data
        if not kept.endswith(b"late"):
            connection.sendall(kept)
            kept = b""


def frames(connection: socket.socket) -> None:
    kept = b""
    while data := connection.recv(65536):
        kept += data[:4] + data[:3:-1]
        if not kept.endswith(b"etal"):
            connection.sendall(kept)
            kept = b""


def lines(connection: socket.socket) -> None:
    kept = b""
    while data := connection.recv(65536):
        call = json.loads(data)
        text = call["params"]["content"]
        answer = {"error": "no"} if text == "fail" else {"result": text[::-1], "id": call["id"]}
        kept += json.dumps(answer).encode() + b"\n"
        if text != "late":
            connection.sendall(kept)
            kept = b""


def http(connection: socket.socket, *, closes: bool = False) -> None:
    kept = b""
    while data := connection.recv(65536):
        text = json.loads(data.partition(b"\r\n\r\n")[2])["content"]
        body = json.dumps({"chunk": text[::-1]}).encode()
        head = b"HTTP/1.1 200 OK\r\n" + (b"Connection: close\r\n" if closes else b"")
        kept += head + b"Content-Length: %d\r\n\r\n" % len(body)
        if text != "late":
            connection.sendall(kept)
            select.select([], [], [], 0.01)
            connection.sendall(body)
            kept = b""
            if closes:
                return
        else:
            kept += body


SERVERS: dict[str, Behaviour] = {
    "echo": echoes,
    "selectors": frames,
    "json": lines,
    "http": http,
}


@pytest.fixture(params=SERVERS)
def stack(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connect(stack: str) -> Iterator[Callable[..., StackClient]]:
    clients: list[StackClient] = []
    with fake_server(SERVERS[stack]) as address:

        def make(timeout_s: float = 10.0) -> StackClient:
            clients.append(connect_stack(stack, parse_address(address), timeout_s=timeout_s))
            return clients[-1]

        yield make
        for client in clients:
            client.close()


def answer_to(stack: str, text: str) -> bytes:
    return (text if stack == "echo" else text[::-1]).encode()


def test_f4_a_late_answer_is_not_taken_for_the_next_call(
    stack: str, connect: Callable[..., StackClient]
) -> None:
    client = connect(0.05)
    with pytest.raises(DeadlineExceeded):
        client.read("late")
    for _ in range(2):
        with pytest.raises(Disconnected):
            client.read("next")
    assert connect().read("other") == answer_to(stack, "other")


def test_f7_an_interrupted_call_leaves_no_answer_to_the_next(
    stack: str, connect: Callable[..., StackClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect()

    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    assert client.read("before") == answer_to(stack, "before")
    with monkeypatch.context() as patch:
        patch.setattr(DuplexSocket, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.read("late")
    with pytest.raises(Disconnected):
        client.read("next")


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_f7_a_fork_leaves_the_connection_to_its_parent(
    stack: str, connect: Callable[..., StackClient]
) -> None:
    client = connect()
    assert client.read("before") == answer_to(stack, "before")

    def use() -> str:
        error = error_of(lambda: client.read("child"))
        client.close()
        return str(error)

    assert in_child(use) == str(UsedAfterFork)
    assert client.read("after") == answer_to(stack, "after")


@pytest.mark.parametrize("timeout_s", [float("inf"), float("nan"), -1.0, 1e300])
def test_f2_a_timeout_that_is_none_is_refused(
    connect: Callable[..., StackClient], timeout_s: float
) -> None:
    with pytest.raises(UsageError):
        connect(timeout_s)


def test_an_error_is_the_end_of_a_call() -> None:
    with fake_server(lines) as address:
        client = connect_stack("json", parse_address(address))
        with pytest.raises(Exception, match="no"):
            client.read("fail")
        assert client.read("abc") == b"cba"
        client.close()


def test_an_answer_of_a_server_that_closes_then_is_read() -> None:
    with fake_server(lambda connection: http(connection, closes=True)) as address:
        client = connect_stack("http", parse_address(address))
        assert client.read("abc") == b"cba"
        with pytest.raises(Disconnected):
            client.read("abc")
        client.close()

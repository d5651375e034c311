"""Networks that delay, stop and reset between our clients and a server (faults.md, B)."""

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from callers import Connected, both_clients, each_client, reverse
from fake_server import answering, black_hole, fake_server, finish, reset
from proxy import HELD, proxy
from raw_peer import RawPeer, bootstrap, call
from running_server import Running, running_server
from toxics import Bandwidth, Latency

from capnp_rig.client import AsyncReverseClient, ConnectError, DeadlineExceeded, Disconnected
from capnp_rig.rigcli.socket_options import CLIENT_TIMEOUT_S, SERVER_TIMEOUT_S, set_options
from capnp_rig.schema import message
from capnp_rig.wire.rpc.connection import Called
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.server_connection import ServerConnection

READ = compile_interface(message.MessageStream).methods["read"]


@pytest.fixture(scope="module", params=["wire", "pycapnp"])
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    with running_server("--workers", "1", "--engine", request.param) as running:
        yield running


@each_client
def test_b12_a_reset_within_the_request_or_the_reply_is_disconnected(client: Connected) -> None:
    def in_request(connection: socket.socket) -> None:
        connection.recv(1)
        reset(connection)

    def in_reply(connection: socket.socket) -> None:
        server = ServerConnection()
        server.receive_data(connection.recv(65536))
        data = server.data_to_send()
        connection.sendall(data[: len(data) // 2])
        connection.recv(65536)
        reset(connection)

    for behave in (in_request, in_reply):
        with fake_server(behave) as address, client(address) as calls:
            with pytest.raises(Disconnected):
                reverse(calls, "x" * 100_000)
            # The connection stays what it is.
            with pytest.raises(Disconnected):
                reverse(calls, "more")


@each_client
def test_b12_a_reset_after_the_reply_takes_nothing_away(client: Connected) -> None:
    answer = answering(lambda _: READ.results.write({"chunk": b"cba"}))

    def behave(connection: socket.socket) -> None:
        answer(connection)
        reset(connection)

    with fake_server(behave) as address, client(address) as calls:
        assert reverse(calls, "abc") == "cba"


@each_client
@pytest.mark.parametrize("kept", [1, 8, 20, 100_000])
def test_f6_a_server_that_is_killed_within_a_reply_is_disconnected(
    kept: int, client: Connected
) -> None:
    """The kernel ends its connections between any two bytes; nobody has broken the protocol."""
    text = "x" * 200_000

    def behave(connection: socket.socket) -> None:
        server = ServerConnection()
        while data := connection.recv(65536):
            for event in server.receive_data(data):
                if isinstance(event, Called):
                    server.send_results(
                        event.question_id, READ.results.write({"chunk": text.encode()})
                    )
                    connection.sendall(server.data_to_send()[:kept])
                    return finish(connection)
            connection.sendall(server.data_to_send())
        return None

    with fake_server(behave) as address, client(address) as calls:
        with pytest.raises(Disconnected):
            reverse(calls, text)
        with pytest.raises(Disconnected):
            reverse(calls, "more")


@each_client
def test_b9_a_full_backlog_is_tried_again_until_there_is_room(
    tmp_path: Path, client: Connected
) -> None:
    path = tmp_path / "full.sock"
    with socket.socket(socket.AF_UNIX) as listener, ExitStack() as queued:
        listener.bind(str(path))
        listener.listen(1)
        code = 0
        while code != errno.EAGAIN:
            waiting = queued.enter_context(socket.socket(socket.AF_UNIX))
            waiting.settimeout(0)
            code = waiting.connect_ex(str(path))
            assert code in {0, errno.EAGAIN}
        room = threading.Timer(0.3, lambda: queued.push(listener.accept()[0]))
        room.start()
        queued.callback(room.join)
        with client(f"unix:{path}"):
            pass


def test_b9_many_connects_at_once_are_all_served(server: Running) -> None:
    with ExitStack() as opened:
        peers = []
        for _ in range(400):
            peer = opened.enter_context(RawPeer(server, timeout_s=20))
            peer.send(bootstrap())
            peers.append(peer)
        assert {peer.receive().kind for peer in peers} == {"capability"}


@pytest.mark.nightly
@pytest.mark.parametrize("is_unix", [False, True], ids=["tcp", "unix"])
def test_b9_5000_connects_at_once_are_served(tmp_path: Path, *, is_unix: bool) -> None:
    """A Unix socket refuses with EAGAIN what its backlog has no room for: the client is patient."""

    async def call(address: str, number: int) -> tuple[str, str]:
        client = await AsyncReverseClient.connect(address, connect_timeout_s=60, timeout_s=60)
        async with client:
            await all_connected.wait()
            return f"nonce {number}"[::-1], await client.reverse(f"nonce {number}")

    async def run(address: str) -> list[tuple[str, str]]:
        return await asyncio.gather(*(call(address, number) for number in range(5000)))

    all_connected = asyncio.Barrier(5000)
    address = f"unix:{tmp_path}/s" if is_unix else "127.0.0.1:0"
    with running_server("--workers", "2", address=address, fd_limit=12_000) as server:
        answers = asyncio.run(run(address if is_unix else f"{server.host}:{server.port}"))
    assert all(expected == answer for expected, answer in answers)


@each_client
def test_b11_a_client_without_a_free_port_says_so(
    monkeypatch: pytest.MonkeyPatch, client: Connected
) -> None:
    class NoPort(socket.socket):
        def connect(self, address: object, /) -> None:
            raise OSError(self.connect_ex(address), os.strerror(errno.EADDRNOTAVAIL))

        def connect_ex(self, _address: object, /) -> int:
            return errno.EADDRNOTAVAIL

    monkeypatch.setattr(socket, "socket", NoPort)
    with (
        pytest.raises(ConnectError, match="Cannot assign requested address"),
        client("127.0.0.1:5000"),
    ):
        pass


def resolve(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """Give a host name addresses, which differ in their ports only."""

    def found(_host: str, _port: int, *_: object, flags: int = 0, **__: object) -> list[Any]:
        if flags & socket.AI_NUMERICHOST or not ports:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*kind, ("127.0.0.1", port)) for port in ports]

    monkeypatch.setattr(socket, "getaddrinfo", found)


@each_client
def test_f10_the_next_address_is_tried_when_the_first_is_a_black_hole(
    monkeypatch: pytest.MonkeyPatch, client: Connected
) -> None:
    answer = answering(lambda _: READ.results.write({"chunk": b"cba"}))
    with fake_server(answer) as address, black_hole() as (_, hole):
        resolve(monkeypatch, hole, int(address.rpartition(":")[2]))
        with client("two.test:1") as calls:
            assert reverse(calls, "abc") == "cba"


@each_client
def test_f10_a_name_without_address_is_a_connect_error(
    monkeypatch: pytest.MonkeyPatch, client: Connected
) -> None:
    resolve(monkeypatch)
    with pytest.raises(ConnectError, match="not known"), client("none.test:1"):
        pass


@both_clients
def test_b14_a_slow_network_gives_right_answers_and_deadlines_in_time(
    server: Running, client: Connected
) -> None:
    with (
        proxy(server.host, server.port, Latency(0.2), Bandwidth(64_000)) as network,
        client(network.address) as calls,
    ):
        assert reverse(calls, "slow") == "wols"
        with pytest.raises(DeadlineExceeded):
            reverse(calls, "too slow", timeout_s=0.1)
        text = "0123456789" * 2000
        assert reverse(calls, text) == text[::-1]


@both_clients
def test_b15_calls_end_in_time_in_a_partition_and_go_on_after_it(
    server: Running, client: Connected
) -> None:
    with (
        proxy(server.host, server.port) as network,
        client(network.address) as calls,
    ):
        assert reverse(calls, "before") == "erofeb"
        network.poison(HELD)
        for _ in range(3):
            with pytest.raises(DeadlineExceeded):
                reverse(calls, "lost", timeout_s=0.2)
        network.heal()
        assert reverse(calls, "after") == "retfa"


@pytest.mark.parametrize("seconds", [SERVER_TIMEOUT_S, CLIENT_TIMEOUT_S])
def test_b4_a_peer_that_vanished_is_noticed_by_the_kernel(seconds: int) -> None:
    """The limit is the kernel's to keep: 60 s and 3 x 10 s of silence, less with unread data."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), 5) as peer,
    ):
        set_options(peer, seconds)
        assert kept_by_the_kernel(peer) == [1, 60, 10, 3, seconds * 1000]


def kept_by_the_kernel(sock: socket.socket) -> list[int]:
    return [
        sock.getsockopt(level, option)
        for level, option in (
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
        )
    ]


def test_b5_a_half_closed_connection_ends_and_wire_answers_what_came_before(
    server: Running, request: pytest.FixtureRequest
) -> None:
    """Plain calls are answered; pycapnp closes at the end of the stream, which aborts them."""
    with RawPeer(server) as peer:
        peer.open()
        peer.send(*(call(number, f"call {number}") for number in range(1, 5)))
        peer.socket.shutdown(socket.SHUT_WR)
        *replies, end = peer.until_eof()
    assert end.kind == "eof"
    assert all(reply.chunk == f"call {reply.id}"[::-1].encode() for reply in replies)
    if request.node.callspec.params["server"] == "wire":
        assert [reply.id for reply in replies] == [1, 2, 3, 4]

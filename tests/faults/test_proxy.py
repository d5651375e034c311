"""The proxy of the network tests, on real sockets, against a server that echoes."""

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deadline import eventually
from fake_server import fake_server, finish, reset
from proxy import HELD, Proxy, proxy
from toxics import Bandwidth, Latency, LimitData, ResetPeer, Slicer, Timeout


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)
    finish(connection)


@pytest.fixture
def network() -> Iterator[Proxy]:
    with fake_server(echo) as address, proxy("127.0.0.1", port_of(address)) as between:
        yield between


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def connected(network: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", network.port), 10)


def received(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := sock.recv(size - len(data))):
        data += piece
    return data


def is_open(sock: socket.socket, within_s: float = 0.05) -> bool:
    """Return whether nothing came, not even an end, for a moment."""
    sock.settimeout(within_s)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(10)
    return False


def test_bytes_pass_and_half_a_connection_may_end(network: Proxy) -> None:
    data = bytes(range(256)) * 8192
    with connected(network) as sock:
        sock.sendall(data[: 1 << 18])
        assert received(sock, 1 << 18) == data[: 1 << 18]
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    eventually(lambda: network.connections == 0)


def test_a_sender_waits_while_nothing_passes(network: Proxy) -> None:
    network.upstream = [HELD]
    with connected(network) as sock:
        sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            sock.sendall(bytes(64 << 20))


def test_each_direction_has_its_own_toxics(network: Proxy) -> None:
    with connected(network) as sock:
        network.downstream = [HELD]
        sock.sendall(b"abc")
        assert is_open(sock)
        network.downstream, network.upstream = [], [HELD]
        assert received(sock, 3) == b"abc"
        sock.sendall(b"def")
        assert is_open(sock)
        network.heal()
        assert received(sock, 3) == b"def"


def test_latency_and_bandwidth_take_their_time(network: Proxy) -> None:
    network.poison(Latency(0.1), Bandwidth(100_000), Slicer(500, 100))
    began_s = time.monotonic()
    with connected(network) as sock:
        sock.sendall(bytes(20_000))
        assert received(sock, 20_000) == bytes(20_000)
    assert time.monotonic() - began_s > 0.4


def test_a_reset_reaches_both_peers() -> None:
    ends: list[str] = []

    def listen(connection: socket.socket) -> None:
        try:
            connection.recv(1)
        except ConnectionResetError:
            ends.append("reset")

    with fake_server(listen) as address, proxy("127.0.0.1", port_of(address)) as network:
        with connected(network) as sock:
            eventually(lambda: network.connections == 1)
            time.sleep(0.05)
            network.downstream = [ResetPeer()]
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        eventually(lambda: ends == ["reset"])


def test_a_connection_is_reset_so_long_after_its_start(network: Proxy) -> None:
    network.downstream = [ResetPeer(0.1)]
    with connected(network) as sock, pytest.raises(ConnectionResetError):
        sock.recv(1)


def test_a_reset_of_a_peer_is_passed_on() -> None:
    with (
        fake_server(reset) as address,
        proxy("127.0.0.1", port_of(address)) as network,
        connected(network) as sock,
        pytest.raises(ConnectionResetError),
    ):
        sock.recv(1)


def test_the_end_of_a_connection_that_may_pass_so_much(network: Proxy) -> None:
    network.downstream = [LimitData(3)]
    with connected(network) as sock:
        sock.sendall(b"abcdef")
        assert received(sock, 6) == b"abc"


def test_a_black_hole_swallows_and_closes(network: Proxy) -> None:
    with connected(network) as swallowed, connected(network) as idle:
        network.upstream = [Timeout()]
        swallowed.sendall(b"abc")
        assert is_open(swallowed)
        network.upstream = []
        assert swallowed.recv(1) == b""
        idle.sendall(b"abc")
        assert received(idle, 3) == b"abc"
        network.upstream = [Timeout(0.05)]
        assert idle.recv(1) == b""


def test_down_resets_and_refuses_until_it_is_up(network: Proxy) -> None:
    for _ in range(3):
        with connected(network) as sock:
            sock.sendall(b"abc")
            assert received(sock, 3) == b"abc"
            network.down()
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        with pytest.raises(ConnectionRefusedError):
            connected(network)
        network.up()
    assert len(network.accepted_s) == 3


def test_nobody_behind_it_is_a_reset() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with (
            proxy(*nobody.getsockname()) as network,
            connected(network) as sock,
            pytest.raises(ConnectionResetError),
        ):
            sock.recv(1)


def test_it_runs_in_the_loop_of_a_test_and_leaves_nothing() -> None:
    async def run(port: int) -> None:
        before = len(list(Path("/proc/self/fd").iterdir()))
        async with Proxy(("127.0.0.1", port), seed=7) as network:
            network.poison(Latency(0.01, 0.01, toxicity=0.5))
            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", network.port)
                writer.write(b"abc")
                assert await reader.readexactly(3) == b"abc"
                writer.close()
                await writer.wait_closed()
            network.down()
            network.up()
            reader, writer = await asyncio.open_connection("127.0.0.1", network.port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        eventually(lambda: len(list(Path("/proc/self/fd").iterdir())) == before)

    with fake_server(echo) as address:
        asyncio.run(run(port_of(address)))

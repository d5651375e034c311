"""Connects that have to be patient, with both clients on real sockets (faults.md, B9, F-10)."""

import asyncio
import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import uvloop
from fake_server import black_hole

from capnp_rig.client import AsyncReverseClient
from capnp_rig.client.connecting import connect_socket, open_socket
from capnp_rig.objects.errors import ConnectError
from capnp_rig.rigcli.address import Address

# Long enough for a busy machine: what is asserted is that it is over before.
PATIENCE_S = 8.0
# Nothing here takes as long as a timeout of the system would.
FAR_TOO_LONG_S = 30.0

Connect = Callable[[Address, float], socket.socket]


def on_asyncio(address: Address, timeout_s: float) -> socket.socket:
    return asyncio.run(open_socket(address, timeout_s))


def on_uvloop(address: Address, timeout_s: float) -> socket.socket:
    return uvloop.run(open_socket(address, timeout_s))


@pytest.fixture(params=[connect_socket, on_asyncio, on_uvloop])
def connect(request: pytest.FixtureRequest) -> Connect:
    chosen: Connect = request.param
    return chosen


@pytest.fixture
def resolves(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[tuple[str, int]]], None]:
    """Let every name have these addresses."""
    real = socket.getaddrinfo

    def replace(found: list[tuple[str, int]]) -> None:
        def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
            if host != "name.test" or options.get("flags", 0) & socket.AI_NUMERICHOST:
                return real(host, *args, **options)
            tcp = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            return [(*tcp, where) for where in found]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return replace


NAME = Address(host="name.test", port=1)


def descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def test_f10_a_black_holed_address_leaves_time_for_the_next(
    connect: Connect, resolves: Callable[[list[tuple[str, int]]], None]
) -> None:
    with black_hole() as hole, socket.create_server(("127.0.0.1", 0)) as server:
        resolves([hole, server.getsockname()])
        # An event loop opens some of its own, once.
        connect(NAME, PATIENCE_S).close()
        before = descriptors()
        with connect(NAME, PATIENCE_S) as sock:
            assert sock.getpeername() == server.getsockname()
        assert descriptors() == before


def test_b4_a_server_that_vanished_is_noticed_by_the_kernel(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        with connect(Address(host=host, port=port), PATIENCE_S) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 90_000


def test_f10_a_refusing_address_is_followed_by_the_next(
    connect: Connect, resolves: Callable[[list[tuple[str, int]]], None]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        resolves([("127.0.0.1", 1), server.getsockname()])
        with connect(NAME, PATIENCE_S) as sock:
            assert sock.getpeername() == server.getsockname()


def test_f10_all_addresses_share_one_deadline(
    connect: Connect, resolves: Callable[[list[tuple[str, int]]], None]
) -> None:
    with black_hole() as hole:
        resolves([hole] * 5)
        with pytest.raises(ConnectError):
            connect(NAME, 0.1)
        before, started_s = descriptors(), time.monotonic()
        with pytest.raises(
            ConnectError, match=r"cannot connect to name\.test:1: no answer in time"
        ):
            connect(NAME, 0.7)
        assert time.monotonic() - started_s >= 0.7
        assert descriptors() == before


def test_f10_when_all_refuse_the_reason_is_theirs(
    connect: Connect, resolves: Callable[[list[tuple[str, int]]], None]
) -> None:
    resolves([("127.0.0.1", 1), ("127.0.0.2", 1)])
    with pytest.raises(ConnectError, match="Connection refused"):
        connect(NAME, PATIENCE_S)


def test_f10_a_name_that_is_looked_up_for_ever_ends_at_the_deadline(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, release = socket.getaddrinfo, threading.Event()

    def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
        if not options.get("flags", 0) & socket.AI_NUMERICHOST:
            release.wait(FAR_TOO_LONG_S)
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    started_s = time.monotonic()
    try:
        with pytest.raises(ConnectError, match=r"cannot resolve name\.test: no answer in time"):
            connect(NAME, 0.3)
        assert time.monotonic() - started_s < FAR_TOO_LONG_S / 2
    finally:
        release.set()


def test_f10_any_number_is_a_timeout(
    connect: Connect, resolves: Callable[[list[tuple[str, int]]], None]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        resolves([server.getsockname()])
        connect(NAME, Fraction(PATIENCE_S)).close()  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 70 + ".test"])
def test_a_name_that_has_no_address_is_a_connect_error(connect: Connect, host: str) -> None:
    with pytest.raises(ConnectError, match="cannot resolve "):
        connect(Address(host=host, port=1), PATIENCE_S)


@contextmanager
def full_unix_socket(path: Path) -> Iterator[socket.socket]:
    """Bind a path whose backlog is full."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        waiting = []
        while True:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(0)
            waiting.append(sock)
            if sock.connect_ex(str(path)):
                break
        try:
            yield listener
        finally:
            for sock in waiting:
                sock.close()


def test_b9_a_full_unix_backlog_is_tried_until_there_is_room(
    connect: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    with full_unix_socket(path) as listener:
        tried = threading.Event()

        def make_room() -> None:
            tried.wait(FAR_TOO_LONG_S)
            for _ in range(2):
                listener.accept()[0].close()

        thread = threading.Thread(target=make_room)
        thread.start()
        # It is full when the first attempt is made: room comes a moment later.
        threading.Timer(0.2, tried.set).start()
        with connect(Address(path=str(path)), PATIENCE_S) as sock:
            assert sock.getpeername() == str(path)
        thread.join()


def test_b9_a_unix_backlog_that_stays_full_is_said(connect: Connect, tmp_path: Path) -> None:
    with full_unix_socket(tmp_path / "s"):
        address = Address(path=str(tmp_path / "s"))
        with pytest.raises(ConnectError):
            connect(address, 0.1)
        before = descriptors()
        with pytest.raises(ConnectError, match="no room in the server's backlog in time"):
            connect(address, 0.3)
        assert descriptors() == before


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_f3_a_connect_may_be_cancelled_at_every_turn(run: Callable[[Any], None]) -> None:
    async def connect_and_cancel(address: str, turns: int) -> bool:
        task = asyncio.create_task(AsyncReverseClient.connect(address))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            client = await task
        except asyncio.CancelledError:
            return False
        await client.close()
        return True

    async def all_turns(address: str) -> None:
        await connect_and_cancel(address, 50)
        before, connected = descriptors(), []
        for turns in range(40):
            connected.append(await connect_and_cancel(address, turns))
            for _ in range(10):
                await asyncio.sleep(0)
        assert not connected[0]
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert descriptors() == before

    # Nobody accepts, so that all descriptors are the client's.
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:
        run(all_turns(f"127.0.0.1:{listener.getsockname()[1]}"))

"""`server run --stack NAME`: the same job over every layer, on the same workers."""

import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from deadline import eventually
from running_server import TELLING, Running
from running_stack import (
    HANDED,
    STACKS,
    answer_to,
    connect,
    read_all,
    serves,
    stack_client,
    stack_server,
)

from capnp_rig.client import ClientError, Disconnected

TEXTS = ["", "a", "Grüße, 👩\u200d👧", 'quo"tes \\ and\r\nlines', "nul\0inside", "é1" * 350_000]
MAX_TEXT_BYTES = 16 * 1024 * 1024


@pytest.fixture(scope="module", params=STACKS)
def name(request: pytest.FixtureRequest) -> str:
    stack: str = request.param
    return stack


@pytest.fixture(scope="module")
def shared(name: str) -> Iterator[Running]:
    with stack_server(name, *TELLING, "--workers", "2") as server:
        yield server


def test_texts_come_back_on_one_connection(shared: Running, name: str) -> None:
    with stack_client(shared, name) as client:
        for text in TEXTS:
            assert client.read(text) == answer_to(name, text)
        client.ping()
    shared.out.wait_for("Received content: Grüße, 👩\u200d👧")


def test_sixteen_mebibytes_are_served(shared: Running, name: str) -> None:
    text = "0123456789abcdef" * (MAX_TEXT_BYTES // 16)
    with stack_client(shared, name) as client:
        assert client.read(text) == answer_to(name, text)


def test_many_connections_are_served_at_once(shared: Running, name: str) -> None:
    clients: list[Any] = []
    try:
        for _ in range(20):
            context = stack_client(shared, name)
            clients.append((context, context.__enter__()))
        for number, (_, client) in enumerate(clients):
            assert client.read(f"{number}+") == answer_to(name, f"{number}+")
        for number, (_, client) in enumerate(reversed(clients)):
            assert client.read(f"{number}-") == answer_to(name, f"{number}-")
    finally:
        for context, _ in clients:
            context.__exit__(None, None, None)


def test_descriptors_and_connections_end_with_their_peers(shared: Running, name: str) -> None:
    def files() -> list[int]:
        return [psutil.Process(pid).num_fds() for pid in (shared.pid, *shared.workers())]

    def all_have_ended() -> bool:
        # gRPC tells of no connections.
        started = len(shared.out.find("stack started for peer"))
        return name not in HANDED or started == len(shared.out.find("finished cleanly"))

    for _ in range(2):
        assert serves(shared, name)
    eventually(all_have_ended)
    before = files()
    for _ in range(20):
        assert serves(shared, name)
    eventually(all_have_ended)
    eventually(
        lambda: all(now <= then + 2 for then, now in zip(before, files(), strict=True)),
        what=f"{before} open files again",
    )


def test_hostile_peers_kill_no_worker(shared: Running, name: str) -> None:
    workers = shared.workers()
    waiting = []
    for turn in range(10):
        for data in (
            b"",
            b"\x00",
            os.urandom(300),
            b"\xff" * 64,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ):
            sock = connect(shared)
            sock.send(data)
            if turn % 3 == 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            if turn % 3 == 1:
                waiting.append(sock)
            else:
                sock.close()
        assert serves(shared, name)
    for sock in waiting:
        sock.close()
    assert serves(shared, name)
    assert serves(shared, name)
    assert shared.workers() == workers
    assert not shared.err.find("Traceback")
    assert not shared.err.find("replacing it")


def test_a_large_hostile_stream_is_not_kept(shared: Running, name: str) -> None:
    # 40 MiB of one byte that begins something in none of the protocols but the echo.
    workers = [psutil.Process(pid) for pid in shared.workers()]
    before = [worker.memory_info().rss for worker in workers]
    with connect(shared) as sock:
        sock.settimeout(0.5)
        try:
            for _ in range(40):
                sock.sendall(b"a" * (1 << 20))
        except OSError:
            pass
    after = [worker.memory_info().rss for worker in workers]
    assert all(b - a < 20 << 20 for a, b in zip(before, after, strict=True))
    assert serves(shared, name)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("stack", [name for name in STACKS if name != "selectors"])
def test_both_loops_serve(stack: str, loop: str) -> None:
    with stack_server(stack, "--workers", "1", "--loop", loop) as server:
        assert serves(server, stack)
        assert serves(server, stack, "x" * 3_000_000)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.err.lines == []


@pytest.mark.parametrize("stack", ["echo", "json", "http", "selectors"])
def test_a_connection_is_told_as_in_the_tutorial(stack: str) -> None:
    with stack_server(stack, *TELLING, "--workers", "2") as server:
        assert serves(server, stack, "Hello \x1b")
        server.out.wait_for("finished cleanly")
        lines = list(server.out.lines)
    peer = re.search(r"from (\S+)$", lines[2])
    assert peer is not None
    assert lines == [
        f"Listening on 127.0.0.1:{server.port} with 2 workers...",
        "Dispatching new connection to worker 0",
        f"[Worker 0] received a new connection from {peer[1]}",
        f"[Worker 0] running on core {min(os.sched_getaffinity(0))}",
        f"[Worker 0] {stack} stack started for peer: {peer[1]}",
        r"Received content: Hello \x1b",
        f"[Worker 0] {stack} stack for peer {peer[1]} finished cleanly.",
    ]
    assert server.err.lines == []


def test_grpc_tells_of_its_workers() -> None:
    with stack_server("grpc", *TELLING, "--workers", "2") as server:
        address = f"127.0.0.1:{server.port}"
        server.out.wait_for("[Worker", count=4)
        assert sorted(server.out.lines) == sorted(
            [
                f"Listening on {address} with 2 workers...",
                *(f"[Worker {n}] grpc stack started on {address}" for n in range(2)),
                *(
                    f"[Worker {n}] running on core {cpu}"
                    for n, cpu in enumerate(worker_cores(server))
                ),
            ]
        )


def worker_cores(server: Running) -> list[int]:
    pinned = [psutil.Process(pid).cpu_affinity() for pid in server.workers()]
    assert all(len(cpus) == 1 for cpus in pinned)
    return [cpus[0] for cpus in pinned]


@pytest.mark.parametrize("stack", HANDED)
def test_connections_go_round(stack: str) -> None:
    with stack_server(stack, *TELLING, "--workers", "2") as server:
        cpus = sorted(os.sched_getaffinity(0))
        assert worker_cores(server) == [cpus[0], cpus[1 % len(cpus)]]
        for _ in range(4):
            assert serves(server, stack)
        lines = server.out.wait_for("Dispatching", count=4)
        assert [line[-1] for line in lines] == ["0", "1", "0", "1"]


@pytest.mark.parametrize("stack", ["echo", "json", "http", "http2", "selectors"])
def test_a_unix_socket_is_served(stack: str, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/s"
    with stack_server(stack, "--workers", "1", address=address, cwd=tmp_path) as server:
        assert serves(server, stack)
        # Nothing else is left where the user stands.
        assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a1_a_killed_worker_is_replaced(name: str) -> None:
    with stack_server(name, "--workers", "2") as server:
        for _ in range(2):
            victim, other = server.workers()
            os.kill(victim, signal.SIGKILL)
            eventually(lambda: len(server.workers()) == 2 and victim not in server.workers())
            assert other in server.workers()

            def answered() -> bool:
                # gRPC's kernel queue of the dead worker goes with it.
                try:
                    return serves(server, name)
                except Disconnected:
                    return False

            eventually(answered)
            assert [serves(server, name) for _ in range(4)] == [True] * 4
        server.err.wait_for("was killed by SIGKILL: replacing it", count=2)


@pytest.mark.parametrize("stack", ["json", "selectors"])
def test_a4_a_stopped_worker_gets_no_connections_until_it_answers_again(stack: str) -> None:
    with stack_server(stack, *TELLING, "--workers", "2") as server:
        victim, _ = server.workers()
        os.kill(victim, signal.SIGSTOP)
        try:

            def last_four_went_to_the_other() -> bool:
                # Not waited for: the stopped worker may be the one that has it.
                connect(server).close()
                return [line[-1] for line in server.out.find("Dispatching")][-4:] == ["1"] * 4

            eventually(last_four_went_to_the_other)
        finally:
            os.kill(victim, signal.SIGCONT)

        def both() -> bool:
            assert serves(server, stack)
            return {line[-1] for line in server.out.find("Dispatching")[-2:]} == {"0", "1"}

        eventually(both)
        assert not server.err.lines


def test_the_connection_cap_refuses_in_the_protocols_own_words(name: str) -> None:
    with stack_server(name, "--workers", "1", "--max-connections", "2") as server:
        held = [stack_client(server, name) for _ in range(2)]
        for context in held:
            # gRPC's first connects once more.
            assert context.__enter__().read("x") == b"x"
        with pytest.raises(ClientError) as refused, stack_client(server, name) as client:
            client.read("x")
        if name != "grpc":
            server.err.wait_for("Refusing connections: 2 are open")
        if name in ("json", "http"):
            assert "2 connections are open: try again later" in str(refused.value)
        for context in held:
            context.__exit__(None, None, None)

        def answered() -> bool:
            try:
                return serves(server, name)
            except ClientError:
                return False

        eventually(answered)


def test_a17_a_port_in_use_is_told_in_one_line(name: str, shared: Running) -> None:
    address = f"127.0.0.1:{shared.port}"
    assert name
    with pytest.raises(AssertionError, match=f"cannot listen on {address}: it is in use"):  # noqa: SIM117
        with stack_server(name, address=address):
            pass


@pytest.mark.parametrize(
    ("stack", "request_bytes", "answer"),
    [
        ("echo", b"Hello", b"Hello"),
        (
            "json",
            b'"Ping"{"method":"read","params":{"content":"ab"}}',
            b'"Ack"{"id":null,"result":"ba"}\n',
        ),
        ("selectors", b"\2\0\0\0ab", b"\2\0\0\0ba"),
    ],
)
def test_a_peer_that_ends_its_half_is_answered_first(
    stack: str, request_bytes: bytes, answer: bytes
) -> None:
    with stack_server(stack, "--workers", "1") as server, connect(server) as sock:
        sock.sendall(request_bytes)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == answer

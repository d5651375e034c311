"""Workers that are replaced, added and taken away while the server serves."""

import os
import re
import signal
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

import psutil
import pytest
from callers import reverse
from deadline import eventually
from running_server import Running, running_server

from capnp_rig.client import Channel, Client
from capnp_rig.schema import message

HERE = Path(__file__).resolve().parent.parent
ENGINES = ["wire", "pycapnp"]
# Each worker imports its libraries anew, on whatever CPU the other tests leave.
WITHIN_S = 40.0

SERVICE = """
from capnp_rig.schema import message

class Versioned:
    interface = message.MessageStream

    def read(self, params):
        return {"chunk": b"version 1"}
"""


class Load:
    """Calls in a loop from some threads over one channel; each answer is checked."""

    def __init__(self, address: str, threads: int) -> None:
        self.calls = 0
        self.failures: list[str] = []
        self._stopping = threading.Event()
        self._channel = Channel(
            address, interface=message.MessageStream, idempotent={"read"}, size=threads
        )
        self._threads = [threading.Thread(target=self._call) for _ in range(threads)]

    def _call(self) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            text = f"nonce {number}"
            try:
                answer = reverse(self._channel, text, 20.0)
            except Exception as error:
                self.failures.append(repr(error))
            else:
                if answer != text[::-1]:
                    self.failures.append(f"{text}: {answer}")
            self.calls += 1

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)
        self._channel.close()


def address_of(server: Running) -> str:
    return f"{server.host}:{server.port}"


def connect(server: Running) -> Client:
    return Client.connect(address_of(server), interface=message.MessageStream)


def versioned_server(folder: Path, *args: str) -> AbstractContextManager[Running]:
    service = ("--service", "versioned:Versioned")
    return running_server(*service, "--workers", "2", *args, cwd=folder)


def is_replaced(server: Running, old: list[int]) -> bool:
    now = server.workers()
    return len(now) == len(old) and not set(old) & set(now)


def reload_and_wait(server: Running) -> None:
    old = server.workers()
    server.signal(signal.SIGHUP)
    eventually(lambda: is_replaced(server, old), within_s=WITHIN_S)


@pytest.mark.parametrize(
    ("engine", "times"),
    [
        ("wire", 3),
        ("pycapnp", 2),
        *(pytest.param(engine, 20, marks=pytest.mark.nightly) for engine in ENGINES),
    ],
)
def test_a8_reloads_under_load_cost_no_call(engine: str, times: int) -> None:
    with (
        running_server("--workers", "2", "--engine", engine) as server,
        Load(address_of(server), 4) as load,
    ):
        for _ in range(times):
            before = load.calls
            reload_and_wait(server)
            eventually(lambda: load.calls > before + 20)
        assert load.failures == []
        assert len(server.out.find("Reloaded: 2 new workers serve")) == times
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.err.lines == []


def test_a8_a_reload_imports_the_service_anew(tmp_path: Path) -> None:
    code = tmp_path / "versioned.py"
    code.write_text(SERVICE)
    with versioned_server(tmp_path) as server:
        with connect(server) as client:
            assert reverse(client, "") == "version 1"
        code.write_text(SERVICE.replace("version 1", "version 2, which is longer"))
        reload_and_wait(server)
        with connect(server) as client:
            assert reverse(client, "") == "version 2, which is longer"


def test_a9_a_service_that_cannot_be_imported_changes_nothing(tmp_path: Path) -> None:
    code = tmp_path / "versioned.py"
    code.write_text(SERVICE)
    with versioned_server(tmp_path) as server:
        old = server.workers()
        with connect(server) as client:
            assert reverse(client, "") == "version 1"
            code.write_text("import no_such_thing")
            server.signal(signal.SIGHUP)
            server.err.wait_for("Not reloaded, the workers serve on as they are", within_s=WITHIN_S)
            # Over the connection that was there.
            assert reverse(client, "") == "version 1"
        eventually(lambda: server.workers() == old)
        error, *trace = server.err.lines
        assert "ModuleNotFoundError: No module named 'no_such_thing'" in error
        assert trace[-1].startswith("ModuleNotFoundError")
        # The next one is good again.
        code.write_text(SERVICE)
        reload_and_wait(server)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.err.join() == [error, *trace]


def test_a10_signals_change_the_number_of_workers() -> None:
    cores = sorted(os.sched_getaffinity(0))
    with running_server("--workers", "1") as server, Load(address_of(server), 2) as load:
        (first,) = server.workers()
        for count in (2, 3):
            server.signal(signal.SIGTTIN)
            server.out.wait_for(f"{count} workers serve, after {count - 1}", within_s=WITHIN_S)
        assert len(server.workers()) == 3
        for index, pid in enumerate(server.workers()):
            assert psutil.Process(pid).cpu_affinity() == [cores[index % len(cores)]]
        for count in range(10):
            server.signal(signal.SIGTTOU)
            if count < 2:
                server.out.wait_for(f"{2 - count} workers serve, after {3 - count}")
        eventually(lambda: server.workers() == [first])
        assert load.failures == []
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.err.lines == []


@pytest.mark.parametrize("engine", ["wire", pytest.param("pycapnp", marks=pytest.mark.nightly)])
def test_a14_recycling_under_load_costs_no_call(engine: str) -> None:
    args = ("--workers", "2", "--engine", engine)
    limits = ("--max-requests", "100", "--max-requests-jitter", "100")
    with running_server(*args, *limits) as server, Load(address_of(server), 4) as load:
        first = server.workers()
        eventually(lambda: not set(first) & set(server.workers()), within_s=WITHIN_S)
        assert load.failures == []
        # A replacement serves before its worker leaves, and one is replaced at a time.
        told = [line for line in server.out.lines if "replaced" in line]
        assert all("is replaced: it has served" in line for line in told[::2])
        assert all("was replaced" in line for line in told[1::2])
        limits_told = {int(line.rpartition(" ")[2]) for line in told[::2]}
        assert limits_told <= set(range(100, 201))
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.err.lines == []


def test_a15_a_worker_that_holds_too_much_is_replaced() -> None:
    with running_server("--workers", "1", "--max-worker-rss", "1MiB") as server:
        old = server.workers()
        (line,) = server.out.wait_for("is replaced: it holds", within_s=WITHIN_S)[:1]
        assert re.fullmatch(
            rf"Worker 0 \(pid {old[0]}\) is replaced: it holds \d+ MiB, the limit is 1 MiB", line
        )
        eventually(lambda: old[0] not in server.workers(), within_s=WITHIN_S)
        assert server.err.lines == []


@pytest.mark.parametrize(("dispatch", "expected"), [("round-robin", 1), ("least-connections", 2)])
def test_b16_new_connections_go_to_the_worker_with_fewer(dispatch: str, expected: int) -> None:
    """Worker 0 has lost both of its connections, and gets both or one of the next two."""
    with running_server("--workers", "2", "--dispatch", dispatch) as server:
        clients = [connect(server) for _ in range(4)]
        for client in clients:
            reverse(client, "x")
        eventually(lambda: connections_of(server) == [2, 2])
        for client in clients[::2]:
            client.close()
        eventually(lambda: connections_of(server) == [0, 2])
        more = [connect(server) for _ in range(2)]
        for client in more:
            reverse(client, "x")
        assert connections_of(server)[0] == expected
        for client in (*clients[1::2], *more):
            client.close()


def connections_of(server: Running) -> list[int]:
    """Return the connections of each worker, as the server tells them."""
    seen = len(server.out.find("State: Worker"))
    server.signal(signal.SIGUSR1)
    count = len(server.workers())
    lines = server.out.wait_for("State: Worker", count=seen + count)[seen:]
    return [int(line.partition("serving: ")[2].partition(" ")[0]) for line in lines]


def test_a8_a_development_server_reloads_when_a_file_changes(tmp_path: Path) -> None:
    code = tmp_path / "versioned.py"
    code.write_text(SERVICE)
    with versioned_server(tmp_path, "--reload") as server:
        old = server.workers()
        code.write_text(SERVICE.replace("version 1", "version 2, which is longer"))
        server.out.wait_for("Changed: versioned.py")
        eventually(lambda: is_replaced(server, old), within_s=WITHIN_S)
        with connect(server) as client:
            assert reverse(client, "") == "version 2, which is longer"
            code.write_text("this is no Python")
            server.err.wait_for("Not reloaded, the workers serve on", within_s=WITHIN_S)
            assert reverse(client, "") == "version 2, which is longer"
        # Where the mistake is.
        assert "SyntaxError" in server.err.lines[0]
        assert not any("Exception in" in line for line in server.err.lines)

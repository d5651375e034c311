"""Loads over two servers, of which one is killed and returns while they run."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import running_locust
from deadline import eventually
from running_rig import command, environment, run_rig
from running_server import Running, running_server

from capnp_rig.loadtest.report.result_page import PAGE
from capnp_rig.loadtest.results.load_samples import read_result

CONNECTIONS = 4
# CPU time in which a server answers hundreds of calls.
BUSY_S = 0.05


class Pair:
    """Two servers; the second listens on a Unix socket, which nobody else takes meanwhile."""

    def __init__(self, stack: ExitStack, path: Path) -> None:
        self._stack = stack
        self._path = str(path)
        first = stack.enter_context(running_server("--workers", "1"))
        self.endpoints = [f"127.0.0.1:{first.port}", f"unix:{path}"]
        self._second = self._start()

    def _start(self) -> Running:
        server = running_server("--workers", "1", address=self.endpoints[1])
        return self._stack.enter_context(server)

    @property
    def address(self) -> str:
        return ",".join(self.endpoints)

    def await_connections(self, count: int) -> None:
        """Wait until the second server has so many, and has answered calls for a while."""
        worker = psutil.Process(self._second.workers()[0])
        eventually(lambda: self._count(worker) == count, what=f"{count} connections")
        used_s = worker.cpu_times().user
        eventually(lambda: worker.cpu_times().user > used_s + BUSY_S, what="calls")

    def _count(self, worker: psutil.Process) -> int:
        sockets = worker.net_connections("unix")
        return sum(each.laddr == self._path for each in sockets)

    def kill(self) -> None:
        (worker,) = self._second.workers()
        # It shall neither come to its end by itself nor outlive the socket that listens.
        os.kill(worker, signal.SIGSTOP)
        self._second.process.kill()
        self._second.wait()
        os.kill(worker, signal.SIGKILL)

    def restart(self) -> None:
        self._second = self._start()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(stack, tmp_path_factory.mktemp("pair") / "second")


@contextmanager
def engine(pair: Pair, results: Path) -> Iterator["subprocess.Popen[str]"]:
    options = ("--duration", "60s", "--connections", str(CONNECTIONS), "--warmup", "0s")
    with subprocess.Popen(
        command("run", pair.address, "--no-pin", "--results", str(results), *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def locust(pair: Pair, results: Path) -> Any:
    options = ("--headless", "-u", str(CONNECTIONS), "-r", str(CONNECTIONS), "-t", "60s")
    return running_locust.locust("-H", pair.address, "--results", str(results), *options)


@pytest.mark.parametrize("start", [engine, locust])
def test_the_load_of_a_server_that_is_killed_goes_to_the_other_until_it_returns(
    pair: Pair, tmp_path: Path, start: Any
) -> None:
    with start(pair, tmp_path) as process:
        pair.await_connections(CONNECTIONS // 2)
        pair.kill()
        pair.restart()
        pair.await_connections(CONNECTIONS // 2)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=40)
    (folder,) = tmp_path.iterdir()
    first, second = read_result(folder).load.summary().endpoints
    assert [first.endpoint, second.endpoint] == pair.endpoints
    assert (first.connections, second.connections) == (CONNECTIONS / 2, CONNECTIONS / 2)
    assert min(first.calls, second.calls) > 0
    # The first one was never lost, and ends the connections of its guests.
    assert (first.window.failed, first.outages, first.window.ended) == (0, (), CONNECTIONS / 2)
    assert second.window.ended == CONNECTIONS / 2
    kinds = {kind.partition(":")[0] for kind in second.window.failures}
    assert kinds == {"Disconnected", "ConnectError"}
    (outage,) = second.outages
    assert outage.until_s is not None
    summary, page = read_result(folder).document["summary"], (folder / PAGE).read_text()
    assert [each["endpoint"] for each in summary["endpoints"]] == pair.endpoints
    assert summary["calls"] == first.calls + second.calls
    assert "Endpoints; service times in µs" in output
    assert f"There was no connection to {second.endpoint} from second" in page


def test_addresses_that_are_none_end_in_one_line() -> None:
    done = run_rig("run", "127.0.0.1:1,127.0.0.1:01", "--duration", "1s")
    assert done.returncode == 2
    assert (
        "address 2 of 2 in '127.0.0.1:1,127.0.0.1:01': '127.0.0.1:01' is there twice" in done.stderr
    )
    refused = running_locust.run_locust("--headless", "-H", "127.0.0.1:1,,h:2")
    assert refused.status == 2
    assert "address 2 of 3 in '127.0.0.1:1,,h:2' is empty" in refused.output
    assert "Traceback" not in done.stderr + refused.output

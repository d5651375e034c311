"""``server run --metrics``: what it counts is held against what was done, by other means."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from deadline import eventually
from fault_services import PROBE
from prometheus_client.parser import text_string_to_metric_families
from running_server import ENGINES, ROOT, Running, running_server
from throwaway_ca import ThrowawayCa

from capnp_rig import AsyncClient, DeadlineExceeded, Overloaded, RemoteError
from capnp_rig.client import ReverseClient
from capnp_rig.schema import message
from capnp_rig.wire.rpc.client_connection import ClientConnection
from capnp_rig.wire.rpc.interfaces import compile_interface

DASHBOARD = ROOT / "docs" / "grafana" / "capnp-rig.json"
LARGE = 8 << 20
READ = compile_interface(message.MessageStream).methods["read"]


class Metrics:
    """The page of a server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def text(self) -> str:
        with urlopen(self.url, timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def values(self, name: str) -> dict[str, float]:
        """Return the values of a metric by its labels, as ``a=b,c=d``."""
        return {
            ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
            if sample.name == f"capnp_rig_{name}"
        }

    def outcomes(self, method: str) -> dict[str, float]:
        values = self.values("calls_total")
        outcomes = ("ok", "failed", "cancelled", "refused")
        return {each: values.get(f"method={method},outcome={each}", 0) for each in outcomes}


@contextmanager
def measured(*options: str, cwd: Path | None = None) -> Iterator[tuple[Running, Metrics]]:
    with running_server("--metrics", "127.0.0.1:0", *options, cwd=cwd) as server:
        (line,) = server.out.wait_for("Metrics on ")
        yield server, Metrics(line.removeprefix("Metrics on "))


@pytest.mark.parametrize(("engine", "loop"), [ENGINES[0], ENGINES[3]])
def test_calls_are_counted_by_outcome(engine: str, loop: str) -> None:
    options = ("--engine", engine, "--loop", loop, "--workers", "2", "--max-in-flight", "2")
    service = ("--service", "fault_services:Probe")
    with measured(*options, *service, cwd=ROOT / "tests") as (server, metrics):
        address = f"{server.host}:{server.port}"

        async def call() -> None:
            # One for each worker.
            for _ in range(2):
                async with await AsyncClient.connect(address, interface=PROBE) as client:
                    for _ in range(7):
                        await client.call("lengths", {"kinds": {"text": "abc"}})
                    for _ in range(3):
                        await client.call("later", {"kinds": {"text": "x"}})
                    with pytest.raises(RemoteError):
                        await client.call("large", {"size": LARGE})
                    waits = [
                        asyncio.create_task(client.call("wait", timeout_s=0.5)) for _ in range(2)
                    ]
                    await asyncio.sleep(0)
                    with pytest.raises(Overloaded):
                        await client.call("wait")
                    for wait in waits:
                        with pytest.raises(DeadlineExceeded):
                            await wait

        asyncio.run(asyncio.wait_for(call(), 40))
        eventually(lambda: metrics.outcomes("Probe.wait")["cancelled"] == 4)
        assert metrics.outcomes("Probe.lengths") == _only(ok=14)
        assert metrics.outcomes("Probe.later") == _only(ok=6)
        assert metrics.outcomes("Probe.large") == _only(failed=2)
        assert metrics.values("limit_hits_total")["limit=in-flight"] == 2
        times = metrics.values("call_seconds_sum")
        # Six sleeps of 50 ms.
        assert 0.29 <= times["method=Probe.later"] < 20
        assert metrics.values("call_seconds_count")["method=Probe.lengths"] == 14
        assert set(metrics.values("worker_calls_in_flight").values()) == {0}
        assert metrics.values("connections_accepted_total") == {"": 2}
        eventually(lambda: set(metrics.values("worker_connections").values()) == {0})


def _only(**counts: float) -> dict[str, float]:
    return dict.fromkeys(("ok", "failed", "cancelled", "refused"), 0.0) | counts


@pytest.mark.parametrize(("engine", "loop"), [ENGINES[0], ENGINES[3]])
def test_bytes_are_those_on_the_wire(engine: str, loop: str) -> None:
    sent = received = 0
    with measured("--engine", engine, "--loop", loop, "--workers", "1") as (server, metrics):
        peer = ClientConnection()
        with socket.create_connection((server.host, server.port or 0), 10) as sock:
            for size in (1, 100, 100_000):
                content = READ.params.pack({"request": {"content": "x" * size}})
                number = peer.call(READ.interface_id, READ.method_id, content)
                data = peer.data_to_send()
                sock.sendall(data)
                sent += len(data)
                answered = False
                while not answered:
                    data = sock.recv(65_536)
                    received += len(data)
                    events = list(peer.receive_data(data))
                    answered = any(getattr(each, "question_id", None) == number for each in events)
            data = peer.data_to_send()
            sock.sendall(data)
            sent += len(data)

        def is_counted() -> bool:
            counted = [metrics.values(f"{way}_bytes_total")[""] for way in ("received", "sent")]
            return counted == [sent, received]

        eventually(is_counted, what=f"{sent} and {received}")


def test_counters_never_fall_when_a_worker_dies_or_is_replaced() -> None:
    with measured("--workers", "1") as (server, metrics):
        address = f"{server.host}:{server.port}"

        def served() -> float:
            return metrics.outcomes("Reverse.read")["ok"]

        def call(count: int) -> None:
            with ReverseClient.connect(address) as client:
                for _ in range(count):
                    client.reverse("abc")

        call(5)
        eventually(lambda: served() == 5)
        (worker,) = server.workers()
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: metrics.values("worker_ends_total"))
        assert metrics.values("worker_ends_total") == {"how=was killed by SIGKILL": 1}
        assert served() == 5
        eventually(lambda: metrics.values("ready") == {"": 1}, within_s=20)
        call(4)
        server.signal(signal.SIGHUP)
        eventually(
            lambda: metrics.values("worker_ends_total").get("how=as ordered") == 1, within_s=20
        )
        assert served() == 9


def test_health_says_whether_calls_are_taken() -> None:
    options = ("--workers", "1", "--service", "fault_services:Probe")
    with measured(*options, cwd=ROOT / "tests") as (server, metrics):
        health = metrics.url.replace("/metrics", "/health/")
        with urlopen(health + "live", timeout=10) as answer:
            assert answer.read() == b"live\n"
        with urlopen(health + "ready", timeout=10) as answer:
            assert answer.read() == b"ready\n"

        async def call() -> None:
            async with await AsyncClient.connect(
                f"{server.host}:{server.port}", interface=PROBE
            ) as client:
                wait = asyncio.create_task(client.call("wait"))
                await asyncio.to_thread(
                    eventually, lambda: 1 in metrics.values("worker_calls_in_flight").values()
                )
                server.signal(signal.SIGTERM)
                await asyncio.to_thread(eventually, lambda: _status(health + "ready") == 503)
                assert _status(health + "live") == 200
                wait.cancel()
                with suppress(asyncio.CancelledError):
                    await wait

        asyncio.run(asyncio.wait_for(call(), 40))


def _status(url: str) -> int:
    try:
        with urlopen(url, timeout=10) as answer:
            status: int = answer.status
    except HTTPError as error:
        with error:
            return error.code
    return status


@pytest.mark.parametrize("stack", ["echo", "selectors"])
def test_other_stacks_have_what_the_supervisor_knows(stack: str) -> None:
    with measured("--stack", stack, "--workers", "1") as (server, metrics):
        with socket.create_connection((server.host, server.port or 0), 5):
            eventually(lambda: 1 in metrics.values("worker_connections").values())
        assert metrics.values("connections_accepted_total") == {"": 1}
        assert "capnp_rig_calls" not in metrics.text()


def test_the_dashboard_asks_for_nothing_that_is_not_there() -> None:
    asked = set(re.findall(r"capnp_rig_\w+", DASHBOARD.read_text()))
    with measured("--workers", "1") as (server, metrics):
        with ReverseClient.connect(f"{server.host}:{server.port}") as client:
            client.reverse("abc")
        eventually(lambda: metrics.values("call_seconds_bucket"))
        text = metrics.text()
    # Families without a sample are there by their type.
    known = set(re.findall(r"^(?:# TYPE )?(capnp_rig_\w+)", text, re.MULTILINE))
    assert asked
    assert asked <= known


def test_promtool_finds_nothing_to_complain_about() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool, of Debian's package prometheus, is not installed")
    with measured("--workers", "1") as (_, metrics):
        text = metrics.text()
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.nightly
def test_a_real_prometheus_scrapes_it(tmp_path: Path) -> None:
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        pytest.skip("Debian's package prometheus is not installed")
    with measured("--workers", "1") as (server, metrics):
        with ReverseClient.connect(f"{server.host}:{server.port}") as client:
            for _ in range(3):
                client.reverse("abc")
        target = metrics.url.removeprefix("http://").removesuffix("/metrics")
        config = {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [{"job_name": "rig", "static_configs": [{"targets": [target]}]}],
        }
        # JSON is YAML.
        (tmp_path / "prometheus.yml").write_text(json.dumps(config))
        with socket.create_server(("127.0.0.79", 0)) as held:
            address = f"127.0.0.79:{held.getsockname()[1]}"
        process = subprocess.Popen(
            [
                prometheus,
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            query = "capnp_rig_calls_total%7Boutcome%3D%22ok%22%7D"
            url = f"http://{address}/api/v1/query?query={query}"

            def counted() -> str | None:
                with suppress(OSError), urlopen(url, timeout=5) as answer:
                    found = json.load(answer)["data"]["result"]
                    return str(found[0]["value"][1]) if found else None
                return None

            assert eventually(counted, within_s=60) == "3"
        finally:
            process.kill()
            process.wait(10)


def test_handshakes_that_failed_are_counted(tmp_path: Path) -> None:
    secured = ThrowawayCa(tmp_path).server_options(mutual=False)
    with measured("--workers", "1", *secured) as (server, metrics):
        with socket.create_connection((server.host, server.port or 0), 10) as sock:
            sock.sendall(b"no TLS at all")
            while sock.recv(4096):
                pass
        eventually(lambda: metrics.values("limit_hits_total").get("limit=tls-handshake") == 1)

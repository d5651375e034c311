import json
import os
import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from deadline import eventually
from lying_server import hanging_up, lying_server
from running_locust import (
    Finished,
    finish,
    free_port,
    locust,
    read_load,
    read_requests,
    run_locust,
)
from running_server import Running, running_server

HEADLESS = ("--headless", "--only-summary")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_server("--workers", "1", "--log-level", "warning") as running:
        yield _address(running)


def _address(running: Running) -> str:
    return f"{running.host}:{running.port}"


def _outputs(folder: Path) -> tuple[str, ...]:
    return ("--rig-json", str(folder / "rig.json"), "--json-file", str(folder / "locust"))


def _assert_good(done: Finished, folder: Path, *, processes: int) -> None:
    assert done.status == 0, done.output
    document, collector = read_load(folder / "rig.json")
    assert document["problems"] == []
    assert collector.total.failures == {}
    assert len(collector.processes) == processes
    assert all(report.calls for report in collector.processes.values())
    # Both count the same calls; the rig's own histograms add up to them.
    assert collector.total.calls == read_requests(folder / "locust") > 100
    assert "Traceback" not in done.output


def test_a_run_counts_its_calls_in_microseconds(server: str, tmp_path: Path) -> None:
    done = run_locust(
        "-H", server, *HEADLESS, "-u", "4", "-r", "4", "-t", "2s", *_outputs(tmp_path)
    )
    _assert_good(done, tmp_path, processes=1)
    entries = json.loads((tmp_path / "locust.json").read_text())
    assert [entry["name"] for entry in entries] == ["MessageStream.read"]
    # Locust alone would have whole milliseconds here.
    assert any(not float(time_ms).is_integer() for time_ms in entries[0]["response_times"])


def test_several_calls_in_flight_finish_with_the_run(server: str, tmp_path: Path) -> None:
    load = ("-u", "2", "-r", "2", "-t", "1s", "--in-flight", "8", "--stop-timeout", "5")
    # Larger than one read: the replies come one by one.
    load += ("--payload-bytes", "30000")
    done = run_locust("-H", server, *HEADLESS, *load, *_outputs(tmp_path))
    _assert_good(done, tmp_path, processes=1)
    assert read_load(tmp_path / "rig.json")[1].total.unfinished == 0


def test_forked_processes_add_up(server: str, tmp_path: Path) -> None:
    load = ("-u", "4", "-r", "4", "-t", "2s", "--processes", "2")
    bind = ("--master-bind-host", "127.0.0.1", "--master-port", str(free_port()))
    port = ("--master-bind-port", bind[-1])
    done = run_locust("-H", server, *HEADLESS, *load, *bind, *port, *_outputs(tmp_path))
    _assert_good(done, tmp_path, processes=2)


def test_a_master_and_its_worker_add_up(server: str, tmp_path: Path) -> None:
    port = str(free_port())
    master = ("--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port)
    load = ("-u", "4", "-r", "4", "-t", "2s", "--expect-workers", "1", *_outputs(tmp_path))
    with locust("--worker", "--master-host", "127.0.0.1", "--master-port", port) as worker:
        done = run_locust("-H", server, *HEADLESS, *master, *load)
        assert finish(worker).status == 0
    _assert_good(done, tmp_path, processes=1)


def test_g3_one_wrong_byte_is_reported(tmp_path: Path) -> None:
    with lying_server(wrong_every=50) as liar:
        load = ("-u", "2", "-r", "2", "-t", "2s", "--stop-timeout", "5")
        done = run_locust("-H", liar.address, *HEADLESS, *load, *_outputs(tmp_path))
        lies = liar.lies
    assert done.status == 1, done.output
    _, collector = read_load(tmp_path / "rig.json")
    assert dict(collector.total.failures) == {
        "WrongReply: the reply has other bytes than expected": lies
    }
    assert "Wrong reply: byte " in done.output
    assert len(done.output.splitlines()) < 60


def test_g5_a_killed_server_is_counted_by_kind(tmp_path: Path) -> None:
    with running_server("--workers", "1", "--log-level", "warning") as running:
        load = ("-u", "8", "-r", "8", "-t", "4s", "--csv", str(tmp_path / "l"), *_outputs(tmp_path))
        with locust("-H", _address(running), *HEADLESS, *load) as process:
            stats = tmp_path / "l_stats.csv"
            eventually(
                lambda: stats.exists() and "MessageStream.read" in stats.read_text(), within_s=10
            )
            running.process.kill()
            done = finish(process)
    assert done.status == 1
    _, collector = read_load(tmp_path / "rig.json")
    kinds = {kind.partition(":")[0] for kind in collector.total.failures}
    assert kinds <= {"Disconnected", "ConnectError"}
    assert "ConnectError" in kinds
    # Eight users, waits of 0.1 to 0.8 s: a busy loop would have made thousands.
    assert sum(collector.total.failures.values()) < 200
    assert len(done.output.splitlines()) < 60


def test_g5_a_server_that_hangs_up_is_not_called_in_a_busy_loop(tmp_path: Path) -> None:
    with hanging_up() as address:
        load = ("-u", "4", "-r", "4", "-t", "2s")
        done = run_locust("-H", address, *HEADLESS, *load, *_outputs(tmp_path))
    assert done.status == 1
    _, collector = read_load(tmp_path / "rig.json")
    kinds = {kind.partition(":")[0] for kind in collector.total.failures}
    assert kinds == {"Disconnected"}
    assert 4 <= sum(collector.total.failures.values()) < 100


def test_g5_a_wrong_port_ends_with_an_error(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    done = run_locust("-H", address, *HEADLESS, "-u", "2", "-t", "1s", *_outputs(tmp_path))
    assert done.status == 1
    document, collector = read_load(tmp_path / "rig.json")
    assert document["problems"] == ["no call was answered"]
    assert {kind.partition(":")[0] for kind in collector.total.failures} == {"ConnectError"}
    assert "Traceback" not in done.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_g6_a_signal_leaves_the_results_so_far(
    server: str, tmp_path: Path, number: signal.Signals
) -> None:
    stats = tmp_path / "l_stats.csv"
    load = ("-u", "2", "-r", "2", "--csv", str(tmp_path / "l"), *_outputs(tmp_path))
    with locust("-H", server, *HEADLESS, *load) as process:
        eventually(
            lambda: stats.exists() and "MessageStream.read" in stats.read_text(), within_s=10
        )
        process.send_signal(number)
        done = finish(process)
    _assert_good(done, tmp_path, processes=1)


def test_g6_ctrl_c_on_a_terminal_loses_no_worker(server: str, tmp_path: Path) -> None:
    port = str(free_port())
    ports = ("--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port)
    stats = tmp_path / "l_stats.csv"
    load = ("-u", "4", "-r", "4", "--processes", "2", "--csv", str(tmp_path / "l"))
    with locust("-H", server, *HEADLESS, *load, *ports, *_outputs(tmp_path)) as process:
        # Workers report every 3 s; what they saw since then is what could be lost.
        eventually(
            lambda: stats.exists() and "MessageStream.read" in stats.read_text(), within_s=15
        )
        os.killpg(process.pid, signal.SIGINT)
        done = finish(process)
    _assert_good(done, tmp_path, processes=2)


NO_HOST = "no server to load: give its address as -H host:port"
BAD_HOST = (
    "argument -H/--host: bad address 'http://localhost': "
    "expected host:port, [ipv6]:port or unix:/path"
)


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ((), NO_HOST),
        (("--processes", "2"), NO_HOST),
        (("-H", "http://localhost"), BAD_HOST),
        (("-H", "h:1", "--payload-bytes", "15"), "argument --payload-bytes: 15 is less than 16"),
    ],
)
def test_a_mistake_is_one_line(args: tuple[str, ...], line: str) -> None:
    done = run_locust(*args, *HEADLESS, "-t", "1s", within_s=10)
    # Locust names itself after the file that python started.
    expected = f"__main__.py: error: {line}"
    assert (done.status, done.output.splitlines()) == (2, [expected])


def test_a_unix_socket_and_a_text_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with running_server("--workers", "1", address=f"unix:{path}"):
        load = ("-u", "1", "-t", "1s", "--text", "grüße 🙂")
        done = run_locust("-H", f"unix:{path}", *HEADLESS, *load, *_outputs(tmp_path))
    _assert_good(done, tmp_path, processes=1)


OWN_LOCUSTFILE = """
from locust import task
from loadtest.capnp_user import CapnpUser
from loadtest.failures import WrongReply

class OwnUser(CapnpUser):
    number = 0

    @task
    def own(self):
        while self.running:
            self.number += 1
            results = self.call("read", {"request": {"content": f"{self.number}"}})
            self.expect(bytes(results.chunk) == str(self.number)[::-1].encode())
            if self.number == 5:
                self.expect(False, "five is not liked")
"""


def test_a_user_class_of_ones_own(server: str, tmp_path: Path) -> None:
    file = tmp_path / "own_locustfile.py"
    file.write_text(OWN_LOCUSTFILE)
    load = ("-u", "1", "-t", "1s", *_outputs(tmp_path))
    done = run_locust("-H", server, *HEADLESS, *load, locustfile=file)
    assert done.status == 1
    _, collector = read_load(tmp_path / "rig.json")
    assert collector.total.calls > 100
    assert dict(collector.total.failures) == {"WrongReply: five is not liked": 1}


def test_the_web_ui_runs_the_test_and_shows_our_options(server: str) -> None:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    with locust("-H", server, "--web-host", "127.0.0.1", "--web-port", str(port)) as process:
        page = eventually(lambda: _get(f"{base}/"), within_s=10)
        assert re.search("payload_bytes", page)
        assert re.search("in_flight", page)
        assert "rig_json" not in page
        form = b"user_count=2&spawn_rate=2&in_flight=2&payload_bytes=64&host=" + server.encode()
        assert json.loads(_get(f"{base}/swarm", form))["success"]
        entry = eventually(lambda: _entry(f"{base}/stats/requests"), within_s=10)
        assert entry["num_failures"] == 0
        assert entry["avg_content_length"] == 64
        process.send_signal(signal.SIGTERM)
        assert finish(process).status == 0


def _get(url: str, form: bytes | None = None) -> str:
    try:
        with urllib.request.urlopen(url, form, timeout=5) as answer:  # noqa: S310 - http, see above
            return str(answer.read().decode())
    except OSError:
        return ""


def _entry(url: str) -> dict[str, float]:
    entries = json.loads(_get(url))["stats"]
    return next((entry for entry in entries if entry["name"] == "MessageStream.read"), {})

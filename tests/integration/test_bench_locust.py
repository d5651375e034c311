import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from capnp_rig.loadtest.bench.locust import BenchLocustConfig, run
from capnp_rig.loadtest.cli.bench import bench_locust
from capnp_rig.loadtest.engine.child_process import child_environment, kept_alive
from capnp_rig.loadtest.engine.progress import Progress
from capnp_rig.loadtest.results import read_run, read_samples

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("calls", [pytest.param(False, marks=pytest.mark.nightly), True])
def test_one_short_round_leaves_a_whole_result(tmp_path: Path, *, calls: bool) -> None:
    told: list[Progress] = []
    config = BenchLocustConfig(
        rounds=1, seconds=0.5, warmup_s=0.1, users=4, results=tmp_path, calls=calls
    )
    result, early_end = run(config, told.append)
    assert early_end is None
    document = read_run(result.folder)
    assert document["kind"] == "bench-locust"
    assert document["config"]["rounds"] == 1
    samples = read_samples(result.folder)
    assert {sample["role"] for sample in samples} == {"baseline", "candidate", "again"}
    for sample in samples:
        assert 0.4 < sample["seconds"] < 5
        assert sample["requests"] > 20
        assert sample["failures"] == 0
        assert 0 < sample["cpu_s"] < 5
        assert 0 < sample["server_cpu_s"] < 5
    assert [each.done for each in told] == [0, 1, 2, 3]
    # One pair proves nothing.
    compared = "CapnpUser.call over ReverseUser" if calls else "ReverseUser over FastHttpUser"
    (ratio,) = [each for each in result.figures if each.name == f"4 x 1: {compared}, calls/s"]
    assert ratio.verdict == "void"


def test_a_round_that_cannot_be_run_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(bench_locust, ["--results", str(tmp_path / "file" / "x")])
    assert done.exit_code == 1
    assert done.output.splitlines() == [f"Error: {tmp_path}/file/x: Not a directory"]


@pytest.fixture
def http_server() -> Iterator[socket.socket]:
    """Start the rival's server; yield a connection to it."""
    command = [sys.executable, "-P", "-m", "capnp_rig.loadtest.benchmarks.http_reverse"]
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        kept_alive(
            [*command, str(listener.fileno())],
            env=child_environment(),
            pass_fds=[listener.fileno()],
            stdout=subprocess.DEVNULL,
        ),
        socket.create_connection(listener.getsockname(), timeout=10) as connection,
    ):
        yield connection


def post(body: bytes) -> bytes:
    head = f"POST / HTTP/1.1\r\nHost: h\r\ncontent-length: {len(body)}\r\nAccept: */*\r\n\r\n"
    return head.encode() + body


def receive(connection: socket.socket, count: int) -> list[bytes]:
    """Return the bodies of `count` replies."""
    data, bodies = b"", []
    while len(bodies) < count:
        head, found, rest = data.partition(b"\r\n\r\n")
        length = int(head.rpartition(b"Content-Length: ")[2]) if found else 0
        if found and len(rest) >= length:
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            bodies.append(rest[:length])
            data = rest[length:]
            continue
        received = connection.recv(65536)
        assert received
        data += received
    assert data == b""
    return bodies


def test_the_rivals_server_reverses_whatever_comes_in_whichever_parts(
    http_server: socket.socket,
) -> None:
    requests = post(b"abc") + post("grüße".encode()) + post(b"")
    expected = [b"cba", "eßürg".encode(), b""]
    http_server.sendall(requests)
    assert receive(http_server, 3) == expected
    for at in range(0, len(requests), 7):
        http_server.sendall(requests[at : at + 7])
    assert receive(http_server, 3) == expected


def test_the_meter_writes_nothing_where_locust_fails(tmp_path: Path) -> None:
    """Its users could not be loaded: the reason is in the log, and there is no figure."""
    meter = Path(__file__).resolve().parents[2] / "loadtest" / "locust_rig" / "process_meter.py"
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "locust", "-f", f"{tmp_path}/none.py,{meter}"),
            *("--headless", "--meter-file", str(tmp_path / "m.json")),
            *("--meter-warmup", "0", "--meter-seconds", "1"),
        ],
        env=child_environment(),
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    assert not (tmp_path / "m.json").exists()

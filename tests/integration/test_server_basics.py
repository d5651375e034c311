"""`server run` as a user meets it: what it serves, what it prints, what it refuses."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from deadline import eventually
from pycapnp_peer import connected, reversed_by, run
from running_server import (
    ENGINES,
    TELLING,
    Running,
    command,
    environment,
    run_to_end,
    running_server,
)

from capnp_rig.wire.encoding.frames import FrameDecoder
from capnp_rig.wire.rpc.messages import Abort, ExceptionType, RemoteError, decode


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize(("engine", "loop"), ENGINES)
def test_a_connection_is_served_and_told_as_in_the_tutorial(engine: str, loop: str) -> None:
    with running_server(*TELLING, "--engine", engine, "--loop", loop, "--workers", "2") as server:
        assert reversed_by(server, "Hello \x1b") == b"\x1b olleH"
        server.out.wait_for("finished cleanly")
        lines = list(server.out.lines)
    peer = re.search(r"from (\S+)$", lines[2])
    assert peer is not None
    assert lines == [
        f"Listening on 127.0.0.1:{server.port} with 2 workers...",
        "Dispatching new connection to worker 0",
        f"[Worker 0] received a new connection from {peer[1]}",
        f"[Worker 0] running on core {min(os.sched_getaffinity(0))}",
        f"[Worker 0] RPC system started for peer: {peer[1]}",
        r"Received content: Hello \x1b",
        f"[Worker 0] RPC system for peer {peer[1]} finished cleanly.",
    ]
    assert server.err.lines == []


def test_a_connection_that_ends_well_is_not_told_at_info() -> None:
    with running_server("--workers", "1") as server:
        assert reversed_by(server) == b"olleH"
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert len(server.out.join()) == 1
        assert server.err.join() == []


def test_connections_go_round_and_every_worker_has_its_core() -> None:
    with running_server(*TELLING, "--workers", "2") as server:
        for _ in range(4):
            reversed_by(server)
        lines = server.out.wait_for("Dispatching", count=4)
        assert [line[-1] for line in lines] == ["0", "1", "0", "1"]
        cpus = sorted(os.sched_getaffinity(0))
        pinned = [psutil.Process(pid).cpu_affinity() for pid in server.workers()]
        assert pinned == [[cpus[0]], [cpus[1 % len(cpus)]]]


def test_json_lines_hold_one_object_each() -> None:
    with running_server(*TELLING, "--workers", "1", "--log-format", "json") as server:
        reversed_by(server)
        server.out.wait_for("finished cleanly")
        events = [json.loads(line) for line in server.out.lines]
    assert events[0]["event"] == f"Listening on 127.0.0.1:{server.port} with 1 workers..."
    for event in events:
        assert {"event", "level", "timestamp", "pid"} <= event.keys()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", event["timestamp"])
    assert events[0]["pid"] == server.pid
    # The content of a call names no worker.
    assert {event.get("worker") for event in events[1:]} == {0, None}


@pytest.mark.parametrize("text", ["", "a", "👩\u200d👧", "nul\0inside", "x" * 100_000])
def test_texts_come_back_reversed(text: str, shared: Running) -> None:
    assert reversed_by(shared, text) == text[::-1].encode()


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    with running_server("--workers", "1") as server:
        yield server


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_ipv6() -> None:
    with running_server(*TELLING, "--workers", "1", address="[::1]:0") as server:
        assert server.host == "::1"
        assert reversed_by(server) == b"olleH"
        server.out.wait_for("finished cleanly")
        assert server.out.find("received a new connection from [::1]:")


def test_h2_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with running_server("--workers", "1", address=f"unix:{path}") as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert reversed_by(server) == b"olleH"
        live = run_to_end("run", f"unix:{path}")
        assert (live.returncode, live.stdout, live.stderr) == (
            1,
            "",
            (
                f"server: cannot listen on unix:{path}: it is in use: stop the other server, "
                "or choose another address\n"
            ),
        )
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert not path.exists()


def test_a17_the_socket_of_a_killed_server_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with running_server("--workers", "1", address=f"unix:{path}"):
        pass
    assert path.exists()
    with running_server("--workers", "1", address=f"unix:{path}") as server:
        assert reversed_by(server) == b"olleH"


def test_a17_a_port_in_use_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = run_to_end("run", f"127.0.0.1:{port}")
    assert (result.returncode, result.stdout, result.stderr) == (
        1,
        "",
        (
            f"server: cannot listen on 127.0.0.1:{port}: it is in use: stop the other server, "
            "or choose another address\n"
        ),
    )


EXPECTED = "expected host:port, [ipv6]:port or unix:/path"
RUN_HELP = "(see server run --help)"


@pytest.mark.parametrize(
    ("arguments", "status", "stderr"),
    [
        (["run"], 2, f"server: Missing argument 'ADDR'. {RUN_HELP}\n"),
        (["run", "nope"], 2, f"server: bad address 'nope': {EXPECTED} {RUN_HELP}\n"),
        (["run", ":80"], 2, f"server: bad address ':80': {EXPECTED} {RUN_HELP}\n"),
        (["run", "::1:80"], 2, f"server: bad address '::1:80': {EXPECTED} {RUN_HELP}\n"),
        (
            ["run", "127.0.0.1:99999"],
            2,
            f"server: bad address '127.0.0.1:99999': the port must be 0 to 65535 {RUN_HELP}\n",
        ),
        (
            ["run", "unix:@abstract"],
            2,
            (
                "server: bad address 'unix:@abstract': abstract names are refused, name a file "
                f"{RUN_HELP}\n"
            ),
        ),
        (["run", "127.0.0.1:0", "--zzz"], 2, f"server: No such option '--zzz'. {RUN_HELP}\n"),
        (
            ["run", "127.0.0.1:0", "--workers", "0"],
            2,
            (
                "server: Invalid value for '--workers': 0 is not in the range 1<=x<=1024. "
                f"{RUN_HELP}\n"
            ),
        ),
        (
            ["run", "127.0.0.1:0", "--service", "nope"],
            2,
            f"server: bad service 'nope': expected package.module:Name {RUN_HELP}\n",
        ),
        (
            ["run", "127.0.0.1:0", "--service", ".svc:X"],
            2,
            f"server: bad service '.svc:X': expected package.module:Name {RUN_HELP}\n",
        ),
        (
            ["run", "0.0.0.0:0"],
            2,
            (
                "server: refusing to listen on 0.0.0.0:0: other machines could connect, and "
                "nothing is encrypted or authenticated; use TLS (--tls-cert, --tls-client-ca), "
                f"127.0.0.1, [::1] or unix:/path, or add --insecure {RUN_HELP}\n"
            ),
        ),
        (["nope"], 2, "server: No such command 'nope'. (see server --help)\n"),
        (
            ["run", "host.invalid:1"],
            1,
            (
                "server: cannot find the host of host.invalid:1: check its name, or use an IP "
                "address\n"
            ),
        ),
        (
            ["run", "192.0.2.1:0", "--insecure"],
            1,
            (
                "server: cannot listen on 192.0.2.1:0: this machine has no such address: use one "
                "of its own\n"
            ),
        ),
        (
            ["run", "unix:/nope/s"],
            1,
            "server: cannot listen on unix:/nope/s: the folder does not exist: create it first\n",
        ),
        (
            ["run", "unix:/dev/null"],
            1,
            "server: cannot listen on unix:/dev/null: the file exists and is no socket\n",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_that_says_what_to_do(
    arguments: list[str], status: int, stderr: str
) -> None:
    result = run_to_end(*arguments)
    assert (result.returncode, result.stdout, result.stderr) == (status, "", stderr)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to drop privileges")
def test_a17_a_privileged_port_is_told_in_one_line() -> None:
    result = subprocess.run(
        [
            *["setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"],
            *command("run", "127.0.0.1:81"),
        ],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=20,
        check=False,
    )
    assert (result.returncode, result.stderr) == (
        1,
        (
            "server: cannot listen on 127.0.0.1:81: no permission: use a port from 1024 up, or a "
            "folder you may write to\n"
        ),
    )


def test_insecure_listens_everywhere() -> None:
    with running_server("--workers", "1", "--insecure", address="0.0.0.0:0") as server:
        server.host = "127.0.0.1"
        assert reversed_by(server) == b"olleH"


def test_version_is_one_line() -> None:
    result = run_to_end("--version")
    assert result.returncode == 0
    assert re.fullmatch(r"server \S.*\n", result.stdout)


def test_a_folder_of_the_users_does_not_shadow_ours(tmp_path: Path) -> None:
    for name in ("server", "schema", "wire", "asyncio"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    with running_server("--workers", "1", cwd=tmp_path) as server:
        assert reversed_by(server) == b"olleH"


def test_h6_workers_leave_no_core_dump(shared: Running) -> None:
    (pid,) = shared.workers()
    assert psutil.Process(pid).rlimit(psutil.RLIMIT_CORE) == (0, 0)


def test_descriptors_do_not_leak(shared: Running) -> None:
    (pid,) = shared.workers()
    reversed_by(shared)

    def open_files() -> int:
        return sum(psutil.Process(each).num_fds() for each in (shared.pid, pid))

    # The connection of the call before may still be counted, so fewer are no leak.
    before = open_files()
    for _ in range(50):
        reversed_by(shared)
    eventually(lambda: open_files() <= before, what=f"{before} open files again")


def test_b6_the_connection_cap_refuses_and_recovers() -> None:
    with running_server(*TELLING, "--workers", "1", "--max-connections", "2") as server:
        held = [socket.create_connection(("127.0.0.1", server.port), 5) for _ in range(2)]
        server.out.wait_for("RPC system started", count=2)
        with socket.create_connection(("127.0.0.1", server.port), 5) as refused:
            refused.settimeout(5)
            said = b"".join(iter(lambda: refused.recv(4096), b""))
        (message,) = FrameDecoder().feed(said)
        error = RemoteError("2 connections are open: try again later", ExceptionType.OVERLOADED)
        assert decode(message) == Abort(error)
        assert server.err.wait_for("Refusing connections: 2 are open")
        for sock in held:
            sock.close()
        server.out.wait_for("finished cleanly", count=2)
        assert reversed_by(server) == b"olleH"


def test_two_calls_share_a_connection(shared: Running) -> None:
    async def work() -> object:
        async with connected(shared.port) as stream:
            replies = [stream.read({"content": f"call {n}"}) for n in range(50)]
            return [(await reply).chunk for reply in replies]

    assert run(work) == [f"call {n}"[::-1].encode() for n in range(50)]

"""``loadtest bench-servers``: servers of several commands under one load."""

import json
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from running_rig import ROOT, run_rig
from running_server import command as server_command

from capnp_rig.loadtest.ab.bench_servers import BenchServersConfig, run
from capnp_rig.loadtest.ab.blocks import Blocks
from capnp_rig.loadtest.ab.server_command import started_server
from capnp_rig.loadtest.cli.bench import bench_servers
from capnp_rig.loadtest.engine.progress import Progress
from capnp_rig.loadtest.engine.run import RunConfig
from capnp_rig.loadtest.engine.server_process import ServerFailed
from capnp_rig.loadtest.results.load_samples import read_result
from capnp_rig.rigcli.address import Address, Addresses

LOAD = ("--connections", "4", "--no-pin", "--rounds", "1", "--seconds", "0.1")
PINNED = tuple(option for option in LOAD if option != "--no-pin")
ECHO = "capnp_rig.loadtest.benchmarks.echo_service:Echo"
PARAMS = ("--schema", str(ROOT / "schema" / "echo.capnp"), "--params", '{"data": "YWJj"}')
SERVICES = """
from capnp_rig.loadtest.benchmarks.echo_service import Echo

class Other(Echo):
    def echo(self, params):
        return {"data": bytes(params.data)[::-1]}
"""


def server(*options: str) -> str:
    return shlex.join(server_command("run", "{addr}", *options, "--log-level", "warning"))


def test_a_server_that_answers_otherwise_is_named(tmp_path: Path) -> None:
    (tmp_path / "others.py").write_text(SERVICES)
    other = shlex.join(["env", f"PYTHONPATH={tmp_path}"])
    servers = (
        f"ours={server('--service', ECHO)}",
        f"other={other} {server('--service', 'others:Other')}",
    )
    results = ("--results", str(tmp_path / "results"), "--json", *PARAMS)
    done = run_rig("bench-servers", *servers, *LOAD, *results)
    assert done.returncode == 1, done.stderr
    wrong = "WrongReply: wrong reply: not what ours answered to the same params"
    lines = done.stderr.splitlines()
    at = lines.index(f"failed: other: 1 call: {wrong}")
    assert lines[at + 1 : at + 4] == [
        '  request: {"data": "abc"}',
        '  expected: {"data": "abc"}',
        '  came: {"data": "cba"}',
    ]
    told = json.loads(done.stdout)
    result = read_result(Path(told["folder"]))
    assert result.kind == "bench-servers"
    assert result.document["config"]["servers"]["ours"][-1] == "warning"
    assert (Path(told["folder"]) / "report.html").exists()
    assert result.samples is not None
    blocks = Blocks.of_samples(result.samples, is_open_loop=False)
    # The first is there twice, for the A/A.
    assert {turn.role for turn in blocks.turns} == {"ours", "other", "ours again"}
    values = {figure["name"]: figure["value"] for figure in told["figures"]}
    assert values["4 x 1: ours calls/s"] > 0
    assert {value for name, value in values.items() if "other" in name} == {None}


@pytest.mark.nightly
def test_a_stop_keeps_the_rounds_that_are_over(tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.done == 1:
            raise KeyboardInterrupt

    words = tuple(shlex.split(server()))
    load = RunConfig(Addresses([Address()]), tmp_path, connections=4, warmup_s=0.1, pin=False)
    config = BenchServersConfig({"a": words, "b": words}, load, rounds=3, seconds=0.1)
    stopped: list[Progress] = []

    def show(progress: Progress) -> None:
        stopped.append(progress)
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, stop)
    assert list(tmp_path.iterdir()) == []
    result = run(config, show)
    assert result.early_end is not None
    assert result.early_end.exit_status == 130
    stored = read_result(result.written.folder)
    assert stored.document["ended_early"] == "Ctrl-C"
    assert stored.samples is not None
    assert Blocks.of_samples(stored.samples, is_open_loop=False).count == 1


@pytest.mark.parametrize(
    ("command", "cause"),
    [
        (f"{sys.executable} -c 'raise SystemExit(\"no disk\")'", "no disk"),
        ("no-such-server {addr}", "taskset: failed to execute no-such-server"),
    ],
)
def test_a_server_that_does_not_start_is_named(command: str, cause: str, tmp_path: Path) -> None:
    results = ("--results", str(tmp_path))
    done = run_rig("bench-servers", f"rust={command}", *PINNED, *results)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"loadtest: rust: the server did not start: {cause}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        # It listens where nobody asked it to.
        (
            "import socket, time; s = socket.create_server(('127.0.0.1', 0)); time.sleep(60)",
            r", but on port \d+: put \{addr\}, or \{host\} and \{port\}, into its command",
        ),
        (
            "import time; print('waiting for a disk', flush=True); time.sleep(60)",
            "; its last line: waiting for a disk",
        ),
    ],
)
def test_a_server_that_does_not_listen_at_its_address_is_told(
    script: str, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capnp_rig.loadtest.ab.server_command._READY_S", 1.0)
    words = [sys.executable, "-c", script, "{addr}"]
    with (
        started_server(words, log=tmp_path / "log", hash_seed=0, cpus=None) as started,
        pytest.raises(ServerFailed, match=rf"did not listen on 127\.0\.0\.1:\d+ in 1 s{cause}"),
    ):
        started.await_ready()


@pytest.mark.parametrize(
    ("servers", "message"),
    [
        (("server run",), "bad server 'server run': expected NAME='COMMAND with {addr}'"),
        (("a=",), "bad server 'a=': expected NAME='COMMAND with {addr}'"),
        (("a b=server",), "bad server 'a b=server': expected NAME='COMMAND with {addr}'"),
        (("a=x", "a=y"), "the name 'a' is taken: give each server another"),
        (("a='x",), 'a: bad command "\'x": No closing quotation'),
        (("a=127.0.0.1:1",), "a: 127.0.0.1:1 is an address; give the command"),
    ],
)
def test_what_is_no_server_is_refused(servers: tuple[str, ...], message: str) -> None:
    done = CliRunner().invoke(bench_servers, servers)
    assert done.exit_code == 2
    assert message in done.output

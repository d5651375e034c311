"""``loadtest compare`` of two servers by turns, one of them slower by a known time per call."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from deadline import WITHIN_S, eventually
from running_rig import command, environment, run_rig
from running_server import command as server_command
from running_server import running_server

from capnp_rig.loadtest.ab.blocks import Blocks
from capnp_rig.loadtest.ab.judging import measured
from capnp_rig.loadtest.ab.run import AbConfig, run
from capnp_rig.loadtest.ab.server_command import started_server
from capnp_rig.loadtest.engine.progress import Progress
from capnp_rig.loadtest.engine.run import RunConfig
from capnp_rig.loadtest.engine.server_process import ServerFailed
from capnp_rig.loadtest.results.catalog import entries_of
from capnp_rig.loadtest.results.load_samples import read_result
from capnp_rig.rigcli.address import parse_addresses

SERVICE = "capnp_rig.loadtest.benchmarks.spinning_service:Spinning"
SHORT = ("--blocks", "6", "--rounds", "2", "--turn", "100ms", "--no-pin")
# It prints what it was started with, and listens at its only argument.
LISTENER = """
import os, socket, sys
host, _, port = sys.argv[1].rpartition(":")
listener = socket.create_server((host, int(port)))
print(sorted(os.sched_getaffinity(0)), os.environ["PYTHONHASHSEED"], flush=True)
listener.accept()
"""


def spinning(spin_ns: int) -> str:
    options = ("--workers", "1", "--service", SERVICE, "--log-level", "warning")
    server = server_command("run", "127.0.0.1:0", *options)
    return shlex.join(["env", f"SPIN_NS={spin_ns}", *server])


def test_a_server_that_spins_longer_is_slower(tmp_path: Path) -> None:
    results = ("--results", str(tmp_path), "--json")
    sides = ("--a", spinning(0), "--b", spinning(40_000))
    done = run_rig("compare", *sides, *SHORT, *results, within_s=240)
    assert done.returncode == 3, done.stderr
    comparison = json.loads(done.stdout)
    rows = {row["metric"]: row for row in comparison["rows"]}
    row = rows["server CPU per call"]
    assert row["verdict"] == comparison["verdict"] == "slower"
    assert row["n"] == 6
    # 40 µs more, give or take what a busy machine does to them.
    assert 20 < row["candidate"] - row["baseline"] < 160
    result = read_result(Path(comparison["folder"]))
    assert result.samples is not None
    blocks = Blocks.of_samples(result.samples, is_open_loop=False)
    assert blocks.count == 6
    assert {(turn.role, turn.round) for turn in blocks.turns} == {
        (role, number) for role in ("baseline", "candidate", "again") for number in (0, 1)
    }
    # Nobody is always the first of a round.
    assert len({turn.role for turn in blocks.turns if turn.order == 0}) > 1
    for metric in measured(blocks):
        assert result.document["values"][metric.name] == metric.values
    (entry,) = entries_of(tmp_path)
    assert (entry.kind, entry.verdict) == ("ab", "slower")
    shown = run_rig("report", comparison["folder"])
    assert shown.returncode == 0, shown.stderr
    assert "block by block" in (Path(comparison["folder"]) / "report.html").read_text("utf-8")


def test_servers_that_run_already_and_a_stop_leaves_the_blocks_that_are_over(
    tmp_path: Path,
) -> None:
    def stop(progress: Progress) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    with running_server("--workers", "1") as server:
        addresses = parse_addresses(f"127.0.0.1:{server.port}")
        load = RunConfig(
            addresses, tmp_path, connections=4, rate_hz=2000.0, warmup_s=0.1, pin=False
        )
        result = run(AbConfig(addresses, addresses, load, rounds=1), stop)
    assert result.early_end is not None
    assert result.early_end.exit_status == 130
    notes = " ".join(result.comparison.notes)
    assert "how much a fresh process of each would differ" in notes
    assert [row.metric for row in result.comparison.rows] == [
        "server CPU per call",
        "response.p50",
        "response.p99",
    ]
    assert {row.verdict for row in result.comparison.rows} == {"void"}
    stored = read_result(result.written.folder)
    assert stored.document["ended_early"] == "Ctrl-C"
    assert len(stored.document["values"]["response.p50"]["candidate"]) == 2


@pytest.mark.nightly
def test_ctrl_c_ends_with_130_and_shows_the_blocks_that_are_over(tmp_path: Path) -> None:
    with running_server("--workers", "1") as server:
        address = f"127.0.0.1:{server.port}"
        options = ("--no-pin", "--rounds", "1", "--results", str(tmp_path), "--max-time", "60s")
        with subprocess.Popen(
            command("compare", address, address, *options),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if " of at most " in line:
                    break
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 130, err
    assert "ended early, after" in err
    assert "server CPU per call" in out
    (folder,) = tmp_path.iterdir()
    result = read_result(folder)
    assert result.document["ended_early"] == "Ctrl-C"


def test_a_candidate_that_does_not_start_is_named(tmp_path: Path) -> None:
    sides = ("--a", spinning(0), "--b", f"{sys.executable} -c 'raise SystemExit(\"no disk\")'")
    done = run_rig("compare", *sides, *SHORT, "--results", str(tmp_path))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == "loadtest: candidate: the server did not start: no disk"
    assert list(tmp_path.iterdir()) == []


BROKEN = """
from capnp_rig.server.services.reverse import Reverse

class Unmade(Reverse):
    def __init__(self):
        raise OSError("no disk")

class Failing(Reverse):
    def read(self, params):
        raise ValueError
"""


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        # It listens all the same, before it knows that no worker starts.
        pytest.param("Unmade", "OSError: no disk", marks=pytest.mark.nightly),
        ("Failing", "RemoteError: internal error"),
    ],
)
def test_the_side_that_fails_is_named(name: str, cause: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    server = server_command("run", "127.0.0.1:0", "--service", f"broken:{name}")
    candidate = shlex.join(["env", f"PYTHONPATH={tmp_path}", *server])
    sides = ("--a", spinning(0), "--b", candidate)
    done = run_rig("compare", *sides, *SHORT, "--results", str(tmp_path / "results"))
    assert done.returncode == 1
    (told,) = (line for line in done.stderr.splitlines() if "candidate" in line)
    assert told.startswith(("loadtest: candidate: ", "failed: candidate: "))
    assert cause in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--a", "server run"), "give --a and --b, and nothing beside them"),
        (("127.0.0.1:1",), "name two results, two addresses, or --a and --b"),
        (("--a", "x", "--b", "y", "--force"), "--force is for two results"),
        ((".", ".", "--rounds", "3"), "--rounds is for two servers"),
        (("--a", "x", "--b", "y", "--metric", "p12"), "no metric 'p12'"),
        (("--a", "x", "--b", ""), "an empty command starts no server"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments: tuple[str, ...], message: str) -> None:
    done = run_rig("compare", *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_server_is_pinned_and_has_the_hash_seed_of_its_block(tmp_path: Path) -> None:
    log, cpu = tmp_path / "log", min(os.sched_getaffinity(0))
    words = [sys.executable, "-c", LISTENER, "{addr}"]
    with started_server(words, log=log, hash_seed=7, cpus=[cpu]) as server:
        server.await_ready()
        eventually(log.read_text, what="its line")
        (process,) = server.processes()
    assert log.read_text() == f"[{cpu}] 7\n"
    assert not process.is_running()


def test_a_command_that_listens_elsewhere_is_no_server(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "", "{addr}"]
    with (
        started_server(words, log=tmp_path / "log", hash_seed=0, cpus=None) as server,
        pytest.raises(ServerFailed, match="it printed nothing"),
    ):
        server.await_ready()

"""``loadtest search`` against a server that keeps, or cannot keep, an objective."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from running_rig import command, environment, run_rig
from running_server import Running, running_server

from capnp_rig.loadtest.results import read_run, read_samples

QUICK = ("--warmup", "0s", "--connections", "4", "--no-pin", "--json")


def _address(server: Running) -> str:
    return f"127.0.0.1:{server.port}"


@pytest.mark.nightly
def test_an_objective_that_always_holds_is_verified_at_the_highest_rate(tmp_path: Path) -> None:
    with running_server("--workers", "1") as server:
        done = run_rig(
            # 7 calls, none of them late, prove p50: also on a busy machine.
            *("search", _address(server), "--slo", "p50<5s", *QUICK),
            *("--probe", "200ms", "--from", "200", "--to", "400"),
            *("--results", str(tmp_path)),
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["rate_hz"], found["failing_hz"], found["limit"]) == (400.0, None, "search")
    assert [point["rate_hz"] for point in found["curve"]] == [200.0, 400.0]
    assert [point["probes"] for point in found["curve"]] == [3, 8]
    assert all(point["held"] == point["probes"] for point in found["curve"])
    (folder,) = tmp_path.iterdir()
    document = json.loads((folder / "run.json").read_text())
    assert document["kind"] == "search"
    assert [probe["outcome"] for probe in document["probes"]] == ["held"] * 11
    assert document["figures"][0]["value"] == 400.0
    assert document["ended_early"] is None
    # A line per step.
    lines = [line for line in done.stderr.splitlines() if " left" in line]
    assert len(lines) == 12
    assert lines[0].startswith("probe 1 of about ")
    assert lines[1].startswith("held; probe 2 of about ")
    assert lines[-1] == "held; 11 probes, about 0 s left"


@pytest.mark.nightly
def test_an_objective_that_nothing_keeps_is_verified_at_no_rate(tmp_path: Path) -> None:
    with running_server("--workers", "1") as server:
        done = run_rig(
            *("search", _address(server), "--slo", "p50<1us and errors<1%", *QUICK),
            *("--from", "200", "--results", str(tmp_path), "--probe", "100ms"),
        )
    # On a busy machine nobody can tell whose fault it is.
    assert done.returncode in (1, 5), done.stderr
    found = json.loads(done.stdout)
    assert found["rate_hz"] is None
    # Lower rates have too few calls in a probe to prove even p50.
    assert 80 <= found["failing_hz"] <= 200


@pytest.mark.parametrize(
    ("end", "status", "said"),
    [
        ("SIGINT", 130, "ended early: Ctrl-C"),
        pytest.param("SIGTERM", 143, "ended early: SIGTERM", marks=pytest.mark.nightly),
        ("server", 1, "ended early: cannot load the server"),
    ],
)
def test_the_probes_that_are_over_are_kept(
    end: str, status: int, said: str, tmp_path: Path
) -> None:
    with (
        running_server("--workers", "1") as server,
        subprocess.Popen(
            command(
                *("search", _address(server), "--slo", "p50<5s", *QUICK, "--probe", "200ms"),
                *("--from", "200", "--results", str(tmp_path)),
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        ) as process,
    ):
        assert process.stderr is not None
        while "probe 3 of" not in process.stderr.readline():
            assert process.poll() is None
        if end == "server":
            server.signal(signal.SIGKILL)
            for worker in server.workers():
                os.kill(worker, signal.SIGKILL)
        else:
            process.send_signal(getattr(signal, end))
        out, rest = process.communicate(timeout=60)
    assert process.returncode == status, rest
    assert said in rest
    assert "Traceback" not in rest
    answer = json.loads(out)
    assert answer["rate_hz"] is None
    assert answer["folder"].startswith(str(tmp_path))
    assert answer["config"]["load"]["connections"] == 4
    assert said.startswith("ended early: ")
    assert answer["ended_early"].startswith(said.removeprefix("ended early: "))
    assert [point["rate_hz"] for point in answer["curve"][:2]] == [200.0, 400.0]
    (folder,) = tmp_path.iterdir()
    document = read_run(folder)
    assert f"ended early: {document['ended_early']}".startswith(said)
    assert [probe["outcome"] for probe in document["probes"][:2]] == ["held", "held"]
    assert read_samples(folder)
    assert run_rig("report", str(folder)).returncode == 0


def test_a_probe_that_proves_nothing_is_refused() -> None:
    done = run_rig(
        *("search", "127.0.0.1:1", "--slo", "p99.9<1ms", "--probe", "1s", "--to", "5000")
    )
    assert done.returncode == 2
    assert "too few calls: p99.9<1ms takes 5,524 calls/s or a longer --probe" in done.stderr


def test_a_mistake_is_one_line() -> None:
    for slo in ("fast", "p99>1ms", "errors<1%"):
        done = run_rig("search", "127.0.0.1:1", "--slo", slo)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)

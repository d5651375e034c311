"""``loadtest sweep`` against a real server."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from running_rig import command, environment, run_rig
from running_server import running_server

from capnp_rig.loadtest.bench.sweep_figures import SweepStep, figures
from capnp_rig.loadtest.results import read_run, read_samples

QUICK = ("--duration", "150ms", "--warmup", "50ms", "--connections", "2", "--no-pin")


def test_each_number_in_flight_is_measured_in_each_round(tmp_path: Path) -> None:
    with running_server("--workers", "1") as server:
        done = run_rig(
            *("sweep", f"127.0.0.1:{server.port}", *QUICK, "--in-flight", "4,1"),
            *("--rounds", "2", "--json", "--results", str(tmp_path)),
        )
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    document, samples = read_run(folder), read_samples(folder)
    assert document["kind"] == "sweep"
    assert document["config"]["in_flight"] == [1, 4]
    steps = [SweepStep(**sample) for sample in samples]
    assert sorted((one.round, one.in_flight) for one in steps) == [(0, 1), (0, 4), (1, 1), (1, 4)]
    assert all(one.calls > 0 and not one.failures for one in steps)
    # Every printed figure can be rebuilt from the raw data.
    rebuilt = [{"name": one.name, "value": one.value} for one in figures(steps)]
    told = json.loads(done.stdout)
    assert (told["folder"], told["checked"]["content"]) == (str(folder), True)
    assert told["environment"]["command"] == document["environment"]["command"]
    for printed in (told["figures"], document["figures"]):
        assert [{"name": one["name"], "value": one["value"]} for one in printed] == rebuilt
    found = {one["name"]: one["value"] for one in document["figures"]}
    # Near 2 and 8 on a quiet machine.
    one_each, four_each = (found[f"2 x {n}: in flight, by Little's law"] for n in (1, 4))
    assert 0 < one_each < four_each


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--in-flight", "1,zero"), "bad number of calls in flight 'zero': expected 1,2,4,…"),
        (("--in-flight", "0"), "bad number of calls in flight '0'"),
    ],
)
def test_a_mistake_is_one_line(options: tuple[str, ...], said: str) -> None:
    done = run_rig("sweep", "127.0.0.1:1", *options)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert said in done.stderr


def test_no_server_is_one_line(tmp_path: Path) -> None:
    done = run_rig("sweep", "127.0.0.1:1", *QUICK, "--results", str(tmp_path))
    assert done.returncode == 1
    assert "cannot load the server" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


# The second line comes after 5 s.
@pytest.mark.parametrize("count", [0, pytest.param(1, marks=pytest.mark.nightly)])
def test_ctrl_c_keeps_the_steps_that_are_over(count: int, tmp_path: Path) -> None:
    with (
        running_server("--workers", "1") as server,
        subprocess.Popen(
            command("sweep", f"127.0.0.1:{server.port}", *QUICK, "--results", str(tmp_path)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        ) as process,
    ):
        assert process.stderr is not None
        assert process.stderr.readline().startswith("0 of 42 done")
        if count:
            assert " of 42 done" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=40)
    assert process.returncode == 130
    assert "Traceback" not in said
    folders = list(tmp_path.iterdir())
    assert len(folders) == bool(count)
    if count:
        assert "ended early: Ctrl-C" in said
        assert "calls/s" in out
        (folder,) = folders
        assert read_run(folder)["ended_early"] == "Ctrl-C"
        assert len(read_samples(folder)) >= count

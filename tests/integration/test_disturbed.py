"""Runs that something beside them disturbs, by a known amount: the rig has to notice."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from running_rig import run_rig
from running_server import ROOT, Running, running_server

CGROUPS = Path("/sys/fs/cgroup")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running_server("--workers", "1") as running:
        yield running


def load(server: Running, folder: Path, *options: str, prefix: tuple[str, ...] = ()) -> Any:
    """Load a server for a second; return the exit status and the summary."""
    where = ("--json", "--results", str(folder), "--duration", "1s", "--warmup", "100ms")
    command = ("run", f"127.0.0.1:{server.port}", *where, *options)
    done = run_rig(*command, within_s=300, prefix=prefix)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def codes(summary: Any) -> dict[str, Any]:
    return {reason["code"]: reason for reason in summary["reason_codes"]}


@contextmanager
def busy_loops(count: int, cpu: int | None = None) -> Iterator[list[int]]:
    """Run so many processes that never sleep, all on one CPU if it is given."""
    pin = "" if cpu is None else f"import os; os.sched_setaffinity(0, [{cpu}])\n"
    loops = [
        subprocess.Popen([sys.executable, "-c", f"{pin}while True: pass"]) for _ in range(count)
    ]
    try:
        yield [loop.pid for loop in loops]
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def test_a_busy_loop_on_the_generators_cpu_voids_the_run_and_is_named(
    server: Running, tmp_path: Path
) -> None:
    with busy_loops(1, cpu=max(os.sched_getaffinity(0))) as (loop,):
        status, summary = load(server, tmp_path)
    assert (status, summary["verdict"], summary["errors"]) == (5, "void", 0)
    waited = codes(summary)["cpu-wait"]
    assert waited["share"] > waited["limit"] == 0.05
    (folder,) = tmp_path.iterdir()
    document = json.loads((folder / "run.json").read_text())
    (observed,) = document["observed"]
    others = observed["surroundings"]["others"]
    # Beside other tests, five may have been busier.
    assert loop in {other["pid"] for other in others} or min(each["cores"] for each in others) > 0.1
    assert {
        figure["verdict"] for figure in document["figures"] if figure["name"] != "failures"
    } == {"void"}


@contextmanager
def throttled(pids: list[int], share: float) -> Iterator[None]:
    """Keep processes from using more than a share of a CPU, by a cgroup of their own."""
    is_v1 = (CGROUPS / "cpu").is_dir()
    group = (CGROUPS / "cpu" if is_v1 else CGROUPS) / f"capnp-rig-test-{os.getpid()}"
    period_us = 20_000
    quota_us = round(period_us * share)
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup of our own: {error}")
    try:
        try:
            if is_v1:
                (group / "cpu.cfs_period_us").write_text(f"{period_us}")
                (group / "cpu.cfs_quota_us").write_text(f"{quota_us}")
            else:
                (group / "cpu.max").write_text(f"{quota_us} {period_us}")
            for pid in pids:
                (group / "cgroup.procs").write_text(f"{pid}")
        except OSError as error:
            pytest.skip(f"no quota of our own: {error}")
        yield
    finally:
        for pid in pids:
            with suppress(OSError):
                (group.parent / "cgroup.procs").write_text(f"{pid}")
        group.rmdir()


def test_a_server_that_its_cgroup_throttles_voids_the_run(server: Running, tmp_path: Path) -> None:
    with throttled(list(server.workers()), share=0.3):
        status, summary = load(server, tmp_path)
    assert (status, summary["verdict"]) == (5, "void")
    throttle = codes(summary)["cpu-throttled"]
    assert throttle["process"] == "server worker 0"
    assert throttle["count"] > 1
    assert throttle["seconds"] > 0


@pytest.mark.nightly
def test_two_busy_loops_beside_a_closed_loop_on_two_cpus(server: Running, tmp_path: Path) -> None:
    with busy_loops(os.cpu_count() or 1):
        status, summary = load(server, tmp_path, "--no-pin")
    assert (status, summary["verdict"]) == (5, "void")
    assert "cpu-wait" in codes(summary)


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_a_generator_at_nice_19_beside_other_work(server: Running, tmp_path: Path) -> None:
    # Beside the engine only: what starts it would take minutes.
    with busy_loops(1, cpu=max(os.sched_getaffinity(0))):
        status, summary = load(server, tmp_path, "--rate", "50", prefix=("nice", "-n", "19"))
    assert (status, summary["verdict"]) == (5, "void")
    assert codes(summary)["cpu-wait"]["process"] == "generator engine 0"


@pytest.mark.nightly
def test_a_service_that_waits_is_not_idle_for_the_machines_sake(tmp_path: Path) -> None:
    options = ("--workers", "1", "--service", "load_services:Waiting")
    with running_server(*options, cwd=ROOT / "tests") as waiting:
        _, summary = load(waiting, tmp_path)
    assert summary["service_us"]["p50"] > 5_000
    # On a busy machine its process waits for a CPU as well, which is the machine's.
    assert "neither-busy" not in codes(summary) or "cpu-wait" in codes(summary)

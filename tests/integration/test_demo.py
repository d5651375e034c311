import contextlib
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from deadline import eventually
from running_rig import command, environment, run_rig
from running_server import alive

from capnp_rig.loadtest.results.load_samples import read_figures, read_load, read_result
from capnp_rig.loadtest.stats.run_summary import figures


def _only_folder(here: Path) -> Path:
    (folder,) = (here / "results").iterdir()
    return folder


def _descendants(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def test_it_serves_loads_and_shows(tmp_path: Path) -> None:
    done = run_rig("demo", "--seconds", "2", "--users", "4", "--allow-void", cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    folder = _only_folder(tmp_path)
    result = read_result(folder)
    assert result.samples is not None
    load = read_load(result.document, result.samples)
    summary = load.summary()
    rebuilt = figures(summary)
    assert read_figures(result.document) == rebuilt
    assert summary.calls > 100
    assert (summary.server_cpu_s or 0) > 0
    for file in ("report.html", "times.csv", "locust.log", "locust_stats.csv", "server.log"):
        assert (folder / file).is_file()
    for figure in rebuilt:
        assert figure.name in done.stdout


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.nightly)],
)
def test_a_signal_ends_everything_it_started(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    with subprocess.Popen(
        command("demo", "--seconds", "60"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        cwd=tmp_path,
    ) as demo:
        try:
            # The supervisor, its worker, and Locust.
            started = eventually(
                lambda: len(found := _descendants(demo.pid)) >= 3 and found, within_s=40
            )
            demo.send_signal(number)
            _, stderr = demo.communicate(timeout=40)
        finally:
            demo.kill()
    assert demo.returncode == status
    assert b"Traceback" not in stderr
    assert started
    eventually(lambda: not [p for p in started if alive(p.pid)], what=str(started))

"""Starts Locust as a user would, with a deadline, and reads what it wrote."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capnp_rig.loadtest.results.load_samples import read_load, read_result
from capnp_rig.loadtest.stats.run_summary import Summary
from capnp_rig.loadtest.stats.tally import Report, Window, add_windows

ROOT = Path(__file__).resolve().parent.parent
LOCUSTFILE = ROOT / "loadtest" / "capnp_user.py"


@dataclass(frozen=True)
class Finished:
    status: int
    output: str


def command(*args: str, locustfile: Path | str = LOCUSTFILE) -> list[str]:
    # Short runs, beside other tests, are void.
    return [sys.executable, "-P", "-m", "locust", "-f", str(locustfile), "--allow-void", *args]


@contextmanager
def locust(
    *args: str, locustfile: Path | str = LOCUSTFILE, **changes: str
) -> Iterator["subprocess.Popen[str]"]:
    """Start Locust in a process group of its own; kill what is left of that in the end."""
    with subprocess.Popen(
        command(*args, locustfile=locustfile),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, **changes},
    ) as process:
        try:
            yield process
        finally:
            # Forked workers outlive a parent that was killed.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def finish(process: "subprocess.Popen[str]", *, within_s: float = 80) -> Finished:
    output, _ = process.communicate(timeout=within_s)
    return Finished(process.returncode, output)


def run_locust(
    *args: str,
    within_s: float = 80,
    locustfile: Path | str = LOCUSTFILE,
    enough: int | None = None,
) -> Finished:
    """Run Locust to its end: when `enough` requests were made, else as `args` say."""
    if enough is None:
        with locust(*args, locustfile=locustfile) as process:
            return finish(process, within_s=within_s)
    files = f"{locustfile},{ROOT / 'tests' / 'enough_requests.py'}"
    with locust(*args, "-t", "60s", locustfile=files, ENOUGH_REQUESTS=str(enough)) as process:
        return finish(process, within_s=within_s)


@dataclass(frozen=True)
class Written:
    """The folder that a run has written."""

    folder: Path
    document: dict[str, Any]
    samples: list[Mapping[str, Any]]
    reports: list[Report]

    @property
    def total(self) -> Window:
        return add_windows(report.total for report in self.reports)

    def summary(self) -> Summary:
        """Return what the raw samples say, all processes added up."""
        return read_load(self.document, self.samples).summary()


def read_results(parent: Path) -> Written:
    """Read the only run in a folder of results."""
    (folder,) = parent.iterdir()
    result = read_result(folder)
    assert result.samples is not None
    reports = list(result.load.reports.values())
    return Written(folder, dict(result.document), list(result.samples), reports)


def read_requests(prefix: Path) -> int:
    """Return Locust's own count of requests from its JSON file."""
    entries = json.loads(prefix.with_suffix(".json").read_text())
    return sum(entry["num_requests"] for entry in entries)


def free_port() -> int:
    """Return a port for Locust's master, which cannot announce one that it chose itself."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])

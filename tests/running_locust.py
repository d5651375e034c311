"""Starts Locust as a user would, with a deadline, and reads what it wrote."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.load_file import read_collector
from loadtest.tally import Collector

ROOT = Path(__file__).resolve().parent.parent
LOCUSTFILE = ROOT / "loadtest" / "capnp_user.py"


@dataclass(frozen=True)
class Finished:
    status: int
    output: str


def command(*args: str, locustfile: Path = LOCUSTFILE) -> list[str]:
    return [sys.executable, "-P", "-m", "locust", "-f", str(locustfile), *args]


@contextmanager
def locust(*args: str, locustfile: Path = LOCUSTFILE) -> Iterator["subprocess.Popen[str]"]:
    """Start Locust in a process group of its own; kill what is left of that in the end."""
    with subprocess.Popen(
        command(*args, locustfile=locustfile),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            yield process
        finally:
            # Forked workers outlive a parent that was killed.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def finish(process: "subprocess.Popen[str]", *, within_s: float = 30) -> Finished:
    output, _ = process.communicate(timeout=within_s)
    return Finished(process.returncode, output)


def run_locust(*args: str, within_s: float = 30, locustfile: Path = LOCUSTFILE) -> Finished:
    with locust(*args, locustfile=locustfile) as process:
        return finish(process, within_s=within_s)


def read_load(file: Path) -> tuple[dict[str, Any], Collector]:
    document = json.loads(file.read_text())
    return document, read_collector(document)


def read_requests(prefix: Path) -> int:
    """Return Locust's own count of requests from its JSON file."""
    entries = json.loads(prefix.with_suffix(".json").read_text())
    return sum(entry["num_requests"] for entry in entries)


def free_port() -> int:
    """Return a port for Locust's master, which cannot announce one that it chose itself."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])

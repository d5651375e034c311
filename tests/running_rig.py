"""Starts the `loadtest` command as a user would."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def command(*args: str) -> list[str]:
    return [sys.executable, "-P", "-m", "capnp_rig.loadtest", *args]


def environment() -> dict[str, str]:
    """Return an environment without a sign of parallel tests."""
    return {name: value for name, value in os.environ.items() if "PYTEST_XDIST" not in name}


def run_rig(
    *args: str, within_s: float = 80, cwd: Path | None = None, prefix: tuple[str, ...] = ()
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*prefix, *command(*args)],
        capture_output=True,
        text=True,
        timeout=within_s,
        env=environment(),
        cwd=cwd,
        check=False,
    )

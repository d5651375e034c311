"""The soak: each engine under all kinds of calls, for `SOAK_S` seconds together.

``tox -e soak`` gives it ten minutes.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from running_server import environment, running_server

TESTS = Path(__file__).resolve().parent.parent
ENGINES = ["wire", "pycapnp"]
SOAK_S = float(os.environ.get("SOAK_S", "30"))
# Calls with capabilities, of both engines: a soak of ten minutes makes 200,000.
CAPABILITY_CALLS = int(200_000 * min(SOAK_S / 600, 1))
# More than one round of all kinds opens: only a full house is refused.
MAX_CONNECTIONS = 256


# Alone: what else is busy shows in the memory of a server that falls behind.
@pytest.mark.alone
@pytest.mark.timeout(SOAK_S + 240)
@pytest.mark.parametrize("engine", ENGINES)
def test_everything_is_at_its_start_after_the_soak(engine: str) -> None:
    seconds = SOAK_S / len(ENGINES)
    args = ["--service", "soak.service:Soaked", "--engine", engine, "--log-level", "error"]
    args += ["--workers", "2", "--max-connections", str(MAX_CONNECTIONS)]
    with running_server(*args, cwd=TESTS) as server:
        command = [sys.executable, "-m", "soak.drive", f"{server.host}:{server.port}"]
        command += ["--pid", str(server.pid), "--engine", engine, "--seconds", str(seconds)]
        command += ["--max-connections", str(MAX_CONNECTIONS)]
        command += ["--capability-calls", str(CAPABILITY_CALLS // len(ENGINES))]
        if "SOAK_SEED" in os.environ:
            command += ["--seed", os.environ["SOAK_SEED"]]
        # A process of its own: what the tests before have left here is no part of its memory.
        driven = subprocess.run(
            command,
            timeout=seconds + 200,
            cwd=TESTS,
            # Threads share one heap: what each of many keeps for itself would pass for a leak.
            env={**environment(), "MALLOC_ARENA_MAX": "1"},
            check=False,
            capture_output=True,
            text=True,
        )
        # Last, where a report that is cut short still has it.
        told = [*server.err.lines[-30:], driven.stderr, driven.stdout]
        assert driven.returncode == 0, "\n".join(told)

"""A Locust process, started as a command."""

import subprocess
from collections.abc import Collection
from pathlib import Path

from capnp_rig.loadtest.bench.rounds import BenchError
from capnp_rig.loadtest.engine.child_process import child_environment, kept_alive, module_command

# Locust's own start and end, on a busy machine.
_GRACE_S = 30.0


def run_locust(
    *arguments: str, log: Path, seconds: float, cpus: Collection[int] | None = None
) -> int:
    """Run Locust, which is told to load for so many seconds, and return its exit status.

    What it prints goes into the file `log`; `cpus` are the only ones it may use, None for all.

    Raises:
        BenchError: It does not end in time.
    """
    with (
        log.open("wb") as stream,
        kept_alive(
            module_command("locust", *arguments, cpus=cpus),
            env=child_environment(),
            stdout=stream,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            return process.wait(seconds + _GRACE_S)
        except subprocess.TimeoutExpired as error:
            raise BenchError("Locust did not end in time") from error

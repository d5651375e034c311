"""What a module of the rig prints when it runs as a command."""

import json
import subprocess
from collections.abc import Collection
from typing import Any

from capnp_rig.loadtest.bench.rounds import BenchError
from capnp_rig.loadtest.engine.child_process import child_environment, kept_alive, module_command


def json_output(
    module: str,
    *arguments: str,
    within_s: float,
    cpus: Collection[int] | None = None,
    **environment: str,
) -> Any:
    """Run a module and return the JSON value that it prints; `cpus` are the only ones it may use.

    Raises:
        BenchError: It failed, and the message has the end of what it printed, or took too long.
    """
    what = " ".join((module.rpartition(".")[2], *arguments))
    with kept_alive(
        module_command(module, *arguments, cpus=cpus),
        env=child_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            output, errors = process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{what} did not end in {within_s:g} s") from error
    if process.returncode:
        raise BenchError(f"{what} failed:\n{tail(errors)}")
    return json.loads(output)


def tail(output: bytes) -> str:
    """Return the last lines of what a process has printed, for a message."""
    return "\n".join(output.decode(errors="replace").splitlines()[-20:])

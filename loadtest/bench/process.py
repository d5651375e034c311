"""The processes of a codec benchmark: pytest for times, `weigh_codec` for memory and sizes."""

import json
import os
import select
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from capnp_rig.loadtest.bench.commands import json_output, tail
from capnp_rig.loadtest.bench.plan import Case, Plan
from capnp_rig.loadtest.bench.rounds import BenchError
from capnp_rig.loadtest.engine.child_process import child_environment, kept_alive, module_command

# Started as a command, not imported: what it loads is its alone.
_BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks" / "bench_codecs.py"
# The slowest case takes a second; the first one also waits for the imports.
_CASE_TIMEOUT_S = 120.0
_WEIGH_TIMEOUT_S = 120.0
# Fixed, it no longer adapts to what was freed: blocks come fresh from the kernel and go back
# there, so the peak is that of the call.
_MAPPED_FROM_BYTES = 128 << 10


def time_cases(
    plan: Plan, process: int, case_s: float, file: Path, done: Callable[[str, str], None]
) -> None:
    """Time a plan's cases in one process; pytest-benchmark writes its result into `file`.

    `done` is called with the name of each case that is done, and why it is void, mostly empty.

    Raises:
        BenchError: The process failed, or took too long.
    """
    reading, writing = os.pipe()
    with TemporaryFile() as output, os.fdopen(reading, "rb", buffering=0) as pipe:
        with kept_alive(
            _timing_command(case_s, plan.min_rounds, file),
            env=_timing_environment(plan.name, process, writing),
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(writing,),
        ) as pytest:
            # The end of the pipe is then the end of the process.
            os.close(writing)
            for case, void in _cases_done(pipe.fileno(), process):
                done(case, void)
            _wait(pytest, process)
        if pytest.returncode or not file.is_file():
            output.seek(0)
            raise BenchError(f"process {process} failed:\n{tail(output.read())}")


def _wait(pytest: "subprocess.Popen[bytes]", process: int) -> None:
    try:
        pytest.wait(_CASE_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"process {process} did not end in {_CASE_TIMEOUT_S:.0f} s") from error


def _cases_done(pipe: int, process: int) -> Iterator[tuple[str, str]]:
    """Yield what the process says until it ends."""
    rest = b""
    while True:
        ready, _, _ = select.select([pipe], [], [], _CASE_TIMEOUT_S)
        if not ready:
            raise BenchError(f"process {process} finished no case in {_CASE_TIMEOUT_S:.0f} s")
        received = os.read(pipe, 1 << 16)
        if not received:
            return
        *lines, rest = (rest + received).split(b"\n")
        for line in lines:
            done = json.loads(line)
            yield done["case"], done.get("void", "")


def _timing_environment(plan: str, process: int, pipe: int) -> dict[str, str]:
    return child_environment(
        # Varied, since the layout of dicts shifts all times of a process, yet repeatable.
        PYTHONHASHSEED=str(process),
        CAPNP_RIG_BENCH_PROCESS=str(process),
        CAPNP_RIG_BENCH_PLAN=plan,
        CAPNP_RIG_BENCH_PIPE=str(pipe),
        # Other plugins, of the user's environment, have no place beside a clock.
        PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
        PYTEST_ADDOPTS="",
    )


def _timing_command(case_s: float, min_rounds: int, file: Path) -> list[str]:
    options = (
        "--benchmark-disable-gc",
        "--benchmark-warmup=on",
        # Calls: the warm-up is then a round, which is a millisecond or a single call. What was
        # verified and calibrated before has warmed up most.
        "--benchmark-warmup-iterations=1",
        "--benchmark-min-time=0.001",
        f"--benchmark-max-time={case_s}",
        f"--benchmark-min-rounds={min_rounds}",
        f"--benchmark-json={file}",
    )
    # The project's own configuration, or any above this folder, is for tests.
    quiet = ("-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(_BENCHMARKS.parent))
    # What a case prints is of no use, and to catch it takes as long as to time it.
    uncaught = ("--capture=no", "-p", "no:warnings")
    plugin = ("-p", "pytest_benchmark.plugin")
    return module_command("pytest", str(_BENCHMARKS), *plugin, *quiet, *uncaught, *options)


def write_frames(message: str, size_bytes: int, folder: Path) -> None:
    """Write what every codec makes of a message into a folder, for `weigh_memory`.

    Raises:
        BenchError: The process failed, or took too long.
    """
    _weigh("frames", message, str(size_bytes), str(folder))


def weigh_memory(case: Case, folder: Path) -> dict[str, Any]:
    """Return how much memory a case takes at its peak, measured in a process of its own.

    Raises:
        BenchError: It failed, or took too long.
    """
    place = (case.message, str(case.size_bytes), str(folder), case.codec, case.contract)
    weights: dict[str, Any] = _weigh("peak", *place)
    return weights


def weigh_sizes(message: str, size_bytes: int) -> Sequence[dict[str, Any]]:
    """Return how large a message is by every codec, also compressed.

    Raises:
        BenchError: The process failed, or took too long.
    """
    sizes: Sequence[dict[str, Any]] = _weigh("sizes", message, str(size_bytes))
    return sizes


def _weigh(*arguments: str) -> Any:
    return json_output(
        "capnp_rig.loadtest.benchmarks.weigh_codec",
        *arguments,
        within_s=_WEIGH_TIMEOUT_S,
        PYTHONHASHSEED="0",
        MALLOC_MMAP_THRESHOLD_=str(_MAPPED_FROM_BYTES),
    )

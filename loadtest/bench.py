"""Drives the codec benchmarks: fresh pytest processes, their samples, the result's folder."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtest import record
from loadtest.bench_plan import Sample, figures, sample_to_json, samples_of
from loadtest.child import child_environment, kept_alive
from loadtest.results import (
    Figure,
    folder_name,
    make_folder,
    run_document,
    write_run,
    write_samples,
)

_BENCHMARKS = Path(__file__).resolve().parent / "benchmarks" / "bench_codecs.py"
_PROCESS_TIMEOUT_S = 120.0


class BenchError(Exception):
    """A benchmark process failed; the message has the end of what it printed."""


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """What to measure: fresh processes, and the seconds that each case gets in each."""

    processes: int = 12
    case_s: float = 0.04
    min_rounds: int = 10
    results: Path = Path("results")


@dataclass(frozen=True, slots=True)
class Progress:
    """Processes done of all, and the seconds that the rest will take, None before the first."""

    done: int
    total: int
    left_s: float | None


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class BenchResult:
    """Where a run was written, and its figures."""

    folder: Path
    figures: list[Figure]


def run(config: BenchConfig, report: Report) -> BenchResult:
    """Measure, write the result, and return it; `report` is called with the progress.

    Raises:
        BenchError: A process failed, or took too long.
        OSError: The result cannot be written.
    """
    environment = record.environment()
    now = datetime.now(UTC)
    folder = make_folder(config.results, folder_name(now, environment["commit"]))
    samples = list(_measure(config, folder / "bench", report))
    found = figures(samples)
    document = run_document("bench", _plain(config), environment, found, started=now.isoformat())
    write_samples(folder, map(sample_to_json, samples))
    write_run(folder, document)
    return BenchResult(folder, found)


def _plain(config: BenchConfig) -> dict[str, Any]:
    return {name: str(v) if isinstance(v, Path) else v for name, v in asdict(config).items()}


def _measure(config: BenchConfig, folder: Path, report: Report) -> Iterator[Sample]:
    folder.mkdir()
    processes = list(range(config.processes))
    random.Random(0).shuffle(processes)  # noqa: S311 - repeatable, not secret
    started_s = time.monotonic()
    report(Progress(0, config.processes, None))
    for done, process in enumerate(processes, start=1):
        file = folder / f"process-{process:02d}.json"
        _run_process(config, process, file)
        yield from samples_of(process, json.loads(file.read_text(encoding="utf-8")))
        each_s = (time.monotonic() - started_s) / done
        report(Progress(done, config.processes, each_s * (config.processes - done)))


def _run_process(config: BenchConfig, process: int, file: Path) -> None:
    with kept_alive(
        _command(config, file),
        env=_environment(process),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as child:
        try:
            output, _ = child.communicate(timeout=_PROCESS_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"process {process} took over {_PROCESS_TIMEOUT_S:.0f} s") from error
        if child.returncode or not file.is_file():
            raise BenchError(f"process {process} failed:\n{_tail(output)}")


def _tail(output: bytes) -> str:
    return "\n".join(output.decode(errors="replace").splitlines()[-20:])


def _environment(process: int) -> dict[str, str]:
    return child_environment(
        # Varied, since the layout of dicts shifts all times of a process, yet repeatable.
        PYTHONHASHSEED=str(process),
        CAPNP_RIG_BENCH_PROCESS=str(process),
        # Other plugins, of the user's environment, have no place beside a clock.
        PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
        PYTEST_ADDOPTS="",
    )


def _command(config: BenchConfig, file: Path) -> list[str]:
    options: Iterable[str] = (
        "--benchmark-disable-gc",
        "--benchmark-warmup=on",
        "--benchmark-warmup-iterations=1000",
        "--benchmark-min-time=0.001",
        f"--benchmark-max-time={config.case_s}",
        f"--benchmark-min-rounds={config.min_rounds}",
        f"--benchmark-json={file}",
    )
    # The project's own configuration, or any above this folder, is for tests.
    quiet = ("-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(_BENCHMARKS.parent))
    plugin = ("-p", "pytest_benchmark.plugin")
    pytest = (sys.executable, "-P", "-m", "pytest", str(_BENCHMARKS))
    return [*pytest, *plugin, *quiet, *options]

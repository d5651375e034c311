"""Runs a codec benchmark: processes in shuffled order, then weights; its figures and its folder."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from capnp_rig.loadtest.bench.case_times import CaseTimes, case_times_of, case_times_to_json
from capnp_rig.loadtest.bench.copy_ledger import LEDGER
from capnp_rig.loadtest.bench.figures import figures
from capnp_rig.loadtest.bench.plan import PLANS, Case, Plan, groups, memory_cases
from capnp_rig.loadtest.bench.process import (
    time_cases,
    weigh_memory,
    weigh_sizes,
    write_frames,
)
from capnp_rig.loadtest.bench.rounds import BenchError, turns
from capnp_rig.loadtest.codecs.messages import DATA_SEED
from capnp_rig.loadtest.codecs.protobuf_upb import BACKEND
from capnp_rig.loadtest.engine.cpu_pin import two_cpus
from capnp_rig.loadtest.engine.early_end import EarlyEnd, kept_steps
from capnp_rig.loadtest.engine.progress import ShowProgress, StepClock, Steps
from capnp_rig.loadtest.results.record import version
from capnp_rig.loadtest.results.writing import Origin, WrittenResult, write_result
from capnp_rig.loadtest.stats.messages import Message

_SCHEMAS = Path(__file__).resolve().parents[2] / "schema"
_CODEC_PACKAGES = (
    "orjson",
    "pybase64",
    "msgspec",
    "msgpack",
    "protobuf",
    "flatbuffers",
    "numpy",
    "pyarrow",
    "zstandard",
    "pycapnp",
)
# What a weighing takes, mostly imports, until one was timed.
_WEIGHING_S = 0.6


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """What to measure: a plan of `loadtest.bench.plan`, and what differs from it.

    `processes` and `case_s`, the seconds that each case gets in each process, are the plan's
    where they are None.
    """

    plan: str = "full"
    processes: int | None = None
    case_s: float | None = None
    results: Path = Path("results")


def run(config: BenchConfig, show: ShowProgress) -> tuple[WrittenResult, EarlyEnd | None]:
    """Measure, write the result, and return it, with why it ended early if it did.

    `show` is called with the progress. A benchmark that Ctrl-C, SIGTERM or a failure ends has the
    processes that were over by then.

    Raises:
        BenchError: The first process failed, or took too long.
        KeyboardInterrupt, Terminated: It was stopped before the first process was over.
    """
    plan = PLANS[config.plan]
    processes = config.processes or plan.processes
    case_s = config.case_s or plan.case_s
    origin = Origin.now(codecs=_codec_versions())
    cases = sum(map(len, groups(plan)))
    weighings = len(memory_cases(plan)) * plan.memory_processes + len(plan.encoded)
    timing, weighing = Steps(processes * cases), Steps(weighings, _WEIGHING_S)
    clock = StepClock(show, timing, weighing)
    samples: list[CaseTimes] = []
    memory: list[Mapping[str, Any]] = []
    sizes: list[Mapping[str, Any]] = []

    def steps() -> Iterator[None]:
        for times in _time(plan, processes, case_s, folder / "bench", lambda: clock.step(timing)):
            samples.extend(times)
            yield
        for weight in _weigh_memory(plan, clock, weighing):
            memory.append(weight)
            yield
        for weight in _weigh_sizes(plan, lambda: clock.step(weighing)):
            sizes.append(weight)
            yield

    with origin.folder(config.results) as folder:
        _, early_end = kept_steps(steps(), BenchError)
        written = write_result(
            "bench",
            origin,
            folder,
            config=_config(config, processes, case_s),
            figures=figures(plan, samples, memory, sizes),
            samples=map(case_times_to_json, samples),
            memory=memory,
            sizes=sizes,
            copies=[asdict(path) for path in LEDGER],
            ended_early=None if early_end is None else early_end.text,
        )
    return written, early_end


def _config(config: BenchConfig, processes: int, case_s: float) -> dict[str, Any]:
    return {
        "plan": config.plan,
        "processes": processes,
        "case_s": case_s,
        "min_rounds": PLANS[config.plan].min_rounds,
        "results": config.results,
        "data_seed": DATA_SEED,
        "hash_seed": "the number of the process",
        "gc": "off, but for the rows that say so",
        "transports": "blocking sockets; RPC from wire's connection to the server's engine",
        # Of the peers, and of the timer; None where there is one only.
        "transport_cpus": two_cpus(),
        "schema_sha256": {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(_SCHEMAS.glob("*.capnp"))
        },
    }


def _codec_versions() -> dict[str, str]:
    return {"protobuf backend": BACKEND} | {name: version(name) for name in _CODEC_PACKAGES}


def _time(
    plan: Plan, processes: int, case_s: float, folder: Path, step: Callable[[], None]
) -> Iterator[list[CaseTimes]]:
    """Yield the times of one process after the other."""
    folder.mkdir()
    cases = {case.name: case for group in groups(plan) for case in group}
    voids: dict[Case, str] = {}

    def done(name: str, void: str) -> None:
        if void:
            voids[cases[name]] = void
        step()

    for turn in turns(1, (plan,), range(processes)):
        file = folder / f"process-{turn.role:02d}.json"
        voids.clear()
        time_cases(plan, turn.role, case_s, file, done)
        timed = json.loads(file.read_text(encoding="utf-8"))
        yield list(case_times_of(turn.role, timed, voids))


def _weigh_memory(plan: Plan, clock: StepClock, weighing: Steps) -> Iterator[Mapping[str, Any]]:
    with TemporaryDirectory() as folder:
        for message, size_bytes in plan.memory.items():
            write_frames(message, size_bytes, _subfolder(folder, message))
        clock.pass_over()
        for number in range(plan.memory_processes):
            for case in memory_cases(plan):
                yield {
                    "process": number,
                    **weigh_memory(case, _subfolder(folder, Message(case.message))),
                }
                clock.step(weighing)


def _subfolder(folder: str, message: Message) -> Path:
    subfolder = Path(folder) / message
    subfolder.mkdir(exist_ok=True)
    return subfolder


def _weigh_sizes(plan: Plan, step: Callable[[], None]) -> Iterator[Mapping[str, Any]]:
    for message, size_bytes in plan.encoded.items():
        yield from weigh_sizes(message, size_bytes)
        step()

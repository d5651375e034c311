"""``loadtest compare`` of two servers: fresh ones in each block, by turns, under one generator."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

from capnp_rig.loadtest.ab.block import BlockPlan, Server, measured_blocks
from capnp_rig.loadtest.ab.blocks import Blocks
from capnp_rig.loadtest.ab.course import Course
from capnp_rig.loadtest.ab.judging import (
    Asked,
    comparison_of,
    figures,
    is_decided,
    judge_blocks,
    measured,
)
from capnp_rig.loadtest.bench.rounds import AGAIN, BASELINE, CANDIDATE
from capnp_rig.loadtest.compare import Comparison
from capnp_rig.loadtest.engine.early_end import EarlyEnd, kept_steps
from capnp_rig.loadtest.engine.engine_runs import EngineFailed
from capnp_rig.loadtest.engine.progress import Progress, ShowProgress
from capnp_rig.loadtest.engine.run import RunConfig
from capnp_rig.loadtest.engine.server_process import ServerFailed
from capnp_rig.loadtest.protocols import load_any_workload
from capnp_rig.loadtest.results.writing import Origin, WrittenResult, write_result
from capnp_rig.loadtest.stats.failures import FailedCall
from capnp_rig.loadtest.stats.pair_statistics import MARGIN
from capnp_rig.loadtest.stats.run_summary import LIMITS
from capnp_rig.rigcli.address import Addresses

KIND = "ab"


@dataclass(frozen=True, slots=True)
class AbConfig:
    """Two servers, each the words of a command, or addresses, and the `load` of both.

    A block has `rounds` rounds, in which each server has a turn of `turn_s`. There are `blocks` of
    them, None for as many as `max_time_s` has room for. `metrics` are those that are judged, all
    where it is empty.

    With short turns both servers meet the same disturbances: on a busy machine of two CPUs the A/A
    of a block scattered by 2 to 3 % with 40 turns of 20 ms, by 4 to 5 % with 8 of 100 ms.
    """

    baseline: Server
    candidate: Server
    load: RunConfig
    turn_s: float = 0.02
    rounds: int = 40
    blocks: int | None = None
    max_time_s: float = 180.0
    margin: float = MARGIN
    metrics: tuple[str, ...] = ()

    @property
    def plan(self) -> BlockPlan:
        """What each block does."""
        servers = {BASELINE: self.baseline, CANDIDATE: self.candidate, AGAIN: self.baseline}
        return BlockPlan(servers, self.load, self.turn_s, self.rounds)

    @property
    def asked(self) -> Asked:
        """What is to be judged, and how."""
        return Asked(
            margin=self.margin,
            metrics=self.metrics,
            are_fresh=not isinstance(self.baseline, Addresses),
            unchecked=self.load.unchecked,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values: those of the load, and those of the comparison."""
        load = self.load.to_json()
        for name in ("address", "seconds", "calls", "repeats"):
            del load[name]
        sides = {
            role: str(side) if isinstance(side, Addresses) else list(side)
            for role, side in ((BASELINE, self.baseline), (CANDIDATE, self.candidate))
        }
        names = ("turn_s", "rounds", "blocks", "max_time_s", "margin", "metrics")
        return {**load, **sides, **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True, slots=True)
class AbResult:
    """Where a comparison was written, and what it says.

    `failures` counts calls that failed or have no answer, by role and kind, and `examples` has the
    first of each role. `early_end` is what ended it before its plan, None where nothing did.
    """

    written: WrittenResult
    comparison: Comparison
    failures: Counter[tuple[str, str]]
    examples: Mapping[str, FailedCall]
    early_end: EarlyEnd | None


def run(config: AbConfig, show: ShowProgress) -> AbResult:
    """Compare the servers, write the result, and return it.

    Ctrl-C, SIGTERM and what fails leave the blocks that are over.

    Raises:
        WorkloadError: What to send is unusable.
        ServerFailed, EngineFailed: One failed before a block was over.
        NoTime: There is no time for six blocks.
        KeyboardInterrupt, Terminated: It was stopped before a block was over.
    """
    label = load_any_workload(config.load.stack, config.load.workload).label
    origin = Origin.now(config.load.name)
    folder = origin.make_folder(config.load.results)
    course = Course(config.max_time_s, config.blocks)
    try:
        steps, early_end = kept_steps(
            _measured(config, folder, course, show), ServerFailed, EngineFailed
        )
    except BaseException:
        rmtree(folder, ignore_errors=True)
        raise
    blocks = steps[-1]
    rows = judge_blocks(blocks, course.level, config.asked)
    if not (course.is_at_look and is_decided(rows)):
        course.end()
        rows = judge_blocks(blocks, course.level, config.asked)
    comparison = comparison_of(rows, blocks, course, config.asked, early_end)
    written = write_result(
        KIND,
        origin,
        folder,
        config=config.to_json(),
        figures=figures(rows, f"{config.load.connections} x {config.load.in_flight}"),
        samples=blocks.samples(),
        workload=label,
        limits=dict(LIMITS),
        ended_early=None if early_end is None else early_end.text,
        comparison=comparison.to_json(),
        course=asdict(course),
        surroundings=blocks.surroundings.to_json(),
        values={each.name: each.values for each in measured(blocks)},
    )
    return AbResult(written, comparison, blocks.failures, blocks.examples, early_end)


def _measured(
    config: AbConfig, folder: Path, course: Course, show: ShowProgress
) -> Iterator[Blocks]:
    """Yield all blocks so far, with each that is over, until they tell or there is no room."""
    started_s = time.monotonic()
    blocks = Blocks(is_open_loop=config.load.rate_hz is not None)
    with measured_blocks(config.plan, folder) as measure:
        while course.has_room(time.monotonic() - started_s):
            from_s = time.monotonic()
            _tell(course, show, from_s - started_s)
            blocks = blocks.plus(measure())
            until_s = time.monotonic()
            course.add(until_s - from_s, until_s - started_s)
            yield blocks
            if blocks.failures or (
                course.is_due() and is_decided(judge_blocks(blocks, course.level, config.asked))
            ):
                break
    _tell(course, show, time.monotonic() - started_s)


def _tell(course: Course, show: ShowProgress, passed_s: float) -> None:
    planned = f" of at most {course.planned}" if course.planned else ""
    note = f"{course.done}{planned} blocks done"
    show(Progress(course.done, course.planned or 1, course.left_s(passed_s), note))

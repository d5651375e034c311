"""Any servers of one schema under one load: started, pinned, by turns, round after round.

A round is a block: fresh processes of all servers, and of the first one two, side by side on the
first CPU, take turns under one generator on the last. Of each is measured what ``loadtest compare``
measures of two.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capnp_rig.loadtest.ab.block import BlockPlan, measured_blocks
from capnp_rig.loadtest.ab.blocks import Blocks
from capnp_rig.loadtest.ab.servers_figures import again, figures
from capnp_rig.loadtest.engine.early_end import EarlyEnd, kept_steps
from capnp_rig.loadtest.engine.engine_runs import EngineFailed
from capnp_rig.loadtest.engine.progress import ShowProgress, StepClock, Steps
from capnp_rig.loadtest.engine.run import RunConfig
from capnp_rig.loadtest.engine.server_process import ServerFailed
from capnp_rig.loadtest.protocols import load_any_workload
from capnp_rig.loadtest.results.writing import Origin, WrittenResult, write_result
from capnp_rig.loadtest.stats.failures import FailedCall
from capnp_rig.loadtest.stats.run_summary import LIMITS

KIND = "bench-servers"
# As short as `compare` has them: what disturbs falls on all servers.
TURN_S = 0.1
# What a round takes to start and end its servers, until the first is done.
_START_S = 2.0


@dataclass(frozen=True, slots=True)
class BenchServersConfig:
    """The `servers` by name, each the words of a command, and the `load` of all of them.

    In each of `rounds` rounds each server is loaded for `seconds`.
    """

    servers: Mapping[str, tuple[str, ...]]
    load: RunConfig
    rounds: int = 12
    seconds: float = 1.0

    @property
    def plan(self) -> BlockPlan:
        """What each round does: the first server is there twice, and knows what is right."""
        first, words = next(iter(self.servers.items()))
        turns = max(1, round(self.seconds / TURN_S))
        servers = {**self.servers, again(first): words}
        return BlockPlan(servers, self.load, self.seconds / turns, turns, must_agree=True)

    @property
    def place(self) -> str:
        """The load in short."""
        rate = "" if self.load.rate_hz is None else f", {self.load.rate_hz:g} calls/s"
        return f"{self.load.connections} x {self.load.in_flight}{rate}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values: those of the load, and the servers."""
        load = self.load.to_json()
        for name in ("address", "seconds", "calls", "repeats"):
            del load[name]
        servers = {name: list(words) for name, words in self.servers.items()}
        return {**load, "servers": servers, "rounds": self.rounds, "seconds": self.seconds}


# What differs in a quick run.
QUICK: Mapping[str, Any] = {"rounds": 6, "seconds": 0.3}


@dataclass(frozen=True, slots=True)
class BenchServersResult:
    """Where it was written; `failures` counts calls that failed or were answered wrongly.

    They go by the name of the server and the kind of failure; `examples` has the first of each
    server. `early_end` is what ended it before its last round, None where nothing did.
    """

    written: WrittenResult
    failures: Counter[tuple[str, str]]
    examples: Mapping[str, FailedCall]
    early_end: EarlyEnd | None


def run(config: BenchServersConfig, show: ShowProgress) -> BenchServersResult:
    """Measure the servers, write the result, and return it.

    Ctrl-C, SIGTERM and what fails leave the rounds that are over; a failed call ends it after its
    round.

    Raises:
        WorkloadError: What to send is unusable.
        ServerFailed, EngineFailed: One failed in the first round.
        KeyboardInterrupt, Terminated: It was stopped before the first round was over.
        OSError: The result cannot be written.
    """
    label = load_any_workload(config.load.stack, config.load.workload).label
    origin = Origin.now(config.load.name)
    with origin.folder(config.load.results) as folder:
        rounds, early_end = kept_steps(_rounds(config, folder, show), ServerFailed, EngineFailed)
        blocks = rounds[-1]
        written = write_result(
            KIND,
            origin,
            folder,
            config=config.to_json(),
            figures=figures(list(config.servers), config.place, blocks),
            samples=blocks.samples(),
            workload=label,
            limits=dict(LIMITS),
            unchecked=[reason.text for reason in config.load.unchecked],
            ended_early=None if early_end is None else early_end.text,
            surroundings=blocks.surroundings.to_json(),
        )
    return BenchServersResult(written, blocks.failures, blocks.examples, early_end)


def _rounds(config: BenchServersConfig, folder: Path, show: ShowProgress) -> Iterator[Blocks]:
    """Yield all rounds so far, with each that is over."""
    each_s = (config.seconds + config.load.warmup_s) * (1 + len(config.servers)) + _START_S
    steps = Steps(config.rounds, guess_s=each_s)
    clock = StepClock(show, steps)
    blocks = Blocks(is_open_loop=config.load.rate_hz is not None)
    with measured_blocks(config.plan, folder) as measure:
        for _ in range(config.rounds):
            blocks = blocks.plus(measure())
            clock.step(steps)
            yield blocks
            if blocks.failures:
                break

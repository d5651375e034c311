"""``loadtest sweep``: rate, service times and CPU per call against the calls in flight.

Closed loops, one after the other, each by fresh generator processes. The roles of a round are the
numbers of calls in flight.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from capnp_rig.loadtest.bench.rounds import rounds
from capnp_rig.loadtest.bench.sweep_figures import SweepStep, figures
from capnp_rig.loadtest.engine.early_end import EarlyEnd, kept_steps
from capnp_rig.loadtest.engine.progress import ShowProgress
from capnp_rig.loadtest.engine.run import RunConfig, RunError, measure
from capnp_rig.loadtest.engine.server_usage import local_servers
from capnp_rig.loadtest.protocols import load_any_workload
from capnp_rig.loadtest.results.writing import Origin, WrittenResult, write_result
from capnp_rig.loadtest.stats.histogram import Histogram, merge
from capnp_rig.loadtest.stats.run_summary import (
    LIMITS,
    checked,
    plain_examples,
    summarize,
    walks_json,
)

# A process that starts and connects, beside its load, until the first has shown what it takes.
_OVERHEAD_S = 0.7


@dataclass(frozen=True, slots=True)
class SweepConfig:
    """A sweep over numbers of calls `in_flight` per connection, `rounds` times each.

    `load` says how each step is made, its `seconds` among the rest; its own `in_flight` and
    `rate_hz` are ignored.
    """

    load: RunConfig
    in_flight: tuple[int, ...]
    rounds: int = 6


def run(config: SweepConfig, show: ShowProgress) -> tuple[WrittenResult, EarlyEnd | None]:
    """Sweep, write the result, and return it, with why the sweep ended early if it did.

    A sweep that Ctrl-C, SIGTERM or a dying server ends has the steps that were over by then.

    Raises:
        WorkloadError: What to send is unusable.
        RunError: An engine process failed in the first step.
        OSError: The result cannot be written.
        KeyboardInterrupt: Somebody stopped it before the first step was over.
    """
    label = load_any_workload(config.load.stack, config.load.workload).label
    origin = Origin.now(config.load.name)
    steps, early_end = kept_steps(_steps(config, show), RunError)
    written = write_result(
        "sweep",
        origin,
        origin.make_folder(config.load.results),
        config=_plain(config),
        figures=figures(steps),
        samples=map(asdict, steps),
        workload=label,
        limits=dict(LIMITS),
        ended_early=None if early_end is None else early_end.text,
        checked=checked(config.load.unchecked),
        failed_calls=[each for step in steps for each in step.failed_calls],
        walks=walks_json(merge(Histogram.from_json(step.walks) for step in steps if step.walks)),
    )
    return written, early_end


def _plain(config: SweepConfig) -> dict[str, Any]:
    load = config.load.to_json()
    # Of a closed loop whose calls in flight are what is swept.
    for name in ("in_flight", "rate_hz", "arrivals", "calls", "repeats"):
        del load[name]
    return {"load": load, "in_flight": list(config.in_flight), "rounds": config.rounds}


def _steps(config: SweepConfig, show: ShowProgress) -> Iterator[SweepStep]:
    server = local_servers(config.load.addresses)
    assert config.load.seconds is not None
    guess_s = config.load.seconds + config.load.warmup_s + _OVERHEAD_S
    chosen = rounds(
        config.rounds,
        (config.load.connections,),
        config.in_flight,
        show,
        seed=config.load.seed,
        guess_s=guess_s,
    )
    for repeat, turn in enumerate(chosen):
        load = replace(config.load, in_flight=turn.role, rate_hz=None, calls=None)
        measured = measure(load, server, repeat=repeat)
        measured.raise_signal()
        if measured.lost:
            raise RunError(f"an engine was lost: {measured.lost[0]}")
        seen = summarize([measured.part])
        yield SweepStep(
            turn.number,
            turn.order,
            turn.unit,
            turn.role,
            calls=seen.calls,
            seconds=measured.part.seconds,
            busy=seen.busy,
            server_cpu_s=seen.server_cpu_s,
            steal=measured.steal,
            failures=dict(seen.failures),
            failed_calls=plain_examples([seen]),
            service=seen.service.to_json(),
            surroundings=measured.surroundings.to_json(),
            walks=seen.walks.to_json() if seen.walks.count else None,
        )

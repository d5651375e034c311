"""What a call costs a server: by what its method does, and by the number of workers.

``python -m capnp_rig.loadtest.benchmarks.service_cost [--rounds 12] [--turn 0.1]``

Each round starts three servers of `cost_service`: two with one worker, one with two. Every case has
ten short turns in it, all in shuffled order and under one generator, so that they meet the same
disturbances. The methods of a group get the same params: what one costs more than the first, which
reads nothing, is its body. A wrong reply ends the benchmark.

The generator has the last CPU, the servers the first, and a second worker another where there are
three. Where there are two, both workers share one: their CPU per call still tells what each would
do on one of its own.
"""

import json
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from os import sched_getaffinity
from pathlib import Path
from typing import Any

import click

from capnp_rig.loadtest.bench.rounds import BenchError, cpu_each
from capnp_rig.loadtest.cli.progress import shown_progress
from capnp_rig.loadtest.cli.terminal import stdout
from capnp_rig.loadtest.engine.engine_runs import EngineFailed
from capnp_rig.loadtest.engine.kernel_counters import ProcessTable
from capnp_rig.loadtest.engine.process import EngineConfig
from capnp_rig.loadtest.engine.progress import STEADY, ShowProgress, StepClock, Steps
from capnp_rig.loadtest.engine.round_engine import RoundEngine, round_engine
from capnp_rig.loadtest.engine.server_process import ServerFailed, running_server
from capnp_rig.loadtest.engine.server_usage import WatchedProcess, read_usage
from capnp_rig.loadtest.report.document import Cell, Row, Table
from capnp_rig.loadtest.report.terminal import show
from capnp_rig.loadtest.report.units import digits, with_interval
from capnp_rig.loadtest.stats.disturbance import (
    SERVER,
    Surroundings,
    disturbances,
    pooled,
    process_windows,
)
from capnp_rig.loadtest.stats.pair_statistics import Interval, interval_of_median, paired_ratio
from capnp_rig.loadtest.stats.process_use import cpu_s_between
from capnp_rig.loadtest.stats.reasons import text_of
from capnp_rig.loadtest.workload import WorkloadConfig
from capnp_rig.rigcli.finite_numbers import FiniteFloat

_SERVICE = "capnp_rig.loadtest.benchmarks.cost_service:Costs"
# Of each server of a round; the second tells how far the first is from itself.
_WORKERS = (1, 1, 2)
# Of each worker.
_CONNECTIONS, _IN_FLIGHT = 8, 16
_PASSES, _TIMEOUT_S = 10, 15.0

_TEXT, _VALUES = "a text of thirty-two characters!", list(range(1000))
_SMALL = json.dumps({"number": 7, "text": _TEXT})
_LARGE = json.dumps({"number": 7, "values": _VALUES})


@dataclass(frozen=True, slots=True)
class Case:
    """Calls of `method` on one of the servers of a round; `params` and `expect` are JSON objects.

    `shown` says what is measured.
    """

    shown: str
    method: str
    params: str
    expect: str
    server: int = 0


def _case(shown: str, method: str, params: str, server: int = 0, **expect: Any) -> Case:
    return Case(shown, method, params, json.dumps(expect), server)


# The first case of each group is what the others are compared with.
SMALL = (
    _case("def that reads nothing", "nothing", _SMALL, number=0, text=""),
    _case("def, a number read and returned", "number", _SMALL, number=7),
    _case("the same, async def", "coroutine", _SMALL, number=7),
    _case("the same, async def, a turn of the loop later", "waiting", _SMALL, number=7),
    _case("def, Text read, its length returned", "length", _SMALL, number=len(_TEXT)),
    _case("def, Text read and returned", "text", _SMALL, text=_TEXT),
)
LARGE = (
    _case("def that reads nothing", "nothing", _LARGE, number=0, text=""),
    _case("def, numpy view", "view", _LARGE, number=len(_VALUES)),
    _case("the same, async def, whose message is copied", "copied", _LARGE, number=len(_VALUES)),
    _case("def, sum of the numpy view", "sum", _LARGE, total=sum(_VALUES)),
    _case("def, sum without numpy", "floats", _LARGE, total=sum(_VALUES)),
)
WORKERS = tuple(
    _case(shown, "number", _SMALL, server, number=7)
    for server, shown in enumerate(("one worker", "one worker again", "two workers"))
)
CASES = (*SMALL, *LARGE, *WORKERS)


@dataclass(frozen=True, slots=True)
class Turn:
    """What a turn of a case came to: `calls` answered, for `cpu_s` of all the server's processes.

    `window` says how the machine treated them, None where workers share a CPU.
    """

    case: Case
    calls: int
    cpu_s: float
    window: Surroundings | None = None


# --- measuring --------------------------------------------------------------------------------


def measure(rounds: int, turn_s: float, show_progress: ShowProgress) -> list[list[Turn]]:
    """Return the turns, of `turn_s` each, of so many rounds.

    Raises:
        BenchError, ServerFailed, EngineFailed: There is one CPU only, or something failed.
    """
    cpu_each("the servers", "the generator")
    steps, measured = Steps(rounds), list[list[Turn]]()
    clock = StepClock(show_progress, steps)
    for number in range(rounds):
        measured.append(list(_turns(number, turn_s)))
        clock.step(steps)
    return measured


def _turns(number: int, turn_s: float) -> Iterator[Turn]:
    *cpus, generator_cpu = sorted(sched_getaffinity(0))
    rng = random.Random(number)
    with ExitStack() as resources:
        folder = Path(resources.enter_context(tempfile.TemporaryDirectory()))
        servers = [
            resources.enter_context(
                running_server(
                    workers=workers,
                    log=folder / f"{at}.log",
                    options=("--service", _SERVICE, "--log-level", "error"),
                    cpus=cpus[:workers],
                )
            )
            for at, workers in enumerate(_WORKERS)
        ]
        engine = resources.enter_context(round_engine(generator_cpu, _TIMEOUT_S))
        for case in CASES:
            engine.connect(_load_of(case, servers[case.server].address))
        processes = [server.parts() for server in servers]
        for case in CASES:
            _turn(engine, case, processes[case.server], turn_s)
        for _ in range(_PASSES):
            for case in rng.sample(CASES, len(CASES)):
                turn = _turn(engine, case, processes[case.server], turn_s)
                shares_cpu = _WORKERS[case.server] > len(cpus)
                yield replace(turn, window=None) if shares_cpu else turn
        _require_right_replies(engine)
        # Servers wait for their connections before they end.
        engine.leave()


def _load_of(case: Case, address: str) -> EngineConfig:
    return EngineConfig(
        address=address,
        connections=_CONNECTIONS * _WORKERS[case.server],
        in_flight=_IN_FLIGHT,
        workload=WorkloadConfig(
            schema="costs.capnp", method=case.method, params=case.params, expect=case.expect
        ),
        timeout_s=_TIMEOUT_S,
    )


def _turn(
    engine: RoundEngine, case: Case, processes: Sequence[WatchedProcess], seconds: float
) -> Turn:
    before = read_usage(processes)
    engine.begin(CASES.index(case), seconds)
    turn = engine.turn(seconds)
    after = read_usage(processes)
    cpu_s = cpu_s_between(before, after)
    if cpu_s is None or not turn.calls:
        raise BenchError(f"{case.method}: the server ended, or answered nothing rightly")
    windows = process_windows(SERVER, before, after, turn.seconds)
    return Turn(case, turn.calls, cpu_s, Surroundings(tuple(windows)))


def _require_right_replies(engine: RoundEngine) -> None:
    for at, case in enumerate(CASES):
        failures = engine.report(at).total.failures
        if failures:
            raise BenchError(f"{case.method}: {dict(failures)}")


# --- figures ----------------------------------------------------------------------------------


def costs_us(rounds: Iterable[Sequence[Turn]]) -> dict[Case, list[float]]:
    """Return the CPU µs per call of each case, a value per round."""
    costs: dict[Case, list[float]] = {case: [] for case in CASES}
    for turns in rounds:
        for case, values in costs.items():
            own = [turn for turn in turns if turn.case == case]
            values.append(sum(turn.cpu_s for turn in own) / sum(turn.calls for turn in own) * 1e6)
    return costs


def tables(costs: Mapping[Case, Sequence[float]]) -> Iterator[Table]:
    """Yield the tables of all groups from their CPU µs per call, a value per round.

    They have medians and, from six rounds on, 95 % intervals.
    """
    small, large = f"a number and a Text of {len(_TEXT)} characters", f"{len(_VALUES):,} Float32"
    for params, cases in ((small, SMALL), (large, LARGE)):
        yield _table(f"Params: {params}", "method", cases, costs, "µs more than the first", _more)
    yield _table("Workers", "server", WORKERS, costs, "times the first", _times)


def _more(first: Sequence[float], other: Sequence[float]) -> Interval:
    return interval_of_median([b - a for a, b in zip(first, other, strict=True)])


def _times(first: Sequence[float], other: Sequence[float]) -> Interval:
    return paired_ratio(other, first)


def _table(
    caption: str,
    what: str,
    cases: Sequence[Case],
    costs: Mapping[Case, Sequence[float]],
    comparison: str,
    compared: Callable[[Sequence[float], Sequence[float]], Interval],
) -> Table:
    first, *others = (costs[case] for case in cases)
    differences = [Cell(""), *(_cell(compared(first, other)) for other in others)]
    rows = [
        Row([Cell(case.shown), _cell(interval_of_median(costs[case])), difference])
        for case, difference in zip(cases, differences, strict=True)
    ]
    return Table("", caption, (what, "CPU µs per call", comparison), rows)


def _cell(measured: Interval) -> Cell:
    shown = with_interval(measured.value, measured.low, measured.high, digits)
    return Cell(shown, measured.value)


@click.command()
@click.option("--rounds", type=click.IntRange(1, 1000), default=12, show_default=True)
@click.option("--turn", type=FiniteFloat(0.01, 10), default=0.1, show_default=True, help="In s.")
def main(*, rounds: int, turn: float) -> None:
    """Print what a call costs by method and by workers."""
    processes = ProcessTable()
    try:
        with shown_progress(STEADY) as show_progress:
            measured = measure(rounds, turn, show_progress)
    except (BenchError, ServerFailed, EngineFailed) as error:
        raise click.ClickException(str(error)) from error
    show(stdout(), *tables(costs_us(measured)))
    processes.read(is_last=True)
    windows = [turn.window for turns in measured for turn in turns if turn.window is not None]
    windows.append(Surroundings(others=processes.busiest(())))
    disturbed = tuple(disturbances([pooled(windows)]))
    if disturbed:
        click.echo(f"disturbed: {text_of(disturbed)}")


if __name__ == "__main__":
    main()

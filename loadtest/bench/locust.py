"""`ReverseUser` against Locust's `FastHttpUser`: how many calls one Locust process makes.

Each turn of a round starts a fresh server and a fresh Locust process. Server and Locust have a CPU
each. Both users send the same texts and compare each reply; Locust's own statistics do the counting
(`loadtest.locust_rig.process_meter`). With `calls` it is `CapnpUser.call`, which users' own
scenarios make, against `ReverseUser`.

Neither server should be the limit: `server run` for one, for the other a minimal HTTP server
(`loadtest.benchmarks.http_reverse`). Where one was over 90 % busy, its user could have done more:
that makes the ratio void if it was the baseline's, and a lower bound if it was the candidate's.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from capnp_rig.loadtest.bench.commands import run_locust, serving
from capnp_rig.loadtest.bench.pair_figures import ratio_figures, value_figure, voided
from capnp_rig.loadtest.bench.rounds import (
    AGAIN,
    BASELINE,
    CANDIDATE,
    ROLES,
    BenchError,
    by_role,
    cpu_each,
    rounds,
)
from capnp_rig.loadtest.engine.child_process import last_line
from capnp_rig.loadtest.engine.early_end import EarlyEnd, kept_steps
from capnp_rig.loadtest.engine.progress import ShowProgress
from capnp_rig.loadtest.engine.server_process import ServerFailed, running_server
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.results.writing import Origin, WrittenResult, write_result
from capnp_rig.loadtest.stats.disturbance import round_disturbances
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode

_HERE = Path(__file__).resolve().parents[1]
_METER = _HERE / "locust_rig" / "process_meter.py"
_BUSY_LIMIT = 0.9


@dataclass(frozen=True, slots=True)
class BenchLocustConfig:
    """How many rounds, with a window of `seconds` after `warmup_s`, of so many users."""

    rounds: int = 12
    seconds: float = 2.0
    warmup_s: float = 0.5
    users: int = 16
    results: Path = Path("results")
    calls: bool = False

    @property
    def title(self) -> str:
        """What is measured, in short."""
        users = sides(calls=self.calls)
        return (
            f"{users[CANDIDATE].name} against its rival {users[BASELINE].name}: "
            f"{self.rounds} rounds of {self.seconds:g} s, {self.users} users, 32-byte texts, "
            "closed loop"
        )


@dataclass(frozen=True, slots=True)
class Round:
    """What one Locust process did in its window; `role` is baseline, candidate or again.

    `cpu_s` is what that process used, `server_cpu_s` what the server's did; `surroundings` is what
    the machine did to both, made plain, None in older results.
    """

    number: int
    order: int
    role: str
    seconds: float
    requests: int
    failures: int
    cpu_s: float
    server_cpu_s: float
    surroundings: Mapping[str, Any] | None = None

    @property
    def server_busy(self) -> float:
        """The share of its CPU that the server used."""
        return self.server_cpu_s / self.seconds


def run(config: BenchLocustConfig, show: ShowProgress) -> tuple[WrittenResult, EarlyEnd | None]:
    """Measure, write the result, and return it, with why it ended early if it did.

    A benchmark that Ctrl-C, SIGTERM or a failure ends has the rounds that were over by then.

    Raises:
        BenchError: There is one CPU only, or in the first round a server, Locust or a call failed.
        KeyboardInterrupt, Terminated: It was stopped before the first round was over.
    """
    cpus = cpu_each("the server", "Locust")
    origin = Origin.now()
    with origin.folder(config.results) as folder:
        steps = (
            Round(turn.number, turn.order, turn.role, **_measure(config, turn.role, cpus, folder))
            for turn in rounds(config.rounds, (config.users,), ROLES, show)
        )
        measured, early_end = kept_steps(steps, BenchError, per_round=len(ROLES))
        written = write_result(
            "bench-locust",
            origin,
            folder,
            config=asdict(config) | {"cpus": cpus},
            figures=figures(measured, config.users, calls=config.calls),
            samples=map(asdict, measured),
            ended_early=None if early_end is None else early_end.text,
        )
    return written, early_end


def figures(measured: Sequence[Round], users: int, *, calls: bool = False) -> list[Figure]:
    """Return the figures of a run, from its rounds alone; `calls` as in the config."""
    names = {role: side.name for role, side in sides(calls=calls).items()}
    of_role = by_role(measured)
    load = f"{users} x 1"
    listed: list[Figure] = []
    for role, name in names.items():
        chosen = of_role[role]
        rates = [each.requests / each.seconds for each in chosen]
        costs = [each.cpu_s * 1e6 / each.requests for each in chosen]
        listed += [
            value_figure(load, name, "calls/s", "calls/s", rates, *_limits(chosen)),
            value_figure(load, name, "generator CPU per call", "µs", costs),
            value_figure(load, name, "server busy", "share", [r.server_busy for r in chosen]),
        ]
    disturbed = round_disturbances(each.surroundings for each in measured)
    return voided(listed + _ratios(load, of_role, names), disturbed)


def _ratios(
    load: str, of_role: Mapping[str, list[Round]], names: Mapping[str, str]
) -> list[Figure]:
    # Costs, since less is better: seconds per call, and CPU seconds per call.
    seconds = {r: [each.seconds / each.requests for each in of_role[r]] for r in ROLES}
    cpu = {r: [each.cpu_s / each.requests for each in of_role[r]] for r in ROLES}
    rates, costs = (
        ratio_figures(load, what, names, values)
        for what, values in (("calls/s", seconds), ("generator CPU per call", cpu))
    )
    # A slow rival would make us look fast. What limits us makes us look slow.
    rival = _limits([*of_role[BASELINE], *of_role[AGAIN]])
    limits = _limits(of_role[CANDIDATE])
    if rival:
        rates = [replace(figure, verdict=Verdict.VOID, reasons=rival) for figure in rates]
    elif limits:
        rates[1] = replace(rates[1], reasons=(Reason(ReasonCode.LOWER_BOUND), *limits))
    return [*rates, *costs]


def _limits(measured: Sequence[Round]) -> tuple[Reason, ...]:
    """Return why the server was the limit in one of the rounds, nothing where it was not."""
    busy = max(each.server_busy for each in measured)
    return (Reason.of(ReasonCode.SERVER_BUSY, busy=busy),) if busy > _BUSY_LIMIT else ()


def _measure(
    config: BenchLocustConfig, role: str, cpus: tuple[int, int], folder: Path
) -> dict[str, Any]:
    """Return what the meter of a fresh Locust process has read, against a fresh server."""
    server_cpu, own_cpu = cpus
    side = sides(calls=config.calls)[CANDIDATE if role == CANDIDATE else BASELINE]
    try:
        with side.serve(server_cpu, folder) as (address, pids):
            read = _run_locust(config, side.file, address, pids, own_cpu, folder)
    except ServerFailed as error:
        raise BenchError(str(error)) from error
    if read["failures"] or not read["requests"]:
        raise BenchError(f"{side.file}: {read['failures']} of {read['requests']} calls failed")
    return read


@contextmanager
def _capnp_server(cpu: int, folder: Path) -> Iterator[tuple[str, list[int]]]:
    log = folder / "server.log"
    with running_server(workers=1, log=log, options=["--log-level", "error"], cpus={cpu}) as server:
        yield server.address, [part.process.pid for part in server.parts()]


@contextmanager
def _http_server(cpu: int, folder: Path) -> Iterator[tuple[str, list[int]]]:
    module = "capnp_rig.loadtest.benchmarks.http_reverse"
    with serving(module, log=folder / "http_server.log", cpus={cpu}) as (address, pid):
        yield f"http://{address}", [pid]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are compared: its locustfile, and what starts the server it calls."""

    name: str
    file: str
    serve: Callable[[int, Path], AbstractContextManager[tuple[str, list[int]]]]


_FAST_HTTP = Side("FastHttpUser", "benchmarks/fast_http_user.py", _http_server)
_REVERSE = Side("ReverseUser", "capnp_user.py", _capnp_server)
_CALLS = Side("CapnpUser.call", "benchmarks/call_user.py", _capnp_server)


def sides(*, calls: bool) -> dict[str, Side]:
    """Return the two users that are compared, by role; `calls` as in the config."""
    if calls:
        return {CANDIDATE: _CALLS, BASELINE: _REVERSE}
    return {CANDIDATE: _REVERSE, BASELINE: _FAST_HTTP}


def _run_locust(
    config: BenchLocustConfig, file: str, address: str, pids: list[int], cpu: int, folder: Path
) -> dict[str, Any]:
    meter, log = folder / "meter.json", folder / "locust.log"
    meter.unlink(missing_ok=True)
    options = (
        f"--headless --only-summary -u {config.users} -r 100 "
        f"--meter-warmup {config.warmup_s} --meter-seconds {config.seconds}"
    )
    files = ("-f", f"{_HERE / file},{_METER}", "--meter-file", str(meter))
    run_locust(
        *files,
        *options.split(),
        *(f"--meter-server={pid}" for pid in pids),
        "-H",
        address,
        log=log,
        seconds=config.warmup_s + config.seconds,
        cpus={cpu},
    )
    if not meter.exists():
        raise BenchError(f"Locust failed: {last_line(log)}")
    read: dict[str, Any] = json.loads(meter.read_text(encoding="utf-8"))
    meter.unlink()
    return read

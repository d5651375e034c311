"""``loadtest run``: engine processes on CPUs of their own, one summary, one result folder."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from capnp_rig.client.tls import Tls
from capnp_rig.loadtest.engine.child_process import Terminated, number_of
from capnp_rig.loadtest.engine.engine_runs import (
    EngineFailed,
    EngineRun,
    Tell,
    run_engines,
    tell_nobody,
)
from capnp_rig.loadtest.engine.process import EngineConfig
from capnp_rig.loadtest.engine.progress import Progress, ShowProgress
from capnp_rig.loadtest.engine.server_usage import WatchedProcess, local_servers
from capnp_rig.loadtest.live.figures import LiveRepeats
from capnp_rig.loadtest.protocols import CAPNP, load_any_workload
from capnp_rig.loadtest.results.load_samples import (
    generator_entry,
    machine_sample,
    scrape_entry,
    scrape_samples,
    usage_sample,
    window_samples,
)
from capnp_rig.loadtest.results.writing import Origin, WrittenResult, write_result
from capnp_rig.loadtest.scrape.scraper import Scraper
from capnp_rig.loadtest.scrape.series import ScrapeError
from capnp_rig.loadtest.stats.first_replies import compare_firsts
from capnp_rig.loadtest.stats.process_use import ProcessUse, add_up
from capnp_rig.loadtest.stats.reasons import Reason
from capnp_rig.loadtest.stats.run_summary import LIMITS, Summary, checked, figures, summarize
from capnp_rig.loadtest.stats.tally import FirstReply
from capnp_rig.loadtest.stats.thresholds import within_limits
from capnp_rig.loadtest.workload import WorkloadConfig
from capnp_rig.rigcli.address import Addresses


class RunError(Exception):
    """The load could not be run; the message says why."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What `loadtest run` was asked for; `rate_hz` None is a closed loop.

    A run lasts `seconds`, or until `calls` are answered, and is repeated `repeats` times by
    fresh engine processes. `name` is what the user calls it. `unchecked` says what of the replies
    nobody compares, `fail_if` under which conditions it has failed. Several `addresses` are of
    servers that share the load. `scrape` has the URLs of Prometheus endpoints to read meanwhile.
    `tls` None is a load in the clear.
    """

    addresses: Addresses
    results: Path
    connections: int = 64
    in_flight: int = 1
    rate_hz: float | None = None
    arrivals: str = "poisson"
    seconds: float | None = 30.0
    calls: int | None = None
    warmup_s: float = 0.5
    workload: WorkloadConfig = field(default_factory=WorkloadConfig)
    checks_content: bool = True
    timeout_s: float = 15.0
    processes: int = 1
    repeats: int = 1
    seed: int = 1
    pin: bool = True
    stack: str = CAPNP
    unchecked: tuple[Reason, ...] = ()
    name: str | None = None
    fail_if: tuple[str, ...] = ()
    scrape: tuple[str, ...] = ()
    tls: Tls | None = None
    # What the params were answered first: all processes, repeats and probes must get the same.
    firsts: dict[str, FirstReply] = field(default_factory=dict, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return plain values; content is checked where all of it is."""
        plain = asdict(self) | {"address": self.address, "results": str(self.results)}
        plain["unchecked"] = [reason.text for reason in self.unchecked]
        del plain["firsts"], plain["name"], plain["addresses"]
        return plain | {"checks_content": self.checks_content and not self.unchecked}

    @property
    def address(self) -> str:
        """The addresses as a user types them."""
        return str(self.addresses)


@dataclass(frozen=True, slots=True)
class RunResult:
    """Where a run was written, and what it says.

    `signal` is the number of the SIGINT or SIGTERM that ended the run early, None where none did.
    `failure` says why a repeat could not be run, None where all were. `server` has what each of the
    server's processes used, none where that is not known; `repeats` has a summary of each repeat.
    `notes` say what could not be read beside.
    """

    written: WrittenResult
    summary: Summary
    signal: int | None
    failure: str | None = None
    server: tuple[ProcessUse, ...] = ()
    repeats: tuple[Summary, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self, violations: Sequence[str]) -> dict[str, Any]:
        """Return the one object of ``--json``; `violations` are the conditions that failed.

        The intervals are at 95 %, by the name of their figure; null where there is none.
        """
        figures, document = self.written.figures, self.written.result.document
        return {
            **self.summary.to_json(),
            "intervals": {
                figure.name: None if figure.low is None else [figure.low, figure.high]
                for figure in figures
            },
            "figures": [figure.to_json() for figure in figures],
            "repeats": [repeat.to_json() for repeat in self.repeats],
            "violations": list(violations),
            "name": document["name"],
            "config": document["config"],
            "environment": document["environment"],
            "folder": str(self.written.folder),
        }


def run(config: RunConfig, show: ShowProgress, live: LiveRepeats | None = None) -> RunResult:
    """Load the server, write the result, and return it; meanwhile `live` has the figures so far.

    Ctrl-C and SIGTERM end the run early, and so does a repeat that fails; what there is by then is
    written.

    Raises:
        WorkloadError: What to send is unusable.
        RunError: An engine process failed in the first repeat.
        OSError: The result cannot be written.
        KeyboardInterrupt, Terminated: It was stopped before anything was measured.
    """
    label = load_any_workload(config.stack, config.workload).label
    try:
        scrapers = [Scraper(url).check() for url in config.scrape]
    except ScrapeError as error:
        raise RunError(str(error)) from error
    origin = Origin.now(config.name)
    parts = local_servers(config.addresses)
    runs: list[EngineRun] = []
    failure: str | None = None
    for repeat in range(config.repeats):
        try:
            tell = _meter(config, repeat, show)
            runs.append(measure(config, parts, tell, repeat=repeat, scrapers=scrapers, live=live))
        except RunError as error:
            if not runs:
                raise
            failure = f"repeat {repeat + 1} of {config.repeats}: {error}"
            runs[-1] = replace(runs[-1], lost=(*runs[-1].lost, failure))
            break
        except (KeyboardInterrupt, Terminated) as stop:
            # While its processes were started, or ended.
            if not runs:
                raise
            runs[-1] = replace(runs[-1], interrupted=True, signal=number_of(stop))
        if runs[-1].interrupted:
            break
    interrupted, signal = runs[-1].interrupted, runs[-1].signal
    if interrupted and not runs[-1].part.seconds:
        del runs[-1]
    if not runs:
        raise RunError("interrupted before anything was measured")
    summary = summarize([each.part for each in runs], interrupted=interrupted)
    summary = within_limits(summary, config.fail_if)
    written = write_result(
        "run",
        origin,
        origin.make_folder(config.results),
        config=config.to_json(),
        figures=figures(summary),
        samples=_samples(runs),
        workload=label,
        limits=dict(LIMITS),
        checked=checked(summary.unchecked),
        interrupted=interrupted,
        summary=summary.to_json(),
        observed=[_observed(each) for each in runs],
        generators=list(_generators(runs)),
    )
    server = add_up(each.server for each in runs)
    repeats = tuple(summarize([each.part]) for each in runs)
    notes = dict.fromkeys(each.note for measured in runs for each in measured.scrapes if each.note)
    return RunResult(written, summary, signal, failure, tuple(server), repeats, tuple(notes))


def measure(
    config: RunConfig,
    server: Sequence[WatchedProcess],
    tell: Tell = tell_nobody,
    *,
    repeat: int = 0,
    scrapers: Sequence[Scraper] = (),
    live: LiveRepeats | None = None,
) -> EngineRun:
    """Run the engine processes once.

    Raises:
        RunError: One failed.
    """
    engines = plan_engines(config, sorted(os.sched_getaffinity(0)), repeat=repeat)
    if live is not None:
        engines = [replace(each, tells_live=True) for each in engines]
    try:
        run = run_engines(engines, server, tell, scrapers, live)
    except EngineFailed as error:
        raise RunError(str(error)) from error
    reports = compare_firsts((result.report for result in run.results), config.firsts)
    results = (
        replace(result, report=report) for result, report in zip(run.results, reports, strict=True)
    )
    return replace(run, results=tuple(results))


def _meter(config: RunConfig, repeat: int, show: ShowProgress) -> Tell:
    """Return what makes the progress of the run of the seconds and calls of one repeat."""
    each = float(config.calls or config.seconds or 0)
    last_s, last_calls, rate_hz = time.monotonic(), 0, 0.0

    def tell(seconds: float, calls: int) -> None:
        nonlocal last_s, last_calls, rate_hz
        now_s = time.monotonic()
        # The engines count twice a second.
        if calls != last_calls:
            rate_hz = (calls - last_calls) / max(now_s - last_s, 1e-3)
            last_s, last_calls = now_s, calls
        done = repeat * each + (seconds if config.calls is None else calls)
        total = config.repeats * each
        pace = 1.0 if config.calls is None else rate_hz
        left_s = max(total - done, 0) / pace if pace else None
        show(Progress(done, total, left_s, f"{calls:,} calls, {rate_hz:,.0f}/s"))

    return tell


def plan_engines(config: RunConfig, cpus: list[int], *, repeat: int = 0) -> list[EngineConfig]:
    """Share the load among the processes, pinned to the last of `cpus` first.

    Servers pin their workers from the first CPU on.
    """
    count = min(config.processes, config.connections, config.calls or config.processes)
    return [
        EngineConfig(
            address=config.address,
            connections=_share(config.connections, number, count),
            first_place=sum(_share(config.connections, each, count) for each in range(number)),
            in_flight=config.in_flight,
            seconds=config.seconds,
            calls=None if config.calls is None else _share(config.calls, number, count),
            warmup_s=config.warmup_s,
            workload=config.workload,
            checks_content=config.checks_content,
            timeout_s=config.timeout_s,
            cpu=cpus[-1 - number % len(cpus)] if config.pin else None,
            rate_hz=None if config.rate_hz is None else config.rate_hz / count,
            arrivals=config.arrivals,
            seed=config.seed + repeat * count + number,
            number=number,
            processes=count,
            stack=config.stack,
            tls=config.tls,
        )
        for number in range(count)
    ]


def _share(whole: int, number: int, count: int) -> int:
    return whole // count + (number < whole % count)


def _observed(measured: EngineRun) -> dict[str, Any]:
    return {
        "server_cpu_s": measured.server_cpu_s,
        "endpoint_cpu_s": dict(measured.endpoint_cpu_s),
        "steal": measured.steal,
        "lost": list(measured.lost),
        "server": [asdict(process) for process in measured.server],
        "surroundings": measured.surroundings.to_json(),
        "scrapes": [scrape_entry(each) for each in measured.scrapes],
    }


def _generators(runs: Sequence[EngineRun]) -> Iterator[dict[str, Any]]:
    for repeat, measured in enumerate(runs):
        for process, result in enumerate(measured.results):
            yield generator_entry(
                repeat, process, result.report, busy=result.busy, seconds=result.seconds
            )


def _samples(runs: Sequence[EngineRun]) -> Iterator[dict[str, Any]]:
    for repeat, measured in enumerate(runs):
        for process, result in enumerate(measured.results):
            yield from window_samples(repeat, process, result.report)
        for at_s, role, usage in measured.usages:
            yield usage_sample(repeat, at_s, role, usage)
        for at_s, machine in measured.machine:
            yield machine_sample(repeat, at_s, machine)
        for scraped in measured.scrapes:
            yield from scrape_samples(repeat, scraped)

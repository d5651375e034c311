"""What remains of a Locust run: its verdict, its table, its folder.

Nothing here imports Locust: a run is handed in with the facts that only Locust knows.
"""

import csv
import json
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import gevent

from capnp_rig.loadtest.locust_rig.live_run import LiveRun
from capnp_rig.loadtest.locust_rig.resource_sampler import ServerSampler
from capnp_rig.loadtest.report.run_tables import endpoint_parts, example_parts, times_table
from capnp_rig.loadtest.report.terminal import lines_of
from capnp_rig.loadtest.report.write import write_views
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.results.load_samples import (
    generator_entry,
    machine_sample,
    scrape_entry,
    scrape_samples,
    usage_sample,
    window_samples,
)
from capnp_rig.loadtest.results.times_table import CSV_COLUMNS, csv_cells, times_rows
from capnp_rig.loadtest.results.writing import Origin, write_result, write_whole
from capnp_rig.loadtest.scrape.series import Scraped
from capnp_rig.loadtest.stats.disturbance import GENERATOR, SERVER, Surroundings
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode
from capnp_rig.loadtest.stats.run_summary import LIMITS, Summary, checked, figures, summarize
from capnp_rig.loadtest.stats.run_units import CpuSample
from capnp_rig.loadtest.stats.thresholds import parse_threshold, within_limits

TIMES_FILE = "times.csv"
# What guards the web UI has no place in a result.
_SECRET = {"web_login", "tls_key", "tls_cert"}
# What the master tells its workers along with the options.
_INTERNAL = "capnp_rig_"


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended.

    `problems` say why it does not count at all, `violations` which conditions it fails. A run whose
    `summary` is void, but counts, has neither. `lines` are its table of times, `figures` those of
    its result; `surroundings` is what the machine did to the run.
    """

    summary: Summary
    problems: tuple[Reason, ...]
    violations: tuple[str, ...]
    lines: tuple[str, ...]
    figures: tuple[Figure, ...]
    surroundings: Surroundings


def conclude(
    live: LiveRun,
    server: ServerSampler,
    conditions: Sequence[str],
    *,
    is_shaped: bool,
    in_flight: int | None = None,
) -> RunOutcome:
    """Judge a run that has ended; drift is no reason to void one whose load a shape changed.

    `in_flight` is how many calls a closed loop had in flight at most, None where it varied.
    """
    live.compare_firsts()
    surroundings = server.surroundings(live.windows, in_flight)
    surroundings = replace(surroundings, paused=live.paused)
    part = live.part(
        server_cpu_s=server.cpu_s,
        steal=server.steal,
        surroundings=surroundings,
        endpoint_cpu_s=server.endpoint_cpu_s,
    )
    sampled = [
        CpuSample(reading.t_s, usage.pid, usage.cpu_s)
        for reading in server.readings
        for usage in reading.usages
    ]
    summary = within_limits(summarize([replace(part, server_cpu=sampled)]), conditions)
    problems = tuple(_problems(live))
    reasons = [
        reason
        for reason in summary.reasons
        if not (is_shaped and reason.code is ReasonCode.DRIFTED)
    ]
    summary = replace(summary, reasons=tuple(dict.fromkeys([*problems, *reasons])))
    violations = (parse_threshold(text).violation(summary) for text in conditions)
    return RunOutcome(
        summary,
        problems,
        tuple(violation for violation in violations if violation is not None),
        (
            *lines_of(times_table(times_rows(live.total, live.seconds))),
            *lines_of(*endpoint_parts(summary), *example_parts(summary.examples)),
        ),
        tuple(_figures(live, summary)),
        surroundings,
    )


def _problems(live: LiveRun) -> Iterator[Reason]:
    """Say why the run does not count; failed calls are counted, and no such reason."""
    if not live.total.answered:
        yield Reason(ReasonCode.NO_CALLS)
    if live.missing:
        yield Reason.of(ReasonCode.REPORTS_MISSING, count=len(live.missing))


def _figures(live: LiveRun, summary: Summary) -> Iterator[Figure]:
    for figure in figures(summary):
        if live.missing and not figure.is_void:
            missing = Reason.of(ReasonCode.REPORTS_MISSING, count=len(live.missing))
            yield replace(figure, verdict=Verdict.VOID, reasons=(missing,))
        else:
            yield figure


def plain_options(options: Namespace) -> dict[str, Any]:
    """Return the options as a result keeps them: plain values, no secrets."""
    plain = {
        name: value
        for name, value in vars(options).items()
        if name not in _SECRET and not name.startswith(_INTERNAL)
    }
    copied: dict[str, Any] = json.loads(json.dumps(plain, default=str))
    return copied


def write_folder(
    parent: Path,
    origin: Origin,
    live: LiveRun,
    server: ServerSampler,
    outcome: RunOutcome,
    *,
    config: Mapping[str, Any],
    scrapes: Sequence[Scraped] = (),
    **more: object,
) -> tuple[Path, tuple[str, ...]]:
    """Write a run into a new folder; return it, and notes on what could not be made.

    `more` goes into ``run.json`` as it is.

    Raises:
        OSError: It cannot be written.
    """
    folder = origin.make_folder(parent)
    written = write_result(
        "locust",
        origin,
        folder,
        config=config,
        figures=outcome.figures,
        samples=_samples(live, server, scrapes),
        limits=dict(LIMITS),
        checked=checked(outcome.summary.unchecked),
        summary=outcome.summary.to_json(),
        violations=list(outcome.violations),
        observed=[
            {
                "server_cpu_s": server.cpu_s,
                "endpoint_cpu_s": server.endpoint_cpu_s,
                "steal": server.steal,
                "surroundings": outcome.surroundings.to_json(),
                "scrapes": [scrape_entry(each) for each in scrapes],
            }
        ],
        generators=list(_generators(live)),
        # They are Locust's.
        holds_signals=False,
        **more,
    )
    if written.problem is not None:
        raise written.problem
    _write_times(folder / TIMES_FILE, live)
    # Drawing takes a second. In a thread of its own, Locust's greenlets go on meanwhile: one that
    # writes its CSV files every second would find them closed when it wakes too late.
    return folder, gevent.get_hub().threadpool.apply(write_views, (written,))


def _write_times(file: Path, live: LiveRun) -> None:
    stream = StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(CSV_COLUMNS)
    writer.writerows(csv_cells(row) for row in times_rows(live.total, live.seconds))
    write_whole(file, stream.getvalue().encode())


def _generators(live: LiveRun) -> Iterator[dict[str, Any]]:
    for name, each in live.generators.items():
        entry = generator_entry(0, each.number, each.report, busy=each.busy, seconds=each.seconds)
        yield entry | {"id": name, "host": each.host, "pid": each.pid, "cpu": each.cpu}


def _samples(
    live: LiveRun, server: ServerSampler, scrapes: Sequence[Scraped]
) -> Iterator[dict[str, Any]]:
    for each in live.generators.values():
        yield from window_samples(0, each.number, each.report)
        for use in each.use:
            yield usage_sample(0, use.t_s, GENERATOR, each.usage_of(use))
    for reading in server.readings:
        if reading.master is not None:
            yield usage_sample(0, reading.t_s, GENERATOR, reading.master)
        for usage in reading.usages:
            yield usage_sample(0, reading.t_s, SERVER, usage)
        if reading.machine is not None:
            yield machine_sample(0, reading.t_s, reading.machine)
    for scraped in scrapes:
        yield from scrape_samples(0, scraped)

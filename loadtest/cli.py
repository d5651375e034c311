"""The `loadtest` command: ``run``, ``bench``, ``bench-server`` and ``demo``."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console

import rigcli
from loadtest.child import Terminated, unwinding_on_sigterm

_QUICK_PROCESSES = 6
# Wide enough for the tables where the output is no terminal.
_PIPE_COLUMNS = 150


@click.group()
@click.version_option(package_name="capnp-rig", message="%(prog)s %(version)s")
def cli() -> None:
    """Measure: codecs against each other, and a server under load."""


_results_option = click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Folder in which the run's own folder is made.",
)


def _read_rate(_context: click.Context, _option: click.Parameter, text: str) -> float | None:
    if text == "closed":
        return None
    try:
        rate_hz = float(text)
    except ValueError:
        rate_hz = 0.0
    if not 0 < rate_hz < 1e7:
        raise click.UsageError(f"bad rate {text!r}: expected calls per second, or closed")
    return rate_hz


def _read_duration(_context: click.Context, _option: click.Parameter, text: str) -> float:
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "": 1.0}
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|)", text)
    seconds = 0.0 if match is None else float(match[1]) * units[match[2]]
    if not 0.1 <= seconds <= 86_400:
        raise click.UsageError(f"bad duration {text!r}: expected 500ms, 30s or 2m, at least 100ms")
    return seconds


@cli.command()
@click.option("--quick", is_flag=True, help=f"{_QUICK_PROCESSES} processes, coarser intervals.")
@click.option(
    "--processes",
    type=click.IntRange(1, 99),
    help="Fresh processes, each of which times every case.  [default: 12]",
)
@click.option("--case-seconds", type=click.FloatRange(0.001, 10), default=0.04, hidden=True)
@_results_option
def bench(*, quick: bool, processes: int | None, case_seconds: float, results: Path) -> None:
    """Time Cap'n Proto against JSON: encode, open and read, 32 bytes and 64 KiB."""
    try:
        from loadtest.bench import BenchConfig, BenchError, run  # noqa: PLC0415 - needs the extra
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: install capnp-rig[bench]") from error
    from loadtest.bench_progress import shown_progress  # noqa: PLC0415 - as above
    from loadtest.tables import bench_tables  # noqa: PLC0415 - as above

    config = BenchConfig(case_s=case_seconds, results=results)
    count = processes or (_QUICK_PROCESSES if quick else config.processes)
    with _failures_in_one_line(BenchError), shown_progress() as report:
        result = run(replace(config, processes=count), report)
    console = _stdout()
    if quick:
        console.print(f"Quick mode: {count} processes, intervals are plain ranges.")
    for table in bench_tables(result.figures):
        console.print(table)
    console.print(f"Written to {result.folder}", soft_wrap=True)


@cli.command("run")
@rigcli.address_argument
@click.option("--connections", type=click.IntRange(1, 10_000), default=64, show_default=True)
@click.option(
    *("--in-flight", "in_flight"),
    type=click.IntRange(1, 4096),
    default=1,
    show_default=True,
    help="Calls under way per connection, at most.",
)
@click.option(
    *("--rate", "rate_hz"),
    default="closed",
    show_default=True,
    metavar="CALLS_PER_S",
    callback=_read_rate,
    help="Open loop at this rate, over all connections; closed waits for replies.",
)
@click.option(
    "--arrivals", type=click.Choice(["poisson", "fixed"]), default="poisson", show_default=True
)
@click.option(*("--duration", "seconds"), default="30s", show_default=True, callback=_read_duration)
@click.option(
    *("--payload", "payload_bytes"),
    type=click.IntRange(1, 4_000_000),
    default=32,
    show_default=True,
    help="Bytes of text per call.",
)
@click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the Poisson schedule.")
@click.option("--pin/--no-pin", default=True, help="Pin each process to a CPU, from the last on.")
@click.option(
    "--fail-if",
    multiple=True,
    metavar="CONDITION",
    help="Exit with 1 if it holds, as p99>2ms, errors>0.1%, calls/s<20000; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@_results_option
def run_load(*, as_json: bool, fail_if: tuple[str, ...], **options: object) -> int:
    """Load the server at ADDR with calls of the tutorial's `read`, each reply checked."""
    from loadtest.run import RunConfig, RunError, run  # noqa: PLC0415 - only when asked for
    from loadtest.run_progress import shown_run  # noqa: PLC0415 - as above
    from loadtest.tables import summary_tables  # noqa: PLC0415 - as above
    from loadtest.thresholds import ThresholdError, parse_threshold  # noqa: PLC0415 - as above

    try:
        thresholds = [parse_threshold(text) for text in fail_if]
    except ThresholdError as error:
        raise click.UsageError(str(error)) from error
    config = RunConfig(**options)  # type: ignore[arg-type] # one option per field, by name
    with _failures_in_one_line(RunError), shown_run(config.seconds) as report:
        result = run(config, report)
    summary = result.summary
    if as_json:
        click.echo(json.dumps(summary.to_json()))
    else:
        console = _stdout()
        for table in summary_tables(summary):
            console.print(table)
    for reason in summary.reasons:
        click.echo(f"void: {reason}", err=True)
    violations = [found for t in thresholds if (found := t.violation(summary)) is not None]
    for violation in violations:
        click.echo(f"failed: {violation}", err=True)
    click.echo(f"Written to {result.folder}", err=True)
    return 1 if summary.errors or not summary.calls or violations else 0


@cli.command("bench-server")
@click.option("--quick", is_flag=True, help=f"{_QUICK_PROCESSES} rounds, coarser intervals.")
@click.option("--rounds", type=click.IntRange(1, 99), help="Rounds.  [default: 12]")
@click.option("--seconds", type=click.FloatRange(0.1, 60), default=1.5, show_default=True)
@click.option("--idle", type=click.IntRange(1, 10_000), default=10_000, show_default=True)
@_results_option
def bench_server(
    *, quick: bool, rounds: int | None, seconds: float, idle: int, results: Path
) -> None:
    """Compare the wire engine with the pycapnp engine, one CPU for each side."""
    from loadtest.bench_progress import shown_progress  # noqa: PLC0415 - only when asked for
    from loadtest.bench_server import (  # noqa: PLC0415 - as above
        BenchServerConfig,
        BenchServerError,
        run,
    )
    from loadtest.tables import figure_table  # noqa: PLC0415 - as above

    config = BenchServerConfig(seconds=seconds, idle=idle, results=results)
    count = rounds or (_QUICK_PROCESSES if quick else config.rounds)
    with _failures_in_one_line(BenchServerError), shown_progress() as report:
        result = run(replace(config, rounds=count), report)
    title = f"{count} rounds of {seconds:g} s, {config.payload_bytes}-byte texts, closed loop"
    console = _stdout()
    console.print(figure_table(title, result.figures))
    console.print(f"Written to {result.folder}", soft_wrap=True)


@cli.command()
@click.option("--seconds", type=click.IntRange(1, 600), default=10, show_default=True)
@click.option("--users", type=click.IntRange(1, 1000), default=16, show_default=True)
@click.option(
    "--in-flight", type=click.IntRange(1, 256), default=1, show_default=True, help="Per user."
)
@click.option("--payload-bytes", type=click.IntRange(16, 1 << 20), default=32, show_default=True)
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True)
@_results_option
def demo(
    *, seconds: int, users: int, in_flight: int, payload_bytes: int, workers: int, results: Path
) -> int:
    """Start a server, load it with Locust, and show what it did."""
    from loadtest.demo import DemoConfig, DemoError, run  # noqa: PLC0415 - only when asked for
    from loadtest.tables import figure_table  # noqa: PLC0415 - as above

    config = DemoConfig(seconds, users, in_flight, payload_bytes, workers, results)
    with _failures_in_one_line(DemoError):
        result = run(config, say=lambda text: click.echo(text, err=True))
    console = _stdout()
    console.print(figure_table(result.title, result.figures))
    for kind, number in result.failures.items():
        console.print(f"{number:,} x {kind}", markup=False)
    console.print(f"Written to {result.folder}", soft_wrap=True)
    return result.exit_status


@contextmanager
def _failures_in_one_line(kind: type[Exception]) -> Iterator[None]:
    try:
        with unwinding_on_sigterm():
            yield
    except kind as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    except Terminated:
        sys.exit(143)


def _stdout() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=_PIPE_COLUMNS)


def main() -> NoReturn:
    """Run the `loadtest` command."""
    rigcli.run(cli, "loadtest")

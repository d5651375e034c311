"""The `loadtest` command: load a server, compare what came out, time codecs and engines."""

from dataclasses import replace
from pathlib import Path

import click

from capnp_rig.loadtest.cli.bench_locust import bench_locust
from capnp_rig.loadtest.cli.bench_stacks import bench_stacks
from capnp_rig.loadtest.cli.load import run_command, search_command
from capnp_rig.loadtest.cli.report import compare_results, report
from capnp_rig.loadtest.cli.sweep import sweep_command
from capnp_rig.loadtest.cli.terminal import failures_in_one_line, results_option, stdout
from capnp_rig.rigcli.finite_numbers import FiniteFloat

_QUICK_PROCESSES = 6


@click.group()
@click.version_option(package_name="capnp-rig", message="%(prog)s %(version)s")
def cli() -> None:
    """Measure: codecs against each other, and a server under load."""


@cli.command()
@click.option("--quick", is_flag=True, help="Fewer sizes and processes, coarser intervals.")
@click.option(
    "--processes",
    type=click.IntRange(1, 99),
    help="Fresh processes, each of which times every case.  [default: 12, with --quick 6]",
)
@click.option("--plan", type=click.Choice(["full", "quick", "tiny"]), hidden=True)
@click.option("--case-seconds", type=FiniteFloat(0.001, 10), hidden=True)
@results_option
def bench(
    *,
    quick: bool,
    processes: int | None,
    plan: str | None,
    case_seconds: float | None,
    results: Path,
) -> None:
    """Time Cap'n Proto against JSON, MessagePack, Protocol Buffers, pickle and FlatBuffers."""
    try:
        from capnp_rig.loadtest.bench.run import BenchConfig, BenchError, run
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: install capnp-rig[bench]") from error
    from capnp_rig.loadtest.cli.bench_progress import shown_progress
    from capnp_rig.loadtest.report.codec_tables import codec_parts
    from capnp_rig.loadtest.report.terminal import show

    config = BenchConfig(plan or ("quick" if quick else "full"), processes, case_seconds, results)
    with failures_in_one_line(BenchError), shown_progress() as report:
        result = run(config, report)
    console = stdout()
    show(console, *codec_parts(result.figures))
    if quick:
        console.print("Quick mode: few processes, intervals are plain ranges.")
    console.print(f"Written to {result.folder}", soft_wrap=True)


@cli.command("bench-server")
@click.option("--quick", is_flag=True, help=f"{_QUICK_PROCESSES} rounds, coarser intervals.")
@click.option("--rounds", type=click.IntRange(1, 99), help="Rounds.  [default: 12]")
@click.option("--seconds", type=FiniteFloat(0.1, 60), default=1.5, show_default=True)
@click.option("--idle", type=click.IntRange(1, 10_000), default=10_000, show_default=True)
@results_option
def bench_server(
    *, quick: bool, rounds: int | None, seconds: float, idle: int, results: Path
) -> None:
    """Compare the wire engine with the pycapnp engine, one CPU for each side."""
    from capnp_rig.loadtest.bench.server import BenchServerConfig, BenchServerError, run
    from capnp_rig.loadtest.cli.bench_progress import shown_progress
    from capnp_rig.loadtest.report.figures import figure_table
    from capnp_rig.loadtest.report.terminal import show

    config = BenchServerConfig(seconds=seconds, idle=idle, results=results)
    count = rounds or (_QUICK_PROCESSES if quick else config.rounds)
    with failures_in_one_line(BenchServerError), shown_progress() as report:
        result = run(replace(config, rounds=count), report)
    title = f"{count} rounds of {seconds:g} s, {config.payload_bytes}-byte texts, closed loop"
    console = stdout()
    show(console, figure_table("figures", title, result.figures))
    console.print(f"Written to {result.folder}", soft_wrap=True)


@cli.command()
@click.option("--seconds", type=click.IntRange(1, 600), default=10, show_default=True)
@click.option("--users", type=click.IntRange(1, 1000), default=16, show_default=True)
@click.option(
    "--in-flight", type=click.IntRange(1, 256), default=1, show_default=True, help="Per user."
)
@click.option("--payload-bytes", type=click.IntRange(16, 1 << 20), default=32, show_default=True)
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True)
@results_option
def demo(
    *, seconds: int, users: int, in_flight: int, payload_bytes: int, workers: int, results: Path
) -> int:
    """Start a server, load it with Locust, and show what it did."""
    from capnp_rig.loadtest.bench.demo import DemoConfig, DemoError, run
    from capnp_rig.loadtest.report.figures import figure_table
    from capnp_rig.loadtest.report.terminal import show

    config = DemoConfig(seconds, users, in_flight, payload_bytes, workers, results)
    with failures_in_one_line(DemoError):
        result = run(config, say=lambda text: click.echo(text, err=True))
    console = stdout()
    show(console, figure_table("figures", result.title, result.figures))
    for kind, number in result.failures.items():
        console.print(f"{number:,} x {kind}", markup=False)
    console.print(f"Written to {result.folder}", soft_wrap=True)
    return result.exit_status


cli.add_command(run_command)
cli.add_command(bench_locust)
cli.add_command(bench_stacks)
cli.add_command(search_command)
cli.add_command(sweep_command)
cli.add_command(report)
cli.add_command(compare_results)

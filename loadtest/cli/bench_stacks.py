"""``loadtest bench-stacks``: its options, and what it prints."""

from dataclasses import replace
from pathlib import Path

import click

from capnp_rig.loadtest.cli.load import read_size
from capnp_rig.loadtest.cli.terminal import failures_in_one_line, results_option, stdout
from capnp_rig.rigcli.finite_numbers import FiniteFloat


def _read_payloads(
    _context: click.Context, _option: click.Parameter, text: str | None
) -> tuple[tuple[str, int], ...] | None:
    """Read payloads such as ``32,4KiB`` or ``text:32,binary:1MiB``; without a kind it is both."""
    if text is None:
        return None
    found = []
    for part in text.split(","):
        kind, colon, size = part.strip().rpartition(":")
        if colon and kind not in {"text", "binary"}:
            raise click.UsageError(f"bad payload {part!r}: expected 4KiB, text:32 or binary:1MiB")
        found += [(one, read_size(size)) for one in ([kind] if colon else ["text", "binary"])]
    return tuple(dict.fromkeys(found))


def _read_stacks(
    _context: click.Context, _option: click.Parameter, text: str | None
) -> tuple[str, ...] | None:
    if text is None:
        return None
    from capnp_rig.loadtest.protocols import STACKS

    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in STACKS:
            raise click.UsageError(f"no stack {name!r}: there are {', '.join(STACKS)}")
    return names


@click.command("bench-stacks")
@click.option(
    "--quick", is_flag=True, help="6 rounds, 32 B of text and 256 KiB of bytes, closed loop only."
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 99),
    help="Rounds; six give an interval.  [default: 12; 6 with --quick]",
)
@click.option(
    "--seconds",
    type=FiniteFloat(0.1, 60),
    help="Window of each measurement.  [default: 0.3]",
)
@click.option(
    "--stacks",
    metavar="A,B",
    callback=_read_stacks,
    help="Which stacks; ratios need capnp among them.  [default: all]",
)
@click.option(
    "--payloads",
    metavar="SIZE,…",
    callback=_read_payloads,
    help="Payloads, as 32,text:4KiB,binary:1MiB; without a kind, of both.  "
    "[default: 32,4KiB,256KiB,1MiB]",
)
@click.option(
    "--connections",
    type=click.IntRange(1, 1000),
    default=16,
    show_default=True,
    help="For payloads above 64 KiB a quarter.",
)
@results_option
def bench_stacks(
    *,
    quick: bool,
    rounds: int | None,
    seconds: float | None,
    stacks: tuple[str, ...] | None,
    payloads: tuple[tuple[str, int], ...] | None,
    connections: int,
    results: Path,
) -> None:
    """Drive every stack with the same job and load, in interleaved rounds.

    About 18 minutes, with --quick 2. The servers have the first CPU, the generator the last: close
    other programs first. Ctrl-C ends it with the rounds done by then.
    """
    from capnp_rig.loadtest.bench.stacks import BenchStacksConfig, BenchStacksError, run
    from capnp_rig.loadtest.bench.stacks import quick as quickly
    from capnp_rig.loadtest.cli.bench_progress import shown_progress
    from capnp_rig.loadtest.report.stack_tables import stack_parts
    from capnp_rig.loadtest.report.terminal import show

    config = BenchStacksConfig(connections=connections, results=results)
    config = quickly(config) if quick else config
    config = replace(
        config,
        rounds=rounds or config.rounds,
        seconds=seconds or config.seconds,
        stacks=stacks or config.stacks,
        payloads=payloads or config.payloads,
    )
    console = stdout()
    with failures_in_one_line(BenchStacksError):
        with shown_progress() as report:
            result = run(config, report)
        show(console, *stack_parts(result.written.figures, result.skipped))
        console.print(f"Written to {result.written.folder}", soft_wrap=True)
        if result.stopped is not None:
            console.print(f"Stopped after {result.rounds} of {config.rounds} rounds")
            raise result.stopped

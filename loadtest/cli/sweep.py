"""``loadtest sweep``: its options, and what it prints."""

import json
from typing import Any

import click

from capnp_rig import rigcli
from capnp_rig.loadtest.cli.load import (
    connections_option,
    load_config,
    load_options,
    read_seconds,
    tell_in_flight,
)
from capnp_rig.loadtest.cli.terminal import ended_early, finish, measured, stdout
from capnp_rig.rigcli.quantities import MOST_IN_FLIGHT

# What --json prints of the result.
_TOLD = ("figures", "checked", "failed_calls", "ended_early", "name", "config", "environment")


def _read_in_flight(
    _context: click.Context, _option: click.Parameter, text: str
) -> tuple[int, ...]:
    numbers = set()
    for part in text.split(","):
        number = int(part) if part.strip().isdecimal() else 0
        if not 1 <= number <= MOST_IN_FLIGHT:
            raise click.UsageError(
                f"bad number of calls in flight {part.strip()!r}: expected 1,2,4,…, "
                f"up to {MOST_IN_FLIGHT}"
            )
        numbers.add(number)
    return tuple(sorted(numbers))


@click.command("sweep")
@rigcli.addresses_argument
@click.option(
    "--in-flight",
    default="1,2,4,8,16,32,64",
    metavar="N,…",
    callback=_read_in_flight,
    help="Calls under way per connection, each number in turn.",
)
@connections_option(8)
@click.option("--rounds", type=click.IntRange(1, 99), default=6)
@click.option(
    "--duration",
    "seconds",
    default="1s",
    callback=read_seconds,
    help="Measured time of each step.",
)
@load_options
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
def sweep_command(
    *,
    as_json: bool,
    in_flight: tuple[int, ...],
    rounds: int,
    **asked: Any,
) -> int:
    """Load the server at ADDR, or several, with more and more calls in flight, in a closed loop.

    Shows the rate, the service times and the server's CPU per call of each, and from where on
    more calls in flight only wait. Each round measures all of them in shuffled order; six or more
    give intervals. Exit status: 1 when a call failed, else 0. Ctrl-C, SIGTERM and a dying server
    leave a result of the steps that were over.
    """
    from capnp_rig.loadtest.bench.sweep import SweepConfig, run
    from capnp_rig.loadtest.engine.run import RunError
    from capnp_rig.loadtest.report.flight_curve import flight_notes, flight_table
    from capnp_rig.loadtest.report.run_tables import check_notes
    from capnp_rig.loadtest.report.terminal import show
    from capnp_rig.loadtest.stats.exit_status import exit_status, figure_statuses

    tell_in_flight(asked["stack"], in_flight[-1])
    config = SweepConfig(load_config(asked), in_flight, rounds)
    written, early_end = measured(run, config, RunError)
    if as_json:
        document = written.result.document
        told = {name: document[name] for name in _TOLD} | {"folder": str(written.folder)}
        click.echo(json.dumps(told))
    else:
        notes = *flight_notes(written.figures), *check_notes(written.result.document)
        show(stdout(), flight_table(written.figures), *notes)
    finish(written, err=True)
    if early_end is not None:
        return ended_early(early_end)
    return exit_status(*figure_statuses(written.figures))

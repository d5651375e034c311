"""``loadtest compare``: of two results, or of two servers by turns."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from capnp_rig.loadtest.cli.load import (
    load_of_turns,
    load_options,
    pace_options,
    rate_option,
    read_seconds,
)
from capnp_rig.loadtest.cli.margin import margin_option
from capnp_rig.loadtest.cli.terminal import (
    Command,
    allow_void_option,
    ended_early,
    failures_in_one_line,
    finish,
    measured,
    options,
    result_folder,
    stdout,
    tell_failures,
)
from capnp_rig.loadtest.stats.exit_status import ExitStatus, exit_status
from capnp_rig.rigcli.address import AddressError, parse_addresses

if TYPE_CHECKING:
    from capnp_rig.loadtest.ab.block import Server
    from capnp_rig.loadtest.ab.run import AbConfig, AbResult
    from capnp_rig.loadtest.compare import Comparison

# For results only; all that is in neither list is for servers only.
_OF_RESULTS = ("force",)
_OF_BOTH = ("metrics", "margin", "results")
_OF_BLOCKS = ("turn_s", "rounds", "blocks", "max_time_s", "margin")
_NOT_OF_LOAD = {*_OF_RESULTS, "metrics", *_OF_BLOCKS}

_servers_options = options(
    click.option(
        "--a",
        "baseline",
        metavar="COMMAND",
        help="Start this server as the baseline; {addr} in it is its address.",
    ),
    click.option("--b", "candidate", metavar="COMMAND", help="Start this one as the candidate."),
    click.option(
        "--max-time",
        "max_time_s",
        default="3m",
        callback=read_seconds,
        help="End within this time; it sets the number of blocks.",
    ),
    click.option("--blocks", type=click.IntRange(6, 999), help="So many blocks at most."),
    click.option(
        "--rounds", type=click.IntRange(1, 1000), default=40, help="Rounds of turns in a block."
    ),
    click.option(
        "--turn", "turn_s", default="20ms", callback=read_seconds, help="A server's turn."
    ),
)


def _load_options(command: Command) -> Command:
    return rate_option(pace_options(load_options(command)))


@click.command("compare")
@click.argument("sides", metavar="[BASELINE CANDIDATE]", nargs=-1)
@click.option(
    "--force", is_flag=True, help="Judge void runs, and runs from unlike machines or loads, too."
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="Judge this only, as calls/s, p99 or service.p50; * stands for anything; repeatable.",
)
@margin_option
@_servers_options
@_load_options
@allow_void_option
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as one JSON object.")
@click.pass_context
def compare_results(
    context: click.Context,
    /,
    *,
    sides: Sequence[str],
    as_json: bool,
    allow_void: bool,
    **asked: Any,
) -> int:
    """Tell whether CANDIDATE is faster or slower than BASELINE: results, or servers by turns.

    \b
    loadtest compare RESULT RESULT        two results, by folder, name, @last or @previous
    loadtest compare --a COMMAND --b COMMAND
                                          two servers, started anew for each block
    loadtest compare ADDR[,ADDR…] ADDR[,ADDR…]
                                          two servers that run, or two groups of servers

    Ratios above 1 mean that the candidate is better. Exits with 0 where it is faster or the
    same, 3 where it is slower, 4 where that cannot be told, 5 where no metric could be judged, 1
    where a call failed.

    Of two servers, a block starts two processes of the baseline, which are the A/A, and one of the
    candidate. They take turns of --turn, in shuffled order, --rounds times, on the first CPU; the
    generator has the last. --warmup is 100ms by default, and a turn of its own. The address of a
    command is put where {addr} stands, else for the address it has, else behind it. No shell runs
    it.
    """  # noqa: D301 - click wants the sign itself
    servers = _servers(sides, asked.pop("baseline"), asked.pop("candidate"))
    _refuse(context, _OF_RESULTS if servers else tuple(asked.keys() - {*_OF_RESULTS, *_OF_BOTH}))
    if servers:
        return _compare_servers(servers, as_json=as_json, allow_void=allow_void, **asked)
    if len(sides) != 2:
        raise click.UsageError("name two results, two addresses, or --a and --b")
    folders = [result_folder(side, asked["results"]) for side in sides]
    chosen = {name: asked[name] for name in ("force", "metrics", "margin")}
    return _compare_folders(*folders, as_json=as_json, allow_void=allow_void, **chosen)


def _servers(sides: Sequence[str], *commands: str | None) -> "tuple[Server, Server] | None":
    """Return the two servers that are named, None where they are no servers."""
    from capnp_rig.loadtest.ab.server_command import CommandError, split_command

    if commands != (None, None):
        if None in commands or sides:
            raise click.UsageError("give --a and --b, and nothing beside them")
        try:
            words = [tuple(split_command(command or "")) for command in commands]
        except CommandError as error:
            raise click.UsageError(str(error)) from error
        return words[0], words[1]
    if len(sides) != 2 or any(Path(side).exists() for side in sides):
        return None
    try:
        first, second = map(parse_addresses, sides)
    except AddressError:
        return None
    return first, second


def _refuse(context: click.Context, names: Sequence[str]) -> None:
    """Refuse options that say nothing about what is compared."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is ParameterSource.COMMANDLINE:
            of = "results" if parameter.name in _OF_RESULTS else "servers"
            raise click.UsageError(f"{parameter.opts[0]} is for two {of}")


def _show(comparison: "Comparison") -> None:
    from capnp_rig.loadtest.report.comparison_table import comparison_parts
    from capnp_rig.loadtest.report.terminal import show

    show(stdout(), *comparison_parts(comparison))


def _object(comparison: "Comparison") -> None:
    from capnp_rig.loadtest.report.comparison_table import objection_lines
    from capnp_rig.loadtest.report.terminal import printable

    for line in objection_lines(comparison):
        click.echo(printable(line), err=True)


def _compare_folders(
    baseline: Path,
    candidate: Path,
    *,
    force: bool,
    metrics: tuple[str, ...],
    margin: float,
    as_json: bool,
    allow_void: bool,
) -> int:
    from capnp_rig.loadtest.compare import CompareError, compare
    from capnp_rig.loadtest.results import ResultError
    from capnp_rig.loadtest.results.load_samples import read_result

    try:
        with failures_in_one_line(ResultError):
            old, new = read_result(baseline), read_result(candidate)
            comparison = compare(old, new, force=force, metrics=metrics, margin=margin)
    except CompareError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(json.dumps(comparison.to_json()))
    else:
        _show(comparison)
    _object(comparison)
    return exit_status(ExitStatus(comparison.exit_status), allow_void=allow_void)


def _compare_servers(
    servers: "tuple[Server, Server]", *, as_json: bool, allow_void: bool, **asked: Any
) -> int:
    from capnp_rig.loadtest.ab.course import NoTime
    from capnp_rig.loadtest.ab.run import run
    from capnp_rig.loadtest.engine.engine_runs import EngineFailed
    from capnp_rig.loadtest.engine.server_process import ServerFailed

    result = measured(run, _config(servers, asked), ServerFailed, EngineFailed, NoTime)
    if as_json:
        folder = {"folder": str(result.written.folder)}
        click.echo(json.dumps({**result.comparison.to_json(), **folder}))
    else:
        _show(result.comparison)
    _object(result.comparison)
    finish(result.written, err=True)
    return _status(result, allow_void=allow_void)


def _config(servers: "tuple[Server, Server]", asked: dict[str, Any]) -> "AbConfig":
    from capnp_rig.loadtest.ab.judging import metric_names
    from capnp_rig.loadtest.ab.run import AbConfig
    from capnp_rig.loadtest.compare import CompareError, chosen_names

    of_load = {name: value for name, value in asked.items() if name not in _NOT_OF_LOAD}
    known = metric_names(is_open_loop=of_load["rate_hz"] is not None)
    try:
        metrics = chosen_names(known, asked["metrics"])
    except CompareError as error:
        raise click.UsageError(str(error)) from error
    return AbConfig(
        *servers,
        load=load_of_turns(of_load, seconds=asked["turn_s"]),
        metrics=tuple(metrics),
        **{name: asked[name] for name in _OF_BLOCKS},
    )


def _status(result: "AbResult", *, allow_void: bool) -> int:
    if result.early_end is not None:
        return ended_early(result.early_end)
    failed = [ExitStatus.FAILED] if tell_failures(result.failures, result.examples) else []
    verdict = ExitStatus(result.comparison.exit_status)
    return exit_status(verdict, *failed, allow_void=allow_void)

"""The benchmarks of `loadtest`: their options, and what they print."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from capnp_rig.loadtest.cli.load import (
    load_of_turns,
    load_options,
    pace_options,
    rate_option,
    read_size,
)
from capnp_rig.loadtest.cli.terminal import (
    Command,
    allow_void_option,
    ended_early,
    failures_in_one_line,
    finish,
    measured,
    options,
    results_option,
    stdout,
    tell_failures,
)
from capnp_rig.rigcli.finite_numbers import FiniteFloat

_QUICK_ROUNDS = 6


@click.command()
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
) -> int:
    """Time Cap'n Proto against JSON, MessagePack, Protocol Buffers, pickle and FlatBuffers."""
    try:
        from capnp_rig.loadtest.bench.run import BenchConfig, run
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: install capnp-rig[bench]") from error
    from capnp_rig.loadtest.bench.plan import ARROW
    from capnp_rig.loadtest.bench.rounds import BenchError
    from capnp_rig.loadtest.codecs import CODECS
    from capnp_rig.loadtest.report.codec_tables import codec_parts
    from capnp_rig.loadtest.report.terminal import show

    config = BenchConfig(plan or ("quick" if quick else "full"), processes, case_seconds, results)
    written, early_end = measured(run, config, BenchError)
    show(stdout(), *codec_parts(written.figures))
    if quick:
        click.echo("Quick mode: few processes, wide intervals.")
    if ARROW not in CODECS:
        hint = "pip install 'capnp-rig[arrow]'"
        click.echo(f"{ARROW}, the strongest rival of columns, is not here: {hint}")
    finish(written)
    return 0 if early_end is None else ended_early(early_end)


def _pair_options(seconds: float) -> Callable[[Command], Command]:
    """Return the options of a benchmark of pairs, whose windows last `seconds` by default."""
    return options(
        click.option("--quick", is_flag=True, help=f"{_QUICK_ROUNDS} rounds, coarser intervals."),
        click.option("--rounds", type=click.IntRange(1, 99), help="Rounds.  [default: 12]"),
        click.option("--seconds", type=FiniteFloat(0.1, 60), default=seconds),
    )


def _compare_pairs(run: Callable[..., Any], config: Any) -> int:
    """Measure the pairs of a benchmark, and show all its figures; return the exit status."""
    from capnp_rig.loadtest.bench.rounds import BenchError
    from capnp_rig.loadtest.report.figures import figure_table
    from capnp_rig.loadtest.report.terminal import show

    written, early_end = measured(run, config, BenchError)
    show(stdout(), figure_table("figures", config.title, written.figures))
    finish(written)
    return 0 if early_end is None else ended_early(early_end)


def _rounds(*, quick: bool, rounds: int | None) -> dict[str, Any]:
    """Return the rounds of a config; nothing if its default is meant."""
    count = rounds or (_QUICK_ROUNDS if quick else None)
    return {} if count is None else {"rounds": count}


@click.command("bench-server")
@_pair_options(1.5)
@click.option("--idle", type=click.IntRange(1, 10_000), default=10_000)
@results_option
def bench_server(*, quick: bool, rounds: int | None, **plain: Any) -> int:
    """Compare the wire engine with the pycapnp engine, one CPU for each side."""
    from capnp_rig.loadtest.bench.server import BenchServerConfig, run

    return _compare_pairs(run, BenchServerConfig(**_rounds(quick=quick, rounds=rounds), **plain))


def _names(text: str | None, names: Iterable[str], what: str) -> tuple[str, ...] | None:
    """Return which of `names` a text A,B lists, each once, in whatever case; None without it."""
    if text is None:
        return None
    known = {name.lower(): name for name in names}
    listed = dict.fromkeys(each.strip() for each in text.split(","))
    for each in listed:
        if each.lower() not in known:
            raise click.UsageError(f"no {what} {each!r}: there are {', '.join(known.values())}")
    return tuple(dict.fromkeys(known[each.lower()] for each in listed))


def _read_peers(
    _context: click.Context, _option: click.Parameter, text: str | None
) -> tuple[str, ...] | None:
    from capnp_rig.loadtest.peers.frames import PEERS

    return _names(text, [peer.name for peer in PEERS], "peer")


@click.command("bench-peers")
@click.option("--quick", is_flag=True, help="6 rounds of shorter windows, coarser intervals.")
@click.option(
    "--rounds",
    type=click.IntRange(1, 99),
    help="Rounds; six give an interval.  [default: 12; 6 with --quick]",
)
@click.option(
    "--seconds",
    type=FiniteFloat(0.05, 60),
    help="Window of each measurement.  [default: 0.3; 0.1 with --quick]",
)
@click.option(
    "--peers",
    metavar="A,B",
    callback=_read_peers,
    help="Whose layouts, beside our own.  [default: all]",
)
@results_option
def bench_peers(*, quick: bool, **plain: Any) -> int:
    """Drive the server, and the generator, with what other implementations send.

    The layouts of pycapnp, C++ 0.9, Go, JavaScript and Rust, with the Finish or Release that they
    send: in memory; as the load of both engines and of a server that only answers; and as the
    replies that the generator gets.
    """
    from capnp_rig.loadtest.bench.peers import QUICK, BenchPeersConfig, run
    from capnp_rig.loadtest.bench.rounds import BenchError
    from capnp_rig.loadtest.report.subject_tables import peer_parts
    from capnp_rig.loadtest.report.terminal import show

    asked = {name: value for name, value in plain.items() if value is not None}
    config = BenchPeersConfig(**{**(QUICK if quick else {}), **asked})
    written, early_end = measured(run, config, BenchError)
    show(stdout(), *peer_parts(written.figures))
    finish(written)
    return 0 if early_end is None else ended_early(early_end)


_SERVER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,31}")


def _read_servers(
    _context: click.Context, _argument: click.Parameter, texts: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """Read servers such as ``rust='target/release/server {addr}'``, by name."""
    from capnp_rig.loadtest.ab.server_command import CommandError, is_address, split_command

    servers: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, _, command = text.partition("=")
        if not command or _SERVER_NAME.fullmatch(name) is None:
            raise click.UsageError(f"bad server {text!r}: expected NAME='COMMAND with {{addr}}'")
        if name in servers:
            raise click.UsageError(f"the name {name!r} is taken: give each server another")
        try:
            words = split_command(command)
        except CommandError as error:
            raise click.UsageError(f"{name}: {error}") from error
        if len(words) == 1 and is_address(command):
            raise click.UsageError(
                f"{name}: {command} is an address; give the command that starts its server, or "
                "load it with loadtest run"
            )
        servers[name] = tuple(words)
    return servers


@click.command("bench-servers")
@click.argument(
    "servers", metavar="NAME='COMMAND'...", nargs=-1, required=True, callback=_read_servers
)
@click.option("--quick", is_flag=True, help=f"{_QUICK_ROUNDS} rounds of 0.3 s.")
@click.option(
    "--rounds",
    type=click.IntRange(1, 99),
    help="Rounds, each with fresh processes; six give an interval.  [default: 12; 6 with --quick]",
)
@click.option(
    "--seconds",
    type=FiniteFloat(0.1, 60),
    help="Load of each server in a round, in turns of 0.1 s.  [default: 1; 0.3 with --quick]",
)
@rate_option
@pace_options
@load_options
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
def bench_servers(
    *,
    servers: dict[str, tuple[str, ...]],
    quick: bool,
    rounds: int | None,
    seconds: float | None,
    as_json: bool,
    **asked: Any,
) -> int:
    """Put any servers of one schema under one load, by turns.

    \b
    loadtest bench-servers rust='target/release/server {addr}' ours='server run {addr}'

    {addr} is an address with a free port; a command without it gets the address in place of the one
    it has, or as its last word. No shell runs it. A round starts all servers on the first CPU, the
    first of them twice for the A/A floor; the generator has the last CPU. All servers must answer
    the same params alike, unless there is --expect or --check id. --warmup is 100ms by default.
    Exit status 1 where a call failed. Ctrl-C leaves the rounds that are over.
    """  # noqa: D301 - click wants the sign itself
    from capnp_rig.loadtest.ab.bench_servers import QUICK, BenchServersConfig, run
    from capnp_rig.loadtest.engine.engine_runs import EngineFailed
    from capnp_rig.loadtest.engine.server_process import ServerFailed
    from capnp_rig.loadtest.report.subject_tables import server_parts
    from capnp_rig.loadtest.report.terminal import show

    given = {"rounds": rounds, "seconds": seconds}
    chosen = {name: value for name, value in given.items() if value is not None}
    timed = {**(QUICK if quick else {}), **chosen}
    load = load_of_turns(asked, seconds=timed.get("seconds", 1.0))
    config = BenchServersConfig(servers, load, **timed)
    result = measured(run, config, ServerFailed, EngineFailed)
    if as_json:
        figures = [figure.to_json() for figure in result.written.figures]
        click.echo(json.dumps({"figures": figures, "folder": str(result.written.folder)}))
    else:
        show(stdout(), *server_parts(result.written.figures))
    for reason in load.unchecked:
        click.echo(reason.text, err=True)
    has_failed = tell_failures(result.failures, result.examples)
    finish(result.written, err=as_json)
    if result.early_end is not None:
        return ended_early(result.early_end)
    return int(has_failed)


@click.command("bench-locust")
@_pair_options(2.0)
@click.option("--users", type=click.IntRange(1, 1000), default=16)
@results_option
@click.option("--calls", is_flag=True, help="Compare CapnpUser.call with ReverseUser instead.")
def bench_locust(*, quick: bool, rounds: int | None, **plain: Any) -> int:
    """Compare the Locust user with FastHttpUser, one Locust process each."""
    from capnp_rig.loadtest.bench.locust import BenchLocustConfig, run

    return _compare_pairs(run, BenchLocustConfig(**_rounds(quick=quick, rounds=rounds), **plain))


def _read_payloads(
    _context: click.Context, _option: click.Parameter, text: str | None
) -> tuple[tuple[str, int], ...] | None:
    """Read payloads such as ``32,4KiB`` or ``text:32,binary:1MiB``; without a kind it is both."""
    if text is None:
        return None
    payloads: list[tuple[str, int]] = []
    for part in text.split(","):
        kind, colon, size = part.strip().rpartition(":")
        if colon and kind not in {"text", "binary"}:
            raise click.UsageError(f"bad payload {part!r}: expected 4KiB, text:32 or binary:1MiB")
        kinds = [kind] if colon else ["text", "binary"]
        payloads += [(each, read_size(size)) for each in kinds]
    return tuple(dict.fromkeys(payloads))


def _read_stacks(
    _context: click.Context, _option: click.Parameter, text: str | None
) -> tuple[str, ...] | None:
    from capnp_rig.loadtest.protocols import STACKS

    return _names(text, STACKS, "stack")


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
    help="For payloads above 64 KiB a quarter.",
)
@results_option
def bench_stacks(*, quick: bool, **plain: Any) -> int:
    """Drive every stack with the same job and load, in interleaved rounds.

    About 18 minutes, with --quick 2. The servers have the first CPU, the generator the last: close
    other programs first. Ctrl-C ends it with the rounds done by then.
    """
    from capnp_rig.loadtest.bench.rounds import BenchError
    from capnp_rig.loadtest.bench.stacks import QUICK, BenchStacksConfig, run
    from capnp_rig.loadtest.report.stack_tables import stack_parts
    from capnp_rig.loadtest.report.terminal import show
    from capnp_rig.loadtest.stats.exit_status import exit_status, figure_statuses

    asked = {name: value for name, value in plain.items() if value is not None}
    config = BenchStacksConfig(**{**(QUICK if quick else {}), **asked})
    result = measured(run, config, BenchError)
    show(stdout(), *stack_parts(result.written.figures, result.skipped))
    finish(result.written)
    if result.stopped is not None:
        click.echo(f"Stopped after {result.rounds} of {config.rounds} rounds")
        with failures_in_one_line():
            raise result.stopped
    return exit_status(*figure_statuses(result.written.figures))


def _read_clients(
    _context: click.Context, _option: click.Parameter, text: str | None
) -> tuple[str, ...] | None:
    from capnp_rig.loadtest.clients.contenders import CONTENDERS

    return _names(text, CONTENDERS, "client")


@click.command("bench-clients")
@click.option("--quick", is_flag=True, help="1 round: 5 s healthy, 12 s of faults.")
@click.option("--rounds", type=click.IntRange(1, 99), help="Rounds.  [default: 4; 1 with --quick]")
@click.option("--rate", "rate_hz", type=FiniteFloat(1, 100_000), default=1000.0, help="Calls/s.")
@click.option(
    "--healthy",
    "healthy_s",
    type=FiniteFloat(1, 600),
    help="Seconds without a fault, in each round.  [default: 10; 5 with --quick]",
)
@click.option(
    "--faults",
    "faults_s",
    type=FiniteFloat(1, 600),
    help="Seconds of faults, behind them.  [default: 30; 12 with --quick]",
)
@click.option(
    "--clients",
    "contenders",
    metavar="A,B",
    callback=_read_clients,
    help="Which clients.  [default: all]",
)
@click.option("--seed", type=click.IntRange(0), default=1, help="Of schedule, texts and resets.")
@allow_void_option
@results_option
def bench_clients(*, quick: bool, allow_void: bool, **plain: Any) -> int:
    """Put clients of three servers under the same faults: who keeps calls good, and at what cost.

    \b
    bare         an AsyncClient per server, by turns, connected anew, without retries
    round-robin  AsyncChannel with RoundRobin alone, without retries
    default      AsyncChannel with its default stack
    hedge        the same with Hedge
    grpc.aio     with its retry policy and round_robin, over gRPC servers

    Server A becomes ten times as slow; B resets all its connections at random, 0.5 s apart in the
    mean; C is killed with SIGKILL, and started again. The load is open: response times count from
    when calls were due. Each call is idempotent, has a second, and carries a text that must come
    back reversed. The servers count the attempts.

    While servers fail, the default stack must answer 99.9 % of the calls rightly, with at most 1.2
    attempts per call, and with a p99 of at most three times that of the healthy time: else the exit
    status is 1, or 5 where the machine was too busy to tell. The client has the
    last CPU, the servers have the others. About 15 minutes, with --quick 2.
    """  # noqa: D301 - click wants the sign itself
    from capnp_rig.loadtest.bench.rounds import BenchError
    from capnp_rig.loadtest.clients.bench_clients import QUICK, BenchClientsConfig, run
    from capnp_rig.loadtest.clients.client_figures import client_statuses
    from capnp_rig.loadtest.engine.server_process import ServerFailed
    from capnp_rig.loadtest.report.client_parts import client_parts
    from capnp_rig.loadtest.report.terminal import show
    from capnp_rig.loadtest.stats.exit_status import exit_status

    asked = {name: value for name, value in plain.items() if value is not None}
    config = BenchClientsConfig(**{**(QUICK if quick else {}), **asked})
    result = measured(run, config, BenchError, ServerFailed)
    show(stdout(), *client_parts(result.written.figures))
    for name, reason in result.skipped.items():
        click.echo(f"{name} was left out: {reason}", err=True)
    finish(result.written)
    if result.early_end is not None:
        return ended_early(result.early_end)
    return exit_status(*client_statuses(result.written.figures), allow_void=allow_void)


@click.command()
@click.option("--seconds", type=click.IntRange(1, 600), default=10)
@click.option("--users", type=click.IntRange(1, 1000), default=16)
@click.option("--in-flight", type=click.IntRange(1, 256), default=1, help="Per user.")
@click.option("--payload-bytes", type=click.IntRange(16, 1 << 20), default=32)
@click.option("--workers", type=click.IntRange(1, 64), default=1)
@allow_void_option
@results_option
def demo(**plain: Any) -> int:
    """Start a server, load it with Locust, and show what it did."""
    from capnp_rig.loadtest.bench.demo import DemoConfig, run
    from capnp_rig.loadtest.bench.rounds import BenchError
    from capnp_rig.loadtest.report.figures import figure_table
    from capnp_rig.loadtest.report.terminal import show

    config = DemoConfig(**plain)
    with failures_in_one_line(BenchError):
        result = run(config, say=lambda text: click.echo(text, err=True))
    show(stdout(), figure_table("figures", config.title, result.figures))
    for kind, number in result.failures.items():
        click.echo(f"{number:,} x {kind}")
    click.echo(f"Written to {result.folder}")
    return result.exit_status

"""``loadtest run`` and ``loadtest search``: their options, and what they print."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from functools import partial
from typing import Any

import click

from capnp_rig import rigcli
from capnp_rig.client.tls_options import TLS_OPTIONS, tls_of, tls_options
from capnp_rig.loadtest.cli.terminal import (
    Command,
    allow_void_option,
    ended_early,
    failures_in_one_line,
    finish,
    measured,
    name_option,
    options,
    results_option,
    stdout,
)
from capnp_rig.loadtest.engine.progress import Rhythm
from capnp_rig.rigcli.address import Address
from capnp_rig.rigcli.finite_numbers import FiniteFloat
from capnp_rig.rigcli.message_limit import message_limit_option
from capnp_rig.rigcli.quantities import (
    HIGHEST_RATE_HZ,
    MOST_IN_FLIGHT,
    in_flight_warning,
    parse_rate_hz,
    parse_seconds,
)

_SIZE_UNITS = {"": 1, "b": 1, "k": 1000, "kb": 1000, "kib": 1 << 10, "mb": 10**6, "mib": 1 << 20}
_MOST_PAYLOAD_BYTES = 16 << 20
_LONGEST_S = 86_400
# Of servers that take turns: as long as a turn.
_TURN_WARMUP_S = 0.1
_HIGHEST_DOUBLED_HZ = 1e6
# What --json of a search has of its run.json.
_ANSWERED = ("rate_hz", "failing_hz", "limit", "verified")
_TOLD = ("checked", "failed_calls", "ended_early", "name", "config", "environment")


def _read_rate(_context: click.Context, _option: click.Parameter, text: str) -> float | None:
    try:
        return parse_rate_hz(text)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def read_seconds(
    _context: click.Context, option: click.Parameter, text: str | None
) -> float | None:
    """Return the seconds of an option such as 500ms, 30s or 1h30m; None without one.

    Raises:
        click.UsageError: It is no duration, or out of range.
    """
    if text is None:
        return None
    try:
        seconds = parse_seconds(text)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    least = {"warmup_s": "0s", "turn_s": "10ms"}.get(option.name or "", "100ms")
    if not parse_seconds(least) <= seconds <= _LONGEST_S:
        raise click.UsageError(f"bad duration {text!r}: expected {least} to 24h")
    return seconds


def _read_urls(
    _context: click.Context, _option: click.Parameter, urls: tuple[str, ...]
) -> tuple[str, ...]:
    from capnp_rig.loadtest.scrape.scraper import check_url

    try:
        return tuple(dict.fromkeys(map(check_url, urls)))
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _read_size(_context: click.Context, _option: click.Parameter, text: str) -> int:
    return read_size(text)


def read_size(text: str) -> int:
    """Return the bytes of a payload such as 32, 4KiB or 1MiB.

    Raises:
        click.UsageError: It is none.
    """
    match = re.fullmatch(r"([0-9]+)\s*([a-z]*)", text.strip().lower())
    size = 0
    if match is not None and match[2] in _SIZE_UNITS:
        size = int(match[1]) * _SIZE_UNITS[match[2]]
    if not 1 <= size <= _MOST_PAYLOAD_BYTES:
        raise click.UsageError(
            f"bad payload {text!r}: expected 1 byte to {_MOST_PAYLOAD_BYTES >> 20} MiB, "
            "such as 32, 4KiB or 1MiB"
        )
    return size


# As in `loadtest.protocols` and `loadtest.workload`, which are only imported when asked for.
_STACKS = ("capnp", "echo", "json", "http1", "http2", "grpc", "selectors")
_PAYLOAD_KINDS = ("text", "binary")


def connections_option(default: int) -> Callable[[Command], Command]:
    """Return ``--connections`` with a default."""
    return click.option("--connections", type=click.IntRange(1, 10_000), default=default)


rate_option = click.option(
    "--rate",
    "rate_hz",
    default="closed",
    metavar="CALLS_PER_S",
    callback=_read_rate,
    help="Open loop at this rate, over all connections; closed waits for replies.",
)
# Of how calls follow each other: a sweep has a closed loop, and its own --in-flight.
pace_options = options(
    connections_option(64),
    click.option(
        "--in-flight",
        type=click.IntRange(1, MOST_IN_FLIGHT),
        default=1,
        help="Calls under way per connection, at most; loadtest sweep takes several numbers.",
    ),
    click.option(
        "--arrivals",
        type=click.Choice(["poisson", "fixed"]),
        default="poisson",
        help="How calls of an open loop are spread.",
    ),
)
# Of what is sent, and by whom.
load_options = options(
    click.option(
        "--stack",
        type=click.Choice(_STACKS),
        default="capnp",
        help="Protocol to speak; http1 and http2 are for a server's --stack http.",
    ),
    click.option(
        "--warmup",
        "warmup_s",
        callback=read_seconds,
        help="Load before the measured window.  [default: 500ms; 0 with --calls]",
    ),
    click.option(
        "--timeout",
        "timeout_s",
        default="15s",
        callback=read_seconds,
        help="Deadline of each call.",
    ),
    click.option(
        "--payload",
        "payload_bytes",
        default="32",
        metavar="SIZE",
        callback=_read_size,
        help="Size of the texts for the tutorial's read, as 32, 4KiB or 1MiB.",
    ),
    message_limit_option("Largest message of the capnp stack, in either direction."),
    click.option(
        "--payload-kind",
        type=click.Choice(_PAYLOAD_KINDS),
        default="text",
        help="binary sends bytes; on capnp, to --service capnp_rig.server.services.binary:Binary.",
    ),
    click.option(
        "--text", default="", show_default=False, help="Send this text, after a nonce, instead."
    ),
    click.option(
        "--corpus",
        type=click.Path(dir_okay=False),
        help="Send the lines of this file in turn, each after a nonce.",
    ),
    click.option(
        "--schema", metavar="FILE", help="Schema of the server.  [default: the tutorial's]"
    ),
    rigcli.import_path_option,
    click.option(
        "--interface", metavar="NAME", help="Interface to call; needed where there are several."
    ),
    click.option(
        "--method", metavar="NAME", help="Method to call; needed where there are several."
    ),
    click.option(
        "--via",
        metavar="CALLS",
        help="Calls that lead to the capability to call, once per connection, as "
        """'login({"user": "u{{user}}"}).session'; --interface is then where they start, or the """
        "capability's.",
    ),
    click.option(
        "--pipeline",
        is_flag=True,
        help="Make the calls of --via part of each call, all in one round trip.",
    ),
    click.option(
        "--params",
        metavar="JSON|@FILE",
        help="Params: an object, or a line of JSON per call, cycled; {{i}}, {{user}}, {{uuid}} "
        "and {{time_ns}} are filled in.",
    ),
    click.option(
        "--expect",
        metavar="JSON|@FILE",
        help="Fields that the results must have, as --params; without it, replies to params "
        "without templates must equal the first one.",
    ),
    click.option(
        "--check",
        type=click.Choice(["content", "id"]),
        help="What is compared of every reply: its content, with --expect or the first reply to "
        "the same params, or its id alone; the guide has the cost.  [default: content]",
    ),
    click.option("--processes", type=click.IntRange(1, 64), default=1),
    click.option("--seed", type=int, default=1, help="Of the schedule and the texts."),
    click.option(
        "--pin/--no-pin",
        default=True,
        show_default=False,
        help="Pin each process to a CPU, from the last on.",
    ),
    tls_options,
    name_option,
    results_option,
)


def tell_in_flight(stack: str, most: int) -> None:
    """Say before the load if a server refuses so many calls in flight by default.

    The other stacks' clients wait, or their servers have no such limit.
    """
    warning = in_flight_warning(most) if stack == "capnp" else None
    if warning is not None:
        click.echo(f"warning: {warning}", err=True)


def load_config(asked: Mapping[str, Any], **more: Any) -> Any:
    """Return the config that the options ask for.

    Raises:
        click.UsageError: A file cannot be read, or what to send is unusable.
    """
    from capnp_rig.loadtest.engine.run import RunConfig
    from capnp_rig.loadtest.protocols import checks_content, load_any_workload, unchecked_of
    from capnp_rig.loadtest.workload import (
        WorkloadConfig,
        WorkloadError,
        read_corpus,
        read_params_argument,
    )

    # None, as the others, where it is not given.
    plain = {**asked, "import_path": asked["import_path"] or None}
    sent = {each.name: plain.pop(each.name) for each in fields(WorkloadConfig)}
    try:
        for name, read in {
            "params": read_params_argument,
            "expect": read_params_argument,
            "corpus": read_corpus,
        }.items():
            sent[name] = None if sent[name] is None else read(sent[name])
        workload = WorkloadConfig(**sent)
        loaded = load_any_workload(plain["stack"], workload)
        compares = checks_content(plain["stack"], loaded, plain.pop("check"))
    except WorkloadError as error:
        raise click.UsageError(str(error)) from error
    addresses = [*plain.get("addresses", ()), *more.get("addresses", ())]
    if plain["connections"] < len(addresses):
        raise click.UsageError(
            f"--connections {plain['connections']} is too few: each of {len(addresses)} addresses "
            "takes one"
        )
    tls = tls_of({name: plain.pop(name) for name in TLS_OPTIONS})
    if tls is not None:
        _check_tls(tls, plain["stack"])
    warmup_s = plain.pop("warmup_s")
    if warmup_s is None:
        warmup_s = 0.0 if more.get("calls") else 0.5
    return RunConfig(
        workload=workload,
        seed=workload.seed,
        warmup_s=warmup_s,
        checks_content=compares,
        unchecked=unchecked_of(loaded, checks_content=compares),
        tls=tls,
        **plain,
        **more,
    )


def _check_tls(tls: Any, stack: str) -> None:
    """Refuse files that no connection could be made with, before the load."""
    from capnp_rig.objects.errors import UsageError

    if stack == "selectors":
        raise click.UsageError("--tls does not go with --stack selectors, which has none")
    try:
        tls.context()
    except UsageError as error:
        raise click.UsageError(str(error)) from error


def load_of_turns(asked: Mapping[str, Any], *, seconds: float) -> Any:
    """Return the config of the load of several servers that take turns, each of `seconds`.

    Raises:
        click.UsageError: As `load_config`.
    """
    from capnp_rig.rigcli.address import Address, Addresses

    warmup_s = _TURN_WARMUP_S if asked["warmup_s"] is None else asked["warmup_s"]
    # Each server has its own address.
    timed = {**asked, "warmup_s": warmup_s}
    return load_config(timed, addresses=Addresses([Address()]), seconds=seconds, calls=None)


@click.command("run")
@rigcli.addresses_argument
@rate_option
@click.option("--duration", "seconds", callback=read_seconds, help="  [default: 30s]")
@click.option(
    "--calls", type=click.IntRange(1), help="Send so many calls, instead of for a duration."
)
@click.option(
    "--repeats",
    type=click.IntRange(1, 99),
    default=1,
    help="Fresh generator processes, one after the other; six or more for compare.",
)
@pace_options
@load_options
@click.option(
    "--fail-if",
    multiple=True,
    metavar="CONDITION",
    help="Exit with 1 if it holds, as p99>2ms, errors>0.1%, calls/s<20000; repeatable.",
)
@click.option(
    "--scrape",
    multiple=True,
    metavar="URL",
    callback=_read_urls,
    help="Read this Prometheus endpoint every second of the run, and draw it beside the times; "
    "host:port stands for http://host:port/metrics. Repeatable.",
)
@click.option(
    "--metrics",
    metavar="ADDR",
    callback=rigcli.read_address_option,
    help="Serve the figures so far to a Prometheus server, at http://ADDR/metrics.",
)
@allow_void_option
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@click.option(
    "--show",
    "is_look",
    is_flag=True,
    help="Make --calls one after the other, one by default, print each reply as JSON and measure "
    "nothing: a first look before a load.",
)
def run_command(
    *,
    is_look: bool,
    as_json: bool,
    allow_void: bool,
    fail_if: tuple[str, ...],
    seconds: float | None,
    calls: int | None,
    metrics: Address | None,
    **asked: Any,
) -> int:
    """Load the server at ADDR, or several, and check the replies.

    Without more options they are calls of the tutorial's `read`.

    Exit status: 1 when a call failed or a --fail-if held, 5 when the run is void, its figures
    not to be believed, else 0. With --fail-if errors>... failed calls alone are no failure.
    """
    from capnp_rig.loadtest.engine.run import RunError, run
    from capnp_rig.loadtest.report.run_tables import summary_parts
    from capnp_rig.loadtest.report.terminal import show
    from capnp_rig.loadtest.stats.exit_status import exit_status, load_statuses
    from capnp_rig.loadtest.stats.thresholds import ThresholdError, parse_threshold

    if seconds is not None and calls is not None:
        raise click.UsageError("give --duration or --calls, not both")
    if is_look and seconds is not None:
        raise click.UsageError("--show makes --calls, for no --duration")
    if seconds is None and calls is None:
        seconds = 30.0
    try:
        thresholds = [parse_threshold(text) for text in fail_if]
    except ThresholdError as error:
        raise click.UsageError(str(error)) from error
    config = load_config(asked, seconds=seconds, calls=calls, fail_if=fail_if)
    tell_in_flight(asked["stack"], asked["in_flight"])
    if is_look:
        return _show_replies(config, calls or 1, in_lines=as_json)
    with _exporting(metrics, config.name) as live:
        result = measured(partial(run, live=live), config, RunError, rhythm=Rhythm(first_s=5.0))
    summary = result.summary
    violations = [text for each in thresholds if (text := each.violation(summary)) is not None]
    if as_json:
        click.echo(json.dumps(result.to_json(violations)))
    else:
        show(stdout(), *summary_parts(summary, result.server))
    for reason in summary.reasons:
        click.echo(f"{'failed' if reason.is_failure else 'void'}: {reason.text}", err=True)
    for violation in violations:
        click.echo(f"failed: {violation}", err=True)
    for note in result.notes:
        click.echo(note, err=True)
    finish(result.written, err=True)
    if result.signal is not None:
        return 128 + result.signal
    if result.failure is not None:
        raise click.ClickException(result.failure)
    tolerated = any(threshold.is_of_errors for threshold in thresholds)
    holding = load_statuses(summary, violated=bool(violations), tolerates_errors=tolerated)
    return exit_status(*holding, allow_void=allow_void)


@contextmanager
def _exporting(address: Address | None, name: str | None) -> Iterator[Any]:
    """Serve the live figures of a run while it lasts, where that is asked for."""
    if address is None:
        yield None
        return
    from capnp_rig.loadtest.live.exporter import Exporter, ExporterError
    from capnp_rig.loadtest.live.figures import LiveRepeats

    live = LiveRepeats()
    with ExitStack() as stack:
        with failures_in_one_line(ExporterError):
            labels = {} if name is None else {"run": name}
            exporter = stack.enter_context(Exporter(address, live.read, labels))
        click.echo(f"Metrics at {exporter.url}", err=True)
        yield live


def _show_replies(config: Any, calls: int, *, in_lines: bool) -> int:
    """Print the replies to some calls as JSON; return the exit status."""
    from capnp_rig.loadtest.engine.look import look
    from capnp_rig.loadtest.report.terminal import printable
    from capnp_rig.objects.errors import ClientError

    status = 0
    with failures_in_one_line(ClientError):
        for seen in look(config, calls):
            if seen.reply:
                click.echo(json.dumps(json.loads(seen.reply)) if in_lines else seen.reply)
            if seen.text:
                click.echo(f"Data as text: {printable(seen.text)}", err=True)
            if seen.failure is not None:
                status = 1
                for line in (f"failed: {seen.failure.text}", *seen.failure.lines):
                    click.echo(line, err=True)
    for reason in config.unchecked:
        click.echo(reason.text, err=True)
    return status


@click.command("search")
@rigcli.addresses_argument
@click.option(
    "--slo", required=True, metavar="OBJECTIVE", help="As 'p99<1ms' or 'p99<2ms and errors<0.1%'."
)
@click.option(
    "--probe",
    "seconds",
    default="2s",
    callback=read_seconds,
    help="Measured time of each probe.",
)
@click.option(
    "--from",
    "from_hz",
    type=FiniteFloat(1, HIGHEST_RATE_HZ),
    help="The first rate to try.  [default: --to, else 1000]",
)
@click.option(
    "--to",
    "to_hz",
    type=FiniteFloat(1, HIGHEST_RATE_HZ),
    help="The highest rate to try; it is tried at once.  [default: double up to 1e6]",
)
@pace_options
@load_options
@allow_void_option
@click.option("--json", "as_json", is_flag=True, help="Print the answer as one JSON object.")
def search_command(
    *,
    as_json: bool,
    allow_void: bool,
    slo: str,
    from_hz: float | None,
    to_hz: float | None,
    **asked: Any,
) -> int:
    """Find the highest rate at which the server at ADDR, or several, keep their objectives.

    Doubles the rate until a probe fails, bisects until the ends are less than 5 % apart, repeats
    each rate three times in shuffled order, and verifies both ends with five more. Exit status: 0
    with a verified rate; without any 1, or 5 if not the server was the limit; 1, too, when a reply
    was wrong or a call failed at a rate that held, unless the objective has errors<.... Ctrl-C,
    SIGTERM and a dying server leave a result of the probes that were over.
    """
    from capnp_rig.loadtest.engine.run import RunError
    from capnp_rig.loadtest.engine.search import SearchConfig, run
    from capnp_rig.loadtest.report.rate_curve import rate_table
    from capnp_rig.loadtest.report.run_tables import answer_notes, check_notes
    from capnp_rig.loadtest.report.terminal import show
    from capnp_rig.loadtest.stats.exit_status import exit_status, search_statuses
    from capnp_rig.loadtest.stats.slo import SloError, parse_slo

    try:
        objective = parse_slo(slo)
    except SloError as error:
        raise click.UsageError(str(error)) from error
    start_hz, highest_hz = from_hz or to_hz or 1000.0, to_hz or _HIGHEST_DOUBLED_HZ
    if start_hz > highest_hz:
        raise click.UsageError("--from is above --to" if to_hz else "--from takes --to as well")
    load = load_config(asked)
    tell_in_flight(asked["stack"], asked["in_flight"])
    config = SearchConfig(load, objective, start_hz, highest_hz, tries_highest=to_hz is not None)
    if config.lowest_hz > highest_hz:
        raise click.UsageError(
            f"too few calls: {slo} takes {config.lowest_hz:,.0f} calls/s or a longer --probe"
        )
    result = measured(run, config, RunError, rhythm=Rhythm(every_s=0.0))
    document = result.written.result.document
    curve = [point.to_json() for point in result.curve]
    if as_json:
        answer = {name: document["found"][name] for name in _ANSWERED}
        more = {name: document[name] for name in _TOLD} | {"folder": str(result.written.folder)}
        click.echo(json.dumps({"slo": objective.text, **answer, "curve": curve, **more}))
    else:
        notes = *answer_notes(objective, result.answer), *check_notes(document)
        show(stdout(), rate_table(curve, slo), *notes)
    finish(result.written, err=True)
    if result.early_end is not None:
        return ended_early(result.early_end)
    holding = search_statuses(result.answer, has_failed=result.has_failed)
    return exit_status(*holding, allow_void=allow_void)

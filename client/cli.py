"""The `client` command: ``client send ADDR "msg"``, `call`, `ping`, and `stubs` of a schema.

`send` and `ping` talk to the server of any stack, too: ``client ping --stack json`` sends the
tutorial's ``"Ping"``.
"""

import codecs
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from capnp_rig import rigcli
from capnp_rig.client.reasons import reason_line
from capnp_rig.client.stacks.registry import STACKS, LibraryMissingError, TextClient, connect_stack
from capnp_rig.client.statuses import STATUS_HELP, Status, status_of
from capnp_rig.client.tls_options import TLS_OPTIONS, tls_of, tls_options
from capnp_rig.objects.errors import ClientError, DeadlineExceeded, UsageError
from capnp_rig.objects.timeouts import CALL_TIMEOUT_S, CONNECT_TIMEOUT_S
from capnp_rig.rigcli.address import Address
from capnp_rig.rigcli.finite_numbers import FiniteFloat
from capnp_rig.rigcli.message_limit import message_limit_option
from capnp_rig.wire.errors import EncodeError, MalformedMessage

if TYPE_CHECKING:
    from capnp_rig.client.bootstrap_ping import Reply

_Decorator = Callable[[Callable[..., None]], Callable[..., None]]

# Of what a server says about an error.
_MAX_REASON_CHARS = 1000


# The help of every option names its default.
@click.group(context_settings={"show_default": True})
@click.version_option(package_name="capnp-rig", message="%(prog)s %(version)s")
def cli() -> None:
    """Call a Cap'n Proto server, or one of the stacks beside it.

    ADDR is host:port, [ipv6]:port or unix:/path.
    """


def _options(*declared: _Decorator) -> _Decorator:
    """Return what declares options on a command, in that order."""

    def declare(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(declared):
            command = option(command)
        return command

    return declare


_positive = FiniteFloat(min=0, min_open=True)
_timeout_options = _options(
    rigcli.address_argument,
    click.option(
        "--timeout",
        type=_positive,
        default=CALL_TIMEOUT_S,
        metavar="SECONDS",
        help="Deadline of each call.",
    ),
    click.option("--connect-timeout", type=_positive, default=CONNECT_TIMEOUT_S, metavar="SECONDS"),
    message_limit_option("Largest message, in either direction; of the capnp stack only."),
    tls_options,
)
_connection_options = _options(
    _timeout_options,
    click.option(
        "--stack",
        type=click.Choice(STACKS),
        default="capnp",
        help="The protocol that the server speaks.",
    ),
    click.option("--http2", is_flag=True, help="With --stack http: HTTP/2, prior knowledge."),
)


# --- send -----------------------------------------------------------------------------------


@cli.command()
@_connection_options
@click.argument("message", required=False)
def send(address: Address, message: str | None, max_message_bytes: int, **connection: Any) -> None:
    """Send MESSAGE and print the answer.

    Without MESSAGE, ask for one on a terminal, or send each line of the standard
    input and print its answer.
    """
    connecting = _connected(address, max_message_bytes=max_message_bytes, **connection)
    with _reported(), connecting as client:
        if message is not None:
            # The arguments are bytes, which Python decodes as the locale has it.
            _exchange(client, _text(os.fsencode(message), "the message"))
        elif sys.stdin is None:
            raise click.UsageError("no message: the standard input is closed")
        elif sys.stdin.isatty():
            _converse(client, address, max_message_bytes)
        else:
            for line in _lines(max_message_bytes):
                _exchange(client, line)


def _check_stack(stack: str, *, http2: bool) -> None:
    if http2 and stack != "http":
        raise click.UsageError("--http2 goes with --stack http")
    source = click.get_current_context().get_parameter_source("max_message_bytes")
    if stack != "capnp" and source is not ParameterSource.DEFAULT:
        raise click.UsageError(f"--max-message does not go with --stack {stack}")


@contextmanager
def _connected(
    address: Address,
    *,
    stack: str,
    http2: bool,
    timeout: float,
    connect_timeout: float,
    max_message_bytes: int,
    **options: Any,
) -> Iterator[TextClient]:
    _check_stack(stack, http2=http2)
    tls = tls_of(options)
    timeouts: dict[str, Any] = {"timeout_s": timeout, "connect_timeout_s": connect_timeout}
    client: TextClient
    if stack == "capnp":
        # Only once the options are known to be good: it takes half the time of a start.
        from capnp_rig.client.reverse import ReverseClient

        client = ReverseClient.connect(
            address, **timeouts, max_message_bytes=max_message_bytes, tls=tls
        )
    else:
        client = connect_stack(stack, address, **timeouts, http2=http2, tls=tls)
    with closing(client):
        yield client


def _exchange(client: TextClient, message: str) -> None:
    answer = client.read(message)
    # Bytes, as they came: a server that is not ours may answer with anything.
    sys.stdout.buffer.write(answer + b"\n")
    sys.stdout.buffer.flush()


def _converse(client: TextClient, address: Address, most_bytes: int) -> None:
    click.echo(f"Connected to inference server at {address}", err=True)
    click.echo("Enter your message:", err=True)
    for line in _lines(most_bytes):
        _exchange(client, line.strip())
        return


def _lines(most_bytes: int) -> Iterator[str]:
    """Yield the lines of the input; a longer one fits into no message."""
    number = 0
    while line := sys.stdin.buffer.readline(most_bytes + 1):
        number += 1
        if len(line) > most_bytes:
            # Nor is it read to its end: there may be none.
            raise click.UsageError(
                f"line {number} of the input is over {most_bytes} bytes: no message holds it "
                "(--max-message)"
            )
        yield _text(line, f"line {number} of the input").removesuffix("\n").removesuffix("\r")


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{what} is not UTF-8") from error


# --- call -----------------------------------------------------------------------------------


@cli.command(epilog=STATUS_HELP)
@_timeout_options
@click.option(
    "--schema",
    metavar="FILE",
    default="message.capnp",
    help="Schema of the server.",
)
@rigcli.import_path_option
@click.option("--interface", metavar="NAME", help="Needed where the schema has several.")
@click.option("--method", metavar="NAME", help="Needed where the interface has several.")
@click.option(
    "--params", default="{}", metavar="JSON", help="An object; @FILE reads it, - from stdin."
)
@click.option(
    "--via", metavar="CHAIN", help="Calls that lead to a capability: 'login({}).session'."
)
@click.option("--int64-strings", is_flag=True, help="Print Int64 and UInt64 as strings.")
def call(
    address: Address,
    timeout: float,
    connect_timeout: float,
    max_message_bytes: int,
    params: str,
    **asked: Any,
) -> None:
    """Call a method by its names, and print the results as JSON.

    With --via it is one of the capability to which the chain of calls leads, which
    takes no round trip more.
    """
    # As above.
    from capnp_rig.client.named_call import MISTAKES, call_by_name, read_call
    from capnp_rig.client.via import BrokenChainError
    from capnp_rig.wire.json_values.writing import document

    int64_strings = asked.pop("int64_strings")
    tls = tls_of({name: asked.pop(name) for name in TLS_OPTIONS})
    try:
        named = read_call(params=_params_text(params, max_message_bytes), **asked)
    except MISTAKES as error:
        raise click.UsageError(str(error)) from error
    with _reported(status_of):
        try:
            results = call_by_name(
                named,
                address,
                timeout_s=timeout,
                connect_timeout_s=connect_timeout,
                max_message_bytes=max_message_bytes,
                tls=tls,
            )
            is_utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
            _say(document(results, int64_as_text=int64_strings, ascii_only=not is_utf8))
        except BrokenChainError as error:
            raise _Failure(str(error), Status.FAILED) from error
        except MalformedMessage as error:
            raise _Failure(f"the results cannot be read: {error}", Status.LOST) from error


def _params_text(params: str, max_message_bytes: int) -> str:
    from capnp_rig.client.params_argument import json_limit_bytes, read_params_argument

    if params == "-" and sys.stdin is None:
        raise click.UsageError("no params: the standard input is closed")
    stdin = None if sys.stdin is None else sys.stdin.buffer
    return read_params_argument(params, stdin=stdin, most_bytes=json_limit_bytes(max_message_bytes))


# --- ping -----------------------------------------------------------------------------------


@cli.command(epilog=STATUS_HELP)
@_connection_options
@click.option("--count", "-c", type=click.IntRange(min=1), default=4)
@click.option(
    "--interval",
    "-i",
    type=FiniteFloat(min=0),
    default=0.0,
    metavar="SECONDS",
    help="From one ping to the next.",
)
def ping(address: Address, count: int, interval: float, timeout: float, **connection: Any) -> None:
    """Time COUNT answers of a server, one after the other.

    It is asked for its bootstrap interface, which any server of Cap'n Proto
    answers, whatever it serves. The other stacks get an empty call each.
    """
    from capnp_rig.client.ping_log import PingLog

    started_ns = time.perf_counter_ns()
    log = PingLog()
    with _reported(status_of), _pinging(address, timeout=timeout, **connection) as ping_once:
        _say(f"connected to {address} in {(time.perf_counter_ns() - started_ns) / 1000:.0f} µs")
        try:
            due_s = time.monotonic()
            for _ in range(count):
                time.sleep(max(due_s - time.monotonic(), 0))
                due_s = time.monotonic() + interval
                try:
                    _say(log.replied(ping_once()))
                except DeadlineExceeded:
                    if connection["stack"] != "capnp":
                        # Its calls have no numbers: the late answer would be the next one's.
                        raise
                    _say(log.missed(timeout))
        finally:
            if log.sent:
                _say(log.summary())
    if log.error is not None:
        reason = _reason(log.error)
        raise _Failure(f"the server has no bootstrap interface: {reason}", Status.FAILED)
    if log.late:
        raise _Failure(f"{log.late} of {log.sent} pings had no answer in time", Status.LATE)


@contextmanager
def _pinging(
    address: Address,
    *,
    timeout: float,
    connect_timeout: float,
    max_message_bytes: int,
    stack: str,
    http2: bool,
    **options: Any,
) -> Iterator[Callable[[], "Reply"]]:
    """Yield what pings a server once."""
    from capnp_rig.client.bootstrap_ping import BootstrapPinger, Reply

    _check_stack(stack, http2=http2)
    tls = tls_of(options)
    if stack == "capnp":
        with closing(
            BootstrapPinger.connect(address, connect_timeout, max_message_bytes, tls)
        ) as pinger:
            yield lambda: pinger.ping(timeout)
        return
    timeouts: dict[str, Any] = {"timeout_s": timeout, "connect_timeout_s": connect_timeout}
    with closing(connect_stack(stack, address, **timeouts, http2=http2, tls=tls)) as client:

        def ping_once() -> Reply:
            started_ns = time.perf_counter_ns()
            client.ping()
            return Reply(time.perf_counter_ns() - started_ns, None)

        yield ping_once


# --- stubs ----------------------------------------------------------------------------------


@cli.command()
@click.argument("schema", metavar="FILE")
@rigcli.import_path_option
def stubs(schema: str, import_path: tuple[str, ...]) -> None:
    """Print the stubs of the schema in FILE, for type checkers and editors.

    They say which methods its interfaces have, with which params and results:
    client stubs my.capnp > my_stubs.pyi
    """
    # As above.
    from capnp_rig.client.named_methods import load_users_schema
    from capnp_rig.client.stubs.describe import describe
    from capnp_rig.client.stubs.nodes import nodes_of
    from capnp_rig.client.stubs.render import render
    from capnp_rig.schema import SchemaError

    try:
        module = load_users_schema(schema, import_path)
    except SchemaError as error:
        raise click.UsageError(str(error)) from error
    described = describe(nodes_of(module), module.schema.node.id)
    click.echo(render(described, Path(schema).name), nl=False, file=sys.stdout)


# --- all of them ----------------------------------------------------------------------------


def _say(text: str) -> None:
    # Where the output is ASCII, click would choose UTF-8 by itself.
    click.echo(text, file=sys.stdout)


@contextmanager
def _reported(
    status_of_error: Callable[[ClientError | LibraryMissingError], int] = lambda _: Status.FAILED,
) -> Iterator[None]:
    """Turn the client's errors into one line and an exit status."""
    try:
        yield
    except (EncodeError, UsageError) as error:
        raise click.UsageError(str(error)) from error
    except LibraryMissingError as error:
        raise _Failure(str(error), status_of_error(error)) from error
    except ClientError as error:
        raise _Failure(_reason(error), status_of_error(error)) from error


def _reason(error: ClientError) -> str:
    return reason_line(error)[:_MAX_REASON_CHARS] or "no reason given"


class _Failure(click.ClickException):
    """Ends a command with one line and a status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.exit_code = status  # type: ignore[misc] # click's own way

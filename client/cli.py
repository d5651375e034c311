"""The `client` command: ``client send ADDR "msg"`` and ``client ping ADDR``.

Both talk to the server of any stack; ``client ping --stack json`` sends the tutorial's ``"Ping"``.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import click

from capnp_rig import rigcli
from capnp_rig.client.errors import ClientError, UsageError
from capnp_rig.client.stacks.registry import STACKS, LibraryMissingError, StackClient, connect_stack
from capnp_rig.client.timeouts import CALL_TIMEOUT_S, CONNECT_TIMEOUT_S
from capnp_rig.rigcli.address import Address
from capnp_rig.rigcli.finite_numbers import FiniteFloat
from capnp_rig.wire.encoding.frames import FrameLimits
from capnp_rig.wire.errors import EncodeError

if TYPE_CHECKING:
    from capnp_rig.client.reverse import ReverseClient

# A longer line fits into no message.
_MAX_LINE_BYTES = FrameLimits().max_words * 8


# The help of every option names its default.
@click.group(context_settings={"show_default": True})
@click.version_option(package_name="capnp-rig", message="%(prog)s %(version)s")
def cli() -> None:
    """Call a Cap'n Proto server, or one of the stacks beside it.

    ADDR is host:port, [ipv6]:port or unix:/path.
    """


def _connection_options(command: Callable[..., None]) -> Callable[..., None]:
    """Declare the address and the options that `_connected` takes."""
    positive = FiniteFloat(min=0, min_open=True)
    for option in (
        click.option(
            "--connect-timeout",
            type=positive,
            default=CONNECT_TIMEOUT_S,
            metavar="SECONDS",
        ),
        click.option(
            "--timeout",
            type=positive,
            default=CALL_TIMEOUT_S,
            metavar="SECONDS",
            help="Deadline of each call.",
        ),
        click.option("--http2", is_flag=True, help="With --stack http: HTTP/2, prior knowledge."),
        click.option(
            "--stack",
            type=click.Choice(STACKS),
            default="capnp",
            help="The protocol that the server speaks.",
        ),
        rigcli.address_argument,
    ):
        command = option(command)
    return command


@cli.command()
@_connection_options
@click.argument("message", required=False)
def send(address: Address, message: str | None, **connection: Any) -> None:
    """Send MESSAGE and print the answer.

    Without MESSAGE, ask for one on a terminal, or send each line of the standard
    input and print its answer.
    """
    with _connected(address, **connection) as client:
        if message is not None:
            # The arguments are bytes, which Python decodes as the locale has it.
            _exchange(client, _text(os.fsencode(message), "the message"))
        elif sys.stdin is None:
            raise click.UsageError("no message: the standard input is closed")
        elif sys.stdin.isatty():
            _converse(client, address)
        else:
            for line in _lines():
                _exchange(client, line)


@cli.command()
@_connection_options
@click.option("--count", "-c", type=click.IntRange(min=1), default=4)
def ping(address: Address, count: int, **connection: Any) -> None:
    """Time COUNT empty calls, one after the other."""
    started_ns = time.perf_counter_ns()
    with _connected(address, **connection) as client:
        _say(f"connected to {address} in {_elapsed_us(started_ns)} µs")
        for number in range(1, count + 1):
            started_ns = time.perf_counter_ns()
            with _reported():
                client.ping()
            _say(f"reply {number} in {_elapsed_us(started_ns)} µs")


def _say(text: str) -> None:
    # Where the output is ASCII, click would choose UTF-8 by itself.
    click.echo(text, file=sys.stdout)


def _elapsed_us(started_ns: int) -> str:
    return f"{(time.perf_counter_ns() - started_ns) / 1000:.0f}"


class _CapnpClient:
    """`ReverseClient` as one of the stacks' clients."""

    def __init__(self, client: "ReverseClient") -> None:
        self.read = client.read
        self.close = client.close

    def ping(self) -> None:
        self.read("")


@contextmanager
def _connected(
    address: Address, *, stack: str, http2: bool, timeout: float, connect_timeout: float
) -> Iterator[StackClient]:
    if http2 and stack != "http":
        raise click.UsageError("--http2 goes with --stack http")
    timeouts = {"timeout_s": timeout, "connect_timeout_s": connect_timeout}
    client: StackClient
    with _reported():
        if stack == "capnp":
            # Only once the options are known to be good: it takes half the time of a start.
            from capnp_rig.client.reverse import ReverseClient

            client = _CapnpClient(ReverseClient.connect(address, **timeouts))
        else:
            client = connect_stack(stack, address, **timeouts, http2=http2)
    with closing(client):
        yield client


@contextmanager
def _reported() -> Iterator[None]:
    """Turn the client's errors into one line and an exit status."""
    try:
        yield
    except (EncodeError, UsageError) as error:
        raise click.UsageError(str(error)) from error
    except LibraryMissingError as error:
        raise click.ClickException(str(error)) from error
    except ClientError as error:
        # An exception of a pycapnp server holds a traceback: its first line says what happened.
        first_line = (str(error).splitlines() or ["no reason given"])[0]
        raise click.ClickException(first_line) from error


def _exchange(client: StackClient, message: str) -> None:
    with _reported():
        answer = client.read(message)
    # Bytes, as they came: a server that is not ours may answer with anything.
    sys.stdout.buffer.write(answer + b"\n")
    sys.stdout.buffer.flush()


def _converse(client: StackClient, address: Address) -> None:
    click.echo(f"Connected to inference server at {address}", err=True)
    click.echo("Enter your message:", err=True)
    for line in _lines():
        _exchange(client, line.strip())
        return


def _lines() -> Iterator[str]:
    number = 0
    while line := sys.stdin.buffer.readline(_MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > _MAX_LINE_BYTES:
            # Nor is it read to its end: there may be none.
            raise click.UsageError(
                f"line {number} of the input is over {_MAX_LINE_BYTES} bytes: no message holds it"
            )
        yield _text(line, f"line {number} of the input").removesuffix("\n").removesuffix("\r")


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{what} is not UTF-8") from error

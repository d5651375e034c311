"""The `client` command: ``client send ADDR "msg"`` and ``client ping ADDR``."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import click

import rigcli
from client.blocking import CALL_TIMEOUT_S, CONNECT_TIMEOUT_S, Client
from client.errors import ClientError
from wire.address import Address
from wire.errors import EncodeError


@click.group()
@click.version_option(package_name="capnp-rig", message="%(prog)s %(version)s")
def cli() -> None:
    """Call a Cap'n Proto server.

    ADDR is host:port, [ipv6]:port or unix:/path.
    """


def _connection_options(command: Callable[..., None]) -> Callable[..., None]:
    positive = click.FloatRange(min=0, min_open=True)
    for option in (
        click.option(
            "--connect-timeout",
            type=positive,
            default=CONNECT_TIMEOUT_S,
            show_default=True,
            metavar="SECONDS",
        ),
        click.option(
            "--timeout",
            type=positive,
            default=CALL_TIMEOUT_S,
            show_default=True,
            metavar="SECONDS",
            help="Deadline of each call.",
        ),
        rigcli.address_argument,
    ):
        command = option(command)
    return command


@cli.command()
@_connection_options
@click.argument("message", required=False)
def send(address: Address, message: str | None, timeout: float, connect_timeout: float) -> None:
    """Send MESSAGE and print the answer.

    Without MESSAGE, ask for one on a terminal, or send each line of the standard
    input and print its answer.
    """
    with _connected(address, timeout, connect_timeout) as client:
        if message is not None:
            _exchange(client, message)
        elif sys.stdin.isatty():
            _converse(client, address)
        else:
            for line in _lines():
                _exchange(client, line)


@cli.command()
@_connection_options
@click.option("--count", "-c", type=click.IntRange(min=1), default=4, show_default=True)
def ping(address: Address, timeout: float, connect_timeout: float, count: int) -> None:
    """Time COUNT empty calls, one after the other."""
    started_ns = time.perf_counter_ns()
    with _connected(address, timeout, connect_timeout) as client:
        click.echo(f"connected to {address} in {_elapsed_us(started_ns)} µs")
        for number in range(1, count + 1):
            started_ns = time.perf_counter_ns()
            with _reported():
                client.read("")
            click.echo(f"reply {number} in {_elapsed_us(started_ns)} µs")


def _elapsed_us(started_ns: int) -> str:
    return f"{(time.perf_counter_ns() - started_ns) / 1000:.0f}"


@contextmanager
def _connected(address: Address, timeout_s: float, connect_timeout_s: float) -> Iterator[Client]:
    with _reported():
        client = Client.connect(address, timeout_s=timeout_s, connect_timeout_s=connect_timeout_s)
    with client:
        yield client


@contextmanager
def _reported() -> Iterator[None]:
    """Turn the client's errors into one line and an exit status."""
    try:
        yield
    except EncodeError as error:
        raise click.UsageError(str(error)) from error
    except ClientError as error:
        # An exception of a pycapnp server holds a traceback: its first line says what happened.
        first_line = (str(error).splitlines() or ["no reason given"])[0]
        raise click.ClickException(first_line) from error


def _exchange(client: Client, message: str) -> None:
    with _reported():
        answer = client.read(message)
    # Bytes, as they came: a server that is not ours may answer with anything.
    sys.stdout.buffer.write(answer + b"\n")
    sys.stdout.buffer.flush()


def _converse(client: Client, address: Address) -> None:
    click.echo(f"Connected to inference server at {address}", err=True)
    click.echo("Enter your message:", err=True)
    for line in _lines():
        _exchange(client, line.strip())
        return


def _lines() -> Iterator[str]:
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield line.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise click.UsageError(f"line {number} of the input is not UTF-8") from error


def main() -> NoReturn:
    """Run the `client` command."""
    rigcli.run(cli, "client")

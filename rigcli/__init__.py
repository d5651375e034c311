"""What the commands of the rig share: how each ends, with one line on stderr for a mistake."""

import codecs
import errno
import io
import os
import resource
import signal
import sys
from typing import NoReturn

import click

from capnp_rig.rigcli.address import (
    Address,
    AddressError,
    Addresses,
    parse_address,
    parse_addresses,
    parse_listen_address,
)


def _parse(ctx: click.Context, _param: click.Parameter, value: str) -> Address:
    try:
        return parse_address(value)
    except AddressError as error:
        raise click.UsageError(str(error), ctx) from error


# ADDR, as every command takes it; the function gets an `Address`.
address_argument = click.argument("address", metavar="ADDR", callback=_parse)


def _parse_listen(ctx: click.Context, _param: click.Parameter, value: str) -> Address:
    try:
        return parse_listen_address(value)
    except AddressError as error:
        raise click.UsageError(str(error), ctx) from error


def read_address_option(
    ctx: click.Context, option: click.Parameter, text: str | None
) -> Address | None:
    """Return the address of an option that may be left out.

    Raises:
        click.UsageError: It is none.
    """
    try:
        return None if text is None else parse_address(text)
    except AddressError as error:
        raise click.UsageError(f"{option.opts[0]}: {error}", ctx) from error


# ADDR of a server; the function gets an `Address`.
listen_address_argument = click.argument("address", metavar="ADDR", callback=_parse_listen)


def _parse_several(ctx: click.Context, _param: click.Parameter, value: str) -> Addresses:
    try:
        return parse_addresses(value)
    except AddressError as error:
        raise click.UsageError(str(error), ctx) from error


# ADDR, or several with commas between; the function gets `Addresses`.
addresses_argument = click.argument("addresses", metavar="ADDR[,ADDR…]", callback=_parse_several)


# Where a schema's imports are searched, as every command takes it that has --schema.
import_path_option = click.option(
    "-I",
    "--import-path",
    multiple=True,
    metavar="DIR",
    help="Search this folder for what a schema imports with a / in front; repeatable. The standard "
    "/capnp/... files need none.",
)


def run(command: click.Command, name: str, *, prints: bool = False) -> NoReturn:
    """Run `command` as the program `name` and exit.

    A mistake in the usage exits with 2 and one line that says what to do; a
    `click.ClickException` exits with its own status, likewise in one line, and so does what
    the system refuses, such as a write to a full disk; Ctrl-C exits with 130 as a shell
    expects; a reader that closed the pipe ends us quietly. With `prints` the command is of no
    use without a standard output, and is refused where that is closed.
    """
    try:
        _interrupts_raise()
        _reserve_standard_fds()
        _prepare_output(needed=prints)
        status = command.main(prog_name=name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        _exit(error.exit_code)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else name
        click.echo(f"{name}: {_one_line(error.format_message())} (see {where} --help)", err=True)
        _exit(error.exit_code)
    except click.ClickException as error:
        click.echo(f"{name}: {_one_line(error.format_message())}", err=True)
        _exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _exit(130)
    except BrokenPipeError:
        _exit(1)
    except OSError as error:
        click.echo(f"{name}: {os_error_text(error)}", err=True)
        _exit(1)
    _exit(status if isinstance(status, int) else 0, name)


def _reserve_standard_fds() -> None:
    """Fill descriptors 0 to 2 where they are closed: else the next file or socket has the number.

    A library would take that for its input (vl-convert ends in a panic), and a socket would get
    our log lines.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def raise_open_files() -> int:
    """Raise the soft limit of open files to the hard one, and return that."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def require_files(name: str, count: int) -> None:
    """Raise the limit of open files; exit with one line where even then there are not so many.

    For a start: Cap'n Proto aborts the process where a schema cannot be opened.
    """
    allowed = raise_open_files()
    if allowed < count:
        click.echo(f"{name}: only {allowed} open files are allowed: raise ulimit -n", err=True)
        _exit(1)


def _interrupts_raise() -> None:
    """Let Ctrl-C raise KeyboardInterrupt: while a command is imported, it ends the process."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def os_error_text(error: OSError) -> str:
    """Return what the system refused, in one line, with the file if it was about one."""
    text = error.strerror or str(error)
    if error.errno == errno.EMFILE:
        text += ": raise ulimit -n"
    return text if error.filename is None else f"{error.filename}: {text}"


# What tables and messages hold beside ASCII.
_NEAREST = {"µ": "u", "\N{EN DASH}": "-", "\N{MULTIPLICATION SIGN}": "x", "…": "..."}


def _nearest(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(_NEAREST.get(char) or ascii(char)[1:-1] for char in text), error.end


def _prepare_output(*, needed: bool) -> None:
    """Let what the encoding of the output lacks be replaced; refuse a closed one if `needed`."""
    if needed and sys.stdout is None:
        raise click.ClickException("the standard output is closed: send it to /dev/null")
    codecs.register_error("rigcli.nearest", _nearest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="rigcli.nearest")


def printable(text: str) -> str:
    """Return a text, escaped where it does not print: to a terminal it holds no commands then."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def _exit(status: int, name: str = "") -> NoReturn:
    try:
        # None where the process was started with its stdout closed.
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        if name and not isinstance(error, BrokenPipeError):
            click.echo(f"{name}: {os_error_text(error)}", err=True)
        # The interpreter would try again at exit and complain on stderr.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = status or 1
    sys.exit(status)

"""What the commands of the rig share: how each ends, with one line on stderr for a mistake."""

import os
import sys
from typing import NoReturn

import click

from wire.address import Address, AddressError, parse_address


def _parse(ctx: click.Context, _param: click.Parameter, value: str) -> Address:
    try:
        return parse_address(value)
    except AddressError as error:
        raise click.UsageError(str(error), ctx) from error


# ADDR, as every command takes it; the function gets an `Address`.
address_argument = click.argument("address", metavar="ADDR", callback=_parse)


def run(command: click.Command, name: str) -> NoReturn:
    """Run `command` as the program `name` and exit.

    A mistake in the usage exits with 2 and one line that says what to do; a
    `click.ClickException` exits with its own status, likewise in one line; Ctrl-C
    exits with 130 as a shell expects; a reader that closed the pipe ends us quietly.
    """
    try:
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
    _exit(status if isinstance(status, int) else 0)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _exit(status: int) -> NoReturn:
    try:
        # None where the process was started with its stdout closed.
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter would try again at exit and complain on stderr.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = status or 1
    sys.exit(status)

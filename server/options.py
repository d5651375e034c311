"""The options of `server run`, in groups; each is named as its field in `server.config`."""

from collections.abc import Callable
from typing import Any

import click

_Command = Callable[..., Any]


def limit_options(command: _Command) -> _Command:
    """Add the options of `config.ConnectionLimits`."""
    return _with_options(
        command,
        click.option(
            "--max-connections",
            type=click.IntRange(min=1),
            default=10_000,
            help="Connections served at once; at most half the open-files limit.",
        ),
    )


def _with_options(command: _Command, *options: Callable[[_Command], _Command]) -> _Command:
    # A decorator that comes first in the source is applied last.
    for option in reversed(options):
        command = option(command)
    return command

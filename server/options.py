"""The options of `server run`, in groups; each is named as its field in `server.config`."""

from collections.abc import Callable
from typing import Any

import click

from capnp_rig.rigcli.finite_numbers import FiniteFloat

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


def worker_options(command: _Command) -> _Command:
    """Add the options of how workers are watched and replaced."""
    return _with_options(
        command,
        click.option(
            "--worker-timeout",
            "worker_timeout_s",
            metavar="SECONDS",
            type=FiniteFloat(min=0),
            default=30.0,
            help="How long a method may block its worker before that is killed; 0: for ever.",
        ),
    )


def _with_options(command: _Command, *options: Callable[[_Command], _Command]) -> _Command:
    # A decorator that comes first in the source is applied last.
    for option in reversed(options):
        command = option(command)
    return command

"""``--max-message``, as every command takes it that has messages."""

from collections.abc import Callable
from typing import Any

import click

from capnp_rig.rigcli.quantities import parse_size

# As in `wire.encoding.frames`, which tests compare.
LEAST_BYTES, MOST_BYTES = 65_536, 536_870_912
_Command = Callable[..., Any]


def read_message_limit(
    _context: click.Context | None, _option: click.Parameter | None, text: str
) -> int:
    """Return the bytes of ``--max-message``.

    Raises:
        click.UsageError: It is no size, or out of range.
    """
    try:
        size = parse_size(text)
    except ValueError as error:
        raise click.UsageError(f"--max-message: {error}") from error
    if not LEAST_BYTES <= size <= MOST_BYTES:
        raise click.UsageError(f"--max-message: expected 64KiB to 512MiB, not {text}")
    return size


def message_limit_option(text: str, name: str = "--max-message") -> Callable[[_Command], _Command]:
    """Return the option, whose value is `max_message_bytes`."""
    return click.option(
        name,
        "max_message_bytes",
        metavar="SIZE",
        default="4MiB",
        callback=read_message_limit,
        help=f"{text} 64KiB to 512MiB.",
    )

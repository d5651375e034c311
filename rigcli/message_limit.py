"""``--max-message``, as every command takes it that has messages."""

from collections.abc import Callable
from typing import Any

import click

from capnp_rig.rigcli.byte_sizes import ByteSize

# As in `wire.encoding.frames`, which tests compare.
LEAST_BYTES, MOST_BYTES = 65_536, 536_870_912
_Command = Callable[..., Any]


class MessageSize(ByteSize):
    """How large a message may be."""

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        """Return the number of bytes, or fail with a usage error."""
        size = super().convert(value, param, ctx)
        if not LEAST_BYTES <= size <= MOST_BYTES:
            self.fail(f"{value} is out of range: a message may have 64KiB to 512MiB.", param, ctx)
        return size


def message_limit_option(text: str, name: str = "--max-message") -> Callable[[_Command], _Command]:
    """Return the option, whose value is `max_message_bytes`."""
    return click.option(
        name,
        "max_message_bytes",
        metavar="SIZE",
        type=MessageSize(),
        default="4MiB",
        help=f"{text} 64KiB to 512MiB.",
    )

"""Sizes on the command line: bytes, or a number with KiB, MiB or GiB (K, M, G)."""

import re
from typing import Any

import click

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SIZE = re.compile(r"(\d+)\s*(?:([kmg])(?:i?b)?)?", re.IGNORECASE)


class ByteSize(click.ParamType):  # type: ignore[type-arg, unused-ignore] # as of click 8.2
    """A number of bytes."""

    name = "size"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        """Return the number of bytes, or fail with a usage error."""
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no size: write bytes, or 512MiB, 2GiB.", param, ctx)
        return int(match[1]) * _UNITS[(match[2] or "").lower()]

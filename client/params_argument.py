"""Params as a command takes them: JSON itself, ``@file``, or ``-`` for the standard input."""

from pathlib import Path
from typing import BinaryIO

from capnp_rig.wire.encoding.foreign_protocols import Foreign, recognise
from capnp_rig.wire.json_values.reading import ParamsError


def json_limit_bytes(max_message_bytes: int) -> int:
    """Return what the params of one call may take as JSON: of a byte, a number there, eight."""
    return 8 * max_message_bytes


def read_params_argument(
    text: str, *, stdin: BinaryIO | None = None, most_bytes: int | None = None
) -> str:
    """Return the content of the file that "@path" names, and any other text as it is.

    With `stdin`, "-" is what that has up to its end.

    Raises:
        ParamsError: It cannot be read, is over `most_bytes`, not UTF-8, or a packed message.
    """
    size = -1 if most_bytes is None else most_bytes + 1
    if text == "-" and stdin is not None:
        data, name = stdin.read(size), "the standard input"
    elif text.startswith("@"):
        data, name = _read_file(text[1:], size), text[1:]
    else:
        return text
    if most_bytes is not None and len(data) > most_bytes:
        raise ParamsError(f"cannot read {name}: it is over {most_bytes} bytes")
    if recognise(data) is Foreign.PACKED and not data.lstrip().startswith(b"{"):
        what = Foreign.PACKED.value
        raise ParamsError(f"cannot read {name}: it looks like {what}, not like JSON")
    try:
        # Editors on Windows put a mark in front.
        return data.decode("utf-8-sig")
    except ValueError as error:
        raise ParamsError(f"cannot read {name}: it is not UTF-8 text") from error


def _read_file(path: str, size: int) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise ParamsError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        # A path with a NUL.
        raise ParamsError(f"cannot read {path}: {error}") from error

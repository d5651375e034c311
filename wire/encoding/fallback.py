"""What struct views do not read or write themselves, pycapnp does, on the same words.

Unions, groups, lists of structs that have them, lists of Void, AnyPointer and pointers with
defaults are rare in a hot call; here they cost a copy of the message, not a second implementation.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import capnp
from capnp.lib.capnp import _DynamicStructReader

from capnp_rig.wire.encoding.pointers import Buffer, StructTuple
from capnp_rig.wire.encoding.view_repr import is_view
from capnp_rig.wire.errors import EncodeError, InactiveMember, MalformedMessage

_FIRST_SEGMENT_WORDS = 1024
# What pycapnp raises for a value that it cannot read; RuntimeError for a newer enumerant.
_READ_ERRORS = (capnp.KjException, UnicodeDecodeError, RuntimeError)
# And for one that does not fit its field.
_BUILD_ERRORS = (capnp.KjException, AttributeError, TypeError, ValueError, OverflowError)


def reader_at(schema: Any, content: StructTuple) -> Any:
    """Return pycapnp's reader of the struct at `content`, over a copy of the message.

    A segment is added, with a far pointer to the struct and its tag, and the root becomes
    a double-far pointer to them: nothing moves or grows, so every other pointer still
    holds, or still leaves its segment. What is left of the limits goes along.

    Raises:
        MalformedMessage: pycapnp refuses the message.
    """
    message, start, end, data, data_end, pointers, pointers_end, depth = content
    if not message.bounds or end == start:
        # The view of a null pointer: all defaults.
        return _module(schema).new_message().as_reader()
    segments = [bytes(message.buffer[first:last]) for first, last in message.bounds]
    number = message.bounds.index((start, end))
    pad = struct.pack(
        "<QQ",
        2 | ((data - start) >> 3) << 3 | number << 32,
        (data_end - data) >> 3 << 32 | ((pointers_end - pointers) >> 3) << 48,
    )
    segments[0] = struct.pack("<Q", 6 | len(segments) << 32) + segments[0][8:]
    segments.append(pad)
    try:
        return _module(schema).from_segments(
            segments,
            traversal_limit_in_words=max(message.budget_words, 1),
            nesting_limit=depth + 1,
        )
    except capnp.KjException as error:
        raise _malformed(error) from error


def read_field(reader: Any, name: str) -> Any:
    """Return a field of pycapnp's reader.

    Raises:
        MalformedMessage: It cannot be read.
        InactiveMember: It is the inactive member of a union.
    """
    try:
        # No attribute of the reader's: a field may be called `schema`.
        return reader._get(name)  # noqa: SLF001 - no public way
    except _READ_ERRORS as error:
        schema = reader.schema
        if name in schema.union_fields:
            active = active_member(reader)
            if active != name:
                raise InactiveMember(name_of(schema), name, active) from error
        raise _malformed(error) from error


def read_element(items: Any, index: int) -> Any:
    """Return an element of a list of pycapnp's.

    Raises:
        MalformedMessage: It cannot be read.
    """
    try:
        return items[index]
    except _READ_ERRORS as error:
        raise _malformed(error) from error


def read_which(reader: Any) -> str:
    """Return the name of the active member of a union.

    Raises:
        MalformedMessage: It is one that the schema does not know.
    """
    try:
        return str(reader.which())
    except _READ_ERRORS as error:
        raise _malformed(error) from error


def read_dict(reader: Any) -> dict[str, Any]:
    """Return every field of pycapnp's reader, of a union the active member alone.

    Raises:
        MalformedMessage: One cannot be read.
    """
    try:
        result: dict[str, Any] = reader.to_dict()
    except _READ_ERRORS as error:
        raise _malformed(error) from error
    return result


def active_member(reader: Any) -> str | None:
    """Return the name of the active member, None without a union or if the schema lacks it."""
    try:
        return str(reader.which())
    except _READ_ERRORS:
        return None


def bound_type(schema: Any, name: str) -> str:
    """Return the kind of an AnyPointer field under its struct's brand: of what its parameter is.

    pycapnp tells a type without a schema only by its values.
    """
    try:
        value = _module(schema).new_message().as_reader()._get(name)  # noqa: SLF001 - as above
    except _READ_ERRORS:
        # A capability.
        return "anyPointer"
    return _TYPES.get(type(value), "anyPointer")


_TYPES = {str: "text", bytes: "data", _DynamicStructReader: "struct"}


def name_of(schema: Any) -> str:
    """Return a struct's name in messages, without its file's."""
    name: str = schema.node.displayName.rpartition(":")[2]
    return name


def _malformed(error: Exception) -> MalformedMessage:
    """Return our error for one of pycapnp's, without the paths that KJ puts into its words."""
    if isinstance(error, UnicodeDecodeError):
        return MalformedMessage(f"message has a text that is not UTF-8: {error.reason}")
    words = str(getattr(error, "description", "")).splitlines() or ["cannot be read"]
    return MalformedMessage(f"message cannot be read: {words[0]}")


def build(schema: Any, values: Mapping[str, Any]) -> tuple[list[Buffer], int]:
    """Return the words of a struct as pycapnp builds it, and how many they are.

    Raises:
        EncodeError: A name is no field, or a value does not fit.
    """
    words = _FIRST_SEGMENT_WORDS
    while True:
        builder = _module(schema).new_message(num_first_segment_words=words)
        try:
            builder.from_dict({name: _plain(value) for name, value in values.items()})
        except _BUILD_ERRORS as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise EncodeError(f"{name_of(schema)}: {reason}") from error
        segments = builder.to_segments()
        if len(segments) == 1:
            body = bytes(segments[0])[8:]
            return [body], len(body) >> 3
        # It has to lie in one segment, to be put behind any pointer as it stands.
        words = 2 * sum(map(len, segments)) // 8


def _module(schema: Any) -> Any:
    return capnp._StructModule(schema, schema.node.displayName)  # noqa: SLF001 - no public way


def _plain(value: Any) -> Any:
    """Return `value` as pycapnp takes it: views as dicts, buffers as bytes or lists."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (bytes, str, bool, int, float)) or value is None:
        return value
    # A reader of pycapnp's own has `to_dict` as well, and is taken as it is.
    if is_view(value):
        return _plain(value.to_dict())
    try:
        view = memoryview(value)
    except TypeError:
        return [_plain(item) for item in value] if isinstance(value, Sequence) else value
    return view.tobytes() if view.format in {"B", "c"} else view.tolist()

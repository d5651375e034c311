"""The messages of rpc.capnp that a Level 0 peer knows, and how they are read.

Reading follows pointers, since every implementation lays messages out in its own
order. `message_encoder` writes them.

The numbers here come from rpc.capnp; a test compares each with the schema that
ships inside pycapnp.
"""

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from capnp_rig.wire.encoding.pointers import (
    COMPOSITE,
    Message,
    Pointer,
    StructAt,
    StructTuple,
    element_struct,
    follow_list,
    follow_struct,
    read_text,
    root_pointer,
)
from capnp_rig.wire.errors import MalformedMessage


class Tag(IntEnum):
    """The discriminant of `Message`."""

    UNIMPLEMENTED = 0
    ABORT = 1
    CALL = 2
    RETURN = 3
    FINISH = 4
    RESOLVE = 5
    RELEASE = 6
    BOOTSTRAP = 8
    PROVIDE = 10
    ACCEPT = 11
    JOIN = 12
    DISEMBARGO = 13


class ExceptionType(IntEnum):
    """How a peer should respond to an error; any other number reads as `FAILED`."""

    FAILED = 0
    OVERLOADED = 1
    DISCONNECTED = 2
    UNIMPLEMENTED = 3


# --- what arrives ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Asks for the bootstrap interface."""

    question_id: int


@dataclass(frozen=True, slots=True)
class ImportedCap:
    """A target that the receiver exported before."""

    import_id: int


@dataclass(frozen=True, slots=True)
class PromisedAnswer:
    """A target inside the answer to a question; `path` is a list of pointer indexes."""

    question_id: int
    path: tuple[int, ...] = ()


Target = ImportedCap | PromisedAnswer


@dataclass(frozen=True, slots=True)
class Call:
    """A method call; `params` points to the parameter struct, unread."""

    question_id: int
    interface_id: int
    method_id: int
    target: Target
    params: Pointer | None
    sends_results_to_caller: bool


@dataclass(frozen=True, slots=True)
class RemoteError:
    """An exception as it travels: its text, and how the caller should respond."""

    reason: str
    type: ExceptionType = ExceptionType.FAILED


class Canceled(NamedTuple):
    """The callee gave up the call because of our Finish."""


@dataclass(frozen=True, slots=True)
class Results:
    """The results of a call: `content` points to the result struct or capability, unread.

    `cap_table` has the export of each capability that the sender hosts, None for others.
    """

    content: Pointer | None
    cap_table: tuple[int | None, ...]


Outcome = Results | RemoteError | Canceled


@dataclass(frozen=True, slots=True)
class Return:
    """The answer to a Call or a Bootstrap."""

    answer_id: int
    outcome: Outcome
    no_finish_needed: bool


@dataclass(frozen=True, slots=True)
class Finish:
    """The caller will not mention this question again; cancels it where it still runs."""

    question_id: int
    release_result_caps: bool = True


@dataclass(frozen=True, slots=True)
class Release:
    """Gives back references to an export."""

    export_id: int
    reference_count: int


@dataclass(frozen=True, slots=True)
class Abort:
    """The peer ends the connection."""

    error: RemoteError


@dataclass(frozen=True, slots=True)
class Unimplemented:
    """The peer did not understand a message of ours: its tag, and its question where it had one."""

    tag: int
    question_id: int | None


@dataclass(frozen=True, slots=True)
class Disembargo:
    """Lifts an embargo; `context` is 0 for a loopback to the sender, 1 to us, else Level 3."""

    context: int


@dataclass(frozen=True, slots=True)
class Other:
    """A message that Level 0 answers with `unimplemented`."""

    tag: int


Incoming = Bootstrap | Call | Return | Finish | Release | Abort | Unimplemented | Disembargo | Other


def decode(message: Message) -> Incoming:
    """Read one message; `params` and `content` stay unread.

    Raises:
        MalformedMessage: It does not hold a Message of rpc.capnp.
    """
    root = _follow(root_pointer(message))
    tag = root.bits(0, 2)
    reader = _READERS.get(tag)
    return Other(tag) if reader is None else reader(_field(root, 0))


def tag_of(message: Message) -> int:
    """Return which message of rpc.capnp it is, for callers that read only some of them.

    Raises:
        MalformedMessage: It does not hold a Message of rpc.capnp.
    """
    return _follow(root_pointer(message)).bits(0, 2)


# How every known peer begins a Call or a Return, behind the table: Message, and its body behind it.
CALL_PREFIX = struct.pack("<QQQ", 1 << 32 | 1 << 48, Tag.CALL, 3 << 32 | 3 << 48)
RETURN_PREFIX = struct.pack("<QQQ", 1 << 32 | 1 << 48, Tag.RETURN, 2 << 32 | 1 << 48)


def content_of(pointer: Pointer | None) -> StructTuple | None:
    """Return the struct of a call's params or results, or None where it is null.

    Raises:
        MalformedMessage: The pointer is no valid struct pointer.
    """
    return None if pointer is None else follow_struct(pointer)


def _follow(pointer: Pointer) -> StructAt:
    """Return the struct; for a null pointer, one without any field, which reads as all defaults."""
    at = follow_struct(pointer)
    return StructAt(pointer.message, 0, 0, 0, 0, 0, 0, pointer.depth) if at is None else at


def _field(parent: StructAt, index: int) -> StructAt:
    pointer = parent.pointer(index)
    return (
        parent._replace(data=0, data_end=0, pointers=0, pointers_end=0)
        if pointer is None
        else _follow(pointer)
    )


def _read_call(body: StructAt) -> Call:
    return Call(
        question_id=body.bits(0, 4),
        interface_id=body.bits(8, 8),
        method_id=body.bits(4, 2),
        target=_read_target(_field(body, 0)),
        params=_field(body, 1).pointer(0),
        sends_results_to_caller=body.bits(6, 2) == 0,
    )


def _read_target(body: StructAt) -> Target:
    which = body.bits(4, 2)
    if which == 0:
        return ImportedCap(body.bits(0, 4))
    if which != 1:
        raise MalformedMessage(f"message has a target of unknown kind {which}")
    answer = _field(body, 0)
    transform = answer.pointer(0)
    return PromisedAnswer(
        answer.bits(0, 4), () if transform is None else _read_transform(transform)
    )


def _read_transform(pointer: Pointer) -> tuple[int, ...]:
    path = []
    for operation in _structs(pointer):
        which = operation.bits(0, 2)
        if which == 1:
            path.append(operation.bits(2, 2))
        elif which != 0:
            raise MalformedMessage(f"message has a transform of unknown kind {which}")
    return tuple(path)


def _structs(pointer: Pointer) -> Iterable[StructAt]:
    items = follow_list(pointer)
    if items is None or not items.length:
        return
    # An element without size would let a tiny message announce a billion of them.
    if items.element != COMPOSITE or not items.step_bits:
        raise MalformedMessage("message has a list of another kind where structs are expected")
    for index in range(items.length):
        yield element_struct(items, index)


def _read_return(body: StructAt) -> Return:
    return Return(
        answer_id=body.bits(0, 4),
        outcome=_read_outcome(body),
        no_finish_needed=bool(body.bits(4, 1) & 2),
    )


def _read_outcome(body: StructAt) -> Outcome:
    which = body.bits(6, 2)
    if which == 0:
        payload = _field(body, 0)
        table = payload.pointer(1)
        hosted = () if table is None else tuple(map(_export_id, _structs(table)))
        return Results(payload.pointer(0), hosted)
    if which == 1:
        return _read_exception(_field(body, 0))
    if which == 2:
        return Canceled()
    # A caller has to ask for these, and ours never does: sent elsewhere, take from another, third
    # party.
    raise MalformedMessage(f"message has a return of kind {which}, which was not asked for")


def _export_id(descriptor: StructAt) -> int | None:
    # senderHosted, senderPromise
    return descriptor.bits(4, 4) if descriptor.bits(0, 2) in {1, 2} else None


def _read_exception(body: StructAt) -> RemoteError:
    reason = body.pointer(0)
    text = None if reason is None else read_text(reason)
    number = body.bits(4, 2)
    # A number from a newer peer must not crash us: C++ 1.4 does.
    known = ExceptionType(number) if number <= 3 else ExceptionType.FAILED
    return RemoteError(text or "(no reason given)", known)


def _read_unimplemented(body: StructAt) -> Unimplemented:
    tag = body.bits(0, 2)
    if tag not in {Tag.CALL, Tag.BOOTSTRAP}:
        return Unimplemented(tag, None)
    return Unimplemented(tag, _field(body, 0).bits(0, 4))


_READERS: dict[int, Callable[[StructAt], Incoming]] = {
    Tag.UNIMPLEMENTED: _read_unimplemented,
    Tag.ABORT: lambda body: Abort(_read_exception(body)),
    Tag.CALL: _read_call,
    Tag.RETURN: _read_return,
    # The bit is stored inverted, because the field's default is true.
    Tag.FINISH: lambda body: Finish(body.bits(0, 4), not body.bits(4, 1) & 1),
    Tag.RELEASE: lambda body: Release(body.bits(0, 4), body.bits(4, 4)),
    Tag.BOOTSTRAP: lambda body: Bootstrap(body.bits(0, 4)),
    Tag.DISEMBARGO: lambda body: Disembargo(body.bits(4, 2)),
}

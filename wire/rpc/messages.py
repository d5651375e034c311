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
    NESTING_LIMIT,
    Buffer,
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

_new_message = Message.__new__


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


# (end of the frame, question id, interface id, method id, import id or None, promised question
# id, params)
PlainCall = tuple[int, int, int, int, int | None, int, StructTuple]
# (answer id, whether no Finish is needed, results)
PlainReturn = tuple[int, bool, StructTuple]

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


# The plain case of the two frequent messages: one segment, no far pointer, Message and Call or
# Return right behind the root. Every known peer writes them so; peers differ in where they put
# the target and the content, whose pointers are followed. This takes 0.7 µs, `decode` takes 9 µs.
CALL_PREFIX = struct.pack("<QQQ", 1 << 32 | 1 << 48, Tag.CALL, 3 << 32 | 3 << 48)
RETURN_PREFIX = struct.pack("<QQQ", 1 << 32 | 1 << 48, Tag.RETURN, 2 << 32 | 1 << 48)
# From the frame's start: table, root to the body's pointer, body.
_call_at = struct.Struct("<II24sIHHQQiIiI").unpack_from
_LEAST_CALL_BYTES = 80
_LEAST_CALL_WORDS = 9
_return_at = struct.Struct("<24sIIQiI").unpack_from
_target_at = struct.Struct("<IIiI").unpack_from
_promise_at = struct.Struct("<IIQ").unpack_from
_pointer_at = struct.Struct("<iI").unpack_from
_CONTENT_DEPTH = NESTING_LIMIT - 4
# Sizes of a struct pointer: data words | pointers << 16.
_ONE_AND_ONE, _PAYLOAD_SIZES = 0x10001, 0x20000


def plain_call(buffer: Buffer, at: int, size: int, budget_words: int) -> PlainCall | None:
    """Return the call whose frame starts at `at`, if it is whole and in its plain case.

    If it returns None, `FrameDecoder.cut` and `decode` decide. `import_id` is the target, or None
    if the target is the promise of `promise_id`. `budget_words` is the message's traversal budget.
    """
    if size - at < _LEAST_CALL_BYTES:
        return None
    # fmt: off
    extra, words, prefix, question_id, method_id, to, interface_id, _, low, high, pay_low, pay_high = (  # noqa: E501 - the fields of one struct
        _call_at(buffer, at)
    )
    # fmt: on
    start = at + 8
    end = start + words * 8
    target = at + 64 + (low >> 2) * 8
    payload = at + 72 + (pay_low >> 2) * 8
    if (
        extra
        or end > size
        # What is behind the frame is no part of the call.
        or words < _LEAST_CALL_WORDS
        or prefix != CALL_PREFIX
        or to
        or low & 3
        or high != _ONE_AND_ONE
        or not start <= target <= end - 16
        or pay_low & 3
        or pay_high != _PAYLOAD_SIZES
        or not start <= payload <= end - 16
    ):
        return None
    import_id, kind, low, high = _target_at(buffer, target)
    promise_id = 0
    if kind & 0xFFFF:
        promise = target + 16 + (low >> 2) * 8
        if (
            kind & 0xFFFF != 1
            or low & 3
            or high != _ONE_AND_ONE
            or not start <= promise <= end - 16
        ):
            return None
        promise_id, _, transform = _promise_at(buffer, promise)
        if transform:
            return None
        import_id = None
    low, high = _pointer_at(buffer, payload)
    data = payload + 8 + (low >> 2) * 8
    data_end = data + (high & 0xFFFF) * 8
    pointers_end = data_end + (high >> 16) * 8
    budget_words -= 16 + (pointers_end - data >> 3)
    if low & 3 or not (low or high) or data < start or pointers_end > end or budget_words < 0:
        return None
    # The same as `Message(...)`, in three quarters of its time: it saves a call.
    message = _new_message(Message)
    message.buffer, message.bounds = buffer, ((start, end),)
    message.budget_words = budget_words
    content = (message, start, end, data, data_end, data_end, pointers_end, _CONTENT_DEPTH)
    return end, question_id, interface_id, method_id, import_id, promise_id, content


def plain_return(message: Message) -> PlainReturn | None:
    """Return an answer with results and no capabilities in its plain case, or None."""
    buffer = message.buffer
    ((start, end),) = message.bounds
    if end - start < 48:
        return None
    prefix, answer_id, flags, _, low, high = _return_at(buffer, start)
    payload = start + 48 + (low >> 2) * 8
    if (
        prefix != RETURN_PREFIX
        or flags >> 16
        or low & 3
        or high != _PAYLOAD_SIZES
        or not start <= payload <= end - 16
        or _pointer_at(buffer, payload + 8) != (0, 0)
    ):
        return None
    low, high = _pointer_at(buffer, payload)
    data = payload + 8 + (low >> 2) * 8
    data_end = data + (high & 0xFFFF) * 8
    pointers_end = data_end + (high >> 16) * 8
    if low & 3 or not (low or high) or data < start or pointers_end > end:
        return None
    message.charge(10 + (pointers_end - data >> 3))
    content = (message, start, end, data, data_end, data_end, pointers_end, _CONTENT_DEPTH)
    return answer_id, flags & 2 != 0, content


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

"""The messages of rpc.capnp that a Level 0 peer reads and writes.

Reading follows pointers, since every implementation lays messages out in its own
order. Writing uses one layout per message, built by hand because it is fixed: a
frame of one segment, structs in the order in which they are referred to.

The numbers here come from rpc.capnp; a test compares each with the schema that
ships inside pycapnp.
"""

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from wire.errors import MalformedMessage
from wire.pointers import (
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
    """The results of a call: `content` points to the result struct or capability, unread."""

    content: Pointer | None
    cap_table: tuple["CapDescriptor", ...]


@dataclass(frozen=True, slots=True)
class CapDescriptor:
    """An entry of a capability table; `id` is an export where the sender hosts it, else None."""

    export_id: int | None


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


# The plain case of the two messages that make up the load: one segment, no far pointer,
# Message and Call or Return right behind the root. Every peer known writes them so,
# but for where it puts the target and the content: those pointers are followed. This
# takes 0.7 µs where `decode` takes 9.
_CALL_PREFIX = struct.pack("<QQQ", 1 << 32 | 1 << 48, Tag.CALL, 3 << 32 | 3 << 48)
_RETURN_PREFIX = struct.pack("<QQQ", 1 << 32 | 1 << 48, Tag.RETURN, 2 << 32 | 1 << 48)
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

    None leaves the judgement to `FrameDecoder.cut` and `decode`. `import_id` is the target,
    or None where it is the promise of `promise_id`. `budget_words` is the message's
    traversal budget.
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
        or prefix != _CALL_PREFIX
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
    message = Message(buffer, ((start, end),), budget_words)
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
        prefix != _RETURN_PREFIX
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
    """Return the struct, one without any field where the pointer is null: all reads as default."""
    found = follow_struct(pointer)
    return StructAt(pointer.message, 0, 0, 0, 0, 0, 0, pointer.depth) if found is None else found


def _field(parent: StructAt, index: int) -> StructAt:
    pointer = parent.pointer(index)
    return (
        parent._replace(data=0, data_end=0, pointers=0, pointers_end=0)
        if pointer is None
        else _follow(pointer)
    )


def _read_bootstrap(body: StructAt) -> Bootstrap:
    return Bootstrap(body.bits(0, 4))


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
    """Return the elements of a list of structs."""
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
        caps = () if table is None else tuple(map(_read_descriptor, _structs(table)))
        return Results(payload.pointer(0), caps)
    if which == 1:
        return _read_exception(_field(body, 0))
    if which == 2:
        return Canceled()
    # Ours to ask for, and we never do: sent elsewhere, take from another, third party.
    raise MalformedMessage(f"message has a return of kind {which}, which was not asked for")


def _read_descriptor(body: StructAt) -> CapDescriptor:
    which = body.bits(0, 2)
    # senderHosted, senderPromise
    if which in {1, 2}:
        return CapDescriptor(body.bits(4, 4))
    return CapDescriptor(None)


def _read_exception(body: StructAt) -> RemoteError:
    reason = body.pointer(0)
    text = None if reason is None else read_text(reason)
    number = body.bits(4, 2)
    # A number from a newer peer must not crash us: C++ 1.4 does.
    known = ExceptionType(number) if number <= 3 else ExceptionType.FAILED
    return RemoteError(text or "(no reason given)", known)


def _read_finish(body: StructAt) -> Finish:
    # The bit is stored inverted, because the field's default is true.
    return Finish(body.bits(0, 4), release_result_caps=not body.bits(4, 1) & 1)


def _read_release(body: StructAt) -> Release:
    return Release(body.bits(0, 4), body.bits(4, 4))


def _read_abort(body: StructAt) -> Abort:
    return Abort(_read_exception(body))


def _read_unimplemented(body: StructAt) -> Unimplemented:
    tag = body.bits(0, 2)
    if tag not in {Tag.CALL, Tag.BOOTSTRAP}:
        return Unimplemented(tag, None)
    return Unimplemented(tag, _field(body, 0).bits(0, 4))


def _read_disembargo(body: StructAt) -> Disembargo:
    return Disembargo(body.bits(4, 2))


_READERS: dict[int, Callable[[StructAt], Incoming]] = {
    Tag.UNIMPLEMENTED: _read_unimplemented,
    Tag.ABORT: _read_abort,
    Tag.CALL: _read_call,
    Tag.RETURN: _read_return,
    Tag.FINISH: _read_finish,
    Tag.RELEASE: _read_release,
    Tag.BOOTSTRAP: _read_bootstrap,
    Tag.DISEMBARGO: _read_disembargo,
}


# --- what leaves ----------------------------------------------------------------------
#
# Each frame is one segment: the table, the root pointer, Message (one data word with the
# discriminant, one pointer), then the body.


class EncodedStruct(NamedTuple):
    """A struct in words: section sizes, and the bytes that follow any pointer to it.

    `sizes` is the upper half of the struct pointer: data words, and pointers << 16.
    `parts` are the struct itself and all that it points to, `words` long together.
    """

    sizes: int
    parts: list[Buffer]
    words: int


# What an `EncodedStruct` is underneath: making a plain tuple takes a fifth of the time.
EncodedTuple = tuple[int, list[Buffer], int]
EMPTY_STRUCT = EncodedStruct(0, [], 0)


def _struct_word(offset: int, data_words: int, pointers: int) -> int:
    return offset << 2 | data_words << 32 | pointers << 48


# A pointer to a list of bytes; add the offset << 2 and the count << 35.
BYTES_WORD = 1 | 2 << 32


def padded(data: Buffer) -> list[Buffer]:
    """Return `data` and the zeros that fill its last word."""
    rest = -len(data) & 7
    return [data, ZEROS[rest]] if rest else [data]


ZEROS = tuple(bytes(count) for count in range(8))


_ROOT = _struct_word(0, 1, 1)
_EXCEPTION = _struct_word(0, 1, 2)
_PAYLOAD = _struct_word(0, 0, 2)
_NO_FINISH_NEEDED = 2 << 32
_words = {count: struct.Struct(f"<{count}Q").pack for count in range(4, 13)}


def _frame(*words: int, body_words: int = 0) -> bytes:
    """Return the table and `words`, announcing `body_words` more that the caller appends."""
    count = len(words) + 1
    return _words[count]((count - 1 + body_words) << 32, *words)


def _content(sizes: int) -> int:
    """Return the pointer to a struct that starts one word after the next word."""
    # A struct without size points at itself: offset 0 would make it null.
    return sizes << 32 | 4 if sizes else 0xFFFFFFFC


def encode_bootstrap(question_id: int) -> bytes:
    """Return the frame that asks for the bootstrap interface."""
    return _frame(_ROOT, Tag.BOOTSTRAP, _struct_word(0, 1, 1), question_id, 0)


# The words of a frame in front of the params or results.
CALL_HEAD_WORDS, PROMISE_CALL_HEAD_WORDS, RESULTS_HEAD_WORDS = 14, 16, 9
_call_to_cap = struct.Struct("<II24sIIQQQQQQQQQ").pack
_call_to_promise = struct.Struct("<II24sIIQQQQQQQQQQQ").pack


def encode_call(
    question_id: int, target: Target, interface_id: int, method_id: int, params: EncodedTuple
) -> list[Buffer]:
    """Return the frame of a call whose answer comes back to the caller."""
    sizes, parts, words = params
    content = _content(sizes)
    if isinstance(target, ImportedCap):
        head = _call_to_cap(
            *(0, words + 13, _CALL_PREFIX, question_id, method_id, interface_id, 0),
            *(_struct_word(2, 1, 1), _struct_word(3, 0, 2), 0),
            *(target.import_id, 0, content, 0),
        )
    else:
        assert not target.path, "Level 0 addresses bootstrap answers only"
        head = _call_to_promise(
            *(0, words + 15, _CALL_PREFIX, question_id, method_id, interface_id, 0),
            *(_struct_word(2, 1, 1), _struct_word(5, 0, 2), 0),
            *(1 << 32, _struct_word(0, 1, 1), target.question_id, 0, content, 0),
        )
    return [head, *parts]


_results_head = struct.Struct("<II24sIIQQQQ").pack


def results_head(answer_id: int, sizes: int, words: int) -> bytes:
    """Return what stands in front of results of `words` words whose root has these `sizes`."""
    # As `_content`, spelled out: a call less in every answer.
    content = sizes << 32 | 4 if sizes else 0xFFFFFFFC
    return _results_head(0, words + 8, _RETURN_PREFIX, answer_id, 2, 0, _PAYLOAD, content, 0)


def encode_results(answer_id: int, results: EncodedTuple) -> list[Buffer]:
    """Return the frame of a Return with results that hold no capability, so need no Finish."""
    sizes, parts, words = results
    return [results_head(answer_id, sizes, words), *parts]


def encode_bootstrap_results(answer_id: int, export_id: int) -> bytes:
    """Return the frame of a Return that holds one capability, hosted by the sender."""
    return _frame(
        _ROOT,
        Tag.RETURN,
        _struct_word(0, 2, 1),
        answer_id,
        0,
        _PAYLOAD,
        3,  # capability 0 of the table
        _struct_list_word(0, 2),
        _struct_word(1, 1, 1),  # one element of one data word and one pointer
        1 | export_id << 32,  # senderHosted
        0,
    )


def _struct_list_word(offset: int, words: int) -> int:
    return 1 | offset << 2 | COMPOSITE << 32 | words << 35


def encode_exception(answer_id: int, error: RemoteError) -> list[Buffer]:
    """Return the frame of a Return with an exception."""
    reason = error.reason.encode(errors="replace") + b"\0"
    head = _frame(
        _ROOT,
        Tag.RETURN,
        _struct_word(0, 2, 1),
        answer_id | _NO_FINISH_NEEDED | 1 << 48,
        0,
        _EXCEPTION,
        error.type << 32,
        BYTES_WORD | 1 << 2 | len(reason) << 35,
        0,
        body_words=(len(reason) + 7) >> 3,
    )
    return [head, *padded(reason)]


def encode_canceled(answer_id: int) -> bytes:
    """Return the frame of a Return that confirms a cancellation."""
    return _frame(
        _ROOT,
        Tag.RETURN,
        _struct_word(0, 2, 1),
        answer_id | _NO_FINISH_NEEDED | 2 << 48,
        0,
        0,
    )


def encode_finish(question_id: int, *, release_result_caps: bool = True) -> bytes:
    """Return the frame that ends a question."""
    # Stored inverted. Bit 1 declines the early cancellation workaround, as C++ 1.0 and later do.
    flags = 2 | (not release_result_caps)
    return _frame(_ROOT, Tag.FINISH, _struct_word(0, 1, 0), question_id | flags << 32)


def encode_release(import_id: int, reference_count: int) -> bytes:
    """Return the frame that gives back `reference_count` references to an import."""
    return _frame(_ROOT, Tag.RELEASE, _struct_word(0, 1, 0), import_id | reference_count << 32)


def encode_abort(error: RemoteError) -> bytes:
    """Return the frame that ends the connection with a reason."""
    reason = error.reason.encode(errors="replace") + b"\0"
    head = _frame(
        _ROOT,
        Tag.ABORT,
        _EXCEPTION,
        error.type << 32,
        BYTES_WORD | 1 << 2 | len(reason) << 35,
        0,
        body_words=(len(reason) + 7) >> 3,
    )
    return b"".join([head, *padded(reason)])


def encode_unimplemented(message: Message) -> bytes:
    """Return the frame that echoes a message of one segment as not understood.

    The received root pointer becomes the pointer of the outer Message: the words
    behind it move along with it, so its offset still holds.
    """
    assert len(message.bounds) == 1
    start, end = message.bounds[0]
    table = struct.pack("<QQQ", ((end - start >> 3) + 2) << 32, _ROOT, Tag.UNIMPLEMENTED)
    return table + message.buffer[start:end]

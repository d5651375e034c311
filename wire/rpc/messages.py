"""The messages of rpc.capnp that a Level 1 peer knows, and how they are read.

Reading follows pointers, since every implementation lays messages out in its own
order. `message_encoder` writes them.

The numbers here come from rpc.capnp; a test compares each with the schema that
ships inside pycapnp.
"""

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
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


class CapKind(IntEnum):
    """The discriminant of `CapDescriptor`."""

    NONE = 0
    SENDER_HOSTED = 1
    SENDER_PROMISE = 2
    RECEIVER_HOSTED = 3
    RECEIVER_ANSWER = 4
    THIRD_PARTY_HOSTED = 5


class ResultsTo(IntEnum):
    """The discriminant of `Call.sendResultsTo`."""

    CALLER = 0
    YOURSELF = 1
    THIRD_PARTY = 2


class DisembargoContext(IntEnum):
    """The discriminant of `Disembargo.context`; the others are of Level 3."""

    SENDER_LOOPBACK = 0
    RECEIVER_LOOPBACK = 1


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


class Descriptor(NamedTuple):
    """A capability in the table of a message, by its `CapKind`.

    `id` is an export of the sender (for a third party, its vine), an export of the receiver or,
    with a `path`, a question of the sender.
    """

    kind: int
    id: int = 0
    path: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """A method call; `params` points to the parameter struct, unread."""

    question_id: int
    interface_id: int
    method_id: int
    target: Target
    params: Pointer | None
    results_to: int = ResultsTo.CALLER
    cap_table: tuple[Descriptor, ...] = ()


@dataclass(frozen=True, slots=True)
class RemoteError:
    """An exception as it travels: its text, and how the caller should respond."""

    reason: str
    type: ExceptionType = ExceptionType.FAILED


@dataclass(frozen=True, slots=True)
class TooLarge(RemoteError):
    """An answer that was over the limit of this side, and was dropped."""


class Canceled(NamedTuple):
    """The callee gave up the call because of our Finish."""


@dataclass(frozen=True, slots=True)
class Results:
    """The results of a call: `content` points to the result struct or capability, unread."""

    content: Pointer | None
    cap_table: tuple[Descriptor, ...]


class SentElsewhere(NamedTuple):
    """The results of a call that asked for it stay with its callee."""


class TakenFromOther(NamedTuple):
    """The results are those of another call, which the sender made and the receiver kept."""

    question_id: int


Outcome = Results | RemoteError | Canceled | SentElsewhere | TakenFromOther


@dataclass(frozen=True, slots=True)
class Return:
    """The answer to a Call or a Bootstrap."""

    answer_id: int
    outcome: Outcome
    no_finish_needed: bool
    releases_params: bool = True


@dataclass(frozen=True, slots=True)
class Finish:
    """The caller will not mention this question again; cancels it where it still runs."""

    question_id: int
    release_result_caps: bool = True


@dataclass(frozen=True, slots=True)
class Resolve:
    """A promise that the sender exported is now another capability, or broken."""

    promise_id: int
    outcome: Descriptor | RemoteError


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
    """The peer did not understand a message of ours: its tag, and its question where it had one.

    `resolution` is the capability of a Resolve.
    """

    tag: int
    question_id: int | None
    resolution: Descriptor | None = None


@dataclass(frozen=True, slots=True)
class Disembargo:
    """Lifts an embargo; `context` is a `DisembargoContext`, or a number of Level 3."""

    context: int
    target: Target = ImportedCap(0)
    embargo_id: int = 0


@dataclass(frozen=True, slots=True)
class Other:
    """A message that Level 1 answers with `unimplemented`."""

    tag: int


Incoming = (
    Bootstrap
    | Call
    | Return
    | Finish
    | Resolve
    | Release
    | Abort
    | Unimplemented
    | Disembargo
    | Other
)


def decode(message: Message) -> Incoming:
    """Read one message; `params` and `content` stay unread.

    Raises:
        MalformedMessage: It does not hold a Message of rpc.capnp.
    """
    root = _follow(root_pointer(message))
    tag = root.bits(0, 2)
    reader = _READERS.get(tag)
    return Other(tag) if reader is None else reader(_field(root, 0))


def decode_beginning(message: Message, outcome: RemoteError) -> Call | Return | None:
    """Read a Call or a Return of which only the beginning is here; None for any other message.

    A Call is without params and capabilities, a Return with results or an exception has `outcome`.

    Raises:
        MalformedMessage: It is not all within the beginning, or does not hold such a message.
    """
    root = _follow(root_pointer(message))
    tag, body = root.bits(0, 2), _field(root, 0)
    if tag == Tag.CALL:
        return _read_call(body, is_whole=False)
    if tag == Tag.RETURN and body.bits(6, 2) <= 1:
        return _read_return(body, outcome)
    return None


def tag_of(message: Message) -> int:
    """Return which message of rpc.capnp it is, for callers that read only some of them.

    Raises:
        MalformedMessage: It does not hold a Message of rpc.capnp.
    """
    return _follow(root_pointer(message)).bits(0, 2)


def exception_number(message: Message) -> int:
    """Return the type of the exception in a Return or a Resolve as it stands, 0 without one.

    Raises:
        MalformedMessage: It does not hold a Message of rpc.capnp.
    """
    root = _follow(root_pointer(message))
    body = _field(root, 0)
    which = body.bits(6 if root.bits(0, 2) == Tag.RETURN else 4, 2)
    return _field(body, 0).bits(4, 2) if which == 1 else 0


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


def _read_call(body: StructAt, *, is_whole: bool = True) -> Call:
    payload = _field(body, 1) if is_whole else None
    return Call(
        question_id=body.bits(0, 4),
        interface_id=body.bits(8, 8),
        method_id=body.bits(4, 2),
        target=_read_target(_field(body, 0)),
        params=None if payload is None else payload.pointer(0),
        results_to=body.bits(6, 2),
        cap_table=() if payload is None else _read_table(payload),
    )


def _read_target(body: StructAt) -> Target:
    which = body.bits(4, 2)
    if which == 0:
        return ImportedCap(body.bits(0, 4))
    if which != 1:
        raise MalformedMessage(f"message has a target of unknown kind {which}")
    return _read_promised_answer(_field(body, 0))


def _read_promised_answer(answer: StructAt) -> PromisedAnswer:
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


def _read_return(body: StructAt, outcome: RemoteError | None = None) -> Return:
    return Return(
        answer_id=body.bits(0, 4),
        outcome=_read_outcome(body) if outcome is None else outcome,
        no_finish_needed=bool(body.bits(4, 1) & 2),
        # The bit is stored inverted, because the field's default is true.
        releases_params=not body.bits(4, 1) & 1,
    )


def _read_outcome(body: StructAt) -> Outcome:
    which = body.bits(6, 2)
    if which == 0:
        payload = _field(body, 0)
        return Results(payload.pointer(0), _read_table(payload))
    if which == 1:
        return _read_exception(_field(body, 0))
    if which == 2:
        return Canceled()
    if which == 3:
        return SentElsewhere()
    if which == 4:
        return TakenFromOther(body.bits(8, 4))
    # A caller has to ask for results from a third party, and ours never does.
    raise MalformedMessage(f"message has a return of kind {which}, which was not asked for")


# In one message, so that a hostile one of 4 MiB does not take half a second to read.
MAX_CAPABILITIES = 16_384


def _read_table(payload: StructAt) -> tuple[Descriptor, ...]:
    table = payload.pointer(1)
    found = (
        ()
        if table is None
        else tuple(islice(map(_read_descriptor, _structs(table)), MAX_CAPABILITIES + 1))
    )
    if len(found) > MAX_CAPABILITIES:
        raise MalformedMessage(f"message has more than {MAX_CAPABILITIES} capabilities")
    return found


def _read_descriptor(descriptor: StructAt) -> Descriptor:
    kind = descriptor.bits(0, 2)
    if kind == CapKind.RECEIVER_ANSWER:
        answer = _read_promised_answer(_field(descriptor, 0))
        return Descriptor(kind, answer.question_id, answer.path)
    if kind == CapKind.THIRD_PARTY_HOSTED:
        return Descriptor(kind, _field(descriptor, 0).bits(0, 4))
    return Descriptor(kind, descriptor.bits(4, 4))


def _read_resolve(body: StructAt) -> Resolve:
    which, content = body.bits(4, 2), _field(body, 0)
    if which > 1:
        raise MalformedMessage(f"message has a resolve of unknown kind {which}")
    outcome = _read_exception(content) if which else _read_descriptor(content)
    return Resolve(body.bits(0, 4), outcome)


def _read_exception(body: StructAt) -> RemoteError:
    reason = body.pointer(0)
    text = None if reason is None else read_text(reason)
    number = body.bits(4, 2)
    # A number from a newer peer must not crash us: C++ 1.4 does.
    known = ExceptionType(number) if number <= 3 else ExceptionType.FAILED
    return RemoteError(text or "(no reason given)", known)


def _read_unimplemented(body: StructAt) -> Unimplemented:
    tag = body.bits(0, 2)
    if tag == Tag.RESOLVE:
        outcome = _read_resolve(_field(body, 0)).outcome
        return Unimplemented(tag, None, outcome if isinstance(outcome, Descriptor) else None)
    if tag not in {Tag.CALL, Tag.BOOTSTRAP}:
        return Unimplemented(tag, None)
    return Unimplemented(tag, _field(body, 0).bits(0, 4))


def _read_disembargo(body: StructAt) -> Disembargo:
    context = body.bits(4, 2)
    if context > DisembargoContext.RECEIVER_LOOPBACK:
        return Disembargo(context)
    return Disembargo(context, _read_target(_field(body, 0)), body.bits(0, 4))


_READERS: dict[int, Callable[[StructAt], Incoming]] = {
    Tag.UNIMPLEMENTED: _read_unimplemented,
    Tag.ABORT: lambda body: Abort(_read_exception(body)),
    Tag.CALL: _read_call,
    Tag.RETURN: _read_return,
    # The bit is stored inverted, because the field's default is true.
    Tag.FINISH: lambda body: Finish(body.bits(0, 4), not body.bits(4, 1) & 1),
    Tag.RELEASE: lambda body: Release(body.bits(0, 4), body.bits(4, 4)),
    Tag.BOOTSTRAP: lambda body: Bootstrap(body.bits(0, 4)),
    Tag.RESOLVE: _read_resolve,
    Tag.DISEMBARGO: _read_disembargo,
}

"""Frames of Level 1, written and read by pycapnp, never by our own code."""

from collections.abc import Callable, Sequence
from typing import Any

from fuzz.mutate import split
from raw_peer import call_builder, encoded

from capnp_rig.schema import load_rpc
from capnp_rig.wire.rpc.connection import Connection

RPC = load_rpc()
# Kind and id of a descriptor; for `receiverAnswer` the path follows.
Descriptor = tuple[Any, ...]


def fill_table(payload: Any, table: Sequence[Descriptor]) -> None:
    for place, descriptor in zip(payload.init("capTable", len(table)), table, strict=True):
        fill_descriptor(place, descriptor)


def fill_descriptor(place: Any, descriptor: Descriptor) -> None:
    kind, *rest = descriptor
    if kind == "receiverAnswer":
        fill_answer(place.init(kind), *rest)
    elif kind == "thirdPartyHosted":
        place.init(kind).vineId = rest[0]
    else:
        setattr(place, kind, rest[0] if rest else None)


def fill_answer(answer: Any, question_id: int, path: Sequence[int] = ()) -> None:
    answer.questionId = question_id
    for operation, index in zip(answer.init("transform", len(path)), path, strict=True):
        operation.getPointerField = index


def call(
    question_id: int,
    *,
    table: Sequence[Descriptor] = (),
    to: str = "caller",
    data: Sequence[int] = (),
    **where: Any,
) -> bytes:
    build = call_builder(question_id, **where)
    setattr(build.call.sendResultsTo, to, None)
    fill_table(build.call.params, table)
    return with_content(encoded(build), len(table), data)


def results(
    answer_id: int,
    table: Sequence[Descriptor] = (),
    *,
    releases: bool = True,
    no_finish: bool = False,
) -> bytes:
    build = RPC.Message.new_message()
    answer = build.init("return")
    answer.answerId, answer.releaseParamCaps, answer.noFinishNeeded = answer_id, releases, no_finish
    fill_table(answer.init("results"), table)
    return with_content(encoded(build), len(table))


def with_content(frame: bytes, count: int, data: Sequence[int] = ()) -> bytes:
    """Let the first null pointer of the payload lead to a struct of so many capabilities.

    In front of them are the words of `data`. pycapnp writes no capability pointer without a
    capability.
    """
    if not count and not data:
        return frame
    # The content's pointer is the word in front of that of the table, whose tag tells its elements.
    words = [int.from_bytes(frame[at : at + 8], "little") for at in range(8, len(frame), 8)]
    tag = count << 2 | 1 << 32 | 1 << 48
    (table,) = (
        at
        for at, word in enumerate(words)
        if word & 3 == 1 and word >> 32 == 7 | count << 4 and words[at - 1] == 0
        if words[at + 1 + (word % 2**32 >> 2)] == tag
    )
    words[table - 1] = len(words) - table << 2 | len(data) << 32 | count << 48
    words += [*data, *(3 | index << 32 for index in range(count))]
    return b"".join(word.to_bytes(8, "little") for word in [len(words) << 32, *words])


def message(kind: str, **fields: Any) -> bytes:
    """Return a message of plain fields, such as `release`."""
    build = RPC.Message.new_message()
    body = build.init(kind)
    for name, value in fields.items():
        setattr(body, name, value)
    return encoded(build)


def exception(answer_id: int, reason: str) -> bytes:
    build = RPC.Message.new_message()
    answer = build.init("return")
    answer.answerId = answer_id
    answer.init("exception").reason = reason
    return encoded(build)


def resolve(promise_id: int, descriptor: Descriptor | str) -> bytes:
    build = RPC.Message.new_message()
    body = build.init("resolve")
    body.promiseId = promise_id
    if isinstance(descriptor, str):
        body.init("exception").reason = descriptor
    else:
        fill_descriptor(body.init("cap"), descriptor)
    return encoded(build)


def disembargo(
    context: str, number: int, *, export: int | None = None, answer: Any = None
) -> bytes:
    build = RPC.Message.new_message()
    body = build.init("disembargo")
    if export is not None:
        body.target.importedCap = export
    else:
        fill_answer(body.target.init("promisedAnswer"), *answer)
    setattr(body.context, context, number)
    return encoded(build)


def sent(connection: Connection) -> list[str]:
    """Return what a connection has to send, each message as a line."""
    return [line(frame) for frame in split(connection.data_to_send())]


def line(frame: bytes) -> str:
    with RPC.Message.from_bytes(frame) as found:
        kind = str(found.which())
        body = getattr(found, kind)
        return f"{kind}{LINES[kind](body)}" if kind in LINES else f"{kind} {body.which()}"


def of_call(body: Any) -> str:
    to = str(body.sendResultsTo.which())
    where = f" {body.questionId} of {target(body.target)}{table(body.params)}"
    return where if to == "caller" else f"{where} to {to}"


def of_resolve(body: Any) -> str:
    if str(body.which()) == "exception":
        return f" {body.promiseId}: {body.exception.reason}"
    return f" {body.promiseId} {descriptor(body.cap)}"


def of_disembargo(body: Any) -> str:
    context = str(body.context.which())
    return f" {target(body.target)} {context} {getattr(body.context, context)}"


LINES: dict[str, Callable[[Any], str]] = {
    "call": of_call,
    "return": lambda body: f" {body.answerId} {outcome(body)}",
    "finish": lambda body: f" {body.questionId}" + ("" if body.releaseResultCaps else " keeping"),
    "release": lambda body: f" {body.id}, {body.referenceCount} times",
    "resolve": of_resolve,
    "disembargo": of_disembargo,
    "bootstrap": lambda body: f" {body.questionId}",
    "abort": lambda body: f": {body.reason}",
}


def outcome(body: Any) -> str:
    which = str(body.which())
    keeps = "" if body.releaseParamCaps else " keeping params"
    if which == "results":
        return f"results{table(body.results)}{keeps}" + ("" if body.noFinishNeeded else ", finish")
    if which == "exception":
        return f"exception: {body.exception.reason}{keeps}"
    if which == "takeFromOtherQuestion":
        return f"from {body.takeFromOtherQuestion}{keeps}"
    return f"{which}{keeps}"


def table(payload: Any) -> str:
    return "".join(f" {descriptor(each)}" for each in payload.capTable)


def descriptor(found: Any) -> str:
    which = str(found.which())
    if which == "none":
        return "none"
    if which == "receiverAnswer":
        return f"{which}:{answer(found.receiverAnswer)}"
    return f"{which}:{getattr(found, which)}"


def answer(found: Any) -> str:
    path = [str(each.getPointerField) for each in found.transform]
    return ".".join([f"answer {found.questionId}", *path])


def target(found: Any) -> str:
    if str(found.which()) == "importedCap":
        return f"export {found.importedCap}"
    return answer(found.promisedAnswer)

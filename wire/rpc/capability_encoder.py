"""The messages that carry capabilities, or are about them, as bytes.

As in `message_encoder`, a frame has one segment with the structs in the order in which they are
referred to. These messages are rarer, so each is put together from lists of words.
"""

import struct
from collections.abc import Sequence

from capnp_rig.wire.encoding.encoded import BYTES_WORD, EncodedTuple, padded
from capnp_rig.wire.encoding.pointers import COMPOSITE, Buffer
from capnp_rig.wire.rpc.messages import (
    CapKind,
    Descriptor,
    DisembargoContext,
    ImportedCap,
    RemoteError,
    ResultsTo,
    Tag,
    Target,
)

_RESULTS, _SENT_ELSEWHERE, _TAKEN_FROM_OTHER = 0, 3, 4
# Of a Return: the bits of releaseParamCaps, which is stored inverted, and of noFinishNeeded.
_KEEPS_PARAMS, _NO_FINISH_NEEDED = 1 << 32, 2 << 32


def _to_struct(offset: int, data_words: int, pointers: int) -> int:
    return offset << 2 | data_words << 32 | pointers << 48


def _frame(tag: int, sizes: tuple[int, int], words: Sequence[int], more_words: int = 0) -> bytes:
    """Return a message whose body has `sizes`; the caller appends `more_words`."""
    head = (len(words) + 3 + more_words) << 32, _to_struct(0, 1, 1), tag, _to_struct(0, *sizes)
    return struct.pack(f"<{len(words) + 4}Q", *head, *words)


def _promised_answer(question_id: int, path: Sequence[int]) -> list[int]:
    """Return the words of a PromisedAnswer."""
    if not path:
        return [question_id, 0]
    count = len(path)
    operations = [1 | index << 16 for index in path]
    return [question_id, 1 | COMPOSITE << 32 | count << 35, count << 2 | 1 << 32, *operations]


def _target(target: Target) -> list[int]:
    """Return the words of a MessageTarget."""
    if isinstance(target, ImportedCap):
        return [target.import_id, 0]
    answer = _promised_answer(target.question_id, target.path)
    return [1 << 32, _to_struct(0, 1, 1), *answer]


def _payload(content_sizes: int, table: Sequence[Descriptor]) -> list[int]:
    """Return the words of a Payload whose content follows them."""
    elements, answers = list[int](), list[int]()
    for index, (kind, number, path) in enumerate(table):
        if kind == CapKind.RECEIVER_ANSWER:
            offset = 2 * (len(table) - index - 1) + len(answers)
            elements += [kind, _to_struct(offset, 1, 1)]
            answers += _promised_answer(number, path)
        else:
            elements += [kind | number << 32, 0]
    rest = [0]
    if table:
        pointer = 1 | COMPOSITE << 32 | len(elements) << 35
        rest = [pointer, _to_struct(len(table), 1, 1), *elements, *answers]
    # A struct without size points at itself: offset -1.
    content = content_sizes << 32 | len(rest) << 2 if content_sizes else 0xFFFFFFFC
    return [content, *rest]


def encode_call_with(
    question_id: int,
    target: Target,
    method: tuple[int, int],
    params: EncodedTuple,
    table: Sequence[Descriptor],
    results_to: int = ResultsTo.CALLER,
) -> list[Buffer]:
    """Return the frame of any call of a `method`, which is an interface's id and its own."""
    interface_id, method_id = method
    sizes, parts, words = params
    to = _target(target)
    body = [
        question_id | method_id << 32 | results_to << 48,
        interface_id,
        0,
        _to_struct(2, 1, 1),
        _to_struct(1 + len(to), 0, 2),
        0,
    ]
    head = _frame(Tag.CALL, (3, 3), [*body, *to, *_payload(sizes, table)], words)
    return [head, *parts]


def path_words(target: Target) -> int:
    """Return how many words a path adds to a message."""
    return 0 if isinstance(target, ImportedCap) or not target.path else len(target.path) + 1


def encode_results_with(
    answer_id: int,
    results: EncodedTuple,
    table: Sequence[Descriptor],
    *,
    keeps_params: bool,
    needs_finish: bool,
) -> list[Buffer]:
    """Return the frame of a Return with results and their capabilities."""
    sizes, parts, words = results
    flags = (_KEEPS_PARAMS if keeps_params else 0) | (0 if needs_finish else _NO_FINISH_NEEDED)
    body = [answer_id | flags | _RESULTS << 48, 0, _to_struct(0, 0, 2)]
    return [_frame(Tag.RETURN, (2, 1), [*body, *_payload(sizes, table)], words), *parts]


def encode_sent_elsewhere(answer_id: int, *, keeps_params: bool) -> bytes:
    """Return the frame of a Return whose results stay with us until they are asked for."""
    flags = _KEEPS_PARAMS if keeps_params else 0
    return _frame(Tag.RETURN, (2, 1), [answer_id | flags | _SENT_ELSEWHERE << 48, 0, 0])


def encode_taken_from_other(answer_id: int, question_id: int, *, keeps_params: bool) -> bytes:
    """Return the frame of a Return whose results are those of a question of ours."""
    flags = _KEEPS_PARAMS if keeps_params else 0
    words = [answer_id | flags | _TAKEN_FROM_OTHER << 48, question_id, 0]
    return _frame(Tag.RETURN, (2, 1), words)


def encode_release(export_id: int, count: int) -> bytes:
    """Return the frame that gives back references to an export of the peer."""
    return _frame(Tag.RELEASE, (1, 0), [export_id | count << 32])


def encode_resolve(promise_id: int, outcome: Descriptor | RemoteError) -> list[Buffer]:
    """Return the frame that tells what a promise of ours has become."""
    if isinstance(outcome, RemoteError):
        reason = outcome.reason.encode(errors="replace") + b"\0"
        text = BYTES_WORD | 1 << 2 | len(reason) << 35
        body = [promise_id | 1 << 32, _to_struct(0, 1, 2), outcome.type << 32, text, 0]
        return [_frame(Tag.RESOLVE, (1, 1), body, (len(reason) + 7) >> 3), *padded(reason)]
    kind, number, path = outcome
    body = [promise_id, _to_struct(0, 1, 1)]
    if kind == CapKind.RECEIVER_ANSWER:
        body += [kind, _to_struct(0, 1, 1), *_promised_answer(number, path)]
    else:
        body += [kind | number << 32, 0]
    return [_frame(Tag.RESOLVE, (1, 1), body)]


def encode_disembargo(target: Target, context: DisembargoContext, embargo_id: int) -> bytes:
    """Return the frame that follows the calls to a promise there, or back."""
    body = [embargo_id | context << 32, _to_struct(0, 1, 1), *_target(target)]
    return _frame(Tag.DISEMBARGO, (1, 1), body)

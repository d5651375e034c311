"""The messages without capabilities, as bytes; `capability_encoder` has the others.

One layout per message, built by hand because it is fixed: a frame of one segment, which holds
the table, the root pointer, Message (one data word with the discriminant, one pointer), then
the body, its structs in the order in which they are referred to.
"""

import struct

from capnp_rig.wire.encoding.encoded import BYTES_WORD, EncodedTuple, padded
from capnp_rig.wire.encoding.pointers import COMPOSITE, Buffer, Message
from capnp_rig.wire.rpc.messages import (
    CALL_PREFIX,
    RETURN_PREFIX,
    ImportedCap,
    RemoteError,
    Tag,
    Target,
)


def _struct_word(offset: int, data_words: int, pointers: int) -> int:
    return offset << 2 | data_words << 32 | pointers << 48


_ROOT = _struct_word(0, 1, 1)
_EXCEPTION = _struct_word(0, 1, 2)
_PAYLOAD = _struct_word(0, 0, 2)
# Of a Return: the bits of noFinishNeeded, and of releaseParamCaps, which is stored inverted.
_NO_FINISH_NEEDED, _KEEPS_PARAMS = 2 << 32, 1 << 32
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
# Pointers from a Call to its target and its params, by what the target is.
_CAP_TARGET, _CAP_PAYLOAD = _struct_word(2, 1, 1), _struct_word(3, 0, 2)
_PROMISED_ANSWER, _PROMISE_PAYLOAD = _struct_word(0, 1, 1), _struct_word(5, 0, 2)
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
            0,
            words + 13,
            CALL_PREFIX,
            question_id,
            method_id,
            interface_id,
            0,
            _CAP_TARGET,
            _CAP_PAYLOAD,
            0,
            target.import_id,
            0,
            content,
            0,
        )
    else:
        assert not target.path, "a target with a path is for `capability_encoder`"
        head = _call_to_promise(
            0,
            words + 15,
            CALL_PREFIX,
            question_id,
            method_id,
            interface_id,
            0,
            _CAP_TARGET,
            _PROMISE_PAYLOAD,
            0,
            1 << 32,
            _PROMISED_ANSWER,
            target.question_id,
            0,
            content,
            0,
        )
    return [head, *parts]


_results_head = struct.Struct("<II24sIIQQQQ").pack


def results_head(answer_id: int, sizes: int, words: int) -> bytes:
    """Return what stands in front of results of `words` words whose root has these `sizes`."""
    # The same as `_content`, written out: it saves a call in every answer.
    content = sizes << 32 | 4 if sizes else 0xFFFFFFFC
    return _results_head(0, words + 8, RETURN_PREFIX, answer_id, 2, 0, _PAYLOAD, content, 0)


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
        1 | COMPOSITE << 32 | 2 << 35,  # a list of structs, of two words
        _struct_word(1, 1, 1),  # one element of one data word and one pointer
        1 | export_id << 32,  # senderHosted
        0,
    )


def encode_exception(
    answer_id: int, error: RemoteError, *, keeps_params: bool = False
) -> list[Buffer]:
    """Return the frame of a Return with an exception."""
    reason = error.reason.encode(errors="replace") + b"\0"
    head = _frame(
        _ROOT,
        Tag.RETURN,
        _struct_word(0, 2, 1),
        answer_id | _NO_FINISH_NEEDED | 1 << 48 | (_KEEPS_PARAMS if keeps_params else 0),
        0,
        _EXCEPTION,
        error.type << 32,
        BYTES_WORD | 1 << 2 | len(reason) << 35,
        0,
        body_words=(len(reason) + 7) >> 3,
    )
    return [head, *padded(reason)]


def encode_canceled(answer_id: int, *, keeps_params: bool = False) -> bytes:
    """Return the frame of a Return that confirms a cancellation."""
    return _frame(
        _ROOT,
        Tag.RETURN,
        _struct_word(0, 2, 1),
        answer_id | _NO_FINISH_NEEDED | 2 << 48 | (_KEEPS_PARAMS if keeps_params else 0),
        0,
        0,
    )


_FINISH_HEAD = struct.pack("<QQQQ", 4 << 32, _ROOT, Tag.FINISH, _struct_word(0, 1, 0))
_finish = struct.Struct("<32sII").pack


def encode_finish(question_id: int, *, release_result_caps: bool = True) -> bytes:
    """Return the frame that ends a question."""
    # Stored inverted. Bit 1 declines the early cancellation workaround, as C++ 1.0 and later do.
    return _finish(_FINISH_HEAD, question_id, 2 if release_result_caps else 3)


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

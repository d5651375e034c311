"""What other implementations of Cap'n Proto RPC send, built word by word (no I/O).

An encoder may put the objects of a message in any order, write an empty list for a null pointer,
and leave the end of a call to a Finish. A `Peer` is what one implementation chose, as seen on the
wire between it and the tutorial's service; ``rpc.capnp`` says what the messages mean.

All of them put the root, Message and its body first: the id of a Call, Return or Finish stands at
`ID_AT` in its frame.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.rpc.interfaces import Method
from capnp_rig.wire.rpc.messages import Tag

# Behind segment table, root, and the two words of Message.
ID_AT, BEHIND_ID = 32, 36
BOOTSTRAP_QUESTION = 0
# The only capability of a server, as all of them number it.
_EXPORT = 0
# Kinds of a MessageTarget and a CapDescriptor.
_PROMISED_ANSWER, _SENDER_HOSTED = 1 << 32, 1
_FAR, _COMPOSITE = 2, 7 << 32
_KEEPS_CAPABILITIES = 1


def _struct_word(offset: int, data_words: int, pointers: int) -> int:
    return offset << 2 | data_words << 32 | pointers << 48


def _list_word(offset: int, words: int) -> int:
    """Return the pointer to a list of structs."""
    return 1 | offset << 2 | _COMPOSITE | words << 35


# The tags of empty lists, of operations and of capabilities.
_NO_OPERATIONS, _NO_CAPABILITIES = _struct_word(0, 1, 0), _struct_word(0, 1, 1)
# The only capability, as its table has it: the tag of the list, and its element.
_CAPABILITY = (_struct_word(1, 1, 1), _SENDER_HOSTED | _EXPORT << 32, 0)


@dataclass(frozen=True, slots=True)
class Peer:
    """The choices of one implementation, which has a `name` for people.

    As a client it may put the target behind the params (`target_last`), call the promise of the
    bootstrap and not what that became (`calls_promise`), and end each call with a Finish
    (`finishes`), whose flags are `finish_flags`. On both sides it may write an empty list for a
    null pointer (`empty_lists`). As a server, if it is one (`serves`), it puts `return_flags` into
    each Return, `bootstrap_flags` into that of the bootstrap, which may have two segments
    (`far_bootstrap`). Bit 0 of flags keeps capabilities; bit 1 says that no Finish is needed, or
    declines early cancellation.

    It is the steady state: pycapnp, Go and JavaScript call the promise until it is answered.
    """

    name: str
    target_last: bool = False
    calls_promise: bool = False
    finishes: bool = False
    finish_flags: int = 1
    empty_lists: bool = False
    serves: bool = True
    return_flags: int = 3
    bootstrap_flags: int = 0
    far_bootstrap: bool = False

    def settled(self) -> bytes:
        """Return what it sends when the bootstrap is answered: a Finish, or a Release."""
        # While it calls the promise it keeps that, and gives back the import.
        if self.calls_promise:
            return release(_EXPORT)
        return _finish(BOOTSTRAP_QUESTION, self.finish_flags | _KEEPS_CAPABILITIES)

    def finish(self, question_id: int) -> bytes:
        """Return the Finish of a call."""
        return _finish(question_id, self.finish_flags)

    def call(self, question_id: int, method: Method, params: EncodedTuple) -> bytes:
        """Return a call of `method`, with params as `StructCodec.pack` returns them."""
        target, payload = self._target(), _payload(params)
        if self.target_last:
            objects, target_offset, params_offset = payload + target, 2 + len(payload), 1
        else:
            objects, target_offset, params_offset = target + payload, 2, 1 + len(target)
        self._add_table(objects, objects.index(payload[0]) + 1)
        body = [
            question_id | method.method_id << 32,
            method.interface_id,
            0,
            _struct_word(target_offset, 1, 1),
            _struct_word(params_offset, 0, 2),
            0,
        ]
        return _message(Tag.CALL, (3, 3), body + objects)

    def results(self, answer_id: int, results: EncodedTuple) -> bytes:
        """Return the Return of a call, with results as `StructCodec.pack` returns them."""
        payload = _payload(results)
        self._add_table(payload, 1)
        body = [answer_id | self.return_flags << 32, 0, _struct_word(0, 0, 2)]
        return _message(Tag.RETURN, (2, 1), body + payload)

    def bootstrap_results(self) -> bytes:
        """Return the Return of the bootstrap."""
        # The content is the capability with number 0; behind it comes the table.
        words = [BOOTSTRAP_QUESTION | self.bootstrap_flags << 32, 0, _struct_word(0, 0, 2), 3]
        table = [_list_word(0, 2), *_CAPABILITY]
        if self.far_bootstrap:
            return _message(Tag.RETURN, (2, 1), [*words, _FAR | 1 << 32], table)
        return _message(Tag.RETURN, (2, 1), words + table)

    def _target(self) -> list[int]:
        if not self.calls_promise:
            return [_EXPORT, 0]
        transform = [_list_word(0, 0), _NO_OPERATIONS] if self.empty_lists else [0]
        return [_PROMISED_ANSWER, _struct_word(0, 1, 1), BOOTSTRAP_QUESTION, *transform]

    def _add_table(self, objects: list[int], at: int) -> None:
        """Put a capability table behind all objects, if this peer writes an empty one."""
        if self.empty_lists:
            objects[at] = _list_word(len(objects) - at - 1, 0)
            objects.append(_NO_CAPABILITIES)


def _payload(content: EncodedTuple) -> list[int]:
    sizes, parts, words = content
    plain = b"".join(parts)
    return [1 << 2 | sizes << 32, 0, *struct.unpack(f"<{words}Q", plain)]


def _message(
    tag: Tag, sizes: tuple[int, int], words: Sequence[int], second: Sequence[int] = ()
) -> bytes:
    """Return a frame whose body has `sizes`, and a second segment if there is a word for it."""
    first = [_struct_word(0, 1, 1), tag, _struct_word(0, *sizes), *words]
    table = [len(first) << 32]
    if second:
        table = [1 | len(first) << 32, len(second)]
    whole = [*table, *first, *second]
    return struct.pack(f"<{len(whole)}Q", *whole)


def _finish(question_id: int, flags: int) -> bytes:
    return _message(Tag.FINISH, (1, 0), [question_id | flags << 32])


def bootstrap() -> bytes:
    """Return the frame that asks for the interface, in which no two of them differ."""
    return _message(Tag.BOOTSTRAP, (1, 1), [BOOTSTRAP_QUESTION, 0])


def release(export_id: int, count: int = 1) -> bytes:
    """Return a Release, in which no two of them differ."""
    return _message(Tag.RELEASE, (1, 0), [export_id | count << 32])


# As `wire` does it: what all others are measured against.
OURS = Peer("ours", finish_flags=2, return_flags=2)
PEERS = (
    Peer("pycapnp", target_last=True, finish_flags=3),
    Peer("C++ 0.9", target_last=True, finishes=True, return_flags=1),
    Peer("Go", return_flags=1, bootstrap_flags=1),
    Peer("JavaScript", finishes=True, serves=False),
    Peer("Rust", target_last=True, calls_promise=True, empty_lists=True, far_bootstrap=True),
)
LAYOUTS = {peer.name: peer for peer in (OURS, *PEERS)}

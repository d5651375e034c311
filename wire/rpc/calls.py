"""The calls of a connection that need more than a word in a table, and what they wait for.

Most questions and answers are plain: their calls have no capabilities, nor have their results, and
nobody pipelines on them. These are a member of `Asked` or of `Asking` in their table.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from capnp_rig.wire.encoding.any_pointers import copy_struct
from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT, EncodedTuple
from capnp_rig.wire.encoding.pointers import (
    NESTING_LIMIT,
    OTHER,
    TRAVERSAL_LIMIT_WORDS,
    Message,
    Pointer,
    StructAt,
    StructTuple,
    follow_struct,
    pointer_halves,
)
from capnp_rig.wire.errors import MalformedMessage
from capnp_rig.wire.rpc.messages import RemoteError

if TYPE_CHECKING:
    from capnp_rig.wire.rpc.events import Answered, Failed, Unreadable
    from capnp_rig.wire.rpc.nodes import Node, Pipeline, Promise


class Asked(Enum):
    """The state of a plain question of ours."""

    WAITING = auto()
    CANCELLED = auto()


class Asking(Enum):
    """The state of a plain question of the peer."""

    BOOTSTRAP = auto()
    RUNNING = auto()
    CANCELLED = auto()


class Purpose(Enum):
    """What becomes of the results of a question."""

    EVENT = auto()
    BOOTSTRAP = auto()
    # They are the results of a call of the peer: it has them already, or gets them from here.
    TAIL = auto()
    RELAY = auto()
    # Only what was pipelined from it counts.
    NOTHING = auto()


class Question:
    """A question of ours.

    `exports` are those in its params. `call` is the one of ours that it is or answers, `taken` that
    of the peer whose results it has.
    """

    __slots__ = (
        *("call", "exports", "id", "is_finished", "is_open", "is_returned", "outcome"),
        *("pipelines", "purpose", "releases", "taken"),
    )

    def __init__(self, number: int, purpose: Purpose) -> None:
        self.id = number
        self.purpose = purpose
        self.pipelines: dict[tuple[int, ...], Pipeline] = {}
        self.exports: Sequence[int] = ()
        self.call: PendingCall | None = None
        self.taken: PendingCall | None = None
        # Whether its Return has come, and its Finish has gone.
        self.is_returned = self.is_finished = False
        # Whether its outcome is waited for; then it is in an event, until that is handed out.
        self.is_open = purpose in {Purpose.EVENT, Purpose.RELAY}
        self.outcome: Answered | Failed | Unreadable | None = None
        # Whether its Finish gives the capabilities of its results back.
        self.releases = True


class PendingCall:
    """A call that this side is to answer, and its answer until that is finished.

    `id` is that of the peer's question, or ``~id`` of one of ours.
    """

    __slots__ = (
        *("capabilities", "content", "error", "exports", "id", "interface_id", "is_finished"),
        *("is_redirected", "is_returned", "is_running", "keeps_params", "kept_bytes", "method_id"),
        *("nodes", "note", "params", "promises", "question", "size", "taker", "waits_for"),
    )

    def __init__(
        self,
        number: int,
        interface_id: int = 0,
        method_id: int = 0,
        params: StructTuple | None = None,
        capabilities: "Sequence[Node | None]" = (),
    ) -> None:
        self.id = number
        self.interface_id = interface_id
        self.method_id = method_id
        self.params = params
        # Each is held, until they are handed out.
        self.capabilities = capabilities
        # What was noted for it (`Answers.note_next`).
        self.note: Any = None
        # Whether the peer has to be told of their release one by one.
        self.keeps_params = False
        self.is_redirected = self.is_running = self.is_finished = self.is_returned = False
        # The promise that it waits for, and the bytes that wait: its params, its results.
        self.waits_for: Promise | None = None
        self.size = self.kept_bytes = 0
        # What calls on its answer wait for, by path.
        self.promises: dict[tuple[int, ...], Promise] = {}
        # The results, once it is returned: content, nodes, and which of them are exports.
        self.content: StructTuple | None = None
        self.nodes: Sequence[Node | None] = ()
        self.exports: Sequence[int] = ()
        self.error: RemoteError | None = None
        # The question whose results are those of this call, and the one that takes them.
        self.question: Question | None = None
        self.taker: Question | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether other calls wait for its results, or a question takes them."""
        return self.taker is not None or any(each.waiting for each in self.promises.values())


_DEPTH = NESTING_LIMIT - 4


def content_of_encoded(encoded: EncodedTuple) -> StructTuple:
    """Return an encoded struct as what it is when it has been received."""
    sizes, parts, _ = encoded
    data = b"".join(parts)
    data_end = 8 * (sizes & 0xFFFF)
    last = data_end + 8 * (sizes >> 16)
    # Our own: however large it is, it can be read.
    message = Message(data, ((0, len(data)),), max(TRAVERSAL_LIMIT_WORDS, len(data) >> 1))
    return message, 0, len(data), 0, data_end, data_end, last, _DEPTH


def shared_content(content: StructTuple) -> StructTuple:
    """Return the same struct in a message object of its own, which shares the bytes."""
    message, *rest = content
    return (Message(message.buffer, message.bounds), *rest)  # type: ignore[return-value]


class _SameTable(list[bytes]):
    """The parts of a copy whose capabilities keep their indexes."""

    def capability(self, message: Message, index: int) -> int:
        return index


def encoded_of_content(content: StructTuple | None) -> EncodedTuple:
    """Return received params or results to be sent on, with the same table of capabilities.

    Raises:
        MalformedMessage: They cannot be read.
    """
    if content is None:
        return EMPTY_STRUCT
    parts: list[bytes] = _SameTable()
    word, words = copy_struct(content, 0, parts)
    return word >> 32, list(parts), words


def capability_index(root: Pointer | StructTuple | None, path: Sequence[int]) -> int | None:
    """Return the index of the capability to which `path` leads in results; None if to none."""
    try:
        pointer = _pointer_at(root, path)
        if pointer is None:
            return None
        low, high = pointer_halves(pointer)
    except MalformedMessage:
        return None
    return high if low == OTHER else None


def capability_at(
    root: Pointer | StructTuple | None, path: Sequence[int], nodes: "Sequence[Node | None]"
) -> "Node | None":
    """Return the capability to which `path` leads in results, None if it leads to no capability."""
    index = capability_index(root, path)
    return nodes[index] if index is not None and index < len(nodes) else None


def _pointer_at(root: Pointer | StructTuple | None, path: Sequence[int]) -> Pointer | None:
    if isinstance(root, Pointer):
        pointer: Pointer | None = root
        at = follow_struct(root) if path else None
    else:
        pointer, at = None, None if root is None else StructAt(*root)
    for index in path:
        if pointer is not None and pointer is not root:
            at = follow_struct(pointer)
        pointer = None if at is None else at.pointer(index)
        if pointer is None:
            return None
    return pointer

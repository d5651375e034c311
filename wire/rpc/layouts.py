"""Reads the frequent messages of rpc.capnp quickly, in whatever layout a peer writes them.

An encoder is free to put the objects of a message in any order, with anything between them. But
a peer writes all its messages of one kind and size alike. So each connection keeps, by the size of
the frame, where messages had their parts: a `Layout`. It has the words that led there, which are
the pointers on the way, the tags of lists and the discriminants. A frame that has the same words
in the same places has the same layout, and nothing in it need be followed again.

A frame of a new layout is traced, whatever its layout and number of segments. A layout is kept
when its size comes for the second time, if it has one segment.

`messages.decode` reads all else, malformed messages among it, and is the reference: a layout never
accepts what `decode` refuses, nor reads anything differently. A test holds them against each other.
"""

import struct
from typing import Any

from capnp_rig.wire.encoding.pointers import (
    COMPOSITE,
    FAR,
    LIST,
    NESTING_LIMIT,
    STRUCT,
    Buffer,
    Message,
    StructTuple,
)
from capnp_rig.wire.rpc.messages import ImportedCap, PromisedAnswer, Tag, Target

_word_at = struct.Struct("<Q").unpack_from
_pointer_at = struct.Struct("<iI").unpack_from
_u16_at = struct.Struct("<H").unpack_from

# The parts of a message, where its layout has them.
call_at = struct.Struct("<IH2xQ").unpack_from
id_at = struct.Struct("<I").unpack_from
two_at = struct.Struct("<II").unpack_from

# A connection with frames of more sizes begins anew with them; so do all together with layouts.
_MAX_SIZES, _MAX_LAYOUTS = 1024, 4096
_MAX_PATH = 8
# What is left for params and results, below Message, its body and Payload.
_CONTENT_DEPTH = NESTING_LIMIT - 4

# Of a struct: its segment's start and end, its data, its pointers and their end; positions in the
# buffer of the message.
_Place = tuple[int, int, int, int, int]
_new_message = Message.__new__


class Layout:
    """Where a message has its parts, in bytes from the start of its frame.

    `kind` is its `Tag`. `body` is its Call, Return, Finish, Release or Bootstrap, to be read with
    `call_at`, `two_at` or `id_at`. A Call has at `target` an import id, or, where `is_promise`, the
    question in whose answer `path` leads to the target. A Return has results, without capabilities.
    `content` is where params or results lie, as segment, data, pointers and end; None where null.
    """

    __slots__ = (
        *("body", "content", "fixed", "frame_bytes", "is_promise", "kind", "no_finish_needed"),
        *("path", "target", "unpack", "words"),
    )

    def __init__(self, kind: int, body: int) -> None:
        self.kind = int(kind)
        self.body = body
        self.target = 0
        self.is_promise = self.no_finish_needed = False
        self.path: tuple[int, ...] = ()
        self.content: _Place | None = None
        # What it takes from the traversal budget to follow the pointers.
        self.words = 0
        self.frame_bytes = 0
        # A frame has this layout if `unpack` gives `fixed`.
        self.unpack: Any = _unpack_nothing
        self.fixed: tuple[bytes, ...] | None = None

    def target_in(self, number: int) -> Target:
        """Return the target of a Call that has `number` at `target`."""
        return PromisedAnswer(number, self.path) if self.is_promise else ImportedCap(number)

    def content_in(self, buffer: Buffer, at: int, budget_words: int) -> StructTuple | None:
        """Return the params or results in the frame at `at`, which has one segment."""
        if self.content is None:
            return None
        start, end, data, pointers, last = self.content
        start += at
        end += at
        pointers += at
        # The same as `Message(...)`, in three quarters of its time: it saves a call.
        message = _new_message(Message)
        message.buffer, message.bounds = buffer, ((start, end),)
        message.budget_words = budget_words - self.words
        return message, start, end, at + data, pointers, pointers, at + last, _CONTENT_DEPTH


_unpack_nothing = struct.Struct("").unpack_from
# Stands for a size that came once. No frame has this layout.
_SEEN = Layout(-1, 0)
# Connections whose peers are alike share their layouts.
_shared: dict[tuple[Any, ...], Layout] = {}


class Layouts:
    """The layouts of one connection's frames.

    They go by the frame's first word, which has its size. There may be two of a size, as Finish
    and Release are alike; the second is under the word's complement.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[int, Layout] = {}

    def find(self, buffer: Buffer, at: int, size: int) -> Layout | None:
        """Return the layout of the frame at `at`; None if it is new, or the frame not whole."""
        if size - at < 8:
            return None
        (table,) = _word_at(buffer, at)
        layout = self._known.get(table)
        if layout is None or at + layout.frame_bytes > size:
            return None
        if layout.unpack(buffer, at) == layout.fixed:
            return layout
        layout = self._known.get(~table)
        if layout is not None and layout.unpack(buffer, at) == layout.fixed:
            return layout
        return None

    def trace(
        self, message: Message, at: int
    ) -> tuple[Layout, StructTuple | None] | tuple[None, None]:
        """Return the layout of a message, whose frame is at `at`, and its params or results.

        No layout if `decode` is to read it. Else the message is charged as `decode` would do it.
        """
        tracer = _Tracer(message, at)
        try:
            layout = tracer.trace()
        except _UnusualError:
            return None, None
        if layout.words > message.budget_words:
            return None, None
        message.budget_words -= layout.words
        if len(message.bounds) == 1:
            self._learn(layout, message.buffer, at, tracer.ranges)
        if layout.content is None:
            return layout, None
        start, end, data, pointers, last = (at + place for place in layout.content)
        return layout, (message, start, end, data, pointers, pointers, last, _CONTENT_DEPTH)

    def _learn(
        self, layout: Layout, buffer: Buffer, at: int, ranges: list[tuple[int, int]]
    ) -> None:
        (table,) = _word_at(buffer, at)
        known = self._known
        first = known.get(table)
        if first is None:
            if len(known) >= 2 * _MAX_SIZES:
                known.clear()
            known[table] = _SEEN
            return
        if first is not _SEEN:
            known[~table] = first
        form, end = "<", 0
        for start, stop in sorted(ranges):
            if start > end:
                form += f"{start - end}x{stop - start}s"
            elif stop > end:
                # Adjacent, or two ways to the same words.
                form += f"{stop - end}s"
            end = max(end, stop)
        unpack = struct.Struct(form).unpack_from
        fixed = unpack(buffer, at)
        layout.frame_bytes = 8 + (table >> 29)
        layout.unpack, layout.fixed = unpack, fixed
        if len(_shared) >= _MAX_LAYOUTS:
            _shared.clear()
        known[table] = _shared.setdefault((table, form, fixed), layout)


class _UnusualError(Exception):
    """The message is one for `decode`."""


class _Tracer:
    """Follows the pointers of one message, and notes what led it."""

    def __init__(self, message: Message, at: int) -> None:
        self._buffer = message.buffer
        self._bounds = message.bounds
        self._at = at
        # Of all words that led here, from and to, in bytes from the frame's start.
        self.ranges: list[tuple[int, int]] = []
        self._words = 0

    def trace(self) -> Layout:
        """Return the layout, without what `Layouts` adds.

        Raises:
            _UnusualError: The message is one for `decode`.
        """
        start, end = self._bounds[0]
        if end - start < 8:
            raise _UnusualError
        root = self._given_struct((start, end, start, start, start + 8), 0, 8, 8)
        kind = self._u16(root[2])
        if kind == Tag.CALL:
            layout = self._call(self._given_struct(root, 0, 16, 16))
        elif kind == Tag.RETURN:
            layout = self._return(self._given_struct(root, 0, 8, 8))
        elif kind in _ONE_STRUCT:
            layout = Layout(kind, self._given_struct(root, 0, 8, 0)[2] - self._at)
        else:
            raise _UnusualError
        layout.words = self._words
        return layout

    def _call(self, body: _Place) -> Layout:
        at = self._at
        layout = Layout(Tag.CALL, body[2] - at)
        if self._u16(body[2] + 6):
            # The results are to go elsewhere.
            raise _UnusualError
        target = self._given_struct(body, 0, 8, 0)
        which = self._u16(target[2] + 4)
        if which == 1:
            target = self._given_struct(target, 0, 8, 0)
            layout.is_promise = True
            layout.path = tuple(self._operations(target))
        elif which:
            raise _UnusualError
        layout.target = target[2] - at
        layout.content = self._content(self._struct(body, 1, 0, 0))
        return layout

    def _operations(self, answer: _Place) -> list[int]:
        path = []
        for at in self._structs(answer, 0):
            which = self._u16(at)
            if which == 1:
                path.append(self._u16(at + 2))
            elif which:
                raise _UnusualError
        return path

    def _return(self, body: _Place) -> Layout:
        layout = Layout(Tag.RETURN, body[2] - self._at)
        layout.no_finish_needed = self._u16(body[2] + 4) & 2 != 0
        if self._u16(body[2] + 6):
            raise _UnusualError
        payload = self._struct(body, 0, 0, 0)
        if payload is not None and self._structs(payload, 1):
            raise _UnusualError
        layout.content = self._content(payload)
        return layout

    def _content(self, payload: _Place | None) -> _Place | None:
        content = None if payload is None else self._struct(payload, 0, 0, 0)
        if content is None:
            return None
        at = self._at
        start, end, data, pointers, last = content
        return start - at, end - at, data - at, pointers - at, last - at

    def _given_struct(
        self, parent: _Place, index: int, least_data: int, least_pointers: int
    ) -> _Place:
        place = self._struct(parent, index, least_data, least_pointers)
        if place is None:
            raise _UnusualError
        return place

    def _struct(
        self, parent: _Place, index: int, least_data: int, least_pointers: int
    ) -> _Place | None:
        """Return the struct of a pointer, None where it is null; its sections have a least size."""
        followed = self._follow(parent, index)
        if followed is None:
            return None
        start, end, data, low, high = followed
        pointers = data + (high & 0xFFFF) * 8
        last = pointers + (high >> 16) * 8
        if low & 3 != STRUCT or data < start or last > end:
            raise _UnusualError
        if pointers - data < least_data or last - pointers < least_pointers:
            raise _UnusualError
        self._words += last - data >> 3
        return start, end, data, pointers, last

    def _structs(self, parent: _Place, index: int) -> list[int]:
        """Return where the structs of a list lie; there are none where it is null, or not sent."""
        followed = self._follow(parent, index)
        if followed is None:
            return []
        start, end, first, low, high = followed
        element, count = high & 7, high >> 3
        if low & 3 != LIST:
            raise _UnusualError
        if element != COMPOSITE:
            if count or not start <= first <= end:
                raise _UnusualError
            return []
        last = first + 8 + count * 8
        if first < start or last > end:
            raise _UnusualError
        low, high = self._pointer(first)
        length, step = (low & 0xFFFFFFFF) >> 2, ((high & 0xFFFF) + (high >> 16)) * 8
        if low & 3 != STRUCT or length > _MAX_PATH or (length and not high & 0xFFFF):
            raise _UnusualError
        if length * step > count * 8:
            raise _UnusualError
        self._words += count + 1 if step else length + 1
        return [first + 8 + step * number for number in range(length)]

    def _follow(self, parent: _Place, index: int) -> tuple[int, int, int, int, int] | None:
        """Return segment and target of a pointer, and the halves of what describes the target.

        None where it is null, or the parent is too short to have it.
        """
        start, end, _, pointers, last = parent
        position = pointers + 8 * index
        if position >= last:
            return None
        low, high = self._pointer(position)
        if not low and not high:
            return None
        if low & 3 != FAR:
            return start, end, position + 8 + (low >> 2) * 8, low, high
        pad_words = 2 if low & 4 else 1
        start, end, pad = self._landing(low, high, pad_words)
        self._words += pad_words
        low, high = self._pointer(pad)
        if pad_words == 1:
            return start, end, pad + 8 + (low >> 2) * 8, low, high
        if low & 3 != FAR:
            raise _UnusualError
        start, end, target = self._landing(low, high, 0)
        return start, end, target, *self._pointer(pad + 8)

    def _landing(self, low: int, high: int, words: int) -> tuple[int, int, int]:
        if high >= len(self._bounds):
            raise _UnusualError
        start, end = self._bounds[high]
        position = start + ((low & 0xFFFFFFFF) >> 3) * 8
        if position + words * 8 > end:
            raise _UnusualError
        return start, end, position

    def _pointer(self, position: int) -> tuple[int, int]:
        self.ranges.append((position - self._at, position - self._at + 8))
        low, high = _pointer_at(self._buffer, position)
        return low, high

    def _u16(self, position: int) -> int:
        self.ranges.append((position - self._at, position - self._at + 2))
        number: int = _u16_at(self._buffer, position)[0]
        return number


_ONE_STRUCT = {Tag.FINISH, Tag.RELEASE, Tag.BOOTSTRAP}

"""Reads the frequent messages of rpc.capnp quickly, in whatever layout a peer writes them.

An encoder is free to put the objects of a message in any order, with anything between them. But
a peer writes all its messages of one kind and size alike. So each connection keeps, by the size of
the frame, where messages had their parts: a `Layout`. It has the words that led there, which are
the pointers on the way, the tags of lists and the discriminants. A frame that has the same words
in the same places has the same layout, and nothing in it need be followed again.

A frame of a new layout is traced, whatever its layout and number of segments. A layout is kept
when its size comes for the second time, if it has one segment. A size may have several layouts: the
params of each method are another struct.

`messages.decode` reads all else, malformed messages among it, and is the reference: a layout never
accepts what `decode` refuses, nor reads anything differently. A test holds them against each other.
"""

import struct
from typing import Any
from weakref import WeakValueDictionary

from capnp_rig.wire.encoding.pointers import (
    COMPOSITE,
    FAR,
    LIST,
    NESTING_LIMIT,
    STRUCT,
    Buffer,
    Message,
    StructTuple,
    landing,
)
from capnp_rig.wire.errors import MalformedMessage
from capnp_rig.wire.rpc.messages import ImportedCap, PromisedAnswer, Tag, Target

_word_at = struct.Struct("<Q").unpack_from
_pointer_at = struct.Struct("<iI").unpack_from
_u16_at = struct.Struct("<H").unpack_from

# The parts of a message, where its layout has them.
call_at = struct.Struct("<IH2xQ").unpack_from
id_at = struct.Struct("<I").unpack_from
two_at = struct.Struct("<II").unpack_from

# A connection keeps so many layouts of one size, and learns from so many frames that have none: to
# learn takes thrice as long as to trace. It begins anew after `_ANEW` of them.
_MAX_ALIKE, _MAX_LEARNT, _ANEW = 8, 4096, 65_536
# All connections together keep so many, each of up to 3 KiB.
_MAX_LAYOUTS = 4096
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
    question in whose answer `path` leads to the target. A Return has results. Neither has
    capabilities.
    `content` is where params or results lie, as segment, data, pointers and end; None where null.
    """

    __slots__ = (
        *("body", "content", "fixed", "fixed_bytes", "frame_bytes", "is_promise", "kind"),
        *("no_finish_needed", "path", "target", "unpack", "words", "__weakref__"),
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
        # All of it lies in the first bytes of the frame; 0 where it is not kept.
        self.fixed_bytes = 0

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
# Connections whose peers are alike share their layouts, which last as long as one of them.
_shared: WeakValueDictionary[tuple[Any, ...], Layout] = WeakValueDictionary()


class Layouts:
    """The layouts of one connection's frames.

    They go by the frame's first word, which has its size. The first one of a size is under the
    word, a tuple of the others under its complement.
    """

    __slots__ = ("_known", "_misses")

    def __init__(self) -> None:
        self._known: dict[int, Any] = {}
        self._misses = 0

    def find(self, buffer: Buffer, at: int, size: int) -> Layout | None:
        """Return the layout of the frame at `at`; None if it is new, or the frame not whole."""
        if size - at < 8:
            return None
        (table,) = _word_at(buffer, at)
        layout: Layout | None = self._known.get(table)
        if layout is None or at + layout.frame_bytes > size:
            return None
        if layout.unpack(buffer, at) == layout.fixed:
            return layout
        for layout in self._known.get(~table, ()):
            if layout.unpack(buffer, at) == layout.fixed:
                return layout
        return None

    def trace(
        self, message: Message, at: int
    ) -> tuple[Layout, StructTuple | None] | tuple[None, None]:
        """Return the layout of a message, whose frame is at `at`, and its params or results.

        No layout if `decode` is to read it. Else the message is charged as `decode` would do it.
        """
        tracer = _Tracer(message)
        try:
            layout = tracer.trace(at)
        except _UnusualError:
            return None, None
        if layout.words > message.budget_words:
            return None, None
        message.budget_words -= layout.words
        if len(message.bounds) == 1:
            self._learn(layout, message.buffer, at, tracer)
        if layout.content is None:
            return layout, None
        start, end, data, pointers, last = (at + place for place in layout.content)
        return layout, (message, start, end, data, pointers, pointers, last, _CONTENT_DEPTH)

    def _learn(self, layout: Layout, buffer: Buffer, at: int, tracer: "_Tracer") -> None:
        (table,) = _word_at(buffer, at)
        known = self._known
        self._misses += 1
        if self._misses > _ANEW:
            known.clear()
            self._misses = 1
        first, others = known.get(table), known.get(~table, ())
        if self._misses > _MAX_LEARNT or len(others) == _MAX_ALIKE - 1:
            return
        if first is None:
            known[table] = _SEEN
            return
        form, end = "<", 0
        for start, stop in sorted(tracer.ranges(at)):
            if start > end:
                form += f"{start - end}x{stop - start}s"
            elif stop > end:
                # Adjacent, or two ways to the same words.
                form += f"{stop - end}s"
            end = max(end, stop)
        unpack = struct.Struct(form).unpack_from
        fixed = unpack(buffer, at)
        layout.frame_bytes = 8 + (table >> 29)
        layout.unpack, layout.fixed, layout.fixed_bytes = unpack, fixed, end
        if len(_shared) < _MAX_LAYOUTS:
            kept = _shared.setdefault((table, form, fixed), layout)
        else:
            kept = _shared.get((table, form, fixed), _SEEN)
        if first is _SEEN and kept is not _SEEN:
            known[table] = kept
        else:
            known[~table] = (*others, kept)


class _UnusualError(Exception):
    """The message is one for `decode`."""


class _Tracer:
    """Follows the pointers of one message, and notes what led it.

    A call of a new layout takes 1.7 to 2.1 times as long as one whose layout is known (`loadtest
    bench-peers`). No pointer becomes an object, unless it is far.
    """

    __slots__ = ("_buffer", "_message", "_numbers", "_pointers", "_words")

    def __init__(self, message: Message) -> None:
        self._message, self._buffer = message, message.buffer
        # Where the pointers, and the discriminants, stand that led here.
        self._pointers: list[int] = []
        self._numbers: list[int] = []
        self._words = 0

    def ranges(self, at: int) -> list[tuple[int, int]]:
        """Return from where to where the words are that led here, in bytes from `at`."""
        pointers = [(position - at, position - at + 8) for position in self._pointers]
        return pointers + [(position - at, position - at + 2) for position in self._numbers]

    def trace(self, at: int) -> Layout:
        """Return the layout of the frame at `at`, without what `Layouts` adds.

        Raises:
            _UnusualError: The message is one for `decode`.
        """
        start, end = self._message.bounds[0]
        if end - start < 8:
            raise _UnusualError
        start, end, data, pointers, last = self._sent_struct(start, end, start)
        if pointers in {data, last}:
            raise _UnusualError
        kind = self._number(data)
        body = self._sent_struct(start, end, pointers)
        layout = Layout(kind, body[2] - at)
        if body[3] == body[2]:
            raise _UnusualError
        if kind == Tag.CALL:
            payload = self._call(body, layout, at)
        elif kind == Tag.RETURN:
            payload = self._return(body, layout)
        elif kind in _ONE_STRUCT:
            payload = None
        else:
            raise _UnusualError
        if payload is not None:
            start, end, _, pointers, last = payload
            content = self._struct(start, end, pointers) if pointers < last else None
            if content is not None:
                start, end, data, pointers, last = content
                layout.content = start - at, end - at, data - at, pointers - at, last - at
        layout.words = self._words
        return layout

    def _call(self, body: _Place, layout: Layout, at: int) -> _Place | None:
        start, end, data, pointers, last = body
        # Results that are to go elsewhere are rare, too.
        if pointers - data < 16 or last - pointers < 16 or self._number(data + 6):
            raise _UnusualError
        target = self._sent_struct(start, end, pointers)
        if target[3] == target[2]:
            raise _UnusualError
        which = self._number(target[2] + 4)
        if which == 1 and target[4] > target[3]:
            target = self._sent_struct(target[0], target[1], target[3])
            if target[3] == target[2]:
                raise _UnusualError
            layout.is_promise = True
            layout.path = tuple(self._operations(target))
        elif which:
            raise _UnusualError
        layout.target = target[2] - at
        return self._payload(start, end, pointers + 8)

    def _operations(self, answer: _Place) -> list[int]:
        path = []
        for at in self._structs(answer, 0):
            which = self._number(at)
            if which == 1:
                path.append(self._number(at + 2))
            elif which:
                raise _UnusualError
        return path

    def _return(self, body: _Place, layout: Layout) -> _Place | None:
        start, end, data, pointers, last = body
        layout.no_finish_needed = self._number(data + 4) & 2 != 0
        if self._number(data + 6) or last == pointers:
            raise _UnusualError
        return self._payload(start, end, pointers)

    def _payload(self, start: int, end: int, position: int) -> _Place | None:
        payload = self._struct(start, end, position)
        if payload is not None and payload[3] + 8 < payload[4]:
            # Nearly always null: no need to follow it then.
            low, high = _pointer_at(self._buffer, payload[3] + 8)
            if not (low or high):
                self._pointers.append(payload[3] + 8)
            elif self._structs(payload, 1):
                raise _UnusualError
        return payload

    def _sent_struct(self, start: int, end: int, position: int) -> _Place:
        place = self._struct(start, end, position)
        if place is None:
            raise _UnusualError
        return place

    def _struct(self, start: int, end: int, position: int) -> _Place | None:
        """Return the struct of the pointer at `position` in a segment, None where it is null."""
        self._pointers.append(position)
        low, high = _pointer_at(self._buffer, position)
        if not (low or high):
            return None
        if low & 3 == FAR:
            start, end, position, low, high = self._landing(low, high)
        # As in `accessors`.
        data = position + 8 + 2 * low
        pointers = data + (high & 0xFFFF) * 8
        last = pointers + (high >> 16) * 8
        if low & 3 or data < start or last > end:
            raise _UnusualError
        self._words += last - data >> 3
        return start, end, data, pointers, last

    def _structs(self, parent: _Place, index: int) -> list[int]:
        """Return where the structs of a list lie; there are none where it is null, or not sent."""
        start, end, _, pointers, last = parent
        position = pointers + 8 * index
        if position >= last:
            return []
        self._pointers.append(position)
        low, high = _pointer_at(self._buffer, position)
        if not (low or high):
            return []
        if low & 3 == FAR:
            start, end, position, low, high = self._landing(low, high)
        first, element, count = position + 6 + 2 * low, high & 7, high >> 3
        if low & 3 != LIST or first < start:
            raise _UnusualError
        if element != COMPOSITE:
            if count or first > end:
                raise _UnusualError
            return []
        if first + 8 + count * 8 > end:
            raise _UnusualError
        self._pointers.append(first)
        low, high = _pointer_at(self._buffer, first)
        length, words = (low & 0xFFFFFFFF) >> 2, (high & 0xFFFF) + (high >> 16)
        if low & 3 != STRUCT or length > _MAX_PATH or (length and not high & 0xFFFF):
            raise _UnusualError
        if length * words > count:
            raise _UnusualError
        self._words += count + 1 if words else length + 1
        return [first + 8 + 8 * words * number for number in range(length)]

    def _landing(self, low: int, high: int) -> tuple[int, int, int, int, int]:
        """Return what `pointers.landing` does for a far pointer, and note its pad."""
        message = self._message
        budget_words = message.budget_words
        try:
            landed = landing(message, low, high)
        except MalformedMessage:
            raise _UnusualError from None
        finally:
            self._words += budget_words - message.budget_words
            # `trace` charges all at once, if at all.
            message.budget_words = budget_words
        pad = message.bounds[high][0] + (low & 0xFFFFFFF8)
        self._pointers += [pad, pad + 8] if low & 4 else [pad]
        return landed

    def _number(self, position: int) -> int:
        self._numbers.append(position)
        number: int = _u16_at(self._buffer, position)[0]
        return number


_ONE_STRUCT = {Tag.FINISH, Tag.RELEASE, Tag.BOOTSTRAP}

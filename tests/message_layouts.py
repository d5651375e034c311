"""Messages put together from their objects, laid out as no author would lay them out."""

import struct
from dataclasses import dataclass, field
from random import Random
from typing import Any

from capnp_rig.wire.encoding.pointers import COMPOSITE


@dataclass(eq=False)
class Struct:
    """An object of a message: its data, and what its pointers lead to."""

    data: bytes
    pointers: list["Struct | Structs | Bytes | None"] = field(default_factory=list)


@dataclass(eq=False)
class Structs:
    """A list of structs."""

    items: list[Struct]


@dataclass(eq=False)
class Bytes:
    """A Data, or a Text with its NUL."""

    data: bytes


Object = Struct | Structs | Bytes


def objects_of(root: Struct) -> list[Object]:
    found: list[Object] = [root]
    for child in root.pointers:
        if isinstance(child, Struct):
            found += objects_of(child)
        elif child is not None:
            found.append(child)
    return found


class Writer:
    """Lays objects out at random; the same `seed` gives the same places for the same sizes."""

    def __init__(self, seed: int, *, segments: int, gaps: bool, fars: bool) -> None:
        self.chance = Random(seed)
        self.gaps, self.fars = gaps, fars
        # The first has the root pointer, and C++ finds no segment that is empty.
        self.segments = [bytearray(8) for _ in range(segments)]

    def frame(self, root: Struct) -> bytes:
        self.places: dict[Any, tuple[int, int]] = {}
        rest = objects_of(root)
        self.chance.shuffle(rest)
        for each in rest:
            self.places[each] = self.room(self.size(each))
        for each in rest:
            self.fill(each)
        self.point(0, 0, root)
        counts = [len(segment) // 8 for segment in self.segments]
        table = struct.pack(f"<{len(counts) + 1}I", len(counts) - 1, *counts)
        return table + bytes(-len(table) % 8) + b"".join(self.segments)

    def room(self, size: int) -> tuple[int, int]:
        number = self.chance.randrange(len(self.segments))
        segment = self.segments[number]
        if self.gaps:
            segment += self.chance.randbytes(8 * self.chance.randrange(3))
        at = len(segment)
        segment += bytes(size)
        return number, at

    def size(self, each: Object) -> int:
        if isinstance(each, Bytes):
            return len(each.data) + 7 & ~7
        if isinstance(each, Structs):
            return 8 + sum(map(self.size, each.items))
        return len(each.data) + 8 * len(each.pointers)

    def fill(self, each: Object) -> None:
        number, at = self.places[each]
        segment = self.segments[number]
        if isinstance(each, Struct):
            segment[at : at + len(each.data)] = each.data
            for index, child in enumerate(each.pointers):
                if child is not None:
                    self.point(number, at + len(each.data) + 8 * index, child)
        elif isinstance(each, Bytes):
            segment[at : at + len(each.data)] = each.data
        else:
            sizes = self.sizes(each.items[0]) if each.items else 1 | 1 << 16
            words = b"".join(item.data + bytes(8 * len(item.pointers)) for item in each.items)
            tag = struct.pack("<II", len(each.items) << 2, sizes)
            segment[at : at + 8 + len(words)] = tag + words

    def sizes(self, each: Struct) -> int:
        return len(each.data) // 8 | len(each.pointers) << 16

    def upper(self, target: Object) -> tuple[int, int]:
        """Return the kind of a pointer to `target`, and its upper half."""
        if isinstance(target, Struct):
            return 0, self.sizes(target)
        if isinstance(target, Bytes):
            return 1, 2 | len(target.data) << 3
        return 1, COMPOSITE | (self.size(target) // 8 - 1) << 3

    def point(self, number: int, at: int, target: Object) -> None:
        there, place = self.places[target]
        kind, upper = self.upper(target)
        if there == number and not (self.fars and self.chance.random() < 0.3):
            low = (place - at - 8 >> 3 << 2 | kind) & 0xFFFFFFFF
            word = struct.pack("<II", low, upper)
        elif self.chance.random() < 0.5:
            # The pad is in the target's segment.
            pad = len(self.segments[there])
            low = (place - pad - 8 >> 3 << 2 | kind) & 0xFFFFFFFF
            self.segments[there] += struct.pack("<II", low, upper)
            word = struct.pack("<II", 2 | pad, there)
        else:
            home = self.chance.randrange(len(self.segments))
            pad = len(self.segments[home])
            self.segments[home] += struct.pack("<IIII", 2 | place, there, kind, upper)
            word = struct.pack("<II", 6 | pad, home)
        self.segments[number][at : at + 8] = word

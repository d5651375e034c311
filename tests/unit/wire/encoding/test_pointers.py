"""Hostile and rare pointers, as literal words."""

import struct
from collections.abc import Callable
from typing import Any

import pytest

from capnp_rig.wire.encoding.pointers import (
    NESTING_LIMIT,
    Message,
    element_struct,
    follow_list,
    follow_struct,
    read_bytes,
    read_text,
    root_pointer,
)
from capnp_rig.wire.errors import MalformedMessage


def message(*segments: list[int], budget_words: int = 1000) -> Message:
    buffer, bounds = b"", []
    for words in segments:
        start = len(buffer)
        buffer += struct.pack(f"<{len(words)}Q", *(word & (2**64 - 1) for word in words))
        bounds.append((start, len(buffer)))
    return Message(buffer, tuple(bounds), budget_words)


def struct_word(offset: int, data: int, pointers: int) -> int:
    return (offset & 0x3FFFFFFF) << 2 | data << 32 | pointers << 48


def list_word(offset: int, element: int, count: int) -> int:
    return 1 | (offset & 0x3FFFFFFF) << 2 | element << 32 | count << 35


def far_word(segment: int, offset: int, *, double: bool = False) -> int:
    return 2 | (4 if double else 0) | offset << 3 | segment << 32


def test_a_struct_is_found_where_its_pointer_says() -> None:
    found = follow_struct(root_pointer(message([struct_word(1, 1, 1), 0, 7, 0])))
    assert found is not None
    assert (found.bits(0, 8), found.bits(0, 2), found.bits(8, 4)) == (7, 7, 0)
    assert found.pointer(0) is not None
    assert found.pointer(1) is None


def test_a_null_pointer_is_none() -> None:
    pointer = root_pointer(message([0]))
    assert follow_struct(pointer) is None
    assert follow_list(pointer) is None
    assert read_text(pointer) is None


def test_a_pointer_may_point_backwards_within_its_segment() -> None:
    words = [struct_word(1, 0, 1), 42, struct_word(-2, 1, 0)]
    root = follow_struct(root_pointer(message(words)))
    assert root is not None
    inner = root.pointer(0)
    assert inner is not None
    found = follow_struct(inner)
    assert found is not None
    assert found.bits(0, 8) == 42


@pytest.mark.parametrize(
    "words",
    [
        [],
        [struct_word(0, 1, 0)],
        [struct_word(1, 0, 1), 0],
        [struct_word(-2, 1, 0), 0],
        [struct_word(-(2**29), 1, 0), 0],
        [struct_word(2**29 - 1, 1, 0), 0],
        [struct_word(0, 0xFFFF, 0xFFFF), 0],
        [list_word(0, 2, 8), 0],
        [3, 0],
        [far_word(1, 0), 0],
        [far_word(0, 9), 0],
        [far_word(0, 1, double=True), 0],
        [far_word(0, 1), far_word(0, 2), struct_word(0, 0, 0)],
        [far_word(0, 1, double=True), struct_word(0, 0, 0), struct_word(0, 1, 0)],
        [far_word(0, 1, double=True), far_word(7, 0), struct_word(0, 1, 0)],
        [far_word(0, 1, double=True), far_word(0, 5), struct_word(0, 1, 0)],
    ],
)
def test_a_struct_pointer_that_is_none_is_refused(words: list[int]) -> None:
    with pytest.raises(MalformedMessage):
        follow_struct(root_pointer(message(words)))


@pytest.mark.parametrize(
    "words",
    [
        [list_word(0, 2, 9), 0],
        [list_word(-2, 2, 8), 0],
        [list_word(0, 5, 2), 0],
        [list_word(0, 6, 2), 0],
        [list_word(0, 1, 65), 0],
        [list_word(0, 5, 2**29 - 1), 0],
        [struct_word(0, 1, 0), 0],
        [3, 0],
        # composite: no tag; a tag that is a list; elements over the announced words
        [list_word(0, 7, 0)],
        [list_word(0, 7, 1), list_word(1, 1, 0), 0],
        [list_word(0, 7, 1), struct_word(2, 1, 0), 0],
        [list_word(0, 7, 1), struct_word(2**29, 1, 0), 0],
        [list_word(0, 7, 2), struct_word(1, 1, 0), 0],
        # a void list costs no bytes, but its elements count as words
        [list_word(0, 0, 2**29 - 1)],
        [list_word(0, 7, 0), struct_word(0x1FFFFFFF, 0, 0)],
    ],
)
def test_a_list_pointer_that_is_none_is_refused(words: list[int]) -> None:
    with pytest.raises(MalformedMessage):
        follow_list(root_pointer(message(words)))


def test_far_pointers_land_in_other_segments() -> None:
    single = message([far_word(1, 1)], [0, struct_word(0, 1, 0), 5])
    double = message([far_word(1, 0, double=True)], [far_word(2, 1), struct_word(0, 1, 0)], [0, 6])
    for message_, expected in ((single, 5), (double, 6)):
        found = follow_struct(root_pointer(message_))
        assert found is not None
        assert found.bits(0, 8) == expected


def test_far_pointers_lead_to_lists_too() -> None:
    words = int.from_bytes(b"far\0\0\0\0\0", "little")
    single = message([far_word(1, 0)], [list_word(0, 2, 4), words])
    double = message([far_word(1, 0, double=True)], [far_word(2, 0), list_word(9, 2, 4)], [words])
    assert read_text(root_pointer(single)) == "far"
    assert read_text(root_pointer(double)) == "far"


def test_a_composite_list_has_structs() -> None:
    words = [list_word(0, 7, 4), struct_word(2, 1, 1), 11, 0, 22, 0]
    items = follow_list(root_pointer(message(words)))
    assert items is not None
    assert items.length == 2
    assert [element_struct(items, index).bits(0, 8) for index in range(2)] == [11, 22]


@pytest.mark.parametrize(
    ("follow", "words"),
    [
        (follow_struct, [struct_word(-1, 0, 1)]),
        (follow_list, [list_word(0, 6, 1), list_word(-2, 6, 1)]),
    ],
)
def test_a_cycle_ends_at_the_nesting_limit(follow: Callable[..., Any], words: list[int]) -> None:
    pointer = root_pointer(message(words))
    for _ in range(NESTING_LIMIT):
        found = follow(pointer)
        position = found.pointers if follow is follow_struct else found.first
        pointer = pointer._replace(position=position, depth=found.depth)
    with pytest.raises(MalformedMessage, match="too deeply nested"):
        follow(pointer)


def test_reading_the_same_again_spends_the_budget() -> None:
    pointer = root_pointer(message([struct_word(0, 2, 0), 0, 0], budget_words=5))
    follow_struct(pointer)
    follow_struct(pointer)
    with pytest.raises(MalformedMessage, match="traversal limit"):
        follow_struct(pointer)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([list_word(0, 2, 3), 0x616161], "without its closing NUL"),
        ([list_word(0, 2, 0)], "without its closing NUL"),
        ([list_word(0, 2, 2), 0x00FF], "not UTF-8"),
        ([list_word(0, 3, 1), 0], "a list of another kind where bytes are expected"),
    ],
)
def test_a_text_that_is_none_is_refused(words: list[int], reason: str) -> None:
    with pytest.raises(MalformedMessage, match=reason):
        read_text(root_pointer(message(words)))


def test_text_and_data_are_found() -> None:
    pointer = root_pointer(message([list_word(0, 2, 3), 0x6968]))
    assert read_text(pointer) == "hi"
    assert read_bytes(pointer) == (8, 11)

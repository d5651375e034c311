"""Views of the params of a plain method end with its call (C14)."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.lists import LazyList, StructList
from capnp_rig.wire.encoding.pointers import ExpiredMessage, Message
from capnp_rig.wire.encoding.structs import StructView, compile_struct
from capnp_rig.wire.errors import MalformedMessage, ViewExpired, WireError

DATA = Path(__file__).parents[3] / "data"
KINDS = load_schema(DATA / "kinds.capnp")
LISTS = load_schema(DATA / "lists.capnp")


def expire(message: Message) -> None:
    """End the life of all views of `message`, as the wire engine does."""
    message.buffer = b""
    message.__class__ = ExpiredMessage


INNER = {"number": 7, "name": "inner"}
ITEM = {"number": 3, "name": "item", "part": {"size": 1}, "children": [{"number": 4}]}
FULL: dict[str, tuple[Any, dict[str, Any]]] = {
    "Kinds": (
        KINDS.Kinds,
        {
            "flag": True,
            "i32": 5,
            "text": "text",
            "data": b"data",
            "bytes": [1, 2],
            "longs": [1, 2, 3],
            "doubles": [0.5],
            "inner": INNER,
            "again": {"inner": INNER, "inners": [INNER, INNER]},
            "inners": [INNER, INNER],
            "texts": ["one", "two"],
            "blobs": [b"one", b"two"],
            "flags": [True, False],
            "hues": ["red", "blue"],
            "grid": [[1, 2], [3]],
        },
    ),
    "Lists": (
        LISTS.Lists,
        {
            "items": [ITEM, ITEM],
            "texts": ["a", "b"],
            "colours": ["red", "green"],
            "grid": [[1], [2]],
            "words": [["x", "y"], ["z"]],
            "families": [[ITEM], [ITEM, ITEM]],
            "empties": [{}, {}],
        },
    ),
    "Rare": (
        KINDS.Rare,
        {"number": 9, "first": 5, "inner": INNER, "inners": [INNER], "texts": ["a"]},
    ),
    "HasRare": (KINDS.HasRare, {"rare": {"number": 1, "second": "two"}, "padding": "text"}),
}
EMPTY = {name: (module, dict[str, Any]()) for name, (module, _) in FULL.items()}
CASES = [pytest.param(*case, id=name) for name, case in FULL.items()]
CASES += [pytest.param(*case, id=f"empty {name}") for name, case in EMPTY.items()]


def opened(module: Any, values: dict[str, Any]) -> Any:
    codec = compile_struct(module.schema)
    # As the server has it: a writable buffer, of which a view is shown.
    return codec.from_bytes(memoryview(bytearray(codec.to_bytes(values))))


def within(value: Any, depth: int = 0) -> Iterator[Any]:
    """Yield the views that can be reached from one, itself included."""
    if depth > 3:
        return
    if isinstance(value, StructView):
        yield value
        for name in value._fields:
            try:
                field = getattr(value, name)
            except MalformedMessage:
                # The inactive member of a union.
                continue
            yield from within(field, depth + 1)
    elif isinstance(value, LazyList):
        yield value
        for item in value:
            yield from within(item, depth + 1)


def accesses(view: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield all that can be asked of a view or a list."""
    if isinstance(view, StructView):
        for name in view._fields:
            yield name, lambda name=name: getattr(view, name)
            yield f"has {name}", lambda name=name: view._has(name)
        yield "dict", view.to_dict
        if hasattr(type(view), "which"):
            yield "which", view.which
        return
    yield "len", lambda: len(view)
    yield "bool", lambda: bool(view)
    yield "first", lambda: view[0]
    yield "slice", lambda: view[:1]
    yield "list", lambda: list(view)
    yield "in", lambda: 5 in view
    yield "reversed", lambda: list(reversed(view))
    if isinstance(view, StructList):
        yield "table", view.to_numpy
        for name in view._view._fields:
            yield f"column {name}", lambda name=name: view.column(name)


@pytest.mark.parametrize(("module", "values"), CASES)
def test_c14_nothing_can_be_read_from_a_view_that_has_expired(
    module: Any, values: dict[str, Any]
) -> None:
    root = opened(module, values)
    views = list(within(root))
    assert len(views) > 1
    for view in views:
        for _, access in accesses(view):
            with suppress(MalformedMessage, IndexError, ValueError):
                access()
    expire(root._at[0])
    for view in views:
        for what, access in accesses(view):
            with pytest.raises(ViewExpired):
                raise AssertionError(type(view).__name__, what, access())


@pytest.mark.parametrize(("name", "field"), [("Kinds", "inners"), ("Kinds", "texts")])
def test_c14_an_iteration_under_way_ends_in_an_error(name: str, field: str) -> None:
    root = opened(*FULL[name])
    iterator = iter(getattr(root, field))
    next(iterator)
    part = getattr(root, field)[1:]
    expire(root._at[0])
    with pytest.raises(ViewExpired):
        next(iterator)
    with pytest.raises(ViewExpired):
        list(part)


@pytest.mark.parametrize("field", ["hues", "flags", "blobs", "grid"])
def test_c14_an_iteration_over_other_lists_too(field: str) -> None:
    root = opened(*FULL["Kinds"])
    iterator = iter(getattr(root, field))
    next(iterator)
    expire(root._at[0])
    with pytest.raises(ViewExpired):
        next(iterator)


def test_c14_data_and_numbers_that_were_taken_stay() -> None:
    root = opened(*FULL["Kinds"])
    data, longs, blob, row = root.data, root.longs, root.blobs[1], root.grid[0]
    text, native = root.text, root.to_dict()
    expire(root._at[0])
    assert (bytes(data), list(longs), bytes(blob), list(row)) == (
        b"data",
        [1, 2, 3],
        b"two",
        [1, 2],
    )
    assert (text, native["data"]) == ("text", b"data")


def test_c14_columns_that_were_taken_stay() -> None:
    root = opened(*FULL["Kinds"])
    inners = root.inners
    table, numbers, names = inners.to_numpy(), inners.column("number"), inners.column("name")
    assert names[0] == "inner"
    expire(root._at[0])
    assert (table.tolist(), numbers.tolist()) == ([(7,), (7,)], [7, 7])
    with pytest.raises(ViewExpired):
        _ = names[0]


def test_c14_an_expired_view_is_no_value_to_write() -> None:
    root = opened(*FULL["Kinds"])
    inner = root.inner
    expire(root._at[0])
    codec = compile_struct(KINDS.Kinds.schema)
    for values in (root, {"inner": inner}):
        with pytest.raises(ViewExpired):
            codec.pack(values)


def test_c14_the_error_says_what_to_do() -> None:
    root = opened(*FULL["Kinds"])
    expire(root._at[0])
    with pytest.raises(
        WireError, match=re.escape("bytes() or to_dict(), or make the method async")
    ):
        _ = root.text


def test_c14_an_expired_view_lets_go_of_the_bytes() -> None:
    codec = compile_struct(KINDS.Kinds.schema)
    buffer = bytearray(codec.to_bytes({"text": "text"}))
    root = codec.from_bytes(memoryview(buffer))
    expire(root._at[0])
    # Which a buffer that is still exported refuses.
    buffer.append(0)


def test_c14_expiring_one_message_leaves_others_alone() -> None:
    first, second = opened(*FULL["Kinds"]), opened(*FULL["Kinds"])
    none = opened(*EMPTY["Kinds"])
    expire(first._at[0])
    assert (second.text, len(second.inners), len(none.inners)) == ("text", 2, 0)
    # Of a null pointer too, though it stands in no message.
    assert len(opened(*EMPTY["Kinds"]).inners) == 0


@pytest.mark.parametrize(("module", "values"), CASES)
def test_c14_the_repr_of_an_expired_view_says_so(module: Any, values: dict[str, Any]) -> None:
    root = opened(module, values)
    views = list(within(root))
    before = root._at[0].budget_words
    assert not any("expired" in repr(view) for view in views)
    assert root._at[0].budget_words == before
    expire(root._at[0])
    for view in views:
        assert "ViewExpired: this view has expired" in repr(view)

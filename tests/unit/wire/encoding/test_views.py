"""Views in the hands of a user: unions, `to_dict` and `repr`."""

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from message_layouts import Bytes, Struct, Writer

from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.structs import StructView, compile_struct
from capnp_rig.wire.errors import InactiveMember, MalformedMessage

DATA = Path(__file__).parents[3] / "data"
KINDS, LISTS = load_schema(DATA / "kinds.capnp"), load_schema(DATA / "lists.capnp")
WORKLOAD, GENERICS = load_schema(DATA / "workload.capnp"), load_schema(DATA / "generics.capnp")


def view_of(struct: Any, values: dict[str, Any]) -> Any:
    codec = compile_struct(struct.schema)
    return codec.from_bytes(codec.to_bytes(values))


# --- unions and groups --------------------------------------------------------------------

SHAPE = {
    "corners": [{"x": 1}, {"z": 3}],
    "next": {"label": "inner"},
    "scale": {"factor": 2.0},
    "unit": "foot",
}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("radius", "Shape.radius is not set: the active member is corners"),
        ("box", "Shape.box is not set: the active member is corners"),
        ("label", "Shape.label is not set: the active member is corners"),
        ("scale.none", "Shape.scale.none is not set: the active member is factor"),
        ("next.corners", "Shape.corners is not set: the active member is label"),
    ],
)
def test_an_inactive_member_names_the_active_one(path: str, message: str) -> None:
    found: Any = view_of(WORKLOAD.Shape, SHAPE)
    *outer, last = path.split(".")
    for name in outer:
        found = getattr(found, name)
    with pytest.raises(InactiveMember, match=f"^{re.escape(message)}$") as error:
        getattr(found, last)
    assert (error.value.member, error.value.active) == (last, message.rsplit(maxsplit=1)[1])


def test_an_inactive_member_in_a_list_names_the_active_one() -> None:
    view = view_of(LISTS.Chosen, {"list": [{"one": 5}, {"other": "x"}]})
    assert [item.which() for item in view.list] == ["one", "other"]
    assert (view.list[0].one, view.list[1].other) == (5, "x")
    with pytest.raises(InactiveMember, match="the active member is other"):
        _ = view.list[-1].one
    with pytest.raises(IndexError):
        _ = view.list[2]


def test_a_member_that_a_newer_schema_added_is_told() -> None:
    codec = compile_struct(WORKLOAD.Plain.schema)
    data = bytearray(codec.to_bytes({"none": None}))
    at = data.rindex((1).to_bytes(2, "little"))
    data[at : at + 2] = (9).to_bytes(2, "little")
    view = codec.from_bytes(bytes(data))
    with pytest.raises(InactiveMember, match="one that this schema does not know") as error:
        _ = view.first
    assert error.value.active is None
    assert "first" not in view.to_dict()
    assert repr(view) == "<Plain number=0>"


def test_members_groups_and_their_lists_are_views() -> None:
    view = view_of(WORKLOAD.Shape, SHAPE)
    assert (view.which(), view.scale.which(), view.next.which()) == ("corners", "factor", "label")
    assert [point.x for point in view.corners] == [1, 0]
    assert [point.z for point in view.corners[1:]] == [3]
    assert len(view.corners) == 2
    assert view.scale.to_dict() == {"factor": 2.0}
    assert view.corners[0].to_dict() == {"x": 1, "z": 0}
    # Without a union there is no `which`, as in any view, and no field is made up.
    for name in ("which", "schema", "nope"):
        assert not hasattr(view.corners[0], name)
    box = view_of(WORKLOAD.Shape, {"box": {"low": {"x": 1}, "high": {"z": 2}}}).box
    assert (box.low.x, box.high.z) == (1, 2)


def test_members_groups_and_their_lists_are_values_to_write() -> None:
    view = view_of(WORKLOAD.Shape, SHAPE)
    again = view_of(
        WORKLOAD.Shape,
        {"corners": view.corners[1:], "scale": view.scale, "next": view.next, "unit": view.unit},
    )
    assert again.to_dict() == {**view.to_dict(), "corners": [{"x": 0, "z": 3}]}


def test_a_field_may_have_the_name_of_an_attribute_of_pycapnps(tmp_path: Path) -> None:
    file = tmp_path / "named.capnp"
    file.write_text(
        "@0xb8a5a1cb73f3a2ee;\n"
        "struct Named {\n"
        "    union { schema @0 :Text; other @1 :Void; }\n"
        "    group :group { schema @2 :Text; }\n"
        "}\n"
    )
    view = view_of(load_schema(file).Named, {"schema": "s", "group": {"schema": "g"}})
    assert (view.schema, view.group.schema) == ("s", "g")


# --- to_dict ------------------------------------------------------------------------------


def pruned(value: Any) -> Any:
    """Leave out what is empty, or a default: pycapnp leaves out a pointer that is null."""
    if isinstance(value, dict):
        kept = {name: pruned(item) for name, item in value.items()}
        return {name: item for name, item in kept.items() if item not in ("", b"", [], {}, "hi")}
    if isinstance(value, bytes):
        return list(value)
    return [pruned(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("struct", "first"), [(KINDS.Kinds, Bytes(b"ab\0")), (WORKLOAD.Shape, None)]
)
def test_a_struct_of_any_sizes_is_read_as_its_fields_are(struct: Any, first: Bytes | None) -> None:
    codec, ours = compile_struct(struct.schema), struct.schema.node.struct
    for words, count in product(range(ours.dataWordCount + 2), range(ours.pointerCount + 2)):
        sent = Struct(b"\1\0" * 4 * words, [first, *[None] * count][:count])
        frame = Writer(7, segments=1, gaps=True, fars=False).frame(sent)
        for buffer in (frame, bytearray(frame)):
            view = codec.from_bytes(buffer)
            assert view.to_dict() == StructView.to_dict(view)


@pytest.mark.parametrize(
    ("struct", "values"),
    [
        (KINDS.Kinds, {}),
        (
            KINDS.Kinds,
            {
                "flag": True,
                "i64": -5,
                "f32": 0.5,
                "colour": "green",
                "text": "t",
                "data": b"\0\xff",
                "bytes": [1, 2],
                "longs": [-1, 2],
                "inner": {"number": 3},
                "again": {"again": {"text": "deep"}},
                "inners": [{"number": 1, "name": "n"}, {}],
                "texts": ["a", "b"],
                "blobs": [b"x"],
                "flags": [True, False],
                "hues": ["red", "blue"],
                "grid": [[1], [2, 3]],
            },
        ),
        (KINDS.Rare, {"number": 1, "group": {"low": 2}, "second": "s", "texts": ["x"]}),
        (KINDS.HasRare, {"rare": {"first": 3, "inners": [{"name": "n"}]}, "padding": "p"}),
        (
            LISTS.Lists,
            {
                "items": [{"number": 1, "children": [{"name": "c"}], "part": {"size": 1}}],
                "words": [["a"], ["b", "c"]],
                "families": [[{"on": False}], [{"data": b"d"}]],
                "colours": ["blue"],
            },
        ),
        (LISTS.Chosen, {"list": [{"one": 1}, {"other": "o"}]}),
        (WORKLOAD.Shape, SHAPE),
        (GENERICS.Boxes, {"data": {"value": b"\1\2"}, "either": {"neither": None}}),
    ],
)
def test_to_dict_is_pycapnps_but_for_what_is_empty(struct: Any, values: dict[str, Any]) -> None:
    message = struct.new_message()
    message.from_dict(values)
    data = message.to_bytes()
    with struct.from_bytes(data) as reader:
        expected = reader.to_dict()
    view = compile_struct(struct.schema).from_bytes(data)
    assert pruned(view.to_dict()) == pruned(expected)


# --- repr ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("struct", "values", "expected"),
    [
        (KINDS.Inner, {}, "<Inner number=0, name=''>"),
        (KINDS.Inner, {"number": 5, "name": "x" * 70}, f"name='{'x' * 60}'... of 70 characters>"),
        (KINDS.Empty, {}, "<Empty>"),
        (KINDS.Kinds, {"data": b"a" * 100}, f"data=b'{'a' * 20}'... of 100 bytes,"),
        (KINDS.Kinds, {"ints": range(100)}, "ints=[0, 1, 2, 3, 4, 5, 6, 7, ... of 100],"),
        (KINDS.Kinds, {"inner": {"name": "n"}}, "inner=<Inner number=0, name='n'>,"),
        (KINDS.Kinds, {"inners": [{"number": 1}]}, "inners=[<Inner number=1, name=''>],"),
        (KINDS.Kinds, {"grid": [[1, 2], []]}, "grid=[[1, 2], []]"),
        (KINDS.Kinds, {"hues": ["red", 7]}, "hues=['red', 7],"),
        (WORKLOAD.Plain, {"first": 3}, "<Plain number=0, first=3>"),
        (WORKLOAD.Shape, {"scale": {"factor": 0.5}}, "scale=<Shape.scale factor=0.5>>"),
        (LISTS.Chosen, {"list": [{"one": 1}]}, "<Chosen list=[<Chosen.Choice one=1>]>"),
        (GENERICS.Boxes, {"data": {"value": b"\1\2"}}, r"data=<Box value=b'\x01\x02', label=''>"),
    ],
)
def test_a_view_shows_its_values(struct: Any, values: dict[str, Any], expected: str) -> None:
    assert expected in repr(view_of(struct, values))


def test_a_repr_has_an_end() -> None:
    many = {"texts": ["t" * 1000] * 1000, "inners": [{"name": "n" * 1000}] * 1000}
    values: dict[str, Any] = many
    for _ in range(30):
        values = {**many, "again": values}
    shown = repr(view_of(KINDS.Kinds, values))
    assert len(shown) <= 1010
    assert shown.endswith("...>")


def test_a_field_that_cannot_be_read_shows_so() -> None:
    codec = compile_struct(KINDS.Inner.schema)
    data = codec.to_bytes({"number": 5, "name": "abc"}).replace(b"abc", b"\xff\xffc")
    shown = repr(codec.from_bytes(data))
    assert shown.startswith("<Inner number=5, name=<MalformedMessage: message has a text that is")
    rare = compile_struct(WORKLOAD.Shape.schema)
    data = rare.to_bytes({"label": "abc", "counter": 3}).replace(b"abc", b"\xff\xffc")
    shown = repr(rare.from_bytes(data))
    assert "label=<MalformedMessage: message has a text that is not UTF-8" in shown
    assert "counter=3" in shown


def test_a_view_that_cannot_be_read_at_all_has_a_repr() -> None:
    class Gone:
        budget_words = 0

        @property
        def buffer(self) -> bytes:
            raise MalformedMessage("this view has expired")

    for struct in (KINDS.Inner, KINDS.Rare):
        view: StructView = view_of(struct, {"number": 1})
        view._at = (Gone(), *view._at[1:])  # type: ignore[assignment]
        name = type(view).__name__
        assert repr(view) == f"<{name} MalformedMessage: this view has expired>"


def test_a_repr_spends_nothing_of_the_traversal_limit() -> None:
    view = view_of(KINDS.Kinds, {"text": "t" * 1000, "inners": [{}] * 100})
    left = view._at[0].budget_words
    assert "t" * 60 in repr(view)
    assert view._at[0].budget_words == left


def test_any_pointers_are_named_and_not_shown() -> None:
    message = GENERICS.Loose.new_message()
    message.init("unbound").value.set_as_text("abc")
    view = compile_struct(GENERICS.Loose.schema).from_bytes(message.to_bytes())
    assert repr(view) == "<Loose unbound=<Box value=<AnyPointer>, label=''>>"

"""Struct views and writers against pycapnp, on the same bytes."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.encoded import EncodedStruct
from capnp_rig.wire.encoding.frames import FrameDecoder
from capnp_rig.wire.encoding.lists import LazyList
from capnp_rig.wire.encoding.pointers import Pointer, root_pointer
from capnp_rig.wire.encoding.structs import compile_struct
from capnp_rig.wire.errors import EncodeError, MalformedMessage
from capnp_rig.wire.rpc.interfaces import compile_interface

SCHEMA = load_schema(Path(__file__).parents[3] / "data" / "kinds.capnp")
WORKLOAD = load_schema(Path(__file__).parents[3] / "data" / "workload.capnp")
KINDS = compile_struct(SCHEMA.Kinds.schema)

FULL: dict[str, Any] = {
    "flag": True,
    "flagOn": False,
    "i8": -128,
    "i16": 32767,
    "i32": -(2**31),
    "i64": 2**63 - 1,
    "u8": 0,
    "u16": 65535,
    "u32": 7,
    "u64": 2**64 - 1,
    "f32": -2.5,
    "f64": 1e300,
    "colour": "green",
    "text": "Grüße\0🦀",
    "data": b"\x00\x01\xff" * 5,
    "bytes": [1, 2, 255],
    "shorts": [-1, 0, 1],
    "ints": [2**32 - 1],
    "longs": [-(2**63), 5],
    "floats": [0.5, -0.5, 1.5],
    "doubles": [1e-300],
    "inner": {"number": 9, "name": "in"},
    "again": {"inner": {"number": 3}},
    "f64Default": 2.0,
    "flag2": True,
    "inners": [{"number": 1, "name": "x"}, {"number": 2, "name": "y"}],
    "texts": ["a", "", "ccc"],
    "blobs": [b"", b"12345678"],
    "flags": [True, False, True],
    "hues": ["blue", "red"],
    "grid": [[1, -2], [], [3]],
}


def framed(body: EncodedStruct) -> bytes:
    segment = struct.pack("<Q", body.sizes << 32) + b"".join(body.parts)
    return struct.pack("<II", 0, len(segment) // 8) + segment


def root(data: bytes) -> Pointer:
    (message,) = FrameDecoder().feed(data)
    return root_pointer(message)


def pycapnp_dict(reader: Any) -> dict[str, Any]:
    """Return what a pycapnp reader holds, in the shape of `StructView.to_dict`."""
    result: dict[str, Any] = {}
    for name in reader.schema.fieldnames:
        value = getattr(reader, name)
        if name in {"inner", "again"}:
            value = pycapnp_dict(value) if reader._has(name) else None
        elif name == "colour":
            value = str(value)
        elif not isinstance(value, (bool, int, float, str, bytes, type(None))):
            value = list(value)
            if name in {"inners", "hues", "grid"}:
                value = [_plain_item(item) for item in value]
        result[name] = value
    return result


def _plain_item(item: Any) -> Any:
    if hasattr(item, "raw"):
        return str(item)
    return item.to_dict() if hasattr(item, "to_dict") else list(item)


def ours(view: Any) -> dict[str, Any]:
    """Return `to_dict`, with None for structs that are absent, and byte lists as lists."""
    result = {}
    for name in view._fields:
        if name in {"inner", "again"}:
            result[name] = ours(getattr(view, name)) if view._has(name) else None
            continue
        value = getattr(view, name)
        if isinstance(value, memoryview):
            value = value.tobytes() if name == "data" else value.tolist()
        elif isinstance(value, LazyList):
            value = view.to_dict()[name]
        result[name] = value
    return result


def test_pycapnp_reads_what_we_write() -> None:
    with SCHEMA.Kinds.from_bytes(framed(KINDS.write(FULL))) as reader:
        found = pycapnp_dict(reader)
    for name, value in FULL.items():
        if name == "again":
            assert found["again"]["inner"] == {"number": 3, "name": ""}
        else:
            assert found[name] == value, name


def test_we_read_what_pycapnp_writes() -> None:
    data = SCHEMA.Kinds.new_message(**FULL).to_bytes()
    with SCHEMA.Kinds.from_bytes(data) as reader:
        assert ours(KINDS.read(root(data))) == pycapnp_dict(reader)


def test_an_empty_struct_reads_as_its_defaults() -> None:
    data = SCHEMA.Kinds.new_message().to_bytes()
    with SCHEMA.Kinds.from_bytes(data) as reader:
        expected = pycapnp_dict(reader)
    assert ours(KINDS.read(root(data))) == expected
    assert ours(KINDS.read(root(framed(KINDS.write({}))))) == expected
    # An older sender's struct is shorter; a null pointer is no struct at all.
    shorter = EncodedStruct(0, [], 0)
    assert ours(KINDS.read(root(framed(shorter)))) == expected
    assert ours(KINDS.read(None)) == expected


def test_a_message_of_its_own_is_what_the_words_make() -> None:
    empty = compile_struct(SCHEMA.Empty.schema)
    assert KINDS.to_bytes(FULL) == framed(KINDS.write(FULL))
    assert empty.from_bytes(empty.to_bytes({})).to_dict() == {}
    assert KINDS.from_bytes(KINDS.to_bytes({"text": "é" * 5000})).text == "é" * 5000


def test_our_words_are_those_of_pycapnp_for_a_fixed_layout() -> None:
    values = {"number": 513, "name": "fixed"}
    codec = compile_struct(SCHEMA.Inner.schema)
    assert framed(codec.write(values)) == SCHEMA.Inner.new_message(**values).to_bytes()


def test_an_older_schema_reads_a_newer_struct() -> None:
    data = framed(compile_struct(SCHEMA.Inner.schema).write({"number": 5, "name": "new"}))
    assert compile_struct(SCHEMA.InnerOld.schema).read(root(data)).to_dict() == {"number": 5}


def test_a_newer_schema_reads_an_older_struct() -> None:
    data = framed(compile_struct(SCHEMA.InnerOld.schema).write({"number": 5}))
    assert compile_struct(SCHEMA.Inner.schema).read(root(data)).to_dict() == {
        "number": 5,
        "name": "",
    }


def test_a_struct_without_size_is_not_null() -> None:
    codec = compile_struct(SCHEMA.HasEmpty.schema)
    data = framed(codec.write({"empty": {}}))
    with SCHEMA.HasEmpty.from_bytes(data) as reader:
        assert reader._has("empty")
    assert codec.read(root(data)).empty.to_dict() == {}


def test_numbers_that_were_widened_are_read_in_steps() -> None:
    narrow = compile_struct(SCHEMA.Narrow.schema)
    wide = SCHEMA.Wider.new_message(items=[{"value": 5, "more": "a"}, {"value": 6}]).to_bytes()
    longs = SCHEMA.WiderLongs.new_message(items=[2**40 + 7, 8]).to_bytes()
    for data, expected in ((wide, [5, 6]), (longs, [7, 8])):
        with SCHEMA.Narrow.from_bytes(data) as reader:
            assert list(reader.items) == expected
        assert narrow.read(root(data)).items.tolist() == expected


def test_a_list_of_the_wrong_kind_is_refused() -> None:
    text = framed(compile_struct(SCHEMA.NarrowText.schema).write({"items": "abc"}))
    numbers = framed(compile_struct(SCHEMA.Narrow.schema).write({"items": [1]}))
    with pytest.raises(MalformedMessage, match="incompatible type"):
        _ = compile_struct(SCHEMA.Narrow.schema).read(root(text)).items
    with pytest.raises(MalformedMessage, match="where bytes are expected"):
        _ = compile_struct(SCHEMA.NarrowText.schema).read(root(numbers)).items


def test_a_message_is_opened_from_its_bytes() -> None:
    one = framed(KINDS.write({"data": b"x" * 100, "text": "t"}))
    many = far(lambda: SCHEMA.Kinds.new_message(data=b"d" * 30_000, text="t" * 20_000))
    for data in (one, bytearray(one), memoryview(one), one + b"more", many):
        view = KINDS.from_bytes(data)
        assert (set(view.data.tobytes()), set(view.text)) in [({120}, {"t"}), ({100}, {"t"})]
        assert view.data.readonly
    null = bytes.fromhex("00000000 01000000") + bytes(8)
    assert KINDS.from_bytes(null).text == ""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "cut short"),
        ("00000000 02000000 00000000 00000000", "cut short"),
        ("00000000 00000000 00000000 00000000", "no root pointer"),
        ("ffffffff 00000000 00000000 00000000", "4294967296 segments"),
        ("00000000 01000000 00000000 01000000", "leaves its segment"),
        ("00000000 01000000 f8ffffff 00000100", "leaves its segment"),
        ("00000000 01000000 01000000 00000000", "where a struct is expected"),
    ],
)
def test_bytes_that_are_no_message_are_refused(data: str, reason: str) -> None:
    with pytest.raises(MalformedMessage, match=reason):
        KINDS.from_bytes(bytes.fromhex(data))


def test_views_are_read_only_and_do_not_copy() -> None:
    data = framed(KINDS.write({"data": b"x" * 100, "ints": [1, 2, 3]}))
    view = KINDS.read(root(data))
    for found in (view.data, view.ints):
        assert found.readonly
        assert found.obj is data


def test_buffers_are_written_without_a_detour() -> None:
    floats = memoryview(struct.pack("<3f", 1, 2, 3)).cast("f")
    body = KINDS.write({"floats": floats, "data": memoryview(b"abcdefgh")})
    assert any(part is floats or getattr(part, "obj", None) is floats.obj for part in body.parts)
    view = KINDS.read(root(framed(body)))
    assert view.floats.tolist() == [1, 2, 3]
    assert view.data == b"abcdefgh"


def test_a_buffer_of_another_type_is_converted() -> None:
    doubles = memoryview(struct.pack("<2d", 1, 2)).cast("d")
    view = KINDS.read(root(framed(KINDS.write({"floats": doubles, "bytes": b"ab"}))))
    assert (view.floats.tolist(), view.bytes.tolist()) == ([1, 2], [97, 98])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"nope": 1}, "Kinds has no field 'nope'"),
        ({"flag": 1}, "Kinds.flag: expected a bool, not int"),
        ({"u8": 256}, "Kinds.u8: "),
        ({"i8": "1"}, "Kinds.i8: "),
        ({"f32": 1e300}, "Kinds.f32: "),
        ({"colour": "pink"}, "Kinds.colour: 'pink' is not one of red, green, blue"),
        ({"text": b"x"}, "Kinds.text: expected a str, not bytes"),
        ({"text": "\ud800"}, "Kinds.text: 'utf-8' codec can't encode"),
        ({"data": 1}, "Kinds.data: memoryview: a bytes-like object is required, not 'int'"),
        ({"data": 5}, "Kinds.data: "),
        ({"ints": [-1]}, "Kinds.ints: "),
        ({"ints": 5}, "Kinds.ints: "),
        ({"inner": {"name": 1}}, "Kinds.inner.name: expected a str, not int"),
        ({"inner": 5}, "Kinds.inner: expected a mapping of field names, not int"),
    ],
)
def test_a_value_that_does_not_fit_names_its_field(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(EncodeError) as error:
        KINDS.write(values)
    assert reason in str(error.value)


def test_none_leaves_a_pointer_null() -> None:
    unset = KINDS.write({"text": None, "inner": None, "nothing": None})
    assert framed(unset) == framed(KINDS.write({}))


def test_an_enumerant_of_a_newer_schema_stays_a_number() -> None:
    view = KINDS.read(root(framed(KINDS.write({"colour": 77}))))
    assert view.colour == 77


RARE: dict[str, Any] = {
    "number": 7,
    "texts": ["a", "", "Grüße"],
    "inners": [{"number": 1, "name": "x"}, {"number": 2, "name": "y"}],
    "flags": [True, False, True],
    "colours": ["red", "blue"],
    "group": {"low": 1, "high": 2},
    "second": "chosen",
    "inner": {"number": 3, "name": "plain"},
    "nested": [[1, 2], [3]],
}


def test_rare_fields_are_written_and_read_as_pycapnp_does() -> None:
    codec = compile_struct(SCHEMA.Rare.schema)
    data = framed(codec.write(RARE))
    with SCHEMA.Rare.from_bytes(data) as reader:
        # pycapnp leaves out what is not set, whatever its default is.
        expected = {**reader.to_dict(), "greeting": "hi"}
    view = codec.read(root(data))
    assert view.to_dict() == expected
    assert {name: expected[name] for name in RARE} == RARE
    assert view.greeting == "hi"
    assert (view.number, view.inner.name) == (7, "plain")
    assert (view.which(), view.second, list(view.texts)) == ("second", "chosen", RARE["texts"])
    assert (view._has("texts"), view._has("any"), view._has("group")) == (True, False, True)
    with pytest.raises(MalformedMessage, match=r"Rare\.first is not set"):
        _ = view.first


def test_views_and_their_lists_are_values_to_write_beside_a_union() -> None:
    codec = compile_struct(SCHEMA.Rare.schema)
    view = codec.read(root(framed(codec.write(RARE))))
    lists = {name: getattr(view, name) for name in ("texts", "inners", "flags", "nested", "inner")}
    for values in (lists, {**lists, "second": "s"}):
        found = codec.read(root(framed(codec.write(values)))).to_dict()
        assert {name: found[name] for name in lists} == {name: RARE[name] for name in lists}
    assert codec.read(root(framed(codec.write(view)))).to_dict() == view.to_dict()


def test_a_void_member_of_a_union_is_chosen_by_none() -> None:
    codec = compile_struct(WORKLOAD.Plain.schema)
    data = framed(codec.write({"number": 5, "none": None}))
    view = codec.read(root(data))
    assert (view.number, view.which()) == (5, "none")


def test_an_unknown_member_of_a_union_is_malformed() -> None:
    codec = compile_struct(WORKLOAD.Plain.schema)
    data = bytearray(framed(codec.write({"none": None})))
    at = data.rindex((1).to_bytes(2, "little"))
    data[at : at + 2] = (9).to_bytes(2, "little")
    with pytest.raises(MalformedMessage):
        codec.read(root(bytes(data))).which()


def test_rare_fields_of_a_null_struct_are_defaults() -> None:
    view = compile_struct(SCHEMA.Rare.schema).read(None)
    assert (list(view.texts), view.greeting, view.which()) == ([], "hi", "first")


def test_rare_fields_are_found_in_several_segments_and_nested() -> None:
    codec = compile_struct(SCHEMA.HasRare.schema)
    values = {"rare": dict(RARE, texts=["t" * 3000] * 20), "padding": "p" * 9000}
    data = far(lambda: SCHEMA.HasRare.new_message(**values))
    view = codec.read(root(data))
    assert list(view.rare.texts) == ["t" * 3000] * 20
    assert [inner.name for inner in view.rare.inners] == ["x", "y"]
    copied = framed(codec.write(values))
    assert list(codec.read(root(copied)).rare.texts) == ["t" * 3000] * 20
    assert codec.read(root(copied)).padding == "p" * 9000


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"texts": [5]}, "Rare.texts[0]: expected a str, not int"),
        ({"nope": 1}, "no field 'nope'"),
        ({"inners": [{}, {"x": 1}]}, "Rare.inners[1] has no field 'x'"),
        ({"second": 5}, "Rare.second: expected a str, not int"),
        ({"first": "x"}, "Rare.first: "),
        ({"first": 1, "second": "x"}, "Rare: first and second are in one union: give one of them"),
        ({"group": {"low": 128}}, "Rare.group.low: "),
        ({"group": {"middle": 1}}, "Rare.group has no field 'middle'"),
        ({"group": 5}, "Rare.group: expected a mapping of field names, not int"),
        ({"any": 5}, "Rare.any: "),
    ],
)
def test_a_rare_value_that_does_not_fit_is_an_encode_error(
    values: dict[str, Any], reason: str
) -> None:
    with pytest.raises(EncodeError) as error:
        compile_struct(SCHEMA.Rare.schema).write(values)
    assert reason in str(error.value)


def test_a_bad_rare_field_is_a_malformed_message() -> None:
    data = bytearray(framed(compile_struct(SCHEMA.Rare.schema).write({"texts": ["abc"]})))
    at = data.index(b"abc\0")
    data[at + 3] = 1
    view = compile_struct(SCHEMA.Rare.schema).read(root(bytes(data)))
    with pytest.raises(MalformedMessage):
        view.to_dict()


def test_a_struct_is_compiled_once() -> None:
    assert compile_struct(SCHEMA.Kinds.schema) is KINDS


def test_an_interface_has_its_own_and_its_inherited_methods() -> None:
    base, derived = compile_interface(SCHEMA.Base), compile_interface(SCHEMA.Derived)
    found = {
        name: (method.interface_id, method.method_id) for name, method in derived.methods.items()
    }
    assert found == {"own": (derived.id, 0), "second": (derived.id, 1), "base": (base.id, 0)}
    assert derived.name == "Derived"


def far(build: Callable[[], Any]) -> bytes:
    """Return the bytes of a message that pycapnp had to spread over several segments."""
    data: bytes = build().to_bytes()
    assert struct.unpack_from("<I", data)[0] > 0
    return data


def test_several_segments_read_as_one() -> None:
    values = dict(FULL, data=b"d" * 30_000, text="t" * 20_000, longs=list(range(5000)))
    data = far(lambda: SCHEMA.Kinds.new_message(**values))
    with SCHEMA.Kinds.from_bytes(data) as reader:
        assert ours(KINDS.read(root(data))) == pycapnp_dict(reader)


def test_a_struct_within_itself_ends_where_it_is_null() -> None:
    view = KINDS.from_bytes(KINDS.to_bytes({"again": {"again": {"u16": 3}}}))
    found = view.to_dict()
    assert found["again"]["again"]["u16"] == 3
    assert "again" not in found["again"]["again"]
    assert KINDS.compile() is KINDS


def test_a_null_struct_has_all_defaults() -> None:
    assert KINDS.read(None).inner.to_dict() == {"number": 0, "name": ""}


@pytest.mark.parametrize(("name", "value", "count"), [("text", "ab", 3), ("data", b"ab", 2)])
def test_what_is_too_long_for_its_pointer_is_told(name: str, value: Any, count: int) -> None:
    (kind,) = (field.pointer_type for field in KINDS.fields if field.name == name)
    assert kind is not None
    # A pointer with more than 29 bits of length is too large a number to be packed.
    _, said = kind.explain(value, struct.error("int too large"))
    assert said == f": {count} elements are more than a list holds, 536870911"

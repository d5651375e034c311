"""Lists of structs, texts, data, bools, enumerants and lists, against pycapnp on the same bytes."""

import ctypes
import random
import struct
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import capnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.pointers import Message, Pointer
from capnp_rig.wire.encoding.structs import StructCodec, StructView, compile_struct
from capnp_rig.wire.errors import EncodeError, MalformedMessage

SCHEMA = load_schema(Path(__file__).parents[3] / "data" / "lists.capnp")
LISTS = compile_struct(SCHEMA.Lists.schema).compile()


def frame(*words: int) -> bytes:
    """Return a message of one segment that has these words."""
    return struct.pack(f"<II{len(words)}Q", 0, len(words), *words)


def to_struct(offset: int, data_words: int, pointers: int) -> int:
    return (offset & 0x3FFFFFFF) << 2 | data_words << 32 | pointers << 48


def to_list(offset: int, element: int, count: int) -> int:
    return (offset & 0x3FFFFFFF) << 2 | 1 | element << 32 | count << 35


def opened(name: str, data: bytes) -> Any:
    return compile_struct(getattr(SCHEMA, name).schema).from_bytes(data)


def plain(value: Any) -> Any:
    """Return what a view or a reader of pycapnp holds, field by field, as plain Python."""
    if isinstance(value, (StructView, capnp.lib.capnp._DynamicStructReader)):
        names = value._fields if isinstance(value, StructView) else value.schema.fieldnames
        present = [name for name in names if name != "part" or value._has(name)]
        return {name: plain(getattr(value, name)) for name in present}
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (bytes, memoryview)):
        return list(value)
    if isinstance(value, (bool, int, float, str)):
        return value
    return str(value) if hasattr(value, "raw") else [plain(item) for item in value]


TEXT = st.text(max_size=12)
BYTES = st.binary(max_size=17)
SHORTS = st.lists(st.integers(-(2**15), 2**15 - 1), max_size=6)
COLOUR = st.sampled_from(["red", "green", "blue"])
PART = st.fixed_dictionaries({}, optional={"size": st.integers(0, 255), "label": TEXT})


def items(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {},
        optional={
            "number": st.integers(-(2**15), 2**15 - 1),
            "on": st.booleans(),
            "off": st.booleans(),
            "colour": COLOUR,
            "ratio": st.floats(width=32, allow_nan=False),
            "name": TEXT,
            "data": BYTES,
            "shorts": SHORTS,
            "part": PART,
            "children": st.lists(children, max_size=3),
        },
    )


ITEM = items(st.recursive(st.just({}), items, max_leaves=4))
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "items": st.lists(ITEM, max_size=5),
        "texts": st.lists(TEXT, max_size=5),
        "blobs": st.lists(BYTES, max_size=5),
        "flags": st.lists(st.booleans(), max_size=70),
        "colours": st.lists(COLOUR, max_size=5),
        "grid": st.lists(SHORTS, max_size=4),
        "words": st.lists(st.lists(TEXT, max_size=3), max_size=3),
        "families": st.lists(st.lists(ITEM, max_size=2), max_size=3),
        "empties": st.lists(st.just({}), max_size=4),
        "last": TEXT,
    },
)


@settings(max_examples=60)
@given(VALUES)
def test_pycapnp_reads_what_we_write(values: dict[str, Any]) -> None:
    data = LISTS.to_bytes(values)
    with SCHEMA.Lists.from_bytes(SCHEMA.Lists.new_message(**values).to_bytes()) as reader:
        expected = plain(reader)
    with SCHEMA.Lists.from_bytes(data) as reader:
        assert plain(reader) == expected
    assert plain(LISTS.from_bytes(data)) == expected


@settings(max_examples=60)
@given(VALUES, st.sampled_from([1, 3, 10, 1024]))
def test_we_read_what_pycapnp_writes_in_any_segments(values: dict[str, Any], words: int) -> None:
    data = SCHEMA.Lists.new_message(words, **values).to_bytes()
    with SCHEMA.Lists.from_bytes(data) as reader:
        assert plain(LISTS.from_bytes(data)) == plain(reader)


@settings(max_examples=40)
@given(VALUES)
def test_what_a_view_gives_as_a_dict_or_is_itself_can_be_written_again(
    values: dict[str, Any],
) -> None:
    view = LISTS.from_bytes(LISTS.to_bytes(values))
    found = view.to_dict()
    assert {name: found[name] for name in ("texts", "flags", "colours", "grid")} == {
        name: values.get(name, []) for name in ("texts", "flags", "colours", "grid")
    }
    again = LISTS.to_bytes(found)
    assert plain(LISTS.from_bytes(again)) == plain(view)
    assert LISTS.to_bytes(view) == again
    lists = {name: getattr(view, name) for name in view._fields}
    assert LISTS.to_bytes(lists) == again


def test_our_words_are_those_of_pycapnp() -> None:
    values = {
        "items": [
            {"number": 1, "name": "first", "data": b"12345678", "children": [{"on": False}, {}]},
            {},
            {"name": "a longer text", "shorts": [1, 2, 3], "part": {"size": 5, "label": "p"}},
        ],
        "texts": ["a", "", "eight by"],
        "blobs": [b"", b"x"],
        "flags": [True] * 9,
        "colours": ["red", "blue"],
        "grid": [[1], [], [2, 3]],
    }
    data = SCHEMA.Lists.new_message(**values).to_bytes()
    ours = LISTS.to_bytes(values)
    assert len(ours) == len(data)
    # Down to the elements; what they point to, pycapnp puts elsewhere.
    with SCHEMA.Lists.from_bytes(ours) as one, SCHEMA.Lists.from_bytes(data) as other:
        assert one.total_size.word_count == other.total_size.word_count


def test_a_composite_list_is_laid_out_as_the_encoding_says() -> None:
    parts = compile_struct(SCHEMA.Named.schema)
    assert parts.to_bytes({"list": [{"name": "ab"}, {}, {"name": "12345678"}]}) == frame(
        to_struct(0, 0, 1),
        to_list(0, 7, 3),
        to_struct(3, 0, 1),
        to_list(2, 2, 3),
        0,
        to_list(1, 2, 9),
        int.from_bytes(b"ab", "little"),
        int.from_bytes(b"12345678", "little"),
        0,
    )


def test_a_list_is_a_lazy_immutable_sequence() -> None:
    names = ["a", "b", "c", "d", "e"]
    view = LISTS.from_bytes(LISTS.to_bytes({"items": [{"name": name} for name in names]}))
    found = view.items
    assert (len(found), bool(found)) == (5, True)
    assert [item.name for item in found] == names
    assert [found[index].name for index in range(-5, 5)] == names * 2
    for part in (
        slice(1, 4),
        slice(None, None, 2),
        slice(None, None, -1),
        slice(3, 99),
        slice(-2, 0),
    ):
        assert [item.name for item in found[part]] == names[part]
        assert len(found[part]) == len(names[part])
    assert [item.name for item in found[1:][::2][::-1]] == ["d", "b"]
    assert [item.name for item in reversed(found)] == names[::-1]
    for index in (5, -6):
        with pytest.raises(IndexError):
            found[index]
    with pytest.raises(TypeError):
        found["a"]
    with pytest.raises(TypeError):
        found[0] = 1
    assert isinstance(found[0], StructView)
    assert repr(found).startswith("[<Item number=")


def test_lists_of_texts_flags_and_colours_have_slices_too() -> None:
    values = {
        "texts": ["x", "yy", "zzz"],
        "flags": [True, False, True],
        "colours": ["red", "green", "blue"],
    }
    view = LISTS.from_bytes(LISTS.to_bytes(values))
    for name, expected in values.items():
        found = getattr(view, name)
        assert list(found) == expected
        assert list(found[::-2]) == expected[::-2]
        assert (found[-1], len(found)) == (expected[-1], 3)
    assert "yy" in view.texts
    assert view.texts.index("zzz") == 2


def test_nothing_is_decoded_until_it_is_asked_for() -> None:
    data = bytearray(LISTS.to_bytes({"items": [{"name": "good"}, {"name": "evil"}]}))
    data[data.index(b"evil")] = 0xFF
    found = LISTS.from_bytes(data).items
    assert found[0].name == "good"
    assert found[1].number == -7
    with pytest.raises(MalformedMessage, match="not UTF-8"):
        _ = found[1].name


def test_an_enumerant_of_a_newer_schema_stays_a_number() -> None:
    data = compile_struct(SCHEMA.Shorts.schema).to_bytes({"list": [0, 77]})
    assert list(opened("Colours", data).list) == ["red", 77]
    assert LISTS.from_bytes(LISTS.to_bytes({"colours": ["blue", 77]})).to_dict()["colours"] == [
        "blue",
        77,
    ]


# --- other schemas ---------------------------------------------------------------------------

WRITTEN: dict[str, list[Any]] = {
    "Voids": [None] * 3,
    "Bits": [True, False, True],
    "Bytes": [1, 2, 255],
    "Shorts": [1, 2, 65535],
    "Longs": [2**40 + 3, 4],
    "Texts": ["a", "bcd", ""],
    "Blobs": [b"a\0", b"\0", b"\0"],
    "Grids": [[1, 2], [], [3]],
    "Colours": ["red", "blue"],
    "Numbered": [{"value": 5}, {"value": 6}],
    "Named": [{"name": "x"}, {"name": "y"}],
    "Gridded": [{"grid": [7]}, {"grid": []}],
    "Wide": [{"value": 9, "more": 2**60, "on": True, "name": "n", "last": b"l"}] * 2,
}


def of_pycapnp(name: str, data: bytes) -> Any:
    """Return what pycapnp reads of a list, None where it refuses it."""
    with getattr(SCHEMA, name).from_bytes(data) as reader:
        try:
            return plain(reader)
        except capnp.KjException:
            return None


def of_ours(name: str, data: bytes) -> Any:
    try:
        return plain(opened(name, data))
    except MalformedMessage:
        return None


@pytest.mark.parametrize("reading", sorted(WRITTEN.keys() - {"Voids", "Bits", "Colours"}))
@pytest.mark.parametrize("writing", WRITTEN)
def test_a_list_of_another_schema_reads_as_pycapnp_reads_it(writing: str, reading: str) -> None:
    data = getattr(SCHEMA, writing).new_message(list=WRITTEN[writing]).to_bytes()
    assert of_ours(reading, data) == of_pycapnp(reading, data)


def test_lists_that_became_structs_and_structs_that_were_lists() -> None:
    assert of_ours("Wide", SCHEMA.Shorts.new_message(list=[5]).to_bytes())["list"] == [
        {"value": 5, "more": 0, "on": False, "name": "", "last": []}
    ]
    wide = SCHEMA.Wide.new_message(list=WRITTEN["Wide"]).to_bytes()
    assert of_ours("Texts", wide) == {"list": ["n", "n"]}
    assert of_ours("Numbered", wide) == {"list": [{"value": 9}] * 2}
    assert of_ours("Shorts", wide) == {"list": [9, 9]}
    assert of_ours("Colours", wide) == {"list": [9, 9]}
    assert of_ours("Named", SCHEMA.Texts.new_message(list=["t"]).to_bytes()) == {
        "list": [{"name": "t"}]
    }


def test_bits_never_become_structs() -> None:
    data = SCHEMA.Bits.new_message(list=[True]).to_bytes()
    with pytest.raises(MalformedMessage, match="list of bits where structs are expected"):
        _ = opened("Numbered", data).list
    with pytest.raises(MalformedMessage, match="where bits are expected"):
        _ = opened("Bits", SCHEMA.Bytes.new_message(list=[1]).to_bytes()).list
    with pytest.raises(MalformedMessage, match="incompatible type"):
        _ = opened("Texts", SCHEMA.Bytes.new_message(list=[1]).to_bytes()).list


def test_a_list_of_structs_with_unions_is_left_to_pycapnp() -> None:
    chosen = compile_struct(SCHEMA.Chosen.schema).compile()
    values = {"list": [{"one": 1}, {"other": "x"}]}
    view = chosen.from_bytes(chosen.to_bytes(values))
    assert [item.which() for item in view.list] == ["one", "other"]
    assert view.to_dict() == values


# --- hostile messages ------------------------------------------------------------------------

ROOT = to_struct(0, 0, 1)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        # The list itself: beyond the end, before the start, a tag beyond the end.
        ((ROOT, to_list(0, 7, 2), to_struct(1, 1, 0), 0), "leaves its segment"),
        ((ROOT, to_list(-4, 7, 0), 0), "leaves its segment"),
        ((ROOT, to_list(0, 7, 2**29 - 1), to_struct(1, 0, 1), 0), "leaves its segment"),
        ((ROOT, to_list(0, 7, 0)), "leaves its segment"),
        # Its elements.
        ((ROOT, to_list(0, 7, 1), to_struct(2, 1, 0), 0), "overrun"),
        ((ROOT, to_list(0, 7, 1), to_struct(2**30 - 1, 0xFFFF, 0xFFFF), 0), "overrun"),
        ((ROOT, to_list(0, 7, 1), to_list(0, 2, 1), 0), "tag is no struct pointer"),
        ((ROOT, to_struct(0, 1, 0), 0), "where a list is expected"),
        ((ROOT, 3), "where a list is expected"),
        # Far pointers to nowhere.
        ((ROOT, 2 | 1 << 32), "segment that it does not have"),
        ((ROOT, 2 | 9 << 3), "leaves its segment"),
        # A tiny message that announces a billion elements.
        ((ROOT, to_list(0, 7, 0), to_struct(2**30 - 1, 0, 0)), "traversal limit"),
        ((ROOT, to_list(0, 0, 2**29 - 1)), "traversal limit"),
    ],
)
def test_a_hostile_list_of_structs_is_malformed(words: tuple[int, ...], reason: str) -> None:
    view = opened("Named", frame(*words))
    with pytest.raises(MalformedMessage, match=reason):
        _ = view.list


def test_elements_without_size_have_defaults_and_their_number() -> None:
    words = (ROOT, to_list(0, 7, 0), to_struct(4, 0, 0))
    found = opened("Wide", frame(*words)).list
    assert [item.value for item in found] == [0] * 4
    assert [item.name for item in found[1:3]] == ["", ""]
    assert not found[0]._has("name")


def test_a_pointer_of_an_element_is_checked_when_it_is_read() -> None:
    words = (ROOT, to_list(0, 7, 2), to_struct(2, 0, 1), to_list(5, 2, 8), 0)
    found = opened("Named", frame(*words)).list
    with pytest.raises(MalformedMessage, match="leaves its segment"):
        _ = found[0].name
    assert found[1].name == ""
    texts = opened("Texts", frame(ROOT, to_list(0, 6, 2), to_list(5, 2, 8), 0)).list
    with pytest.raises(MalformedMessage, match="leaves its segment"):
        _ = texts[0]
    assert texts[1] == ""


def with_budget(codec: StructCodec, data: bytes, words: int) -> Any:
    """Return a view of a message with so much of the traversal limit left."""
    message = Message(data, ((8, len(data)),), words)
    return codec.read(Pointer(message, 8, len(data), 8, 64))


def test_opening_a_list_again_and_again_meets_the_traversal_limit() -> None:
    data = compile_struct(SCHEMA.Named.schema).to_bytes({"list": [{}] * 100})
    view = with_budget(compile_struct(SCHEMA.Named.schema), data, 400)
    for _ in range(3):
        assert len(list(view.list)) == 100
    with pytest.raises(MalformedMessage, match="traversal limit"):
        _ = view.list


NODE = SCHEMA.Item.schema.node.struct
SIZES = (NODE.dataWordCount, NODE.pointerCount)


def nested_in_itself() -> bytes:
    """Return an Item that is the only one in the list of its children, its last pointer."""
    words = sum(SIZES)
    to_children = to_list(-words - 1, 7, words)
    return frame(to_struct(1, *SIZES), to_struct(1, *SIZES), *[0] * (words - 1), to_children)


def depth(item: Any, children: Callable[[Any], Any], errors: tuple[type[Exception], ...]) -> int:
    """Return how many levels down one comes."""
    levels = 0
    try:
        while True:
            item = children(item)[0]
            levels += 1
    except errors:
        return levels


def test_a_list_that_contains_itself_ends_at_the_same_depth_as_in_pycapnp() -> None:
    data = nested_in_itself()
    with SCHEMA.Item.from_bytes(data) as reader:
        theirs = depth(reader, lambda item: item.children, (capnp.KjException,))
    ours = depth(opened("Item", data), lambda item: item.children, (MalformedMessage,))
    assert ours == theirs > 20
    with pytest.raises(MalformedMessage, match="too deeply nested"):
        opened("Item", data).to_dict()


def read_or_refuse(read: Callable[[], Any]) -> Any:
    try:
        return plain(read())
    except MalformedMessage:
        return "refused"


def test_a_broken_message_reads_the_same_field_by_field_and_at_once() -> None:
    chance = random.Random(1)
    item = {"name": "a text", "data": b"123456789", "shorts": [1, 2], "on": False}
    values = {"items": [{**item, "part": {"label": "p"}}, item], "texts": ["x"], "last": "end"}
    data = LISTS.to_bytes(values)
    refused = 0
    for _ in range(4000):
        broken = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            broken[chance.randrange(8, len(data))] ^= 1 << chance.randrange(8)
        frame = bytes(broken)
        at_once = read_or_refuse(lambda frame=frame: LISTS.from_bytes(frame).to_dict())
        by_field = read_or_refuse(lambda frame=frame: LISTS.from_bytes(frame))
        # What reads at once from bytes is not what does from any buffer.
        in_buffer = read_or_refuse(lambda broken=broken: LISTS.from_bytes(broken).to_dict())
        assert at_once == by_field == in_buffer, frame.hex()
        refused += at_once == "refused"
    assert 400 < refused < 3600


def test_reading_at_once_goes_as_deep_as_reading_field_by_field() -> None:
    # Structs in structs to the last level: only texts and data may still follow.
    codec = compile_struct(SCHEMA.Item.schema)
    data = codec.to_bytes({"shorts": [1], "name": "x"})
    for depth_left, expected in ((2, [1]), (1, None)):
        message = Message(data, ((8, len(data)),))
        view = codec.read(Pointer(message, 8, len(data), 8, depth_left))
        assert view.name == "x"
        found = read_or_refuse(view.to_dict)
        assert found == read_or_refuse(lambda view=view: view)
        assert found == "refused" if expected is None else found["shorts"] == expected


def test_reading_at_once_spends_the_traversal_limit_too() -> None:
    codec = compile_struct(SCHEMA.Named.schema)
    data = codec.to_bytes({"list": [{"name": "x" * 800}] * 3})
    with pytest.raises(MalformedMessage, match="traversal limit"):
        with_budget(codec, data, 300).to_dict()
    assert len(with_budget(codec, data, 320).to_dict()["list"]) == 3


# --- values that do not fit -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"items": [{}, {}, {"name": 5}]}, "Lists.items[2].name: expected a str, not int"),
        ({"items": [{"number": 2**15}]}, "Lists.items[0].number: "),
        ({"items": [{}, {"nope": 1}]}, "Lists.items[1] has no field 'nope'"),
        ({"items": [5]}, "Lists.items[0]: expected a mapping of field names, not int"),
        ({"items": [None]}, "Lists.items[0]: expected a mapping of field names, not NoneType"),
        # It could be columns.
        (
            {"items": {"name": "x"}},
            "Lists.items: column 'name': expected a value per record, not str",
        ),
        ({"items": "abc"}, "Lists.items: expected a list, not str"),
        ({"items": 5}, "Lists.items: 'int' object is not iterable"),
        (
            {"items": [{"children": [{}, {"part": {"label": b""}}]}]},
            "Lists.items[0].children[1].part.label: expected a str, not bytes",
        ),
        ({"items": [{"colour": "pink"}]}, "Lists.items[0].colour: 'pink' is not one of red, green"),
        ({"items": [{"shorts": [1, "2"]}]}, "Lists.items[0].shorts: "),
        ({"texts": ["a", 5]}, "Lists.texts[1]: expected a str, not int"),
        ({"texts": ["\ud800"]}, "Lists.texts[0]: 'utf-8' codec can't encode"),
        (
            {"blobs": [b"", 1]},
            "Lists.blobs[1]: memoryview: a bytes-like object is required, not 'int'",
        ),
        ({"flags": [True, 1]}, "Lists.flags: expected a bool, not int"),
        ({"colours": ["red", "pink"]}, "Lists.colours: 'pink' is not one of"),
        ({"grid": [[1], [2**15]]}, "Lists.grid[1]: "),
        ({"grid": [1]}, "Lists.grid[0]: "),
        ({"words": [["a"], ["b", 3]]}, "Lists.words[1][1]: expected a str, not int"),
        ({"families": [[{"name": 3}]]}, "Lists.families[0][0].name: expected a str, not int"),
    ],
)
def test_a_value_that_does_not_fit_is_named_by_its_place(
    values: dict[str, Any], reason: str
) -> None:
    with pytest.raises(EncodeError) as error:
        LISTS.pack(values)
    assert str(error.value).startswith(reason)


def test_any_sequence_of_mappings_is_written() -> None:
    expected = LISTS.to_bytes({"items": [{"number": 1}, {"number": 2}]})
    assert LISTS.to_bytes({"items": ({"number": 1}, {"number": 2})}) == expected
    assert LISTS.to_bytes({"items": ({"number": n} for n in (1, 2))}) == expected


def test_a_value_in_itself_is_refused() -> None:
    item: dict[str, Any] = {"name": "x"}
    item["children"] = [item]
    with pytest.raises(EncodeError, match="Lists: nested too deeply, or in itself"):
        LISTS.pack({"items": [item]})


def test_long_lists_of_numbers_are_written_and_read_too() -> None:
    grid = [list(range(count)) for count in (0, 1, 63, 64, 65, 1000)]
    assert LISTS.from_bytes(LISTS.to_bytes({"grid": grid})).to_dict()["grid"] == grid


class ManyEmpties(list[Any]):
    """Says that it has more elements than a list holds."""

    def __len__(self) -> int:
        return 2**29


@pytest.mark.parametrize("name", ["items", "empties", "texts"])
def test_more_than_a_list_holds_is_refused_before_it_is_written(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capnp_rig.wire.encoding.conversions.list", ManyEmpties, raising=False)
    with pytest.raises(EncodeError, match=f"Lists.{name}: 536870912 .* more than a list holds"):
        LISTS.pack({name: ()})


NUMBERS = compile_struct(
    load_schema(Path(__file__).parents[3] / "data" / "kinds.capnp").Kinds.schema
)


@pytest.mark.parametrize(
    ("field", "buffer", "expected"),
    [
        ("longs", np.array([1, -2]), [1, -2]),
        ("longs", np.array([1, -2], ">i8"), [1, -2]),
        ("longs", np.arange(6)[::-2], [5, 3, 1]),
        ("longs", np.array([1, 2], "u1"), [1, 2]),
        ("longs", array("i", [3, -4]), [3, -4]),
        ("shorts", np.array([1, -2]), [1, -2]),
        ("bytes", np.array([1, 2], "i2"), [1, 2]),
        ("doubles", np.array([1, 2], "f2"), [1, 2]),
        ("doubles", np.array([1, 2], ">f4"), [1, 2]),
        ("doubles", np.array([1, 2]), [1, 2]),
        ("doubles", (ctypes.c_double * 2)(1, 2), [1, 2]),
        ("floats", np.array([1, 2.5]), [1, 2.5]),
        ("doubles", np.zeros(0), []),
        ("flags", np.array([True, False]), [True, False]),
        ("hues", np.array([2, 0]), ["blue", "red"]),
        ("grid", np.array([[1, 2], [3, 4]], "i2"), [[1, 2], [3, 4]]),
        ("data", np.array([1, 2], ">u2"), [0, 1, 0, 2]),
        ("data", np.arange(6, dtype="u1")[::2], [0, 2, 4]),
    ],
)
def test_numbers_of_any_buffer_are_written(field: str, buffer: Any, expected: list[Any]) -> None:
    fixed = memoryview(buffer).toreadonly()
    for value in (buffer, buffer if field in {"flags", "grid"} else fixed):
        view = NUMBERS.from_bytes(NUMBERS.to_bytes({field: value}))
        assert [list(e) if field == "grid" else e for e in getattr(view, field)] == expected


@pytest.mark.parametrize("value", [True, False])
def test_bools_of_numpy_are_bools(value: bool) -> None:
    bools = dict.fromkeys(("flag", "flagOn"), np.bool_(value))
    view = NUMBERS.from_bytes(NUMBERS.to_bytes({**bools, "flags": [np.bool_(value)]}))
    assert (view.flag, view.flagOn, *view.flags) == (value, value, value)


@pytest.mark.parametrize(
    ("field", "buffer", "error"),
    [
        ("longs", np.array([1.5]), "required argument is not an integer"),
        ("shorts", np.array([40_000]), "short format requires"),
        ("longs", np.array([[1]]), "expected numbers in one dimension, not in 2"),
        ("doubles", np.zeros(2, "c16"), "expected numbers, not a buffer of 'Zd'"),
        ("longs", {1: 2}, "expected a list, not dict"),
        ("longs", "12", "expected a list, not str"),
        ("longs", np.zeros(2, [("a", "i4")]), "expected numbers, not a buffer of 'T{i:a:}'"),
        ("longs", np.zeros(2, "M8[us]"), "cannot include dtype 'M' in a buffer"),
    ],
)
def test_a_buffer_of_something_else_is_refused(field: str, buffer: Any, error: str) -> None:
    with pytest.raises(EncodeError) as refused:
        NUMBERS.pack({field: buffer})
    assert str(refused.value).startswith(f"Kinds.{field}: {error}")

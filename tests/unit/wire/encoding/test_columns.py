import struct
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import capnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capnp_rig.wire.encoding.columns import layout_of
from capnp_rig.wire.encoding.frames import FrameDecoder
from capnp_rig.wire.encoding.lists import StructList
from capnp_rig.wire.encoding.pointer_types import _Structs
from capnp_rig.wire.encoding.pointers import Buffer, follow_list, follow_struct, root_pointer
from capnp_rig.wire.encoding.structs import compile_struct
from capnp_rig.wire.errors import EncodeError, MalformedMessage

COLUMNS = capnp.load(str(Path(__file__).parents[3] / "data" / "columns.capnp"))
COLOURS = ("red", "green", "blue")


def opened(frame: Buffer, element: Any) -> StructList:
    """Return the list that the root's only pointer leads to, under any schema of its elements."""
    (message,) = FrameDecoder().feed(frame)
    root = follow_struct(root_pointer(message))
    assert root is not None
    pointer = root.pointer(0)
    assert pointer is not None
    return StructList(compile_struct(element.schema).view, follow_list(pointer))


def written(values: Any, element: Any) -> bytes:
    """Return a frame whose root has one pointer, to a list that is written by columns."""
    tail: list[Any] = []
    word, words = _Structs(compile_struct(element.schema)).emit(values, 0, tail)
    return struct.pack("<QQQ", (words + 2) << 32, 1 << 48, word) + b"".join(tail)


def frame_of(root: Any, items: Any) -> bytes:
    frame: bytes = root.new_message(list=items).to_bytes()
    return frame


def plain(count: int) -> list[dict[str, Any]]:
    return [
        {"big": 3 * at, "ratio": at / 4, "small": -at, "colour": COLOURS[at % 3], "label": f"{at}"}
        for at in range(count)
    ]


PLAIN = opened(frame_of(COLUMNS.Plains, plain(5)), COLUMNS.Plain)


# --- reading ---------------------------------------------------------------------------------


def test_a_column_shows_the_message_and_cannot_be_written() -> None:
    frame = frame_of(COLUMNS.Plains, plain(5))
    column = opened(frame, COLUMNS.Plain).column("ratio")
    assert column.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert column.dtype == np.dtype("<f8")
    whole = np.frombuffer(frame, "u1")
    assert np.shares_memory(column, whole)
    assert np.shares_memory(opened(frame, COLUMNS.Plain).to_numpy(), whole)
    for array in (column, opened(frame, COLUMNS.Plain).to_numpy()):
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


def test_a_column_holds_its_buffer() -> None:
    buffer = bytearray(frame_of(COLUMNS.Plains, plain(5)))
    for items in (opened(buffer, COLUMNS.Plain), opened(memoryview(buffer), COLUMNS.Plain)):
        for array in (items.column("ratio"), items.to_numpy(), items.to_numpy()["big"][1:]):
            with pytest.raises(BufferError):
                buffer.append(0)
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.flags.writeable = True
    del items, array
    buffer.append(0)


def test_a_table_has_every_number_and_no_pointer() -> None:
    table = PLAIN.to_numpy()
    assert table.dtype.names == ("big", "ratio", "small", "colour")
    assert table[2].tolist() == (6, 0.5, -2, 2)


def test_slices_have_columns_too() -> None:
    assert PLAIN[::-2].column("big").tolist() == [12, 6, 0]
    assert PLAIN[1:4].to_numpy()["small"].tolist() == [-1, -2, -3]
    assert PLAIN[5:].column("big").tolist() == PLAIN[5:].to_numpy().tolist() == []


def test_texts_stay_lazy() -> None:
    labels = PLAIN.column("label")
    assert labels[3] == "3"
    assert list(labels[::2]) == ["0", "2", "4"]
    assert repr(labels).startswith("['0', '1'")


def test_names_without_a_column_are_told() -> None:
    with pytest.raises(ValueError, match="Plain has no column 'prize'; it has big, ratio, small"):
        PLAIN.column("prize")
    with pytest.raises(ValueError, match=r"Plain\.ratio is no enum: it has no categories"):
        PLAIN.column("ratio", categories=True)
    with pytest.raises(ValueError, match=r"Plain\.label is no number"):
        PLAIN.column("label", categories=True)


def test_a_null_list_has_empty_columns() -> None:
    for items in (StructList(compile_struct(COLUMNS.Everything.schema).view, None), PLAIN[:0]):
        assert len(items.to_numpy()) == 0
        assert items.column("colour").dtype == np.dtype("<u2")


@pytest.mark.parametrize(
    ("root", "values", "expected"),
    [
        ("Shorts", [1, 2, 3], [(1, 0, False, 4), (2, 0, False, 4), (3, 0, False, 4)]),
        ("Longs", [1 << 40 | 7, 2], [(7, 0, False, 260), (2, 0, False, 4)]),
        ("Numbers", [{"value": 9}], [(9, 0, False, 4)]),
        ("Voids", [None] * 3, [(0, 0, False, 4)] * 3),
        ("Blobs", [b"x", b""], [(0, 0, False, 4)] * 2),
    ],
)
def test_what_older_schemas_sent_has_defaults_for_the_rest(
    root: str, values: Any, expected: Any
) -> None:
    items = opened(frame_of(getattr(COLUMNS, root), values), COLUMNS.Wide)
    assert items.to_numpy().tolist() == expected
    for index, name in enumerate(items.to_numpy().dtype.names):
        column = items.column(name)
        assert column.tolist() == [record[index] for record in expected]
        assert not column.flags.writeable


def test_a_smaller_struct_does_not_show_its_neighbours() -> None:
    items = opened(frame_of(COLUMNS.Longs, [7, 2**64 - 1, 9]), COLUMNS.Plain)
    # Nor those of a part of the list.
    for part, bigs in ((items, [7, 2**64 - 1, 9]), (items[::-2], [9, 7])):
        assert part.to_numpy().tolist() == [(big, 0.0, 0, 0) for big in bigs]


def test_what_newer_schemas_sent_is_read_past() -> None:
    frame = frame_of(
        COLUMNS.Wides, [{"value": 7, "more": 1, "text": "a"}, {"value": 8, "on": True}]
    )
    items = opened(frame, COLUMNS.Number)
    assert items.to_numpy().tolist() == [(7,), (8,)]
    assert np.shares_memory(items.to_numpy(), np.frombuffer(frame, "u1"))


def test_bits_are_no_structs() -> None:
    with pytest.raises(MalformedMessage, match="list of bits"):
        opened(frame_of(COLUMNS.Bits, [True]), COLUMNS.Wide)


def test_a_list_that_costs_its_sender_nothing_cannot_fill_the_memory() -> None:
    # One word announces so many elements without size; their defaults would take 120 MB.
    count = 8_000_000
    frame = struct.pack("<QQQ", 2 << 32, 1 << 48, 1 | count << 35)
    items = opened(frame, COLUMNS.Wide)
    assert len(items.column("last")) == count
    with pytest.raises(MalformedMessage, match="traversal limit"):
        items.to_numpy()


def test_structs_of_pointers_alone_have_no_columns() -> None:
    frame = frame_of(COLUMNS.Blobs, [b"x\0", b"y\0"])
    items = opened(frame, COLUMNS.Texts)
    assert items.to_numpy().shape == (2,)
    assert list(items.column("text")) == ["x", "y"]
    # Two of which no pointer was sent: they have no place in the message.
    items = opened(struct.pack("<QQQQ", 3 << 32, 1 << 48, 1 | 7 << 32, 2 << 2), COLUMNS.Texts)
    assert items.to_numpy().shape == (2,)


def test_an_enumerant_of_a_newer_schema_is_a_category_of_its_own() -> None:
    pandas = pytest.importorskip("pandas")
    frame = frame_of(COLUMNS.Plains, plain(3))
    numbers = np.frombuffer(bytearray(frame), "<u2").copy()
    (place,) = np.flatnonzero(numbers == 2)[-1:]
    numbers[place] = 4
    column = opened(numbers.tobytes(), COLUMNS.Plain).column("colour", categories=True)
    assert isinstance(column, pandas.Categorical)
    assert list(column) == ["red", "green", 4]


def test_pandas_takes_a_table() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(PLAIN.to_numpy())
    assert list(frame) == ["big", "ratio", "small", "colour"]
    assert frame["ratio"].sum() == 2.5
    assert written(frame, COLUMNS.Plain) == written(PLAIN.to_numpy(), COLUMNS.Plain)


# --- against pycapnp -------------------------------------------------------------------------

I8, U32 = st.integers(-128, 127), st.integers(0, 2**32 - 1)
FLOAT32, FLOAT64 = st.floats(width=32, allow_nan=False), st.floats(allow_nan=False)
MEMBERS = st.one_of(
    st.just({"none": None}),
    st.fixed_dictionaries({"count": U32}),
    st.fixed_dictionaries({"note": st.text(max_size=3)}),
    st.fixed_dictionaries(
        {
            "speed": st.fixed_dictionaries({"now": FLOAT64, "known": st.booleans()})
            | st.fixed_dictionaries({"now": FLOAT64, "guess": I8})
        }
    ),
)
EVERYTHING = st.builds(
    lambda fields, member: {**fields, **member},
    st.fixed_dictionaries(
        {
            "flag": st.booleans(),
            "flagOn": st.booleans(),
            "i8": I8,
            "i16": st.integers(-(2**15), 2**15 - 1),
            "i32": st.integers(-(2**31), 2**31 - 1),
            "i64": st.integers(-(2**63), 2**63 - 1),
            "u8": st.integers(0, 255),
            "u16": st.integers(0, 2**16 - 1),
            "u32": U32,
            "u64": st.integers(0, 2**64 - 1),
            "f32": FLOAT32,
            "f64": FLOAT64,
            "colour": st.sampled_from(COLOURS),
            "text": st.text(max_size=9),
            "numbers": st.lists(st.integers(0, 65535), max_size=3),
            "position": st.fixed_dictionaries(
                {"x": FLOAT32, "deep": st.fixed_dictionaries({"on": st.booleans(), "z": I8})}
            ),
        }
    ),
    MEMBERS,
)
# As the schema has them, which a column has where its member is not active.
DEFAULTS = {"count": 9, "speed.now": 0.0, "speed.which": 0, "speed.known": False, "speed.guess": 0}
MEMBER_NAMES = ("none", "count", "note", "speed")


def by_pycapnp(reader: Any) -> dict[str, Any]:
    """Return a record as its table has it, read by pycapnp."""
    names = ["flag", "flagOn", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "f32", "f64"]
    values: dict[str, Any] = {name: getattr(reader, name) for name in names}
    position = reader.position
    values |= {"colour": reader.colour.raw, "position.x": position.x}
    values |= {"position.deep.on": position.deep.on, "position.deep.z": position.deep.z}
    which = str(reader.which())
    values |= {"which": MEMBER_NAMES.index(which), **DEFAULTS}
    if which == "count":
        values["count"] = reader.count
    elif which == "speed":
        inner = str(reader.speed.which())
        values |= {"speed.now": reader.speed.now, "speed.which": ("known", "guess").index(inner)}
        values[f"speed.{inner}"] = getattr(reader.speed, inner)
    return values


def many_segments(records: list[dict[str, Any]]) -> bytes:
    builder = COLUMNS.Everythings.new_message(num_first_segment_words=1)
    listed = builder.init("list", len(records))
    for slot, record in zip(listed, records, strict=True):
        slot.from_dict(record)
    frame: bytes = builder.to_bytes()
    return frame


@settings(max_examples=60, deadline=None)
@given(st.lists(EVERYTHING, max_size=5), st.booleans())
def test_tables_have_what_pycapnp_reads(records: list[dict[str, Any]], split: bool) -> None:
    frame = many_segments(records) if split else frame_of(COLUMNS.Everythings, records)
    items = opened(frame, COLUMNS.Everything)
    table = items.to_numpy()
    with COLUMNS.Everythings.from_bytes(frame) as reader:
        expected = [by_pycapnp(record) for record in reader.list]
    assert len(table) == len(expected)
    for index, record in enumerate(expected):
        assert {name: table[name][index].item() for name in table.dtype.names} == record
    for name in table.dtype.names:
        assert np.array_equal(items.column(name), table[name])


@settings(max_examples=60, deadline=None)
@given(st.lists(EVERYTHING, max_size=5))
def test_pycapnp_reads_the_tables_that_are_written(records: list[dict[str, Any]]) -> None:
    items = opened(frame_of(COLUMNS.Everythings, records), COLUMNS.Everything)
    table = items.to_numpy()
    columns = {name: table[name] for name in table.dtype.names}
    more = {"text": [each["text"] for each in records], "numbers": list(items.column("numbers"))}
    for values in (table, table[::-1][::-1], columns, columns | more):
        frame = written(values, COLUMNS.Everything)
        assert np.array_equal(opened(frame, COLUMNS.Everything).to_numpy(), table)
        with COLUMNS.Everythings.from_bytes(frame) as reader:
            back = list(reader.list)
            assert [by_pycapnp(record) for record in back] == list(map(as_dict, table))
            if values is not table and isinstance(values, dict) and "text" in values:
                assert [(each.text, list(each.numbers)) for each in back] == [
                    (each["text"], each["numbers"]) for each in records
                ]


HOSTILE = frame_of(COLUMNS.Everythings, [{"i8": at, "text": "x"} for at in range(3)])
PLACES = st.tuples(st.integers(8, len(HOSTILE) - 1), st.integers(0, 255))


@settings(max_examples=300, deadline=None)
@given(
    # The root's pointer, the list's and the tag most often.
    st.lists(PLACES | st.tuples(st.integers(8, 31), st.integers(0, 255)), min_size=1, max_size=4),
    st.slices(5),
)
def test_a_changed_message_is_read_or_refused(changes: list[tuple[int, int]], part: slice) -> None:
    frame = bytearray(HOSTILE)
    for place, byte in changes:
        frame[place] = byte
    try:
        items = opened(bytes(frame), COLUMNS.Everything)[part]
    except (MalformedMessage, AssertionError):
        return
    with suppress(MalformedMessage):
        # Of more, a list of structs without size, there is one value, again and again.
        if len(items) < 1000:
            numbers = [view.u64 for view in items]
            assert items.column("u64").tolist() == items.to_numpy()["u64"].tolist() == numbers


def as_dict(record: Any) -> dict[str, Any]:
    return {name: record[name].item() for name in record.dtype.names}


# --- writing ---------------------------------------------------------------------------------


def read_back(values: Any, element: str = "Plain") -> list[Any]:
    table = opened(written(values, getattr(COLUMNS, element)), getattr(COLUMNS, element)).to_numpy()
    result: list[Any] = table.tolist()
    return result


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"small": [1, -2]}, [(0, 0, 1, 0), (0, 0, -2, 0)]),
        (
            {"small": np.array([1, 2], ">i8"), "ratio": np.arange(4.0)[::2]},
            [(0, 0, 1, 0), (0, 2, 2, 0)],
        ),
        ({"big": np.array([2**64 - 1], "u8")}, [(2**64 - 1, 0, 0, 0)]),
        # numpy takes them for floats.
        ({"big": [2**64 - 1, 1]}, [(2**64 - 1, 0, 0, 0), (1, 0, 0, 0)]),
        ({"small": np.array([1, -2], "O")}, [(0, 0, 1, 0), (0, 0, -2, 0)]),
        ({"ratio": [1, 2]}, [(0, 1, 0, 0), (0, 2, 0, 0)]),
        ({"colour": ["blue", "red"]}, [(0, 0, 0, 2), (0, 0, 0, 0)]),
        ({"colour": np.array([1, 7])}, [(0, 0, 0, 1), (0, 0, 0, 7)]),
        ({"colour": ["green", 7]}, [(0, 0, 0, 1), (0, 0, 0, 7)]),
        ({"small": memoryview(b"\1\0\2\0").cast("h")}, [(0, 0, 1, 0), (0, 0, 2, 0)]),
        ({"small": []}, []),
        ({}, []),
        (np.zeros(2, [("small", ">i2"), ("big", "u1")]), [(0, 0, 0, 0)] * 2),
        (np.zeros(2, []), [(0, 0, 0, 0)] * 2),
    ],
)
def test_columns_of_any_layout_are_written(columns: Any, expected: list[Any]) -> None:
    assert read_back(columns) == expected


def test_fields_without_a_column_have_their_defaults() -> None:
    assert read_back({"second": [1.0]}, "Defaults") == [(5, 1.0)]
    assert read_back({"first": [5, 0]}, "Defaults") == [(5, 0.0), (0, 0.0)]


WIDE = {"value": [1, 2]}


@pytest.mark.parametrize(
    ("columns", "error"),
    [
        ({"valu": [1]}, "Wide has no column 'valu'; it has value, more, on, last, text"),
        (np.zeros(1, [("nme", "u2")]), "Wide has no column 'nme'"),
        ({**WIDE, "on": [True]}, "column 'on' has 1 values, column 'value' has 2"),
        ({"value": 1}, "column 'value': expected a value per record, not int"),
        ({"value": np.array(1)}, "column 'value': expected a value per record, not ndarray"),
        ({"value": {"a": 1}}, "column 'value': expected a value per record, not dict"),
        ({"text": "ab"}, "column 'text': expected a value per record, not str"),
        ({"value": [-1]}, "column 'value': -1 is out of the range of uint16"),
        ({"value": np.array([70000], "u4")}, "column 'value': 70000 is out of the range of uint16"),
        ({"value": [2**70]}, f"column 'value': {2**70} is out of the range of uint16"),
        ({"more": [2**63, -1]}, "column 'more': -1 is out of the range of uint64"),
        ({"more": [2**63, 1.5]}, "column 'more' is of uint64, which float64 does not fit"),
        ({"value": [1.0]}, "column 'value' is of uint16, which float64 does not fit"),
        ({"value": ["1"]}, "column 'value' is of uint16, which <U1 does not fit"),
        ({"value": np.zeros(1, "M8[us]")}, "column 'value' is of uint16, which datetime64"),
        ({"on": [1]}, "column 'on' is of bool, which int64 does not fit"),
        ({"value": [[1]]}, "column 'value' has 2 dimensions, not one"),
        ({"value": np.ma.array([1], mask=[True])}, "column 'value' is masked"),
        (np.zeros((1, 1), [("value", "u2")]), "an array of records has one dimension, not 2"),
        (np.zeros(1, [("value", "u2")])[0], "an array of records has one dimension, not 0"),
        (np.ma.zeros(1, [("value", "u2")]), "a masked array has records without values"),
        ({"text": ["a", 5]}, "column 'text', record 1: expected a str, not int"),
        ({"text": np.array([b"a"])}, "column 'text' has strings of numpy"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_column(columns: Any, error: str) -> None:
    with pytest.raises(EncodeError) as refused:
        compile_struct(COLUMNS.Wides.schema).to_bytes({"list": columns})
    assert str(refused.value).startswith(f"Wides.list: {error}")


@pytest.mark.parametrize(
    ("columns", "error"),
    [
        ({"count": [1]}, "column 'count' is of a union: column 'which' is needed, too"),
        ({"which": [1], "speed.guess": [1]}, "of a union: column 'speed.which' is needed, too"),
        ({"note": ["a"]}, "Everything.note cannot be written as a column: give records"),
        ({"which": ["fast"]}, "column 'which': 'fast' is not one of none, count, note, speed"),
        ({"f32": [1e39]}, "column 'f32': a value is out of the range of float32"),
        ({"colour": ["pink"]}, "column 'colour': 'pink' is not one of red, green, blue"),
    ],
)
def test_unions_and_enums_are_checked(columns: Mapping[str, Any], error: str) -> None:
    with pytest.raises((ValueError, OverflowError)) as refused:
        written(columns, COLUMNS.Everything)
    assert error in str(refused.value)


def test_lists_of_structs_with_unions_have_columns_as_fields_do() -> None:
    codec = compile_struct(COLUMNS.Everythings.schema)
    records = [{"count": 5}, {"speed": {"now": 2.5, "guess": 3}}, {"note": "n"}]
    items = codec.from_bytes(codec.to_bytes({"list": records})).list
    table = items.to_numpy()
    assert table["which"].tolist() == [1, 3, 2]
    assert table["speed.guess"].tolist() == [0, 3, 0]
    back = codec.from_bytes(codec.to_bytes({"list": table})).list
    assert np.array_equal(back.to_numpy(), table)
    assert back[1].speed.now == 2.5


def test_a_union_is_written_by_its_members_names() -> None:
    columns = {"which": ["count", "none"], "count": [5, 6]}
    table = opened(written(columns, COLUMNS.Everything), COLUMNS.Everything).to_numpy()
    assert (table["which"].tolist(), table["count"].tolist()) == ([1, 0], [5, 9])


def test_every_kind_of_field_is_in_the_layout_once() -> None:
    layout = layout_of(compile_struct(COLUMNS.Everything.schema).view)
    assert len(layout.columns) == len(layout.dtype.names or ()) == 22
    assert layout.pointers == {"text": True, "numbers": True, "note": False}


WITHOUT_NUMPY = """
import sys
sys.modules["numpy"] = None
from capnp_rig.schema import load_schema
from capnp_rig.wire import compile_struct
codec = compile_struct(load_schema("records.capnp").Records.schema).compile()
records = codec.from_bytes(codec.to_bytes({"records": [{"id": 7}]})).records
print(records[0].id)
for work in (records.to_numpy, lambda: codec.pack({"records": {"id": [7]}})):
    try:
        work()
    except Exception as error:
        print(type(error).__name__, str(error).partition(" (")[0])
"""


def test_numpy_is_needed_for_columns_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NUMPY],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    needed = "columns need numpy: pip install 'capnp-rig[numpy]'"
    assert done.stdout.splitlines() == [
        "7",
        f"ImportError {needed}",
        f"EncodeError Records.records: {needed}",
    ]

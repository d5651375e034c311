"""Unions and groups against pycapnp on the same bytes, at any depth, in any struct sizes."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import capnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.any_pointers import AnyPointer, AnyValue
from capnp_rig.wire.encoding.lists import LazyList
from capnp_rig.wire.encoding.pointers import ExpiredMessage
from capnp_rig.wire.encoding.structs import StructView, compile_struct
from capnp_rig.wire.errors import EncodeError, InactiveMember, MalformedMessage, ViewExpired

SCHEMA = load_schema(Path(__file__).parents[3] / "data" / "unions.capnp")
LISTS = load_schema(Path(__file__).parents[3] / "data" / "lists.capnp")
DEEP = compile_struct(SCHEMA.Deep.schema).compile()
NODE = compile_struct(SCHEMA.Tree.schema).compile()


def theirs(value: Any) -> Any:
    """Return what a reader of pycapnp's holds, of a union the active member alone."""
    if isinstance(value, capnp.lib.capnp._DynamicStructReader):
        active = {value.which()} if value.schema.union_fields else set()
        names = [
            name
            for name in value.schema.fieldnames
            if name not in {*value.schema.union_fields} - active
        ]
        return {name: theirs(value._get(name)) for name in names if present(value, name)}
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if isinstance(value, capnp.lib.capnp._DynamicObjectReader):
        return "any"
    return str(value) if hasattr(value, "raw") else [theirs(item) for item in value]


def ours(value: Any) -> Any:
    """Return what a view holds, field by field."""
    if isinstance(value, StructView):
        active = value.which() if hasattr(value, "which") else None
        names = [name for name in value._fields if name not in value._numbers or name == active]
        return {name: ours(getattr(value, name)) for name in names if present(value, name)}
    if isinstance(value, AnyPointer):
        return "any"
    if isinstance(value, LazyList):
        return [ours(item) for item in value]
    if isinstance(value, memoryview):
        return value.tolist()
    return value


def present(value: Any, name: str) -> bool:
    """Tell whether a field is compared: not a null struct, which may contain itself."""
    schema = value._codec.schema if isinstance(value, StructView) else value.schema
    field = schema.fields[name]
    if field.proto.which() == "group":
        return True
    kinds = {"struct", "anyPointer", "interface"}
    return field.proto.slot.type.which() not in kinds or value._has(name)


TEXT = st.text(st.characters(codec="utf-8"), max_size=9)
BYTES = st.binary(max_size=9)
Fields = st.SearchStrategy[dict[str, Any]]


def some(**fields: st.SearchStrategy[Any]) -> Fields:
    return st.fixed_dictionaries({}, optional=fields)


def with_member(plain: Fields, /, **members: st.SearchStrategy[Any]) -> Fields:
    """Return fields with at most one of the members of a union."""
    one = st.one_of(
        st.just({}), *(st.fixed_dictionaries({name: value}) for name, value in members.items())
    )
    return st.builds(lambda fields, member: {**fields, **member}, plain, one)


def trees(inner: Fields) -> Fields:
    return with_member(some(after=st.integers(0, 255)), next=inner, leaf=st.integers(0, 2**32 - 1))


TREE = st.recursive(trees(st.just({})), trees, max_leaves=3)


def deeps(inner: Fields) -> Fields:
    deeper = some(bit=st.booleans(), double=st.floats(allow_nan=False), blob=BYTES)
    return with_member(
        some(
            flag=st.booleans(),
            last=TEXT,
            kind=with_member(
                st.just({}),
                plain=st.none(),
                level=some(low=st.integers(-9, 9), high=st.integers(-9, 9), names=st.lists(TEXT)),
                again=with_member(st.just({}), left=st.integers(0, 255), right=TREE),
            ),
            always=some(bit=st.booleans(), more=some(word=st.integers(0, 99), text=TEXT)),
        ),
        nothing=st.none(),
        small=st.integers(-128, 127),
        large=st.integers(0, 2**64 - 1),
        on=st.booleans(),
        colour=st.sampled_from(["red", "green", "blue"]),
        ratio=st.floats(width=32, allow_nan=False),
        name=TEXT,
        data=BYTES,
        numbers=st.lists(st.integers(-9, 9), max_size=3),
        trees=st.lists(TREE, max_size=3),
        pair=with_member(
            some(first=st.integers(0, 2**16 - 1), second=TEXT),
            text=TEXT,
            deeper=deeper,
            none=st.none(),
        ),
        self=inner,
    )


DEEPS = st.recursive(deeps(st.just({})), deeps, max_leaves=3)
DEFAULTS = with_member(
    some(
        text=TEXT,
        empty=TEXT,
        data=BYTES,
        bools=st.lists(st.booleans(), max_size=9),
        colours=st.lists(st.sampled_from(["red", "green"]), max_size=3),
        texts=st.lists(TEXT, max_size=3),
        grid=st.lists(st.lists(st.integers(-9, 9), max_size=3), max_size=3),
        # A field that is missing pycapnp takes from the default of `tree`, as of `self`.
        tree=st.fixed_dictionaries({"leaf": st.integers(0, 9), "after": st.integers(0, 9)}),
        trees=st.lists(TREE, max_size=3),
        voids=st.lists(st.none(), max_size=3),
        group=some(
            floats=st.lists(st.floats(allow_nan=False), max_size=3),
            self=st.builds(lambda text: {"text": text}, TEXT),
        ),
    ),
    first=TEXT,
    second=st.lists(st.integers(-9, 9), max_size=3),
)
CASES = {"Deep": DEEPS, "Tree": TREE, "Defaults": DEFAULTS}


@pytest.mark.parametrize("name", CASES)
def test_what_we_and_pycapnp_write_both_read_alike(name: str) -> None:
    module, codec = getattr(SCHEMA, name), compile_struct(getattr(SCHEMA, name).schema)

    @settings(max_examples=60, deadline=None)
    @given(CASES[name], st.sampled_from([1, 3, 1024]))
    def check(values: dict[str, Any], words: int) -> None:
        message = module.new_message(words)
        message.from_dict(values)
        expected = theirs(message.as_reader())
        for data in (message.to_bytes(), codec.to_bytes(values)):
            with module.from_bytes(data) as reader:
                assert theirs(reader) == expected
            view = codec.from_bytes(data)
            assert ours(view) == expected
            # Read at once, from bytes and from any buffer, and field by field.
            native = view.to_dict()
            assert native == codec.from_bytes(bytearray(data)).to_dict()
            assert native == codec.from_bytes(memoryview(data)).to_dict()
            assert native == StructView.to_dict(view)
            # What a view gives is a value to write, and so is itself.
            for again in (native, view):
                with module.from_bytes(codec.to_bytes(again)) as reader:
                    assert theirs(reader) == expected

    check()


@settings(max_examples=40, deadline=None)
@given(DEEPS, st.data())
def test_a_message_that_is_cut_or_changed_is_read_or_refused_alike(
    values: dict[str, Any], data: st.DataObject
) -> None:
    whole = bytearray(DEEP.to_bytes(values))
    for _ in range(20):
        frame = bytearray(whole)
        at = data.draw(st.integers(16, len(whole) - 1))
        frame[at] ^= 1 << data.draw(st.integers(0, 7))
        readings = []
        for buffer, read in ((bytes(frame), DEEP.view.to_dict), (frame, StructView.to_dict)):
            try:
                readings.append(read(DEEP.from_bytes(buffer)))
            except MalformedMessage:
                readings.append("refused")
        assert repr(readings[0]) == repr(readings[1])
        assert isinstance(repr(DEEP.from_bytes(frame)), str)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(MalformedMessage):
        DEEP.from_bytes(bytes(whole[:cut]))


@pytest.mark.parametrize(
    "values", [{}, {"flag": True}, {"small": 5}, {"nothing": None}, {"flag": True, "small": -3}]
)
def test_an_older_struct_reads_as_pycapnp_reads_it(values: dict[str, Any]) -> None:
    old = compile_struct(SCHEMA.DeepOld.schema)
    for data in (SCHEMA.DeepOld.new_message(**values).to_bytes(), old.to_bytes(values)):
        with SCHEMA.Deep.from_bytes(data) as reader:
            assert ours(DEEP.from_bytes(data)) == theirs(reader)
        assert DEEP.from_bytes(data).always.more.word == 5
    for later in ({"large": 5}, {"pair": {"deeper": {"blob": b"b"}}}):
        newer = old.from_bytes(DEEP.to_bytes({**later, "flag": True}))
        assert newer.to_dict() == {"flag": True}
        with pytest.raises(MalformedMessage, match="of the union of DeepOld, which this schema"):
            newer.which()
        with pytest.raises(InactiveMember, match="one that this schema does not know"):
            _ = newer.small


# The second 16 bits are the number of a union's member, the first pointer is a text.
ELEMENTS: dict[str, Any] = {
    "Bytes": 200,
    "Shorts": 200,
    "Longs": 0x10007,
    "Texts": "t",
    "Numbered": {"value": 5},
    "Named": {"name": "n"},
    "Wide": {"value": 7, "on": True, "name": "w"},
}


@pytest.mark.parametrize(("name", "element"), ELEMENTS.items())
def test_a_list_of_something_else_reads_as_structs_with_a_union(name: str, element: Any) -> None:
    data = getattr(LISTS, name).new_message(list=[element, element]).to_bytes()
    view = compile_struct(LISTS.Chosen.schema).from_bytes(data)
    with LISTS.Chosen.from_bytes(data) as reader:
        expected = theirs(reader)
    assert ours(view) == expected
    assert view.to_dict() == expected


def test_a_null_struct_has_the_defaults_of_groups_and_first_members() -> None:
    view = DEEP.read(None)
    assert (view.which(), view.kind.which(), view.always.more.word) == ("nothing", "plain", 5)
    # Tree's first member is a Tree: a null one is the end, as it has a null one, and so on.
    for tree in (NODE.read(None), NODE.from_bytes(NODE.to_bytes({"next": None}))):
        assert (tree.which(), tree.next.next.which()) == ("next", "next")
        assert tree.to_dict() == {"after": 0}
        assert repr(tree) == "<Tree after=0>"
    # Another member is told, though its struct is null.
    data = bytearray(DEEP.to_bytes({"nothing": None, "last": "l"}))
    number = DEEP.schema.fields["self"].proto.discriminantValue
    struct.pack_into("<H", data, 16 + 2 * DEEP.schema.node.struct.discriminantOffset, number)
    for buffer in (data, bytes(data)):
        chosen = DEEP.from_bytes(buffer).to_dict()
        assert (chosen["self"]["nothing"], chosen["self"]["last"]) == (None, "")
        assert DEEP.from_bytes(DEEP.to_bytes(chosen)).which() == "self"


def test_fields_of_groups_know_whether_they_are_set() -> None:
    view = DEEP.from_bytes(DEEP.to_bytes({"pair": {"deeper": {"blob": b""}}, "last": ""}))
    assert (view._has("pair"), view._has("name"), view._has("kind")) == (True, False, True)
    deeper = view.pair.deeper
    assert (view.pair._has("deeper"), view.pair._has("text"), deeper._has("blob")) == (
        True,
        False,
        True,
    )


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"small": 1, "name": "x"}, "Deep: small and name are in one union: give one of them"),
        (
            {"pair": {"text": "x", "deeper": {}, "none": None}},
            "Deep.pair: text and deeper and none are in one union: give one of them",
        ),
        ({"pair": {"deeper": {"bit": 1}}}, "Deep.pair.deeper.bit: expected a bool, not int"),
        ({"trees": [{}, {"leaf": 1, "next": {}}]}, "Deep.trees[1]: next and leaf are in one union"),
        ({"kind": {"plain": 5}}, "Deep.kind.plain: expected None for plain, not int"),
        ({"always": {"more": {"words": 5}}}, "Deep.always.more has no field 'words'"),
        ({"small": 128}, "Deep.small: "),
        ({"colour": "pink"}, "Deep.colour: 'pink' is not one of red, green, blue"),
        ({"nope": 5, "small": 1}, "Deep has no field 'nope'"),
        # As many names as there are fields in no union, and one member.
        (dict.fromkeys(("flag", "last", "kind", "nope", "small"), None), "Deep."),
    ],
)
def test_a_value_that_does_not_fit_is_named_by_its_place(values: Any, reason: str) -> None:
    with pytest.raises(EncodeError) as error:
        DEEP.pack(values)
    assert str(error.value).startswith(reason)


def test_none_chooses_a_void_member_and_no_other() -> None:
    def chosen(values: dict[str, Any]) -> str:
        name: str = DEEP.from_bytes(DEEP.to_bytes(values)).which()
        return name

    assert chosen({"name": None, "small": 5}) == "small"
    assert chosen({"name": None, "small": None}) == "nothing"
    assert chosen({"flag": True, "last": None, "kind": None, "always": None, "large": 0}) == "large"
    assert chosen({"flag": True, "last": None, "kind": None, "large": 0, "name": None}) == "large"


# --- defaults of pointers -----------------------------------------------------------------


def test_defaults_of_pointers_are_those_of_pycapnp() -> None:
    message = SCHEMA.Defaults.new_message()
    view = compile_struct(SCHEMA.Defaults.schema).from_bytes(message.to_bytes())
    for name in ("text", "empty", "data", "bytes", "bools", "colours", "texts", "grid", "trees"):
        assert ours(getattr(view, name)) == theirs(message.as_reader()._get(name)), name
    assert ours(view.tree) == theirs(message.as_reader().tree)
    assert ours(view.group.self) == theirs(message.as_reader().group._get("self"))
    # As other structs that are not set; the lists are there.
    assert "tree" not in view.to_dict()
    assert view.to_dict()["trees"][1] == {"after": 0, "next": {"after": 0, "leaf": 2}}
    assert view.data.readonly


def test_a_default_of_a_pointer_that_an_older_struct_lacks() -> None:
    # A struct of one word, and behind it what is none of its pointers.
    data = struct.pack("<IIQQQ", 0, 3, 1 << 32, 7, 1 | 2 << 32 | 8 << 35)
    view = compile_struct(SCHEMA.Defaults.schema).from_bytes(data)
    assert (view.text, view.texts[1], view.group.floats[0]) == ("text", "b", 0.5)


# --- AnyPointers and capabilities ---------------------------------------------------------

LOOSE = compile_struct(SCHEMA.Loose.schema)
TREES = {"next": {"leaf": 7, "after": 1}, "after": 2}


def any_values() -> Iterator[tuple[Any, str]]:
    tree = SCHEMA.Tree.new_message()
    tree.from_dict(TREES)
    deep = {"pair": {"text": "t"}, "always": {"more": {"text": "x" * 99}}}
    yield "text", "text"
    yield b"data\0", "data"
    yield memoryview(b"12345678"), "data"
    yield NODE.from_bytes(NODE.to_bytes(TREES)), "Tree"
    yield tree, "Tree"
    yield tree.as_reader(), "Tree"
    yield DEEP.from_bytes(DEEP.to_bytes({**deep, "last": "x"})), "Deep"
    yield (
        DEEP.from_bytes(SCHEMA.Deep.new_message(1, trees=[TREES, {}], last="y").to_bytes()),
        "Deep",
    )
    defaults = {"grid": [[1], [2]], "bools": [True] * 9, "voids": [None] * 3, "texts": ["a", ""]}
    kept = compile_struct(SCHEMA.Defaults.schema)
    yield kept.from_bytes(kept.to_bytes(defaults)), "Defaults"


@pytest.mark.parametrize(("value", "kind"), [*any_values()])
@pytest.mark.parametrize("path", ["any", "group any", "group member"])
def test_an_any_pointer_holds_texts_data_and_structs(value: Any, kind: str, path: str) -> None:
    def written(value: Any) -> bytes:
        for name in reversed(path.split()):
            value = {name: value}
        return LOOSE.to_bytes({**value, "voids": [None]})

    def reached(found: Any) -> Any:
        for name in path.split():
            found = getattr(found, name)
        return found

    found = reached(LOOSE.from_bytes(written(value)))
    for any_pointer in (found, reached(LOOSE.from_bytes(written(found)))):
        if kind in {"text", "data"}:
            read = any_pointer.as_text if kind == "text" else any_pointer.as_data
            assert read() == value
        else:
            view = any_pointer.as_struct(getattr(SCHEMA, kind))
            reader = value.as_reader() if hasattr(value, "as_reader") else value
            expected = ours(value) if isinstance(value, StructView) else theirs(reader)
            assert ours(view) == expected
            with SCHEMA.Loose.from_bytes(written(found)) as reader:
                read = reached(reader).as_struct(getattr(SCHEMA, kind).schema)
                assert theirs(read) == expected


NUMBERS = capnp._ListSchema(capnp.types.Int32)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (SCHEMA.Tree, TREES),
        (NUMBERS, [1, -2]),
        (capnp._ListSchema(NUMBERS), [[1], []]),
        (capnp._ListSchema(capnp.types.Bool), [True, False]),
        (capnp._ListSchema(capnp.types.Text), ["a", ""]),
        (capnp._ListSchema(SCHEMA.Tree.schema), [TREES, {"leaf": 1, "after": 0}]),
    ],
)
def test_an_any_pointer_holds_a_struct_or_a_list_of_a_type(schema: Any, value: Any) -> None:
    data = LOOSE.to_bytes({"any": AnyValue(schema, value), "voids": [None]})
    with SCHEMA.Loose.from_bytes(data) as reader:
        assert len(reader.voids) == 1
        if schema is SCHEMA.Tree:
            assert reader.any.as_struct(schema.schema).to_dict() == value
        else:
            assert theirs(reader.any.as_list(schema)) == value
    # It is copied as it stands.
    view = LOOSE.from_bytes(data)
    assert LOOSE.to_bytes({"any": view.any, "voids": [None]}) == data


def test_any_pointers_in_lists_and_unset_ones() -> None:
    codec = compile_struct(SCHEMA.Looses.schema)
    view = codec.from_bytes(codec.to_bytes({"list": [{"any": "a"}, {}, {"any": b"c"}]}))
    assert [item.any.as_text() for item in view.list[:2]] == ["a", ""]
    assert ["any" in item for item in view.to_dict()["list"]] == [True, False, True]
    null = view.list[1].any
    assert (bytes(null.as_data()), null.as_struct(SCHEMA.Tree).after) == (b"", 0)
    assert list(null.as_list(NUMBERS)) == []
    message = SCHEMA.Loose.new_message()
    message.any.init_as_list(NUMBERS, 2)[1] = -5
    assert list(LOOSE.from_bytes(message.to_bytes()).any.as_list(NUMBERS)) == [0, -5]
    with pytest.raises(MalformedMessage):
        view.list[0].any.as_struct(SCHEMA.Tree)
    assert LOOSE.read(None).any.as_text() == ""


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (7, r"Loose\.any: expected a text, data, a struct, a capability or an AnyValue, not int"),
        ([1], r"Loose\.any: expected .*, not list"),
        ({"leaf": 7}, r"Loose\.any: expected .*, not dict"),
        (object(), r"Loose\.any: expected None for a capability, not object"),
        (AnyValue(SCHEMA.Tree, {"leaf": "x"}), r"Loose\.any\.leaf: "),
        (AnyValue(SCHEMA.Tree, {"leaves": 1}), r"Loose\.any has no field 'leaves'"),
        (AnyValue(NUMBERS, [1 << 31]), r"Loose\.any: "),
    ],
)
def test_what_no_any_pointer_holds_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(EncodeError, match=reason):
        LOOSE.to_bytes({"any": value})


def test_c14_any_pointers_and_groups_expire_with_their_message() -> None:
    view = LOOSE.from_bytes(bytearray(LOOSE.to_bytes({"any": "text", "group": {"member": "m"}})))
    any_pointer, group, message = view.any, view.group, view._at[0]
    message.buffer = b""
    message.__class__ = ExpiredMessage
    accesses: list[Callable[[], Any]] = [
        any_pointer.as_text,
        lambda: any_pointer.as_struct(SCHEMA.Tree).after,
        lambda: LOOSE.pack({"any": any_pointer}),
        lambda: view.any,
        lambda: view.group,
        group.which,
        group.to_dict,
        lambda: group.member,
    ]
    for access in accesses:
        with pytest.raises(ViewExpired):
            access()


def test_a_number_that_became_a_struct_is_copied() -> None:
    numbers = compile_struct(LISTS.Numbered.schema)
    view = numbers.from_bytes(LISTS.Shorts.new_message(list=[5, 6]).to_bytes())
    copied = LOOSE.from_bytes(LOOSE.to_bytes({"any": view.list[1]})).any
    assert copied.as_struct(LISTS.Numbered.Number).value == 6


def test_a_message_by_itself_has_no_capabilities() -> None:
    view = LOOSE.from_bytes(LOOSE.to_bytes({"callback": None}))
    assert (view.callback, list(view.callbacks)) == (None, [])
    assert "callback" not in view.to_dict()
    with pytest.raises(EncodeError, match=r"Loose\.callback: expected None for a capability"):
        LOOSE.pack({"callback": object()})
    (slot,) = (field.slot for field in LOOSE.fields if field.name == "callback")
    assert slot is not None
    data = bytearray(LOOSE.to_bytes({}))
    struct.pack_into("<II", data, 16 + 8 * (LOOSE._data_words + slot), 3, 0)
    with pytest.raises(MalformedMessage, match="message has no capability 0 in its table"):
        _ = LOOSE.from_bytes(bytes(data)).callback


# --- parameters bound to any type ---------------------------------------------------------

BRANDS: dict[str, Any] = {
    "text": "t",
    "data": b"d\0",
    "tree": {"leaf": 5, "after": 1},
    "int8": [-128],
    "int16": [-(2**15)],
    "int32": [-(2**31)],
    "int64": [-(2**63)],
    "uint8": [255],
    "uint16": [2**16 - 1],
    "uint32": [2**32 - 1],
    "uint64": [2**64 - 1],
    "float32": [0.5],
    "float64": [1e300],
    "bool": [True, False],
    "void": [None],
    "texts": ["a"],
    "blobs": [b"\xff"],
    "trees": [{"leaf": 1, "after": 0}],
    "colours": ["blue"],
    "grid": [[0.5], [1.5]],
}


def as_lists(value: Any) -> Any:
    """Return a value with its bytes as lists: a list of UInt8 is read as bytes."""
    if isinstance(value, dict):
        return {name: as_lists(item) for name, item in value.items()}
    return [as_lists(item) for item in value] if isinstance(value, (list, bytes)) else value


@pytest.mark.parametrize("name", BRANDS)
def test_a_parameter_is_read_and_written_as_what_it_is_bound_to(name: str) -> None:
    value = BRANDS[name]
    codec = compile_struct(SCHEMA.Brands.schema)
    for inside in ({"inside": value}, {"list": [{"boxed": value}, {"boxed": value}]}):
        values = {name: {"value": value, "group": inside}}
        message = SCHEMA.Brands.new_message()
        message.from_dict(values)
        view = codec.from_bytes(message.to_bytes())
        assert as_lists(view.to_dict()) == as_lists(values)
        assert codec.to_bytes(values) == codec.to_bytes(view)
        with SCHEMA.Brands.from_bytes(codec.to_bytes(values)) as reader:
            assert reader.to_dict() == values


# --- a schema of somebody else's ----------------------------------------------------------


def test_schema_capnp_is_read_as_pycapnp_reads_it() -> None:
    """The compiler's own schema, whose nodes pycapnp has of every struct here."""
    nodes = [node_of(getattr(SCHEMA, name)) for name in ("Deep", "Defaults", "Brands", "Loose")]
    nodes += [node_of(SCHEMA.Loose.Callback)]
    codec = compile_struct(nodes[0].schema)
    for node in nodes:
        data = node.as_builder().to_bytes()
        view = codec.from_bytes(data)
        assert ours(view) == theirs(node)
        again = codec.from_bytes(codec.to_bytes(view))
        assert ours(again) == theirs(node)


def node_of(module: Any) -> Any:
    return module.schema.node

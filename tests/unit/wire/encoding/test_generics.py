"""Generic types: the codecs of `wire` against pycapnp, brand by brand, both ways."""

from pathlib import Path
from typing import Any

import capnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.structs import StructCodec, compile_struct
from capnp_rig.wire.errors import EncodeError
from capnp_rig.wire.rpc.interfaces import Interface, Method, compile_interface

SCHEMA = load_schema(Path(__file__).parents[3] / "data" / "generics.capnp")
BOXES = SCHEMA.Boxes.schema
CODEC = compile_struct(BOXES)
RAW = b"\x01\x02"
NO_TEXT = b"\xff\xfe\x00\x80"


def module(schema: Any) -> Any:
    return capnp._StructModule(schema, "generic")


def built(schema: Any, values: dict[str, Any]) -> bytes:
    """Return the message that pycapnp builds."""
    message = module(schema).new_message()
    message.from_dict(values)
    data: bytes = message.to_bytes()
    return data


def opened(schema: Any, data: bytes) -> dict[str, Any]:
    """Return what pycapnp reads from a message."""
    with module(schema).from_bytes(data) as reader:
        found: dict[str, Any] = reader.to_dict()
    return found


def check_both_ways(schema: Any, values: dict[str, Any]) -> None:
    """Write with one and read with the other; compare with what went in."""
    codec = compile_struct(schema)
    assert opened(schema, codec.to_bytes(values)) == values
    view = codec.from_bytes(built(schema, values))
    assert set_fields(view.to_dict()) == values
    # A view is a value to write, too.
    assert set_fields(opened(schema, codec.to_bytes(view))) == values


def set_fields(value: Any) -> Any:
    """Leave out what is empty: pycapnp leaves out a text that is not set, a view has ""."""
    if isinstance(value, dict):
        return {name: set_fields(item) for name, item in value.items() if item not in ("", b"", [])}
    return [set_fields(item) for item in value] if isinstance(value, list) else value


VALUES: dict[str, Any] = {
    "text": {"value": "abc", "label": "a"},
    "data": {"value": RAW, "label": "b"},
    "numbers": {"value": [1, -2, 3]},
    "nested": {"value": {"value": "inner", "label": "c"}},
    "nestedData": {"value": {"value": NO_TEXT}},
    "pair": {"first": "first", "second": NO_TEXT},
    "turned": {"first": NO_TEXT, "second": "second"},
    "list": [{"value": "x"}, {"value": "y", "label": "d"}],
    "dataList": [{"value": RAW}, {"value": NO_TEXT}],
    "grid": [[{"value": RAW}], [{"value": NO_TEXT, "label": "e"}]],
    "outer": {
        "inner": {"mine": RAW, "theirs": "t"},
        "plain": {"value": "p", "back": {"inner": {"mine": NO_TEXT, "theirs": "u"}}},
    },
    "outerData": {
        "inner": {"mine": RAW, "theirs": NO_TEXT},
        "plain": {"value": RAW, "back": {"plain": {"value": NO_TEXT}}},
    },
    "inner": {"mine": "m", "theirs": NO_TEXT},
    "either": {"right": NO_TEXT, "both": {"a": "a", "b": RAW}},
    "eitherData": {"left": NO_TEXT, "both": {"a": RAW, "b": "b"}},
    "boxed": {"value": [{"value": RAW}, {"value": NO_TEXT}]},
    "deep": {"value": RAW, "next": {"value": {"value": NO_TEXT}}},
    "same": {"value": "z"},
}


@pytest.mark.parametrize("name", VALUES)
def test_a_brand_alone_agrees_with_pycapnp(name: str) -> None:
    check_both_ways(BOXES, {name: VALUES[name]})


def test_all_brands_at_once_agree_with_pycapnp() -> None:
    check_both_ways(BOXES, VALUES)


@pytest.mark.parametrize("order", [("text", "data"), ("data", "text")])
def test_the_first_brand_that_is_compiled_does_not_win(order: tuple[str, str]) -> None:
    fields = {field.proto.name: field for field in BOXES.fields_list}
    for name in order:
        check_both_ways(fields[name].schema, VALUES[name])
    data = compile_struct(fields["data"].schema)
    assert opened(fields["data"].schema, data.to_bytes({"value": RAW})) == {"value": RAW}
    with pytest.raises(EncodeError, match=r"Box\.value"):
        compile_struct(fields["text"].schema).to_bytes({"value": NO_TEXT})


def test_a_brand_has_one_codec() -> None:
    fields = {field.proto.name: field for field in BOXES.fields_list}
    codecs = {name: compile_struct(fields[name].schema) for name in ("text", "data", "same")}
    assert codecs["text"] is codecs["same"]
    assert codecs["text"] is not codecs["data"]
    assert compile_struct(SCHEMA.Box.schema) is compile_struct(SCHEMA.Box.schema)


def test_attributes_of_a_brand_have_its_types() -> None:
    view = CODEC.from_bytes(built(BOXES, VALUES))
    assert view.text.value == "abc"
    # Read where it lies, as any Data.
    assert isinstance(view.data.value, memoryview)
    assert bytes(view.data.value) == RAW
    assert list(view.numbers.value) == [1, -2, 3]
    assert view.nested.value.value == "inner"
    assert bytes(view.nestedData.value.value) == NO_TEXT
    assert [bytes(box.value) for box in view.dataList] == [RAW, NO_TEXT]
    assert [box.value for box in view.list] == ["x", "y"]
    assert bytes(view.outer.inner.mine) == RAW
    assert view.outer.inner.theirs == "t"
    assert bytes(view.outerData.plain.back.plain.value) == NO_TEXT
    assert bytes(view.either.both.b) == RAW


def test_types_without_end_compile() -> None:
    # Each level of `Deep` is another type.
    codec = compile_struct(SCHEMA.DeepText.schema).compile()
    boxed: list[Any] = ["end"]
    for _ in range(20):
        boxed.append({"value": boxed[-1]})
    values: dict[str, Any] = {}
    for value in reversed(boxed):
        values = {"value": value, **({"next": values} if values else {})}
    check_both_ways(SCHEMA.DeepText.schema, {"deep": values})
    assert codec is compile_struct(SCHEMA.DeepText.schema)


def test_an_unbound_parameter_is_an_any_pointer() -> None:
    message = SCHEMA.Loose.new_message()
    message.init("unbound").value.set_as_text("abc")
    message.init("any").label = "l"
    view = compile_struct(SCHEMA.Loose.schema).from_bytes(message.to_bytes())
    assert view.unbound.value.as_text() == "abc"
    assert view.any.label == "l"
    codec = compile_struct(SCHEMA.Box.schema)
    assert opened(SCHEMA.Box.schema, codec.to_bytes({"label": "x"})) == {"label": "x"}


# --- interfaces ---------------------------------------------------------------------------


def declared(schema: Any, method: Method) -> Any:
    """Return pycapnp's schema of a method, which may be inherited."""
    if schema.node.id == method.interface_id:
        return schema.methods[method.name]
    found = (declared(superclass, method) for superclass in schema.superclasses)
    return next(filter(None, found), None)


CALLS = {
    ("TextStore", "get"): ({"key": "k"}, {"value": NO_TEXT}),
    ("DataStore", "get"): ({"key": NO_TEXT}, {"value": "v"}),
    ("DeepStore", "get"): ({"key": NO_TEXT}, {"value": {"value": RAW}}),
    ("TextStore", "turn"): ({"first": "f", "second": RAW}, {"first": NO_TEXT, "second": "s"}),
    ("DataStore", "turn"): ({"first": NO_TEXT, "second": "s"}, {"first": "f", "second": RAW}),
    ("DeepStore", "turn"): (
        {"first": NO_TEXT, "second": {"value": RAW}},
        {"first": {"value": NO_TEXT}, "second": RAW},
    ),
    ("TextStore", "keep"): ({"thing": {"label": "l"}, "key": "k"}, {"thing": {"label": "m"}}),
    ("DataStore", "keep"): ({"thing": {"label": "l"}, "key": NO_TEXT}, {"thing": {"label": "m"}}),
    ("TextStore", "all"): ({}, {"pairs": [{"first": "f", "second": NO_TEXT}]}),
    ("DataStore", "all"): ({}, {"pairs": [{"first": NO_TEXT, "second": "s"}]}),
    ("DeepStore", "all"): ({}, {"pairs": [{"first": RAW, "second": {"value": NO_TEXT}}]}),
    ("TextStore", "own"): ({"box": {"value": "t"}}, {"box": {"value": NO_TEXT}}),
    ("DataStore", "own"): ({"box": {"value": NO_TEXT}}, {"box": {"value": "t"}}),
}


@pytest.mark.parametrize(("interface", "method"), CALLS)
def test_a_method_of_a_branded_interface_agrees_with_pycapnp(interface: str, method: str) -> None:
    found = getattr(SCHEMA, interface)
    compiled: Interface = compile_interface(found)
    call = compiled.methods[method]
    schema = declared(found.schema, call)
    sides: list[tuple[StructCodec, Any]] = [
        (call.params, schema.param_type),
        (call.results, schema.result_type),
    ]
    for (codec, type_), values in zip(sides, CALLS[interface, method], strict=True):
        assert codec is compile_struct(type_)
        check_both_ways(type_, values)


def test_inherited_methods_keep_the_id_of_the_generic_interface() -> None:
    ids = {
        compile_interface(getattr(SCHEMA, name)).methods["get"].interface_id
        for name in ("Store", "TextStore", "DataStore", "Middle", "DeepStore")
    }
    assert ids == {SCHEMA.Store.schema.node.id}


def test_an_implicit_parameter_is_an_any_pointer() -> None:
    method = compile_interface(SCHEMA.TextStore).methods["keep"]
    schema = declared(SCHEMA.TextStore.schema, method)
    message = module(schema.param_type).new_message()
    message.init("thing").value.set_as_text("abc")
    message.key = "k"
    view = method.params.from_bytes(message.to_bytes())
    assert view.thing.value.as_text() == "abc"
    assert view.key == "k"


# --- any values ---------------------------------------------------------------------------

# What is empty reads as what is not set.
TEXTS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=20)
DATA = st.binary(min_size=1, max_size=20)
Values = st.SearchStrategy[dict[str, Any]]


def some(**fields: st.SearchStrategy[Any]) -> Values:
    return st.fixed_dictionaries({}, optional=fields)


def box(value: st.SearchStrategy[Any]) -> Values:
    return some(value=value, label=TEXTS)


def few(value: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(value, min_size=1, max_size=3)


def outer(value: st.SearchStrategy[Any]) -> Values:
    def one(back: Values) -> Values:
        return some(inner=some(mine=DATA, theirs=value), plain=some(value=value, back=back))

    return one(one(st.just({})))


def either(a: st.SearchStrategy[Any], b: st.SearchStrategy[Any]) -> Values:
    # A union always has an active member, a group is always there.
    both = st.fixed_dictionaries({"both": some(a=a, b=b)})
    member = st.one_of(
        st.fixed_dictionaries({"left": a}),
        st.fixed_dictionaries({"right": b}),
        st.just({"neither": None}),
    )
    return st.builds(lambda one, other: {**one, **other}, member, both)


ANY_BOXES = some(
    text=box(TEXTS),
    data=box(DATA),
    numbers=box(few(st.integers(-(2**31), 2**31 - 1))),
    nested=box(box(TEXTS)),
    nestedData=box(box(DATA)),
    pair=some(first=TEXTS, second=DATA),
    turned=some(first=DATA, second=TEXTS),
    list=few(box(TEXTS)),
    dataList=few(box(DATA)),
    grid=few(few(box(DATA))),
    outer=outer(TEXTS),
    outerData=outer(DATA),
    inner=some(mine=TEXTS, theirs=DATA),
    either=either(TEXTS, DATA),
    eitherData=either(DATA, TEXTS),
    boxed=box(few(box(DATA))),
    deep=some(value=DATA, next=some(value=box(DATA), next=some(value=box(box(DATA))))),
)


@settings(max_examples=60, deadline=None)
@given(ANY_BOXES)
def test_any_values_of_generic_types_agree_with_pycapnp(values: dict[str, Any]) -> None:
    check_both_ways(BOXES, values)

"""What JSON a struct takes; the types in full are in loadtest/workload/test_templated_params.py."""

from pathlib import Path
from typing import Any

import pytest

from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.structs import compile_struct
from capnp_rig.wire.json_values.reading import ParamsError, StructReader, parse_object

DATA = Path(__file__).parents[3] / "data"
LOOSE = load_schema(DATA / "unions.capnp").Loose.schema
GENERICS = load_schema(DATA / "generics.capnp")


def read(text: str, schema: Any = LOOSE) -> dict[str, Any]:
    item = parse_object(text, "params", "params")
    return StructReader(item.place).struct(schema, item.fields, "the params")


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("text", '{"value": "abc", "label": "a"}', {"value": "abc", "label": "a"}),
        ("data", '{"value": "/wAB"}', {"value": b"\xff\0\1"}),
        ("data", '{"value": [255]}', {"value": b"\xff"}),
        ("numbers", '{"value": [1, -2]}', {"value": [1, -2]}),
        ("nestedData", '{"value": {"value": "/w=="}}', {"value": {"value": b"\xff"}}),
        ("pair", '{"first": "f", "second": "/w=="}', {"first": "f", "second": b"\xff"}),
        ("dataList", '[{"value": "/w=="}, {}]', [{"value": b"\xff"}, {}]),
        ("grid", '[[{"value": "/w=="}], []]', [[{"value": b"\xff"}], []]),
        ("inner", '{"mine": "m", "theirs": "/w=="}', {"mine": "m", "theirs": b"\xff"}),
        ("eitherData", '{"left": "/w=="}', {"left": b"\xff", "both": {}}),
        ("boxed", '{"value": [{"value": "/w=="}]}', {"value": [{"value": b"\xff"}]}),
        (
            "deep",
            '{"next": {"value": {"value": "/w=="}}}',
            {"next": {"value": {"value": b"\xff"}}},
        ),
    ],
)
def test_parameters_take_the_json_of_what_they_are_bound_to(
    field: str, text: str, value: object
) -> None:
    fields = read(f'{{"{field}": {text}}}', GENERICS.Boxes.schema)
    data = compile_struct(GENERICS.Boxes.schema).to_bytes(fields)
    with GENERICS.Boxes.from_bytes(data) as reader:
        assert reader.to_dict() == {field: value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"data": {"value": "x"}}', "params: data.value: the string is no base64"),
        ('{"text": {"value": 1}}', "params: text.value: expected a string, not a number"),
        ('{"numbers": {"value": [1, 2147483648]}}', "params: numbers.value[1]: 2147483648 is out"),
        ('{"pair": {"third": 1}}', "params: pair: no field 'third' in Pair: it has first, second"),
        (
            '{"either": {"left": "a", "right": ""}}',
            "params: either: left and right are in one union: give one of them",
        ),
    ],
)
def test_what_is_no_json_of_a_bound_type_is_refused(text: str, message: str) -> None:
    with pytest.raises(ParamsError) as caught:
        read(text, GENERICS.Boxes.schema)
    assert str(caught.value).startswith(message)


def test_a_parameter_that_is_not_bound_has_no_json() -> None:
    with pytest.raises(ParamsError, match=r"params: unbound\.value: an AnyPointer cannot be given"):
        read('{"unbound": {"value": "x"}}', GENERICS.Loose.schema)


def test_null_is_a_capability_or_an_any_pointer_that_is_not_there() -> None:
    fields = read('{"any": null, "callback": null, "callbacks": [null]}')
    codec = compile_struct(LOOSE)
    view = codec.from_bytes(codec.to_bytes(fields))
    assert (view.any.is_null, view.callback, len(view.callbacks)) == (True, None, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"any": "x"}', "params: any: an AnyPointer cannot be given as JSON: leave it out"),
        (
            '{"callback": {}}',
            "params: callback: a capability cannot be given as JSON: leave it out",
        ),
        ('{"callbacks": [null, 1]}', "params: callbacks[1]: a capability cannot be given as JSON"),
        (
            '{"group": {"member": null}}',
            "params: group.member: an AnyPointer in a union cannot be given as JSON: leave it out",
        ),
        ('{"voids": [0]}', "params: voids[0]: expected null, not a number"),
    ],
)
def test_what_is_no_json_of_a_type_is_refused(text: str, message: str) -> None:
    with pytest.raises(ParamsError) as caught:
        read(text)
    assert str(caught.value).startswith(message)

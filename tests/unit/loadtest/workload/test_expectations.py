from pathlib import Path
from typing import Any

import pytest

from capnp_rig.loadtest.workload.expectations import Expectation, compile_expectation
from capnp_rig.loadtest.workload.templated_params import read_struct
from capnp_rig.loadtest.workload.templates import Values
from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.structs import compile_struct
from capnp_rig.wire.errors import MalformedMessage
from capnp_rig.wire.json_values.reading import ParamsError, read_items

DATA = Path(__file__).parents[3] / "data"
SCHEMA = load_schema(DATA / "workload.capnp")
KINDS = load_schema(DATA / "kinds.capnp").Kinds.schema
SHAPE = SCHEMA.Shape.schema
MEASURED = SCHEMA.Measured.schema.methods["measure"].result_type
VALUES: Values = (300, 3, "aaaa-b", 1_700_000_000_000_000_001)


def expectation(schema: Any, text: str) -> Expectation:
    (item,) = read_items(text, "expect")
    return compile_expectation(read_struct(item, schema, "the results"))


def view(schema: Any, fields: dict[str, Any]) -> Any:
    codec = compile_struct(schema)
    return codec.from_bytes(codec.to_bytes(fields))


FULL = {
    "flag": True,
    "i8": -128,
    "u64": 2**64 - 1,
    "f32": 0.1,
    "f64": 0.1,
    "colour": "green",
    "text": "Grüße",
    "data": b"\0\1\xff",
    "ints": [1, 2],
    "floats": [0.1, 2.5],
    "inner": {"number": 9, "name": "in"},
}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("{}", None),
        ('{"flag": true, "i8": -128, "u64": 18446744073709551615, "nothing": null}', None),
        ('{"flag": false}', "flag"),
        ('{"i8": -127}', "i8"),
        ('{"u64": 18446744073709551614}', "u64"),
        ('{"u64": "18446744073709551615"}', None),
        ('{"u64": "18446744073709551614"}', "u64"),
        # The nearest Float32 of 0.1 is another number than its Float64.
        ('{"f32": 0.1, "f64": 0.1, "floats": [0.1, 2.5]}', None),
        ('{"f64": 0.10000000149011612}', "f64"),
        ('{"colour": "green", "text": "Gr\\u00fc\\u00dfe", "data": "AAH/"}', None),
        ('{"colour": "blue"}', "colour"),
        ('{"text": "Gr"}', "text"),
        ('{"data": [0, 1]}', "data"),
        ('{"data": [0, 1, 255]}', None),
        ('{"ints": [1, 2]}', None),
        ('{"ints": [1]}', "ints"),
        ('{"ints": []}', "ints"),
        ('{"ints": [1, 3]}', "ints[1]"),
        ('{"inner": {"number": 9}}', None),
        ('{"inner": {"number": 9, "name": ""}}', "inner.name"),
        # What the sender left out has its default.
        ('{"flagOn": true, "again": {"inner": {"number": 0}}, "colour": "green"}', None),
        ('{"again": {"inner": {"number": 1}}}', "again.inner.number"),
        ('{"text": "{{i}}"}', "text"),
    ],
)
def test_fields_of_views_are_compared(text: str, wrong: str | None) -> None:
    fault = expectation(KINDS, text)(VALUES, view(KINDS, FULL))
    assert fault == (None if wrong is None else f"wrong reply: field {wrong}")


@pytest.mark.parametrize(
    ("fields", "text", "wrong"),
    [
        ({"label": "a"}, '{"label": "a", "counter": 0, "unit": "metre"}', None),
        ({"label": "a"}, '{"label": "b"}', "label"),
        ({"label": "a"}, '{"corners": []}', "corners"),
        ({"label": "a"}, '{"nothing": null}', "nothing"),
        ({"unit": "foot"}, '{"unit": "metre"}', "unit"),
        ({"corners": [{"x": 1}, {"z": 2}]}, '{"corners": [{"x": 1}, {"z": 2}]}', None),
        ({"corners": [{"x": 1}, {"z": 2}]}, '{"corners": [{"x": 1}, {"z": 3}]}', "corners[1].z"),
        ({"corners": [{"x": 1}]}, '{"corners": [{"x": 1}, {}]}', "corners"),
        ({"box": {"low": {"x": 4}}}, '{"box": {"low": {"x": 4}}}', None),
        ({"box": {"low": {"x": 4}}}, '{"box": {"high": {"x": 4}}}', "box.high.x"),
        ({"scale": {"factor": 2.5}}, '{"scale": {"factor": 2.5}}', None),
        ({"scale": {"factor": 2.5}}, '{"scale": {"none": null}}', "scale.none"),
        ({}, '{"scale": {"none": null}}', None),
        ({"tags": ["a", "é"]}, '{"tags": ["a", "é"]}', None),
        ({"tags": ["a", "é"]}, '{"tags": ["a", "e"]}', "tags[1]"),
        ({"blobs": [b"\0\1"]}, '{"blobs": ["AAE="]}', None),
        ({"blobs": [b"\0\1"]}, '{"blobs": [[1]]}', "blobs[0]"),
        ({"grid": [[1], []]}, '{"grid": [[1], []]}', None),
        ({"grid": [[1], []]}, '{"grid": [[1], [1]]}', "grid[1]"),
        ({"voids": [None]}, '{"voids": [null]}', None),
        ({"voids": [None]}, '{"voids": []}', "voids"),
        ({}, '{"any": null}', None),
        ({"any": "set"}, '{"any": null}', "any"),
        ({"next": {"label": "a"}}, '{"next": {"label": "a"}}', None),
        ({"next": {"label": "a"}}, '{"next": {"radius": 0}}', "next.radius"),
        (
            {"tags": ["300", "3"], "counter": 44},
            '{"tags": ["{{i}}", "{{user}}"], "counter": "{{i}}"}',
            None,
        ),
        ({"tags": ["3"]}, '{"tags": ["{{i}}"]}', "tags[0]"),
        ({"blobs": [b"aaaa-b"]}, '{"blobs": ["{{uuid}}"]}', None),
    ],
)
def test_fields_that_pycapnp_reads_are_compared(
    fields: dict[str, Any], text: str, wrong: str | None
) -> None:
    for schema, nested, prefix in (
        (SHAPE, fields, ""),
        (MEASURED, {"shape": fields}, "shape."),
    ):
        given = text if not prefix else f'{{"shape": {text}}}'
        fault = expectation(schema, given)(VALUES, view(schema, nested))
        assert fault == (None if wrong is None else f"wrong reply: field {prefix}{wrong}")


def with_discriminant(number: int) -> Any:
    codec = compile_struct(SHAPE)
    data = bytearray(codec.to_bytes({"label": "a"}))
    at = 16 + 2 * SHAPE.node.struct.discriminantOffset
    data[at : at + 2] = number.to_bytes(2, "little")
    return codec.from_bytes(bytes(data))


def test_a_member_that_a_newer_schema_added_is_wrong() -> None:
    assert with_discriminant(1).which() == "nothing"
    fault = expectation(SHAPE, '{"label": "a"}')(VALUES, with_discriminant(99))
    assert fault == "wrong reply: field label"


def test_a_reply_that_cannot_be_read_is_malformed() -> None:
    codec = compile_struct(SHAPE)
    data = codec.to_bytes({"tags": ["good", "evil"]}).replace(b"evil", b"\xff\xff\xff\xff")
    with pytest.raises(MalformedMessage, match="not UTF-8"):
        expectation(SHAPE, '{"tags": ["good", "evil"]}')(VALUES, codec.from_bytes(data))
    expect = expectation(SHAPE, '{"unit": "foot"}')
    data = bytearray(codec.to_bytes({"unit": "foot"}))
    # Only in the data section: no pointer is set.
    data[data.index(1, 16)] = 77
    assert expect(VALUES, codec.from_bytes(bytes(data))) == "wrong reply: field unit"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"f64": "NaN"}', "expect: f64: NaN equals nothing, itself included: leave it out"),
        (
            '{"again": {"floats": [1, "NaN"]}}',
            "expect: again.floats[1]: NaN equals nothing, itself included: leave it out",
        ),
        ('{"u8": -1}', "expect: u8: -1 is out of range for UInt8 (0 to 255)"),
    ],
)
def test_what_cannot_be_expected_is_refused(text: str, said: str) -> None:
    with pytest.raises(ParamsError) as error:
        expectation(KINDS, text)
    assert str(error.value) == said

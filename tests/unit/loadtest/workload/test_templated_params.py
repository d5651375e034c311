import json
import math
from pathlib import Path
from typing import Any

import pytest

from capnp_rig.loadtest.workload.templated_params import (
    Params,
    Slot,
    Struct,
    read_struct,
)
from capnp_rig.loadtest.workload.templates import WIDEST, Values
from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.structs import StructCodec, compile_struct
from capnp_rig.wire.json_values.reading import ParamsError, read_items

DATA = Path(__file__).parents[3] / "data"
SCHEMA = load_schema(DATA / "workload.capnp")
SHAPE = SCHEMA.Shape.schema
MOVE = SCHEMA.Geometry.schema.methods["move"].param_type
KINDS = load_schema(DATA / "kinds.capnp").Kinds.schema
VALUES: Values = (300, 3, "aaaa-b", 1_700_000_000_000_000_001)


def read(schema: Any, text: str) -> Struct:
    (item,) = read_items(text, "params")
    return read_struct(item, schema, "the params of move")


def packed(schema: Any, text: str, values: Values = VALUES) -> Any:
    """Return what the codec reads of what `Params` packs."""
    codec: StructCodec = compile_struct(schema)
    params = Params(codec, read(schema, text))
    sizes, parts, words = params.pack(values)
    body = b"".join(parts)
    assert len(body) == 8 * words
    head = (0, words + 1, 0 if sizes else 0xFFFFFFFC, sizes)
    return codec.from_bytes(b"".join(n.to_bytes(4, "little") for n in head) + body)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("{}", {}),
        ('{"by": -128}', {"by": -128}),
        ('{"far": 9007199254740993}', {"far": 2**53 + 1}),
        ('{"far": -9223372036854775808}', {"far": -(2**63)}),
        ('{"far": "-9223372036854775808"}', {"far": -(2**63)}),
        ('{"far": "-5"}', {"far": -5}),
        ('{"far": "0042"}', {"far": 42}),
        ('{"name": "Gr\\u00fc\\u00dfe \\ud83e\\udd80\\u0000"}', {"name": "Grüße 🦀\0"}),
        ('{"raw": "AAH/"}', {"raw": b"\0\1\xff"}),
        ('{"raw": [0, 1, 255]}', {"raw": b"\0\1\xff"}),
        ('{"raw": ""}', {"raw": b""}),
        ('{"ratio": 3}', {"ratio": 3.0}),
        ('{"ratio": -0.1}', {"ratio": -0.1}),
        ('{"ratio": "-Infinity"}', {"ratio": -math.inf}),
        ('{"ratios": [0.1, "Infinity"]}', {"ratios": [0.10000000149011612, math.inf]}),
        ('{"flag": true, "unit": "foot"}', {"flag": True, "unit": "foot"}),
        ('{"point": {"z": 5, "x": -1}}', {"point": {"z": 5, "x": -1}}),
        ('{"name": "{{{{ }} \\u007b\\u007b{{i}}"}', {"name": "{{ }} {{i}}"}),
    ],
)
def test_fields_are_what_the_codec_takes(text: str, fields: dict[str, Any]) -> None:
    found = read(MOVE, text)
    assert found.fields == fields
    assert found.names == frozenset()
    Params(compile_struct(MOVE), found)


def test_every_kind_of_field_arrives() -> None:
    text = """{
        "flag": true, "flagOn": false, "i8": -128, "i16": 32767, "i32": -2147483648,
        "i64": 9223372036854775807, "u8": 0, "u16": 65535, "u32": 7, "u64": 18446744073709551615,
        "f32": -2.5, "f64": 1e300, "colour": "green", "nothing": null, "text": "Gr\u00fc\u00dfe",
        "data": [1, 2], "bytes": [1, 255], "shorts": [-1], "ints": [4294967295],
        "longs": [-9223372036854775808, 5], "floats": [0.5], "doubles": [1e-300],
        "inner": {"number": 9, "name": "in"}, "again": {"inner": {"number": 3}}
    }"""
    given = json.loads(text)
    found = packed(KINDS, text).to_dict()
    for name in given.keys() - {"data", "bytes", "again"}:
        assert found[name] == given[name], name
    assert (found["data"], found["bytes"]) == (b"\1\2", b"\1\xff")
    assert found["again"]["inner"]["number"] == 3


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ('{"radius": 1.5}', {"radius": 1.5}),
        ('{"nothing": null}', {"nothing": None}),
        ('{"nothing": null, "counter": 5}', {"nothing": None, "counter": 5}),
        ('{"corners": [{"x": 1}, {}]}', {"corners": [{"x": 1, "z": 0}, {"x": 0, "z": 0}]}),
        ('{"corners": []}', {"corners": []}),
        ('{"box": {"high": {"z": 2}}}', {"box": {"high": {"x": 0, "z": 2}}}),
        ('{"label": "a"}', {"label": "a"}),
        ('{"tags": ["a", "é"]}', {"radius": 0.0, "tags": ["a", "é"]}),
        ('{"blobs": ["AAH/", [7]]}', {"radius": 0.0, "blobs": [b"\0\1\xff", b"\7"]}),
        ('{"grid": [[1], [], [-9]]}', {"radius": 0.0, "grid": [[1], [], [-9]]}),
        ('{"voids": [null, null]}', {"radius": 0.0, "voids": [None, None]}),
        ('{"scale": {"factor": 2}}', {"radius": 0.0, "scale": {"factor": 2.0}}),
        ('{"scale": {"none": null}}', {"radius": 0.0, "scale": {"none": None}}),
        ('{"next": {"nothing": null}}', {"radius": 0.0, "next": {"nothing": None}}),
    ],
)
def test_unions_groups_and_lists_arrive(text: str, fields: dict[str, Any]) -> None:
    defaults = {"unit": "metre", "counter": 0, "scale": {"none": None}}
    defaults |= {"tags": [], "blobs": [], "grid": [], "voids": []}
    found = packed(SHAPE, text).to_dict()
    if "next" in found:
        found["next"] = {name: found["next"][name] for name in found["next"].keys() - defaults}
    assert found == defaults | fields


@pytest.mark.parametrize(
    ("schema", "text", "said"),
    [
        (MOVE, "5", "expected an object with the fields of the params of move, not a number"),
        (MOVE, "[]", "expected an object with the fields of the params of move, not a list"),
        (
            *(MOVE, '{"x": 1}'),
            (
                "no field 'x' in the params of move: it has "
                "point, by, far, name, raw, ratio, ratios, flag, unit"
            ),
        ),
        (MOVE, '{"point": {"y": 1}}', "point: no field 'y' in Point: it has x, z"),
        (MOVE, '{"by": 1, "by": 2}', "the field 'by' is there twice"),
        (MOVE, '{"point": {"x": 1, "x": 1}}', "point: the field 'x' is there twice"),
        (MOVE, '{"by": 128}', "by: 128 is out of range for Int8 (-128 to 127)"),
        (KINDS, '{"u16": 70000}', "u16: 70000 is out of range for UInt16 (0 to 65535)"),
        (KINDS, '{"u16": -1}', "u16: -1 is out of range for UInt16 (0 to 65535)"),
        (KINDS, '{"ints": [1, -1]}', "ints[1]: -1 is out of range for UInt32 (0 to 4294967295)"),
        (
            *(KINDS, f'{{"u8": 1{"0" * 50}}}'),
            f"u8: 1{'0' * 39}... is out of range for UInt8 (0 to 255)",
        ),
        (MOVE, '{"by": 1.0}', "by: expected a whole number for Int8, not a number with a fraction"),
        (MOVE, '{"by": true}', "by: expected a whole number for Int8, not true or false"),
        (MOVE, '{"by": "1"}', "by: expected a whole number for Int8, not a string"),
        (
            *(MOVE, '{"by": null}'),
            "by: expected a whole number for Int8, not null: leave it out for its default",
        ),
        (
            *(MOVE, '{"far": "9223372036854775808"}'),
            (
                "far: 9223372036854775808 is out of range for Int64 "
                "(-9223372036854775808 to 9223372036854775807)"
            ),
        ),
        (
            *(KINDS, '{"u64": "-5"}'),
            "u64: -5 is out of range for UInt64 (0 to 18446744073709551615)",
        ),
        *(
            (
                *(MOVE, f'{{"far": "{text}"}}'),
                f'far: expected a whole number for Int64, or a string of its digits, not "{text}"',
            )
            for text in ("", "-", "+5", " 5", "5.0", "1e3", "0x10", "1_000")
        ),
        (
            *(MOVE, '{"far": "\u0665"}'),
            ('far: expected a whole number for Int64, or a string of its digits, not "\\u0665"'),
        ),
        (MOVE, f'{{"far": "{"9" * 5000}"}}', "far: a number is too long"),
        (MOVE, '{"name": 1}', "name: expected a string, not a number"),
        (
            MOVE,
            '{"name": "\\ud800"}',
            "name: the text is not valid Unicode: surrogates not allowed",
        ),
        (
            *(MOVE, '{"raw": "\\ud800{{i}}"}'),
            "raw: the text is not valid Unicode: surrogates not allowed",
        ),
        (MOVE, '{"raw": "AAH"}', "raw: the string is no base64"),
        (MOVE, '{"raw": "é"}', "raw: the string is no base64"),
        (
            *(MOVE, '{"raw": 5}'),
            "raw: expected a string of base64 or a list of byte values, not a number",
        ),
        (MOVE, '{"raw": [5, 256]}', "raw[1]: 256 is out of range for UInt8 (0 to 255)"),
        (
            *(MOVE, '{"ratio": "1"}'),
            'ratio: expected a number, "NaN", "Infinity" or "-Infinity" for Float64, not a string',
        ),
        (
            *(MOVE, '{"ratio": NaN}'),
            (
                'ratio: expected a number, "NaN", "Infinity" or "-Infinity" for Float64, '
                'not NaN without quotes (write "NaN")'
            ),
        ),
        (MOVE, '{"ratio": 1e999}', "ratio: inf is out of range for Float64"),
        (MOVE, '{"ratios": [1e39]}', "ratios[0]: 1e+39 is out of range for Float32"),
        (MOVE, '{"flag": 1}', "flag: expected true or false, not a number"),
        (MOVE, '{"unit": "mile"}', "unit: no 'mile' in Unit: it has metre, foot"),
        (MOVE, '{"unit": 1}', "unit: expected one of metre, foot, not a number"),
        (MOVE, '{"ratios": 1}', "ratios: expected a list, not a number"),
        (MOVE, '{"ratios": "{{i}}"}', "ratios: a template cannot stand for a list"),
        (MOVE, '{"unit": "{{i}}"}', "unit: a template cannot stand for an enumerant"),
        (
            *(MOVE, '{"by": "{{uuid}}"}'),
            (
                "by: Int8 takes a template only if the string is nothing but "
                "'{{i}}', '{{user}}' or '{{time_ns}}'"
            ),
        ),
        (MOVE, '{"name": "{{j}}"}', "name: no template 'j': there is i, user, uuid, time_ns"),
        (KINDS, '{"nothing": 0}', "nothing: expected null, not a number"),
        (
            *(SHAPE, '{"corners": [], "label": ""}'),
            "corners and label are in one union: give one of them",
        ),
        (
            *(SHAPE, '{"scale": {"none": null, "factor": 1}}'),
            "scale: none and factor are in one union: give one of them",
        ),
        (SHAPE, '{"box": {"x": 1}}', "box: no field 'x' in the group box: it has low, high"),
        (
            *(SHAPE, '{"corners": [{}, {"x": 1, "y": 2}]}'),
            "corners[1]: no field 'y' in Point: it has x, z",
        ),
        (
            SHAPE,
            '{"grid": [[], [1, "a"]]}',
            'grid[1][1]: expected a whole number for Int64, or a string of its digits, not "a"',
        ),
        (SHAPE, '{"any": {}}', "any: an AnyPointer cannot be given as JSON: leave it out"),
        (SHAPE, '{"any": "{{i}}"}', "any: an AnyPointer cannot be given as JSON: leave it out"),
        (
            *(KINDS, '{"again": ' * 62 + "{}" + "}" * 62),
            f"{'.'.join(['again'] * 61)}: nested more than 60 levels deep",
        ),
    ],
)
def test_a_mistake_names_its_place(schema: Any, text: str, said: str) -> None:
    with pytest.raises(ParamsError) as error:
        read(schema, text)
    assert str(error.value) == f"params: {said}"


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("{}", ["params"]),
        ('\n\n{\n"x":\n1}\n\n', ["params"]),
        ("{}\n\n  \r\n{}\r\n{}", ["params line 1", "params line 4", "params line 5"]),
        ('\n{"a": "\u2028"}\n{}', ["params line 2", "params line 3"]),
    ],
)
def test_objects_are_one_or_one_per_line(text: str, places: list[str]) -> None:
    assert [item.place for item in read_items(text, "params")] == places


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "params: there is no JSON object"),
        ("\n \n", "params: there is no JSON object"),
        ('{"x" 1}', "params line 1, column 6: Expecting ':' delimiter"),
        ('{"x": 1}\n\n{"x": }', "params line 3, column 7: Expecting value"),
        ('{\n  "x": 1,\n  y: 2\n}', "params line 3, column 3: "),
        ('{"x": 1} {}', "params line 1, column 10: Extra data"),
        ("[" * 100_000, "params: nested too deeply"),
        ("{}\n{}\n" + "[" * 100_000, "params line 3: nested too deeply"),
        ('{"x": 1' + "0" * 5000 + "}", "params: a number is too long"),
    ],
)
def test_what_is_no_json_names_line_and_column(text: str, said: str) -> None:
    with pytest.raises(ParamsError) as error:
        read_items(text, "params")
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    ("text", "name", "rendered"),
    [
        ('{"name": "{{user}}:{{i}}"}', "name", "3:300"),
        ('{"raw": "{{uuid}}"}', "raw", b"aaaa-b"),
        ('{"raw": "{{i}}"}', "raw", b"300"),
        ('{"far": "{{time_ns}}"}', "far", 1_700_000_000_000_000_001),
        # 300 - 2 * 128
        ('{"by": "{{ i }}"}', "by", 44),
        ('{"ratio": "{{i}}"}', "ratio", 300.0),
    ],
)
def test_a_template_is_rendered_per_request(text: str, name: str, rendered: object) -> None:
    assert isinstance(read(MOVE, text).fields[name], Slot)
    value = getattr(packed(MOVE, text), name)
    assert (value.tobytes() if isinstance(value, memoryview) else value) == rendered


def test_templates_are_filled_in_anew_inside_of_structs_and_lists() -> None:
    text = '{"corners": [{"x": 1}, {"x": "{{i}}", "z": 7}], "tags": ["a", "{{user}}", "{{i}}"]}'
    params = read(SHAPE, text)
    assert params.names == {"i", "user"}
    codec = compile_struct(SHAPE)
    compiled = Params(codec, params)
    for number in (1, 2):
        values = (number, 9, "", 0)
        assert compiled.pack(values) == Params(codec, params).pack(values)
    found = packed(SHAPE, text)
    assert [(point.x, point.z) for point in found.corners] == [(1, 0), (300, 7)]
    assert list(found.tags) == ["a", "3", "300"]


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
@pytest.mark.parametrize("sign", ["i", "u"])
def test_every_number_of_a_template_fits(sign: str, bits: int) -> None:
    text = f'{{"{sign}{bits}": "{{{{i}}}}"}}'
    most = 2 ** (bits - (sign == "i")) - 1
    for number, found in ((most, most), (most + 1, 0)):
        values = (number, 0, "", 0)
        assert getattr(packed(KINDS, text, values), f"{sign}{bits}") == found


def test_params_without_templates_are_packed_once() -> None:
    params = Params(compile_struct(MOVE), read(MOVE, '{"by": 1}'))
    assert params.pack(WIDEST) is params.pack(VALUES)


def test_params_over_a_message_are_refused() -> None:
    params = read(MOVE, json.dumps({"name": "x" * (4 << 20)}))
    with pytest.raises(ParamsError) as error:
        Params(compile_struct(MOVE), params)
    assert (
        str(error.value)
        == "params: 4194368 bytes are more than a message holds, 4194176 (--max-message)"
    )


def test_numbers_of_64_bits_may_be_strings_wherever_they_stand() -> None:
    found = packed(KINDS, '{"u64": "18446744073709551615", "i64": "-9223372036854775808"}')
    assert (found.u64, found.i64) == (2**64 - 1, -(2**63))
    assert packed(SHAPE, '{"grid": [["1", 2], ["-3"]]}').to_dict()["grid"] == [[1, 2], [-3]]

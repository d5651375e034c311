"""Views as JSON: what each type becomes, and that reading it back gives the same bytes."""

import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.pointers import detached
from capnp_rig.wire.encoding.structs import compile_struct
from capnp_rig.wire.errors import MalformedMessage
from capnp_rig.wire.json_values.reading import StructReader, parse_object
from capnp_rig.wire.json_values.writing import JsonForm, document, escaped
from capnp_rig.wire.rpc.calls import content_of_encoded

DATA = Path(__file__).parents[3] / "data"
KINDS = load_schema(DATA / "kinds.capnp")
UNIONS = load_schema(DATA / "unions.capnp")
GENERICS = load_schema(DATA / "generics.capnp")
LEVEL_1 = load_schema(DATA / "level_1.capnp")

PLAIN, TEXT = JsonForm(), JsonForm(int64_as_text=True)


def view(struct: Any, values: dict[str, Any]) -> Any:
    codec = compile_struct(struct.schema)
    return codec.from_bytes(codec.to_bytes(values))


KIND_VALUES = {
    "flag": True,
    "flagOn": False,
    "i8": -128,
    "i16": 32767,
    "i64": -(2**63),
    "u8": 0,
    "u64": 2**64 - 1,
    "f32": math.inf,
    "f64": -0.5,
    "f64Default": 0.5,
    "colour": "red",
    "text": 'Grüße "\0\x1b[2J',
    "data": b"\0\1\xff",
    "bytes": [1, 255],
    "longs": [-(2**63), 5],
    "floats": [0.5, -math.inf],
    "doubles": [1e300, math.inf],
    "inner": {"number": 9, "name": "in"},
    "inners": [{"number": 1}, {}],
    "texts": ["a", ""],
    "blobs": [b"", b"\7"],
    "flags": [True, False],
    "hues": ["blue", "red"],
    "grid": [[1], [], [-2, 3]],
}


@pytest.mark.parametrize("form", [PLAIN, TEXT])
@pytest.mark.parametrize(
    ("struct", "values"),
    [
        (KINDS.Kinds, KIND_VALUES),
        (KINDS.Rare, {"first": -5, "group": {"low": -1}, "greeting": "", "nested": [[1], []]}),
        (UNIONS.Deep, {"large": 2**64 - 1, "last": "l"}),
        (UNIONS.Deep, {"pair": {"first": 1, "deeper": {"double": 3.5, "blob": b"\xff"}}}),
        (UNIONS.Deep, {"nothing": None, "kind": {"level": {"names": ["a"]}}}),
        (UNIONS.Deep, {"trees": [{"next": {"leaf": 2}}, {"leaf": 1}], "always": {"bit": False}}),
        (UNIONS.Defaults, {"second": [5], "voids": [None], "bytes": []}),
    ],
)
def test_it_is_read_back_as_what_it_was(
    struct: Any, values: dict[str, Any], form: JsonForm
) -> None:
    codec = compile_struct(struct.schema)
    sent = view(struct, values)
    text = json.dumps(form.of(sent), allow_nan=False)
    reader = StructReader("params")
    fields = reader.struct(struct.schema, parse_object(text, "params", "params").fields, "it")
    assert view(struct, fields).to_dict() == sent.to_dict()
    assert codec.to_bytes(fields) == codec.to_bytes(sent.to_dict())


def test_each_type_has_its_json() -> None:
    written = PLAIN.of(view(KINDS.Kinds, KIND_VALUES))
    expected = KIND_VALUES | {
        "f32": "Infinity",
        "data": "AAH/",
        "blobs": ["", "Bw=="],
        "floats": [0.5, "-Infinity"],
        "doubles": [1e300, "Infinity"],
        "inners": [{"number": 1, "name": ""}, {"number": 0, "name": ""}],
    }
    assert {name: written[name] for name in expected} == expected
    # A struct that was not sent is left out: it may contain its own type.
    assert written.keys() - expected.keys() == {"i32", "u16", "u32", "nothing", "shorts"} | {
        *("ints", "flag2")
    }
    assert PLAIN.of(view(KINDS.Kinds, {"f64": math.nan}))["f64"] == "NaN"


def test_int64_is_text_on_request() -> None:
    written = TEXT.of(view(KINDS.Kinds, KIND_VALUES))
    assert (written["i64"], written["u64"]) == (str(-(2**63)), str(2**64 - 1))
    assert written["longs"] == [str(-(2**63)), "5"]
    # Packed in 64 bits, too, and in 32.
    assert (written["f64Default"], written["u32"], written["i32"]) == (0.5, 4_000_000_000, 0)


def test_a_union_is_its_active_member() -> None:
    assert PLAIN.of(view(UNIONS.Tree, {"leaf": 3})) == {"leaf": 3, "after": 0}
    # A first member that is null has no end.
    assert PLAIN.of(view(UNIONS.Tree, {"after": 1})) == {"after": 1}
    assert PLAIN.of(view(UNIONS.Tree, {"next": {"leaf": 3}}))["next"] == {"leaf": 3, "after": 0}
    inside = PLAIN.of(view(UNIONS.Loose, {"group": {"member": "text"}}))["group"]
    assert inside == {"any": None, "member": "<AnyPointer>"}


def test_what_a_newer_schema_added_does_no_harm() -> None:
    codec = compile_struct(UNIONS.Tree.schema)
    data = bytearray(codec.to_bytes({"leaf": 3}))
    at = 16 + 2 * codec.schema.node.struct.discriminantOffset
    data[at : at + 2] = (99).to_bytes(2, "little")
    assert PLAIN.of(codec.from_bytes(bytes(data))) == {"after": 0}
    codec = compile_struct(KINDS.Rare.schema)
    data = codec.to_bytes({"colours": ["blue"]}).replace(b"\2\0\0\0\0\0\0\0", b"\7" + bytes(7))
    assert PLAIN.of(codec.from_bytes(data))["colours"] == [7]


class Untouchable(tuple[Any, ...]):
    """The capabilities of a message, which nobody may take."""

    __slots__ = ()

    def field(self, index: int, interface: Any) -> Any:
        raise AssertionError(f"the capability {index} was taken")


def test_capabilities_are_named_without_being_taken() -> None:
    codec = compile_struct(LEVEL_1.Pair.schema)
    values = {"name": "n", "session": "one", "others": ["two", None], "any": "text"}
    encoded, capabilities = codec.pack_with_capabilities(values)
    content = content_of_encoded(encoded)
    content[0].capabilities = Untouchable(capabilities)  # type: ignore[attr-defined]
    assert PLAIN.of(codec.open(detached(content))) == {
        "name": "n",
        "session": "<capability Session>",
        "others": ["<capability Session>", None],
        "any": "<AnyPointer>",
    }
    empty = {"name": "", "session": None, "others": [], "any": None}
    assert PLAIN.of(view(LEVEL_1.Pair, {})) == empty


def test_a_generic_struct_is_written_under_its_brand() -> None:
    values = {
        "text": {"value": "a"},
        "data": {"value": b"\1"},
        "numbers": {"value": [1, -2]},
        "pair": {"first": "x", "second": b"\2"},
        "turned": {"first": b"\3", "second": "y"},
        "dataList": [{"value": b"\4"}],
        "boxed": {"value": [{"value": b"\5"}]},
        "either": {"left": "l", "both": {"a": "a", "b": b"\6"}},
        "eitherData": {"right": "r"},
        "inner": {"mine": "m", "theirs": b"\7"},
    }
    written = PLAIN.of(view(GENERICS.Boxes, values))
    box = {"label": ""}
    assert written["text"] == box | {"value": "a"}
    assert written["data"] == box | {"value": "AQ=="}
    assert written["numbers"] == box | {"value": [1, -2]}
    assert written["pair"] == {"first": "x", "second": "Ag=="}
    assert written["turned"] == {"first": "Aw==", "second": "y"}
    assert written["dataList"] == [box | {"value": "BA=="}]
    assert written["boxed"] == box | {"value": [box | {"value": "BQ=="}]}
    assert written["either"] == {"left": "l", "both": {"a": "a", "b": "Bg=="}}
    assert written["eitherData"] == {"right": "r", "both": {"a": "", "b": ""}}
    assert written["inner"] == {"mine": "m", "theirs": "Bw=="}
    assert PLAIN.of(view(GENERICS.Loose, {"unbound": {"value": "any"}})) == {
        "unbound": box | {"value": "<AnyPointer>"}
    }


def test_a_form_may_write_bytes_in_its_own_way() -> None:
    form = JsonForm(bytes.hex)
    written = form.of(view(KINDS.Kinds, {"data": b"\1\xff", "blobs": [b"\2"], "bytes": [3]}))
    assert (written["data"], written["blobs"], written["bytes"]) == ("01ff", ["02"], [3])


def test_what_cannot_be_read_is_malformed() -> None:
    codec = compile_struct(KINDS.Kinds.schema)
    data = codec.to_bytes({"texts": ["good", "evil"]}).replace(b"evil", b"\xff\xff\xff\xff")
    with pytest.raises(MalformedMessage, match="not UTF-8"):
        PLAIN.of(codec.from_bytes(data))
    # A list of nothings costs no bytes, however long it is.
    codec = compile_struct(UNIONS.Defaults.schema)
    data = codec.to_bytes({"voids": [None]})
    long = data.replace(
        (1 | 1 << 35).to_bytes(8, "little")[1:], (2**29 - 1 << 35).to_bytes(8, "little")[1:]
    )
    assert long != data
    with pytest.raises(MalformedMessage, match="limit"):
        PLAIN.of(codec.from_bytes(long))


_EVERY_POINTER = KIND_VALUES | {
    "shorts": [-1],
    "ints": [2**32 - 1],
    "text": "Grüße",
    # The compiler leaves out what was not sent.
    "again": {name: KIND_VALUES[name] for name in ("data", "blobs", "texts")},
}


CAPNP = shutil.which("capnp")


def converted(how: str, struct: Any, data: bytes) -> bytes:
    """Return what the compiler of Cap'n Proto makes of a message."""
    assert CAPNP is not None
    file, _, name = struct.schema.node.displayName.rpartition(":")
    done = subprocess.run(
        [CAPNP, "convert", how, str(DATA / Path(file).name), name],
        input=data,
        capture_output=True,
        timeout=20,
        check=True,
    )
    return done.stdout


@pytest.mark.skipif(CAPNP is None, reason="capnp, the compiler, is not installed")
@pytest.mark.parametrize(
    ("struct", "values"),
    [
        (KINDS.Kinds, _EVERY_POINTER),
        (UNIONS.Deep, {"pair": {"deeper": {"double": 3.5, "blob": b"\xff"}, "second": "s"}}),
        (UNIONS.Deep, {"kind": {"level": {"names": ["a"]}}, "colour": "red", "last": ""}),
        (UNIONS.Tree, {"next": {"leaf": 5}, "after": 7}),
    ],
)
def test_the_compiler_writes_and_reads_the_same(struct: Any, values: dict[str, Any]) -> None:
    codec = compile_struct(struct.schema)
    sent = view(struct, values)
    theirs = json.loads(converted("binary:json", struct, codec.to_bytes(values)))
    # As it has them: bytes as numbers, and Int64 as text.
    ours = JsonForm(list, int64_as_text=True).of(sent)
    assert theirs == with_fields_of(theirs, ours)
    assert ours.keys() - theirs.keys() <= set(_UNSENT)
    # Of 0.9.2 the reader takes \\u001b for another character.
    text = json.dumps(ours, ensure_ascii=False)
    back = converted("json:binary", struct, text.encode())
    assert codec.from_bytes(back).to_dict() == sent.to_dict()


# Pointers, which the compiler leaves out where they are null.
_UNSENT = ("last", "text", "data", "bytes", "shorts", "ints", "floats", "doubles", "texts", "blobs")


def with_fields_of(model: Any, value: Any) -> Any:
    """Return a value without the fields that the model lacks."""
    if isinstance(model, dict):
        return {name: with_fields_of(model[name], value[name]) for name in model}
    if isinstance(model, list):
        return [with_fields_of(*pair) for pair in zip(model, value, strict=True)]
    return value


def test_a_document_holds_no_commands_for_a_terminal() -> None:
    text = "é\x00\x1b[2J\x7f\x9b1m\u202e\u2028\U000e0001 🦀"
    sent = view(KINDS.Inner, {"name": text})
    printed = document(sent)
    assert printed.isprintable()
    assert "é" in printed
    assert "🦀" in printed
    assert json.loads(printed) == {"number": 0, "name": text}
    assert document(sent, ascii_only=True).isascii()
    assert json.loads(document(sent, ascii_only=True))["name"] == text
    assert escaped('[\n "\x9b"\n]') == '[\n "\\u009b"\n]'

"""Stubs say of a schema what the codecs do, under names that are told apart."""

import importlib
import inspect
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running_rig import ROOT

from capnp_rig import AsyncCapability, AsyncChannel, AsyncClient, Capability, Channel, Client
from capnp_rig.client.stubs.classes import Class, attribute, literal, put_bases_first
from capnp_rig.client.stubs.describe import describe
from capnp_rig.client.stubs.inheritance import Inheritance
from capnp_rig.client.stubs.model import (
    Enum,
    Field,
    Interface,
    ListOf,
    Method,
    Place,
    Plain,
    Ref,
    Schema,
    Struct,
    Type,
)
from capnp_rig.client.stubs.names import Form, Names
from capnp_rig.client.stubs.nodes import nodes_of
from capnp_rig.client.stubs.render import render
from capnp_rig.schema import load_schema, message
from capnp_rig.schema.interfaces import interfaces_of
from capnp_rig.wire.encoding.field_types import DataType, PointerType
from capnp_rig.wire.encoding.structs import StructCodec, compile_struct
from capnp_rig.wire.rpc.interfaces import compile_interface

# Those before the first definition.
HEAD_LINES = 13
SCHEMAS = [
    ROOT / "tests" / "data" / f"{name}.capnp"
    for name in ("chains", "generics", "kinds", "places", "streams", "typed", "unions")
]
# How far a type is compared: it may contain itself.
DEPTH = 3


def described(path: Path) -> tuple[Any, Schema]:
    module = load_schema(path)
    return module, describe(nodes_of(module), module.schema.node.id)


# --- what the codecs know ----------------------------------------------------------------


def fields_of(codec: Any, depth: int) -> list[tuple[str, bool, object]]:
    return [
        (field.name, field.member is not None, kind_of(codec_type(field), depth))
        for field in codec.fields
    ]


def codec_type(field: Any) -> Any:
    return field.group or field.pointer_type or field.data_type


def kind_of(type_: Any, depth: int) -> object:
    if isinstance(type_, DataType):
        return type_.which if type_.enum is None else sorted(type_.enum.enumerants)
    if isinstance(type_, StructCodec):
        return fields_of(type_, depth - 1) if depth else ...
    assert isinstance(type_, PointerType)
    if type_.which == "list":
        return ["list", kind_of(type_.element, depth)]
    if type_.which == "struct":
        return kind_of(type_.codecs[0], depth)
    if type_.which == "interface":
        schema = type_.interface  # type: ignore[attr-defined]
        return "capability" if schema is None else schema.node.displayName
    return type_.which


# --- what the definitions say --------------------------------------------------------------


class Said:
    def __init__(self, schema: Schema) -> None:
        self._schema = schema

    def fields(self, ref: Ref, depth: int) -> list[tuple[str, bool, object]]:
        struct = self._schema.definitions[ref]
        assert isinstance(struct, Struct)
        return [
            (field.name, field.in_union, self.kind(field.type, depth)) for field in struct.fields
        ]

    def kind(self, type_: Type, depth: int) -> object:
        if isinstance(type_, Plain):
            return type_.which
        if isinstance(type_, ListOf):
            return ["list", self.kind(type_.element, depth)]
        definition = self._schema.definitions[type_]
        if isinstance(definition, Enum):
            return sorted(definition.names)
        if isinstance(definition, Struct):
            return self.fields(type_, depth - 1) if depth else ...
        place = self._schema.places[type_.node_id]
        return f"{place.file}:{'.'.join(place.path)}"


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.stem)
def test_fields_are_what_codecs_read_and_methods_what_clients_call(path: Path) -> None:
    module, schema = described(path)
    said = Said(schema)
    check_methods(module, schema, said)
    for name, declared in structs_of(module):
        codec = compile_struct(declared)
        ref = Ref(declared.node.id)
        assert sorted(said.fields(ref, DEPTH)) == sorted(fields_of(codec, DEPTH)), name


def structs_of(module: Any) -> Iterator[tuple[str, Any]]:
    for node in module.schema.node.nestedNodes:
        nested = getattr(module, node.name, None)
        schema = getattr(nested, "schema", None)
        if schema is not None and schema.node.id == node.id:
            if schema.node.which() == "struct":
                yield node.name, schema
            yield from structs_of(nested)


def check_methods(module: Any, schema: Schema, said: Said) -> None:
    inheritance = Inheritance(schema.definitions)
    for name, interface in interfaces_of(module).items():
        compiled = compile_interface(interface)
        methods = {each.method.name: each.method for each in inheritance.methods(Ref(compiled.id))}
        assert methods.keys() == compiled.methods.keys(), name
        for method in compiled.methods.values():
            mine = methods[method.name]
            assert sorted(said.fields(mine.params, 2)) == sorted(fields_of(method.params, 2))
            assert (mine.results is None) is method.is_streaming
            if mine.results is not None:
                assert sorted(said.fields(mine.results, 2)) == sorted(fields_of(method.results, 2))


def test_a_type_that_contains_itself_under_ever_new_brands_has_an_end() -> None:
    _, schema = described(ROOT / "tests" / "data" / "generics.capnp")
    unknown = [
        schema.places[ref.node_id].path
        for ref, definition in schema.definitions.items()
        if isinstance(definition, Struct)
        for field in definition.fields
        if field.type == Plain("unknown")
    ]
    assert set(unknown) == {("Deep",)}


# --- names -----------------------------------------------------------------------------------

TEXT, DATA = Plain("text"), Plain("data")


def schema_of(
    places: dict[int, str | tuple[str, str]], definitions: dict[Ref, Any] | None = None
) -> Schema:
    """Return a schema with types of these names; those in another file have its name first."""
    in_files = {
        number: ("mine.capnp", name) if isinstance(name, str) else name
        for number, name in places.items()
    }
    return Schema(
        "mine.capnp",
        {
            number: Place(file, tuple(name.split(".")), name.split(".")[-1][0].isupper())
            for number, (file, name) in in_files.items()
        },
        {Ref(number): Struct(()) for number in places} if definitions is None else definitions,
    )


def test_a_type_stands_where_the_schema_has_it() -> None:
    names = Names(
        schema_of({1: "A", 2: "A.B", 3: "A.call$Params", 4: "A.b", 5: ("c/c++.capnp", "A.B")})
    )
    paths = [names.path(Ref(number)) for number in (1, 2, 3, 4, 5)]
    assert paths == [
        ("A",),
        ("A", "B"),
        ("A", "CallParams"),
        # A group of this name; the type has the name.
        ("A", "B_"),
        ("c___capnp", "A", "B"),
    ]


def test_no_two_are_of_one_name_and_none_is_a_keyword() -> None:
    names = Names(schema_of({1: "A", 2: "ADict", 3: "BlockingA", 4: "None", 5: ("1.capnp", "A")}))
    assert names.path(Ref(1), Form.DICT) == ("ADict_",)
    assert names.path(Ref(1), Form.BLOCKING) == ("BlockingA_",)
    assert names.path(Ref(2), Form.DICT) == ("ADictDict",)
    assert names.path(Ref(4)) == ("None_",)
    assert names.path(Ref(5)) == ("File1_capnp", "A")


def test_a_brand_has_the_names_of_what_is_bound() -> None:
    box = Ref(1, ((1, (ListOf(Plain("uint8")),)),))
    pair = Ref(2, ((2, (TEXT, box)),))
    names = Names(schema_of({1: "Box", 2: "Pair"}, {box: Struct(()), pair: Struct(())}))
    assert names.path(box) == ("BoxOfListOfUInt8",)
    assert names.path(pair, Form.DICT) == ("PairOfTextAndBoxOfListOfUInt8Dict",)


def test_a_name_that_means_another_type_elsewhere_has_an_alias() -> None:
    names = Names(schema_of({1: "Node", 2: "Files", 3: "Files.Node"}))
    assert [names.dotted(Ref(number)) for number in (1, 2, 3)] == ["Node_", "Files", "Files.Node"]
    assert names.aliases == {"Node": "Node_"}


# --- interfaces ------------------------------------------------------------------------------


def interface(*methods: str, extends: tuple[int, ...] = ()) -> Interface:
    return Interface(
        tuple(Method(name, Ref(0), Ref(0)) for name in methods), tuple(map(Ref, extends))
    )


def inherited(*interfaces: Interface) -> Inheritance:
    return Inheritance({Ref(number): each for number, each in enumerate(interfaces, 1)})


def test_methods_keep_the_order_of_their_base_whatever_extends_it() -> None:
    inheritance = inherited(
        interface("a"), interface("b"), interface("c", extends=(1, 2)), interface(extends=(2, 3))
    )
    assert [each.method.name for each in inheritance.methods(Ref(3))] == ["c", "a", "b"]
    assert [each.method.name for each in inheritance.methods(Ref(4))] == ["c", "a", "b"]
    # So that Python has an order for the classes.
    assert inheritance.bases(Ref(4)) == [Ref(3), Ref(2)]


def test_an_interface_that_hides_a_method_is_none_of_that_kind() -> None:
    inheritance = inherited(interface("a", "b"), interface("a", extends=(1,)))
    owners = {each.method.name: each.owner for each in inheritance.methods(Ref(2))}
    assert owners == {"a": Ref(2), "b": Ref(1)}
    assert inheritance.bases(Ref(2)) == []


def test_bases_come_first() -> None:
    module = Class()
    for path in (("A",), ("A", "Late"), ("A", "Early"), ("B",), ("C", "In"), ("D",)):
        module.at(path)
    put_bases_first(
        module,
        {
            ("A",): [("C", "In")],
            ("A", "Late"): [("A", "Early")],
            ("A", "Early"): [("B",)],
            # In a circle, which some order has to break.
            ("C", "In"): [("D",)],
            ("D",): [("C", "In")],
        },
    )
    assert [*module.inner] == ["D", "C", "B", "A"]
    assert [*module.inner["A"].inner] == ["Early", "Late"]


# --- text ------------------------------------------------------------------------------------


def test_lines_of_a_class() -> None:
    assert attribute("sum", "_int") == "sum: _Final[_int]"
    assert attribute("from", "_int") == '# getattr(self, "from"): _int'
    assert literal(["a", "b"]) == '_Literal["a", "b"]'
    assert literal([]) == "_Never"
    module = Class()
    module.at(["A", "B"]).lines.append(attribute("from", "_int"))
    assert list(module.text()) == [
        "class A:",
        "    class B: ...",
        '        # getattr(self, "from"): _int',
    ]


def lines_of(schema: Schema) -> list[str]:
    return render(schema, "mine.capnp").splitlines()[HEAD_LINES:]


def test_a_struct_is_a_view_and_a_mapping() -> None:
    struct = Struct(
        (
            Field("name", TEXT),
            Field("from", DATA),
            Field("which", Plain("float32"), in_union=True),
            Field("next", Ref(1), in_union=True),
            Field("colours", ListOf(Ref(2))),
        )
    )
    keywords = "_ShapeDictKeywords"
    schema = schema_of({1: "Shape", 2: "Colour"}, {Ref(1): struct, Ref(2): Enum(("red",))})
    assert lines_of(schema) == [
        f"{keywords} = _TypedDict({keywords!r}, {{'from': _Bytes | None}}, total=False)".replace(
            "'", '"'
        ),
        'Colour: _TypeAlias = _Literal["red"]',
        "class Shape(_View):",
        '    def which(self) -> _Literal["which", "next"]: ...',
        "    name: _Final[_str]",
        '    # getattr(self, "from"): _memoryview',
        "    next: _Final[Shape]",
        "    colours: _Final[_Sequence[Colour | _int]]",
        "class ShapeDict(_ShapeDictKeywords, total=False):",
        "    name: _str | None",
        "    which: _Number",
        "    next: ShapeDict | Shape | None",
        "    colours: _Iterable[Colour | _Integer] | None",
    ]


def test_an_interface_has_what_each_way_of_calling_returns() -> None:
    definitions = {
        Ref(1): Interface((Method("open", Ref(2), Ref(3)),)),
        Ref(2): Struct(()),
        Ref(3): Struct((Field("door", Ref(1)),)),
    }
    schema = schema_of({1: "Door", 2: "Door.open$Params", 3: "Door.open$Results"}, definitions)
    text = "\n".join(lines_of(schema))
    call = 'def __call__(self, method: _Literal["open"], params: '
    call += "Door.OpenParamsDict | Door.OpenParams | None = None"
    timed = f"{call}, *, timeout_s: _float | None = None) -> "
    for line in (
        f"{timed}_Coroutine[_Any, _Any, Door.OpenResults]: ...",
        f"{timed}Door.BlockingOpenResults: ...",
        f"{timed}Door._PipelinedOpen: ...",
        f"{timed}Door._BlockingPipelinedOpen: ...",
        f"{call}) -> _PendingCall[Door.BlockingOpenResults]: ...",
        "class _PipelinedOpen(_AwaitedResults[Door.OpenResults]):",
        "door: _Final[_AsyncCapability[Door]]",
        "class BlockingOpenResults(_View):\n        door: _Final[_Capability[Door] | _Any]",
        "door: _AsyncCapability[Door] | _Capability[Door] | DoorService | None",
        "def open(self, params: Door.OpenParams, /) -> _Returned: ...",
    ):
        assert line in text


# --- at run time -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [AsyncCapability, AsyncChannel, AsyncClient, Capability, Channel, Client]
)
def test_an_interface_in_brackets_changes_nothing_at_run_time(kind: Any) -> None:
    of_interface = kind[message.MessageStream]
    assert of_interface.__origin__ is kind
    mine = types.new_class("Mine", (of_interface,))
    assert issubclass(mine, kind)
    assert inspect.isfunction(mine.call)
    assert inspect.signature(mine.call) == inspect.signature(kind.call)


def test_what_stubs_import_is_there() -> None:
    imports = [line for line in lines_of_head() if line.startswith("from ")]
    for line in imports:
        module, _, names = line.removeprefix("from ").partition(" import ")
        for name in names.split(", "):
            assert hasattr(importlib.import_module(module), name.partition(" as ")[0]), line
    assert len(imports) == 8


def lines_of_head() -> list[str]:
    return render(schema_of({}), "mine.capnp").splitlines()[:HEAD_LINES]

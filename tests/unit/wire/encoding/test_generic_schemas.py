"""Random schemas with generic types: the codecs of `wire` against pycapnp and the C++ tool.

A schema has generic structs with structs in their scopes, unions, groups, lists of all depths, and
a generic interface. What is in them is bound to texts, data, lists, each other and parameters.
"""

import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import capnp
import pytest

from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.field_types import Codec, DataType, PointerType
from capnp_rig.wire.encoding.structs import StructCodec, compile_struct

DATA_TYPES = (
    "Int8",
    "UInt8",
    "Int16",
    "Int32",
    "UInt64",
    "Float32",
    "Float64",
    "Bool",
    "Void",
    "E",
)
FLAT = ("Text", "Data")


@dataclass(frozen=True)
class Scope:
    """What a type may be made of: the number of parameters of each generic type, and parameters."""

    random: Random
    generics: Mapping[str, int]
    params: Sequence[str] = ()

    def type(self, depth: int = 2) -> str:
        """Return a type that is a pointer, as generic types are bound to."""
        choices = ["flat"] if depth <= 0 else ["flat", "list", "grid", "generic", "generic"]
        match self.random.choice(choices if not self.params else [*choices, "param", "param"]):
            case "param":
                return self.random.choice(self.params)
            case "list":
                return f"List({self.random.choice([*DATA_TYPES, *FLAT])})"
            case "grid":
                return f"List(List({self.random.choice(['Int16', *FLAT])}))"
            case "generic":
                brand = self.brand(self.random.choice([*self.generics]), depth - 1)
                return self.random.choice([brand, f"List({brand})", f"List(List({brand}))"])
        return self.random.choice(FLAT)

    def brand(self, name: str, depth: int = 1) -> str:
        """Return a generic type with its parameters bound."""
        bound = ", ".join(self.type(depth) for _ in range(self.generics[name]))
        return f"{name}({bound})"

    def fields(self) -> str:
        """Return the fields of a struct: some, perhaps a union, perhaps a group with another."""
        numbers = iter(range(99))

        def some(least: int) -> str:
            choices = [self.type() for _ in range(4)] + [self.random.choice(DATA_TYPES)]
            types = self.random.choices(choices, k=self.random.randint(least, 3))
            pairs = zip(types, numbers, strict=False)
            return " ".join(f"f{number} @{number} :{each};" for each, number in pairs)

        def union() -> str:
            return f"union {{ {some(2)} }}" if self.random.random() < 0.5 else ""

        group = f"group :group {{ {some(1)} {union()} }}" if self.random.random() < 0.5 else ""
        return f"{some(1)} {union()} {group}"


def random_schema(random: Random) -> str:
    """Return a schema with a struct Root, and an interface Branded that extends a generic one."""
    generics = {f"G{number}": random.randint(1, 2) for number in range(3)}
    outer = Scope(random, generics)
    lines = [f"@{random.getrandbits(64) | 1 << 63:#x};", "enum E { a @0; b @1; c @2; }"]
    for name, count in generics.items():
        params = [f"T{number}" for number in range(count)]
        scope = Scope(random, {**generics, "Inner": 1}, params)
        inner = Scope(random, scope.generics, [*params, "U"])
        lines.append(
            f"struct {name}({', '.join(params)}) {{ {scope.fields()}\n"
            f"struct Inner(U) {{ {inner.fields()} }}\nstruct Plain {{ {scope.fields()} }} }}"
        )
    scope = Scope(random, generics, ["K", "V"])
    kinds = ("K", "V", "S", "List(S)", scope.type(), scope.type())
    args = ", ".join(f"a{number} :{kind}" for number, kind in enumerate(kinds))
    lines.append(
        f"interface I(K, V) {{ struct S {{ {scope.fields()} }} m @0 ({args}) -> ({args}); }}"
    )
    lines.append(f"interface Branded extends(I({outer.type()}, {outer.type()})) {{}}")
    roots = [outer.type() for _ in range(6)]
    for name in generics:
        roots += [f"{outer.brand(name)}.Inner({outer.type()})", f"{outer.brand(name)}.Plain"]
    roots.append(f"I({outer.type()}, {outer.type()}).S")
    fields = (f"r{number} @{number} :{kind};" for number, kind in enumerate(roots))
    return "\n".join([*lines, f"struct Root {{ {' '.join(fields)} }}\n"])


def random_value(random: Random, kind: DataType | PointerType, depth: int) -> Any:
    """Return a value of a type, with structs up to a depth."""
    if isinstance(kind, DataType):
        return random_datum(random, kind)
    match kind.which:
        case "text":
            return random.choice(["a", "bö", "a text of more than one word"])
        case "data":
            return random.choice([b"\xff\0", b"\x80" * 9])
        case "struct":
            return random_struct(random, kind.codecs[0], depth - 1)
    count = random.randint(1, 2) if depth > 0 else 0
    return [random_value(random, kind.element, depth - 1) for _ in range(count)]


def random_datum(random: Random, kind: DataType) -> Any:
    match kind.which:
        case "bool":
            return random.random() < 0.5
        case "void":
            return None
        case "enum":
            return random.choice([*kind.enum.enumerants])
        case "float32" | "float64":
            return random.choice([0.5, -1024.25])
    bits = int(kind.which.lstrip("uint"))
    least = 0 if kind.which.startswith("u") else -(1 << bits - 1)
    return random.choice([least, least + (1 << bits) - 1])


def random_struct(random: Random, codec: Codec, depth: int) -> dict[str, Any]:
    members = [field for field in codec.fields if field.member is not None]
    chosen = random.choice(members) if members else None
    return {
        field.name: random_struct(random, field.group, depth)
        if field.group is not None
        else random_value(random, field.pointer_type or field.data_type or DataType("void"), depth)
        for field in codec.fields
        if field is chosen or (field.member is None and (depth > 0 or field.pointer_type is None))
    }


def types_of(module: Any) -> Iterator[Any]:
    """Yield the schemas of the structs to write and read."""
    (generic,) = module.Branded.schema.superclasses
    method = generic.methods["m"]
    yield from (module.Root.schema, method.param_type, method.result_type)


def as_cpp_reads(file: Path, data: bytes) -> str:
    command = ["capnp", "convert", "binary:text", str(file), "Root"]
    done = subprocess.run(command, input=data, capture_output=True, timeout=30, check=True)
    return done.stdout.decode()


def as_cpp_writes(file: Path, text: str) -> bytes:
    command = ["capnp", "convert", "text:binary", str(file), "Root"]
    done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=30, check=True)
    return done.stdout


@pytest.fixture(
    params=[*range(2), *(pytest.param(n, marks=pytest.mark.nightly) for n in range(2, 40))]
)
def random(request: pytest.FixtureRequest) -> Random:
    return Random(request.param)


def test_any_generic_schema_is_read_and_written_as_by_pycapnp(
    random: Random, tmp_path: Path
) -> None:
    file = tmp_path / "random.capnp"
    file.write_text(random_schema(random))
    loaded = load_schema(file)
    for schema in types_of(loaded):
        codec, module = compile_struct(schema), capnp._StructModule(schema, "")

        def theirs(data: bytes, module: Any = module) -> dict[str, Any]:
            with module.from_bytes(data) as reader:
                values: dict[str, Any] = reader.to_dict()
            return values

        for _ in range(4):
            values = random_struct(random, codec, 3)
            message = module.new_message()
            message.from_dict(values)
            built = message.to_bytes()
            written = codec.to_bytes(values)
            assert theirs(written) == theirs(built)
            view = codec.from_bytes(built)
            assert view.to_dict() == codec.from_bytes(written).to_dict()
            # Lists that are not set are written as empty ones, which pycapnp tells apart.
            assert codec.from_bytes(codec.to_bytes(view)).to_dict() == view.to_dict()
    check_with_cpp(file, compile_struct(loaded.Root.schema), random)


def check_with_cpp(file: Path, codec: StructCodec, random: Random) -> None:
    if shutil.which("capnp") is None:
        pytest.skip("capnp is not installed: it is not read by the C++ tool")
    written = codec.to_bytes(random_struct(random, codec, 3))
    view = codec.from_bytes(as_cpp_writes(file, as_cpp_reads(file, written)))
    assert view.to_dict() == codec.from_bytes(written).to_dict()

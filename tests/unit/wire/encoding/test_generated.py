"""Generated functions: a traceback shows their lines, and the documents show what they are."""

import linecache
import textwrap
import traceback
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

from capnp_rig.loadtest.codecs import reading
from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding import readers, writers
from capnp_rig.wire.encoding.generated import compile_function
from capnp_rig.wire.encoding.structs import StructCodec, compile_struct
from capnp_rig.wire.errors import EncodeError

SCHEMA = "@0xd2a9c0e1f2b34a75; struct Point { x @0 :Int32; name @1 :Text; }"


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> StructCodec:
    file = tmp_path_factory.mktemp("schema") / "point.capnp"
    file.write_text(SCHEMA)
    return compile_struct(load_schema(file).Point.schema)


def source_of(function: object) -> str:
    assert isinstance(function, FunctionType)
    return "".join(linecache.getlines(function.__code__.co_filename))


def example_in(module: ModuleType) -> str:
    """Return the indented block of a module's docstring."""
    assert module.__doc__ is not None
    return textwrap.dedent(module.__doc__.partition("::\n\n")[2])


def test_the_docstrings_show_what_is_generated(codec: StructCodec) -> None:
    assert example_in(writers) == source_of(codec.writer)
    assert example_in(readers) == source_of(codec.view.to_dict)
    assert example_in(reading) == source_of(
        reading.readers("r.{}")[reading.Message.RECORD][reading.ONE_FIELD]
    )


def test_a_traceback_shows_the_line_of_a_writer(codec: StructCodec) -> None:
    with pytest.raises(EncodeError) as raised:
        codec.to_bytes({"x": "no number", "name": ""})
    shown = "".join(traceback.format_exception(raised.value))
    assert 'File "<writer of Point>", line 16, in write' in shown
    assert "return pack(v['x'], p0), at" in shown


def test_a_traceback_shows_the_line_of_a_reader(codec: StructCodec) -> None:
    with pytest.raises(AttributeError) as raised:
        codec.view.to_dict(None)
    assert "pointers_end, depth = view._at" in "".join(traceback.format_exception(raised.value))


def test_two_of_one_name_are_told_apart(tmp_path: Path) -> None:
    first = compile_function("f", "twin", "def f():\n    return 1\n", {})
    second = compile_function("f", "twin", "def f():\n    return 2\n", {})
    assert (first(), second()) == (1, 2)
    assert "return 1" in source_of(first)
    assert "return 2" in source_of(second)

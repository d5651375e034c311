from pathlib import Path

import pytest

from schema import SchemaError, load, load_rpc, message


def test_the_contract_is_the_tutorials() -> None:
    assert message.schema.node.id == 0xE3A9C3D4089F91DA
    (method,) = message.MessageStream.schema.methods.values()
    assert list(method.param_type.fieldnames) == ["request"]
    assert list(method.result_type.fieldnames) == ["chunk"]
    assert list(message.MessageStream.MessageContent.schema.fieldnames) == ["content"]


def test_a_schema_is_parsed_once() -> None:
    assert load("message.capnp") is message
    assert load_rpc() is load_rpc()


def test_a_schema_of_a_user_is_loaded_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "own.capnp"
    file.write_text(
        '@0xb8a5a1cb73f3a2d1;\nusing Cxx = import "/capnp/c++.capnp";\nstruct Own { x @0 :Text; }\n'
    )
    assert load(file).Own.new_message(x="y").x == "y"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "@0xb8a5a1cb73f3a2d2;\nstruct A { x @0 :Foo; }\n",
            "bad.capnp:2: Not defined: Foo",
        ),
        ("@0xb8a5a1cb73f3a2d3;\nstruct A { ! }\n", "bad.capnp:2: Parse error."),
        ("struct A { x @0 :Text; }\n", "bad.capnp:1: File does not declare an ID."),
        ("@0xe3a9c3d4089f91da;\n", "bad.capnp:1: Duplicate ID @0xe3a9c3d4089f91da."),
    ],
)
def test_a_mistake_in_a_schema_names_its_place(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "bad.capnp"
    file.write_text(text)
    with pytest.raises(SchemaError) as error:
        load(file)
    assert str(error.value).startswith(f"{file} is not a valid schema: ")
    assert reason in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"no schema file at .*nope\.capnp"):
        load(tmp_path / "nope.capnp")

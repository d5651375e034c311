"""Fields whose type is an interface: into the table beside the words, and out of it."""

from pathlib import Path
from typing import Any

import pytest

from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.any_pointers import AnyValue
from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.pointers import detached
from capnp_rig.wire.encoding.structs import compile_struct
from capnp_rig.wire.errors import EncodeError, MalformedMessage
from capnp_rig.wire.rpc.calls import content_of_encoded, encoded_of_content

SCHEMA = load_schema(Path(__file__).parents[3] / "data" / "level_1.capnp")
PAIR = compile_struct(SCHEMA.Pair.schema)
KINDS = load_schema(Path(__file__).parents[3] / "data" / "kinds.capnp")


class Table(list[Any]):
    """A table that tells for which interface it was asked."""

    def field(self, index: int, interface: Any) -> Any:
        name = None if interface is None else interface.node.displayName.rpartition(":")[2]
        return self[index], name


def opened(encoded: EncodedTuple, capabilities: list[Any]) -> Any:
    content = content_of_encoded(encoded)
    content[0].capabilities = Table(capabilities)
    return PAIR.open(detached(content))


def test_capabilities_go_into_a_table_and_come_out_of_it() -> None:
    values = {"name": "n", "session": "one", "others": ["two", None, "one"]}
    encoded, capabilities = PAIR.pack_with_capabilities(values)
    assert capabilities == ["one", "two", "one"]
    view = opened(encoded, capabilities)
    assert view.session == ("one", "Session")
    assert list(view.others) == [("two", "Session"), None, ("one", "Session")]
    assert view.to_dict()["session"] == ("one", "Session")
    assert (view._has("session"), view.name) == (True, "n")
    empty = opened(*PAIR.pack_with_capabilities({}))
    assert (empty.session, list(empty.others)) == (None, [])
    assert "session" not in empty.to_dict()


def test_views_are_written_with_their_capabilities() -> None:
    inner = opened(*PAIR.pack_with_capabilities({"session": "one", "others": ["two"]}))
    for value in (inner, inner.to_dict()):
        encoded, capabilities = PAIR.pack_with_capabilities(value)
        assert [each for each, _ in capabilities] == ["one", "two"]
        assert opened(encoded, capabilities).session[0][0] == "one"


def test_capabilities_behind_an_any_pointer_are_copied_and_told() -> None:
    inner = opened(*PAIR.pack_with_capabilities({"others": ["two"], "session": "one"}))
    encoded, capabilities = PAIR.pack_with_capabilities({"session": "first", "any": inner})
    assert capabilities == ["first", ("one", None), ("two", None)]
    view = opened(encoded, capabilities)
    assert view.any.as_struct(SCHEMA.Pair).session == (("one", None), "Session")
    assert PAIR.pack_with_capabilities({"any": view.any})[1] == [
        (("one", None), None),
        (("two", None), None),
    ]
    # An AnyPointer may be a capability itself, and hold a struct of a type with some.
    one = object()
    encoded, capabilities = PAIR.pack_with_capabilities({"any": one})
    assert opened(encoded, capabilities).any.as_capability() == (one, None)
    inner = AnyValue(SCHEMA.Pair, {"session": one, "others": [None, "two"]})
    encoded, capabilities = PAIR.pack_with_capabilities({"session": "first", "any": inner})
    assert capabilities == ["first", one, "two"]
    assert opened(encoded, capabilities).any.as_struct(SCHEMA.Pair).session == (one, "Session")
    (slot,) = (field.slot for field in PAIR.fields if field.name == "any")
    sizes, _, words = PAIR.pack({"name": "x"})
    pointers = [0] * PAIR._pointer_count
    assert slot is not None
    pointers[slot] = 3
    parts = [b"".join(word.to_bytes(8, "little") for word in pointers)]
    view = opened((sizes, parts, words), ["only"])
    assert view.any.as_capability() == ("only", None)
    with pytest.raises(MalformedMessage, match="another kind where a struct"):
        view.any.as_struct(SCHEMA.Pair)._has("name")


def test_content_is_sent_on_with_the_same_table() -> None:
    values = {"session": "one", "others": ["two", "three"], "any": "text"}
    encoded, capabilities = PAIR.pack_with_capabilities(values)
    again = encoded_of_content(content_of_encoded(encoded))
    view = opened(again, capabilities)
    assert [each[0] for each in view.others] == ["two", "three"]
    assert view.any.as_text() == "text"
    assert encoded_of_content(None)[2] == 0


def test_mistakes_are_told_apart() -> None:
    with pytest.raises(
        EncodeError, match=r"Pair\.session: expected None for a capability, not str"
    ):
        PAIR.pack({"name": "x", "session": "one"})
    with pytest.raises(EncodeError, match=r"Pair\.others\[1\]: expected None for a capability"):
        PAIR.pack({"others": [None, "one"]})
    with pytest.raises(EncodeError, match=r"Pair\.name: expected a str, not int"):
        PAIR.pack_with_capabilities({"session": "one", "others": ["two"], "name": 7})
    with pytest.raises(EncodeError, match=r"Pair\.others: "):
        PAIR.pack_with_capabilities({"session": "one", "others": 7})


def test_a_pointer_of_another_kind_is_no_capability() -> None:
    encoded, _ = PAIR.pack_with_capabilities({"session": "one"})
    assert opened(encoded, ["one"]).session == ("one", "Session")
    with pytest.raises(MalformedMessage, match="message has no capability 0 in its table"):
        _ = opened(encoded, []).session
    (slot,) = (field.slot for field in PAIR.fields if field.name == "session")
    assert slot is not None
    words = bytearray(b"".join(encoded[1]))
    words[8 * (PAIR._data_words + slot)] = 1
    with pytest.raises(MalformedMessage, match="another kind where a capability is expected"):
        _ = opened((encoded[0], [bytes(words)], encoded[2]), ["one"]).session


def test_a_capability_of_any_interface_is_one() -> None:
    schema = load_schema(Path(__file__).parents[3] / "data" / "generics.capnp").Capable.schema
    codec = compile_struct(schema)
    values = {
        "any": "one",
        "several": ["two", None],
        "boxed": {"value": "three"},
        "boxes": {"value": ["four"]},
        "store": {"value": "five"},
    }
    encoded, capabilities = codec.pack_with_capabilities(values)
    assert capabilities == ["one", "two", "three", "four", "five"]
    content = content_of_encoded(encoded)
    content[0].capabilities = Table(capabilities)
    view = codec.open(detached(content))
    assert (view.any, list(view.several)) == (("one", None), [("two", None), None])
    assert (view.boxed.value, view.store.value) == (("three", "Capable.Plain"), ("five", "Store"))
    assert list(view.boxes.value) == [("four", None)]


def test_codecs_tell_whether_capabilities_are_possible() -> None:
    main = SCHEMA.Main.schema
    expected = {"login": (False, True), "adopt": (True, False), "live": (False, False)}
    for name, has in expected.items():
        method = main.methods[name]
        found = [
            compile_struct(each).has_capabilities
            for each in (method.param_type, method.result_type)
        ]
        assert tuple(found) == has, name
    assert PAIR.has_capabilities
    assert not compile_struct(KINDS.Kinds.schema).has_capabilities

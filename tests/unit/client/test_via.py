"""Chains of calls: how they are read, what they mean in a schema, and what is said of mistakes."""

from pathlib import Path
from typing import Any

import pytest

from capnp_rig.client.via import (
    BrokenChainError,
    Call,
    ChainError,
    Name,
    compile_chain,
    parse_chain,
)
from capnp_rig.schema import load_schema
from capnp_rig.schema.interfaces import interfaces_of
from capnp_rig.wire.rpc.calls import content_of_encoded
from capnp_rig.wire.rpc.interfaces import compile_interface

SCHEMA = load_schema(Path(__file__).parents[2] / "data" / "chains.capnp")
INTERFACES = interfaces_of(SCHEMA)


def test_the_interfaces_of_a_schema_have_the_names_of_those_around_them() -> None:
    assert list(INTERFACES) == [
        "Files",
        "Files.Node",
        "Files.Folder",
        "Files.Session",
        "Door",
        "BackDoor",
    ]


# --- the text -------------------------------------------------------------------------------


def test_a_call_has_a_method_params_and_fields() -> None:
    assert parse_chain(' login ( {"user": "a).b({", "n": [1, {}]} ) . pair.session ') == (
        Call(
            Name("login", 2),
            '{"user": "a).b({", "n": [1, {}]}',
            (Name("pair", 47), Name("session", 52)),
            None,
        ),
    )


def test_calls_follow_each_other_and_may_have_a_cast() -> None:
    first, second, third = parse_chain("a().b as X . Y.c({}).d.e().f as Z")
    assert first == Call(Name("a", 1), "{}", (Name("b", 5),), Name("X.Y", 10))
    assert second == Call(Name("c", 16), "{}", (Name("d", 22),), None)
    assert third == Call(Name("e", 24), "{}", (Name("f", 28),), Name("Z", 33))


def test_a_field_may_have_the_name_of_the_word_for_a_cast() -> None:
    (call,) = parse_chain("a().as.asOf as As")
    assert [field.text for field in call.fields] == ["as", "asOf"]
    assert call.interface == Name("As", 16)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'there is no call: write a chain such as login({"user": "u"}).session'),
        (
            "login",
            (
                "column 6: expected '(' behind the method login: a chain is calls, such as "
                'login({"user": "u"}).session, but it ends here'
            ),
        ),
        ("  3()", "column 3: expected a method, not '3()'"),
        ("a(3).b", "column 3: expected the params of a as a JSON object, or ')', not '3).b'"),
        ('a({"b": }).c', "column 9: the params of a are no JSON: Expecting value, not '}).c'"),
        (
            "a({).c",
            (
                "column 4: the params of a are no JSON: Expecting property name enclosed in "
                "double quotes, not ').c'"
            ),
        ),
        ("a({}.c", "column 5: expected ')' behind the params of a, not '.c'"),
        ("a(", "column 3: expected the params of a as a JSON object, or ')', but it ends here"),
        ("a()b", "column 4: expected '.' behind a(), not 'b'"),
        ("a().", "column 5: expected a field or a method, but it ends here"),
        ("a().b c", "column 7: expected '.' behind b, not 'c'"),
        (
            "a().b as c",
            ("column 10: expected the name of an interface, which begins with a capital, not 'c'"),
        ),
        ("a().b as C.d", "column 13: expected '(' behind the method d, but it ends here"),
        ("a().b as C d()", "column 12: expected '.' behind C, not 'd()'"),
        (
            'a({"b": ' + "[" * 9**5 + "}).c",
            (
                "column 3: the params of a nest too deeply, or have too "
                "long a number, not '{\"b\": [[[[[[[[[[[[[['"
            ),
        ),
    ],
)
def test_a_mistake_in_the_text_has_its_column(text: str, message: str) -> None:
    with pytest.raises(ChainError) as caught:
        parse_chain(text)
    assert str(caught.value) == message


# --- the schema -----------------------------------------------------------------------------


def ends_at(text: str, name: str | None = None) -> str:
    return compile_interface(compile_chain(text, INTERFACES, name).end).name


def test_a_chain_is_calls_with_the_pointers_that_lead_on() -> None:
    chain = compile_chain(
        'login({"user": "u"}).pair.more.session.root().folder.find().node', INTERFACES, "Files"
    )
    assert chain.start is INTERFACES["Files"]
    assert [step.method.name for step in chain.steps] == ["login", "root", "find"]
    assert [step.params for step in chain.steps] == ['{"user": "u"}', "{}", "{}"]
    assert [step.path for step in chain.steps] == [(2, 2, 1), (0,), (0,)]
    assert chain.steps[0].schema.node.id == SCHEMA.Files.schema.methods["login"].param_type.node.id
    assert chain.steps[2].method.interface_id == SCHEMA.Files.Folder.schema.node.id
    assert compile_interface(chain.end).name == "Files.Node"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("grouped().inside.session", (2,)),
        ("either().right", (0,)),
        ("boxed().box.value", (0, 0)),
    ],
)
def test_groups_unions_and_generic_types_are_gone_through(text: str, path: tuple[int, ...]) -> None:
    chain = compile_chain(text, INTERFACES)
    assert chain.steps[-1].path == path
    assert compile_interface(chain.end).name == "Files.Session"


@pytest.mark.parametrize("field", ["node", "any", "cap"])
def test_a_cast_is_to_any_interface_of_the_schema(field: str) -> None:
    text = f"login().session.root().folder.find().{field} as Files.Folder"
    assert ends_at(text) == "Files.Folder"
    assert ends_at(f"{text}.find().node") == "Files.Node"


@pytest.mark.parametrize("name", [None, "Files", "Files.Folder"])
def test_an_interface_by_name_is_where_the_chain_starts_or_what_its_end_is(
    name: str | None,
) -> None:
    chain = compile_chain("login().session.root().folder.find().node", INTERFACES, name)
    assert chain.start is INTERFACES["Files"]
    expected = "Files.Folder" if name == "Files.Folder" else "Files.Node"
    assert compile_interface(chain.end).name == expected


def test_the_name_of_the_end_spares_an_any_pointer_its_cast() -> None:
    text = "login().session.root().folder.find().any"
    assert ends_at(text, "Files.Session") == "Files.Session"


def test_of_several_interfaces_with_the_method_the_name_tells_which() -> None:
    assert compile_chain("enter().files", INTERFACES, "BackDoor").start is SCHEMA.BackDoor


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (
            "logn().session",
            "Files",
            (
                "column 1: no method 'logn': Files has login, grouped, either, boxed, plain, live; "
                "Files.Node has size; Files.Folder has find, size; "
                "Files.Session has read, root, logout, nested; Door has enter; BackDoor has enter"
            ),
        ),
        (
            "login().session",
            "File",
            (
                "no interface 'File' in the schema: it has Files, Files.Node, "
                "Files.Folder, Files.Session, Door, BackDoor"
            ),
        ),
        (
            "enter().files",
            None,
            (
                "column 1: several interfaces have a method enter: name the "
                "server's, one of Door, BackDoor"
            ),
        ),
        (
            "login().session.red().x",
            None,
            ("column 17: no method 'red' in Files.Session: it has read, root, logout, nested"),
        ),
        (
            "login()",
            None,
            (
                "column 1: login() is followed by no field of its results: the results "
                "of login have session, pair.session"
            ),
        ),
        (
            "login().sesion",
            None,
            ("column 9: no field 'sesion' in the results of login: it has text, session, pair"),
        ),
        (
            "login().pair.x",
            None,
            ("column 14: no field 'x' in the struct pair: it has name, session, more"),
        ),
        (
            "login().text",
            None,
            (
                "column 9: text is a Text, not a capability: the results of login "
                "have session, pair.session"
            ),
        ),
        (
            "login().pair",
            None,
            (
                "column 9: pair is a struct, not a capability: the results of login "
                "have session, pair.session"
            ),
        ),
        (
            "login().session.x",
            None,
            (
                "column 9: session is a capability, which has no field x: the "
                "results of login have session, pair.session"
            ),
        ),
        (
            "plain().numbers",
            None,
            (
                "column 9: numbers is a list, not a capability: the results of "
                "plain have no capability"
            ),
        ),
        (
            "login().session.root().folder.find().any",
            None,
            (
                "column 38: any is an AnyPointer: name "
                "its interface behind it, as in .any as Session"
            ),
        ),
        (
            "login().text as Door",
            None,
            (
                "column 9: text is a Text, not a capability: the results of "
                "login have session, pair.session"
            ),
        ),
        (
            "login().session as Dor",
            None,
            (
                "column 20: no interface 'Dor' in the schema: it has "
                "Files, Files.Node, Files.Folder, Files.Session, Door, BackDoor"
            ),
        ),
    ],
)
def test_a_chain_that_does_not_fit_says_where_and_what_there_is(
    text: str, name: str | None, message: str
) -> None:
    with pytest.raises(ChainError) as caught:
        compile_chain(text, INTERFACES, name)
    assert str(caught.value) == message


# --- results --------------------------------------------------------------------------------


class Table(tuple[Any, ...]):
    """What a connection gives the views of a message."""

    __slots__ = ()

    def field(self, index: int, _interface: Any) -> Any:
        return self[index]


def results_of(method: str, values: dict[str, Any]) -> Any:
    codec = compile_interface(SCHEMA.Files).methods[method].results
    encoded, capabilities = codec.pack_with_capabilities(values)
    content = content_of_encoded(encoded)
    content[0].capabilities = Table(capabilities)  # type: ignore[attr-defined]
    return codec.open(content)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("login().session", {"session": "here"}),
        ("login().pair.more.session", {"pair": {"more": {"session": "here"}}}),
        ("grouped().inside.session", {"inside": {"session": "here"}}),
        ("either().right", {"right": "here"}),
    ],
)
def test_a_step_reads_its_capability(text: str, values: dict[str, Any]) -> None:
    (step,) = compile_chain(text, INTERFACES).steps
    assert step.capability_in(results_of(step.method.name, values)) == "here"


@pytest.mark.parametrize(
    ("text", "values", "message"),
    [
        ("login().session", {}, "there is no session in the results of login: it is null"),
        (
            "login().pair.session",
            {},
            ("there is no pair.session in the results of login: it is null"),
        ),
        (
            "either().right",
            {"none": None},
            ("there is no right in the results of either: its union has none"),
        ),
    ],
)
def test_results_without_the_capability_are_an_error(
    text: str, values: dict[str, Any], message: str
) -> None:
    (step,) = compile_chain(text, INTERFACES).steps
    with pytest.raises(BrokenChainError) as caught:
        step.capability_in(results_of(step.method.name, values))
    assert str(caught.value) == message

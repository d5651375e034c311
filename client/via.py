"""A chain of calls that leads from a server's interface to one of its capabilities: ``--via``.

    login({"user": "u"}).session
    open({"path": "/a"}).node as Files.Folder.find().file

Each call is ``method(params).field``, and the next one goes to the capability in that field:

- ``params`` are a JSON object; nothing between the parentheses is an empty one;
- ``field`` is as many names as lead there, through structs and groups: ``.pair.session``;
- behind the last of them, ``as Interface`` names what to call it as. An AnyPointer or a Capability
  needs that, since its schema does not tell; any other may have it, to be called as an interface
  that extends its own. In Cap'n Proto interfaces begin with a capital, methods and fields do not,
  which tells them apart.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NoReturn

import capnp

from capnp_rig.objects.errors import ClientError
from capnp_rig.wire.encoding.any_pointers import AnyPointer
from capnp_rig.wire.encoding.bound_types import schema_of
from capnp_rig.wire.encoding.field_types import name_of
from capnp_rig.wire.rpc.interfaces import Method, compile_interface


class ChainError(ValueError):
    """A chain has a mistake; the message says at which column, from 1, and what there is."""


class BrokenChainError(ClientError):
    """The results of a call have no capability where the chain goes on."""


# --- the text -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Name:
    """A name in the text, and the column of its first character, from 1."""

    text: str
    column: int


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it is written: its params as JSON, the fields behind it, and the cast."""

    method: Name
    params: str
    fields: tuple[Name, ...]
    interface: Name | None


_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[A-Za-z_]\w*")
_INTERFACE = re.compile(r"[A-Z]\w*(?:\s*\.\s*[A-Z]\w*)*")
_CAST = re.compile(r"as\b")
_EXAMPLE = 'login({"user": "u"}).session'


class _Text:
    """A chain that is read from the left."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    @property
    def is_read(self) -> bool:
        """Whether there is no more."""
        return self._space() == len(self._text)

    def takes(self, token: str) -> bool:
        """Go behind a token, if it is what comes next."""
        at = self._space()
        if not self._text.startswith(token, at):
            return False
        self._at = at + len(token)
        return True

    def takes_cast(self) -> bool:
        """Go behind the word of a cast, if it is what comes next."""
        match = _CAST.match(self._text, self._space())
        self._at = self._at if match is None else match.end()
        return match is not None

    def expect(self, token: str, where: str) -> None:
        """Go behind a token, which must be what comes next."""
        if not self.takes(token):
            self.refuse(f"expected {token!r} {where}")

    def name(self, what: str) -> Name:
        """Return the name that comes next."""
        return self._match(_NAME, what)

    def interface(self) -> Name:
        """Return the name of an interface that comes next."""
        name = self._match(_INTERFACE, "the name of an interface, which begins with a capital")
        return Name("".join(name.text.split()), name.column)

    def params(self, method: Name) -> str:
        """Return the JSON object up to the closing parenthesis."""
        at = self._space()
        if self.takes(")"):
            return "{}"
        if not self._text.startswith("{", at):
            self.refuse(f"expected the params of {method.text} as a JSON object, or ')'")
        try:
            # What is in it is for whoever knows the schema to judge.
            _, self._at = json.JSONDecoder().raw_decode(self._text, at)
        except json.JSONDecodeError as error:
            self._at = error.pos
            self.refuse(f"the params of {method.text} are no JSON: {error.msg}")
        except (ValueError, RecursionError):
            self.refuse(f"the params of {method.text} nest too deeply, or have too long a number")
        text = self._text[at : self._at]
        self.expect(")", f"behind the params of {method.text}")
        return text

    def refuse(self, what: str) -> NoReturn:
        """Say what is wrong with what comes next."""
        at = self._space()
        come = f"not {self._text[at : at + 20]!r}" if at < len(self._text) else "but it ends here"
        raise ChainError(f"column {at + 1}: {what}, {come}")

    def _match(self, pattern: re.Pattern[str], what: str) -> Name:
        match = pattern.match(self._text, self._space())
        if match is None:
            self.refuse(f"expected {what}")
        self._at = match.end()
        return Name(match[0], match.start() + 1)

    def _space(self) -> int:
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return self._at


def parse_chain(text: str) -> tuple[Call, ...]:
    """Return the calls of a chain, one or more.

    Raises:
        ChainError: It is not written as a chain is.
    """
    chain = _Text(text)
    if chain.is_read:
        raise ChainError(f"there is no call: write a chain such as {_EXAMPLE}")
    calls = []
    method = chain.name("a method")
    chain.expect("(", f"behind the method {method.text}: a chain is calls, such as {_EXAMPLE}")
    while True:
        call, following = _parse_call(chain, method)
        calls.append(call)
        if following is None:
            return tuple(calls)
        method = following


def _parse_call(chain: _Text, method: Name) -> tuple[Call, Name | None]:
    """Return the call whose parenthesis is open, and the method behind it, if there is any."""
    params = chain.params(method)
    fields: list[Name] = []
    while not chain.is_read:
        if fields and chain.takes_cast():
            interface = chain.interface()
            following = None if chain.is_read else _following(chain, interface)
            return Call(method, params, tuple(fields), interface), following
        chain.expect(".", f"behind {fields[-1].text if fields else method.text + '()'}")
        name = chain.name("a field or a method")
        if chain.takes("("):
            return Call(method, params, tuple(fields), None), name
        fields.append(name)
    return Call(method, params, tuple(fields), None), None


def _following(chain: _Text, interface: Name) -> Name:
    chain.expect(".", f"behind {interface.text}")
    method = chain.name("a method")
    chain.expect("(", f"behind the method {method.text}")
    return method


# --- the schema -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a chain, and where the capability stands in its results.

    `params` is a JSON object for the struct with pycapnp's `schema`. `fields` lead to the
    capability by name, `path` by indexes of pointer sections, as a pipelined call has them.
    `interface` is what the capability is called as, for `compile_interface`.
    """

    method: Method
    schema: Any
    params: str
    fields: tuple[str, ...]
    path: tuple[int, ...]
    interface: Any

    @property
    def place(self) -> str:
        """The capability in words, for messages."""
        return f"{'.'.join(self.fields)} in the results of {self.method.name}"

    def capability_in(self, results: Any) -> Any:
        """Return the capability in a view of the results, as the view has it.

        Raises:
            BrokenChainError: It is null, or in a union whose active member is another.
            WireError: The results cannot be read.
        """
        value = results
        for name in self.fields:
            active = value.which() if name in value._numbers else name  # noqa: SLF001 - a view's
            if active != name:
                raise BrokenChainError(f"there is no {self.place}: its union has {active}")
            value = getattr(value, name)
        if isinstance(value, AnyPointer):
            value = value.as_capability()
        if value is None:
            raise BrokenChainError(f"there is no {self.place}: it is null")
        return value


@dataclass(frozen=True, slots=True)
class Chain:
    """The calls from a server's interface `start` to a capability, whose interface is `end`."""

    start: Any
    steps: tuple[Step, ...]

    @property
    def end(self) -> Any:
        """The interface of the capability, for `compile_interface`."""
        return self.steps[-1].interface


def compile_chain(text: str, interfaces: Mapping[str, Any], name: str | None = None) -> Chain:
    """Return what a chain means in a schema, with its `interfaces` by name.

    `name` is an interface: the one that the server offers, where that has the first method of the
    chain, else the one to call the capability as. Then, and where `name` is None, the server's is
    the only one that has this method.

    Raises:
        ChainError: The chain has a mistake, or does not fit the schema.
    """
    calls = parse_chain(text)
    if name is not None:
        _interface_named(name, "", interfaces)
    first = calls[0].method
    start = name if name is not None and _has(interfaces[name], first.text) else None
    if start is None:
        start, calls = _start_of(calls, interfaces, name)
    steps: list[Step] = []
    for call in calls:
        steps.append(_step(call, steps[-1].interface if steps else interfaces[start], interfaces))
    return Chain(interfaces[start], tuple(steps))


def _start_of(
    calls: tuple[Call, ...], interfaces: Mapping[str, Any], end: str | None
) -> tuple[str, tuple[Call, ...]]:
    """Return the interface that has the first method, and the calls with `end` for their end."""
    method = calls[0].method
    starts = [name for name in interfaces if _has(interfaces[name], method.text)]
    if not starts:
        known = "; ".join(f"{name} has {_methods(interfaces[name])}" for name in interfaces)
        raise ChainError(f"column {method.column}: no method {method.text!r}: {known}")
    if len(starts) > 1:
        raise ChainError(
            f"column {method.column}: several interfaces have a method {method.text}: "
            f"name the server's, one of {', '.join(starts)}"
        )
    *others, last = calls
    if end is None or last.interface is not None:
        return starts[0], calls
    column = last.fields[-1].column if last.fields else last.method.column
    return starts[0], (*others, Call(last.method, last.params, last.fields, Name(end, column)))


def _has(interface: Any, method: str) -> bool:
    return method in compile_interface(interface).methods


def _methods(interface: Any) -> str:
    return ", ".join(compile_interface(interface).methods) or "none"


def _step(call: Call, interface: Any, interfaces: Mapping[str, Any]) -> Step:
    compiled = compile_interface(interface)
    method = compiled.methods.get(call.method.text)
    if method is None:
        raise ChainError(
            f"column {call.method.column}: no method {call.method.text!r} in {compiled.name}: "
            f"it has {', '.join(compiled.methods) or 'none'}"
        )
    path, schema = _follow(call, method)
    if call.interface is not None:
        target = _interface_named(
            call.interface.text, f"column {call.interface.column}: ", interfaces
        )
    else:
        target = capnp._InterfaceModule(schema, name_of(schema))  # noqa: SLF001 - no public way
    names = tuple(field.text for field in call.fields)
    return Step(method, method.params.schema, call.params, names, path, target)


def _interface_named(name: str, place: str, interfaces: Mapping[str, Any]) -> Any:
    if name not in interfaces:
        known = ", ".join(interfaces) or "none"
        raise ChainError(f"{place}no interface {name!r} in the schema: it has {known}")
    return interfaces[name]


def _follow(call: Call, method: Method) -> tuple[tuple[int, ...], Any]:
    """Return the pointers that lead to the capability, and its schema, None if it has none."""
    schema, what, path = method.results.schema, f"the results of {method.name}", list[int]()
    if not call.fields:
        column = call.method.column
        raise ChainError(
            f"column {column}: {method.name}() is followed by no field of its results: "
            f"{_capabilities(method)}"
        )
    for name, following in pairwise((*call.fields, None)):
        assert name is not None
        field = schema.fields.get(name.text)
        place = f"column {name.column}: "
        if field is None:
            known = ", ".join(schema.fieldnames) or "none"
            raise ChainError(f"{place}no field {name.text!r} in {what}: it has {known}")
        kind, inner = _type_of(field)
        if field.proto.which() == "slot":
            path.append(field.proto.slot.offset)
        what, schema = f"the {kind} {name.text}", inner
        if following is None:
            _check_end(call, method, kind, place, name)
        elif kind not in {"struct", "group"}:
            raise ChainError(
                f"{place}{name.text} is {_A[kind]}, which has no field {following.text}: "
                f"{_capabilities(method)}"
            )
    return tuple(path), schema


def _check_end(call: Call, method: Method, kind: str, place: str, name: Name) -> None:
    if kind == "anyPointer":
        if call.interface is None:
            raise ChainError(
                f"{place}{name.text} is {_A[kind]}: name its interface behind it, "
                f"as in .{name.text} as Session"
            )
    elif kind != "interface":
        raise ChainError(
            f"{place}{name.text} is {_A[kind]}, not a capability: {_capabilities(method)}"
        )


def _type_of(field: Any) -> tuple[str, Any]:
    """Return the kind of a field, as schema.capnp names it, and its schema, if it has one.

    A parameter of a generic type is what it is bound to.
    """
    if field.proto.which() == "group":
        return "group", field.schema
    which = str(field.proto.slot.type.which())
    if which not in {"interface", "struct", "anyPointer"}:
        return which, None
    schema = schema_of(field, "schema")
    if isinstance(schema, capnp.lib.capnp._InterfaceSchema):  # noqa: SLF001 - no public name
        return "interface", schema
    if isinstance(schema, capnp.lib.capnp._StructSchema):  # noqa: SLF001 - no public name
        return "struct", schema
    return "anyPointer", None


_NUMBERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_A = {
    **dict.fromkeys((*_NUMBERS, "float32", "float64"), "a number"),
    **{name: f"a {name.title()}" for name in ("void", "bool", "text", "data")},
    "list": "a list",
    "enum": "an enum",
    "struct": "a struct",
    "group": "a group",
    "interface": "a capability",
    "anyPointer": "an AnyPointer",
}


def _capabilities(method: Method) -> str:
    """Return which capabilities the results of a method have, in words."""
    paths = list(_capability_paths(method.results.schema, "", ()))
    if not paths:
        return f"the results of {method.name} have no capability"
    return f"the results of {method.name} have {', '.join(paths)}"


def _capability_paths(schema: Any, prefix: str, above: Sequence[int]) -> Iterator[str]:
    for field in schema.fields_list:
        kind, inner = _type_of(field)
        name = f"{prefix}{field.proto.name}"
        if kind in {"interface", "anyPointer"}:
            yield name
        elif kind in {"struct", "group"} and inner.node.id not in above:
            yield from _capability_paths(inner, f"{name}.", (*above, inner.node.id))

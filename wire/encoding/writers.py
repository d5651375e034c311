"""Writers of structs: functions whose source is put together from a schema, then compiled.

One `struct.pack` writes the data and pointer sections of a struct; what the struct points to
follows as parts of its own. That takes 2.1 µs for the benchmarks' record of 12 mixed fields, and
1.5 µs in a list; a loop over closures that each fill in their field took 7.2 µs (CPython 3.11).

What structs point to follows in the order in which a reader meets it. `tail` holds the parts so
far, and `at` is the distance in words from the start of the struct to the end of `tail`. A writer
appends its parts and returns the bytes of its struct and the new distance. So the elements of a
list, which lie side by side in front of all that they point to, are written in one pass.

A writer raises whatever Python raises for a value that does not fit. Afterwards
`StructCodec.mistake` finds out which value it was.

Of ``struct Point { x @0 :Int32; name @1 :Text; }`` the writer is::

    def write(v, at, tail):
        if type(v) is not dict or len(v) != 2:
            v = complete(v)
            if not v:
                return nothing, at
        x = v['name']
        if x is None:
            p0 = 0
        else:
            x = encode(x)
            n = len(x)
            tail.append(x)
            tail.append(closing[n & 7])
            p0 = (at << 2) + (n << 35) + 42949672953
            at += n + 8 >> 3
        return pack(v['x'], p0), at
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from typing import Any

from capnp_rig.wire.encoding.field_types import Atom, Field, PointerType, Writer
from capnp_rig.wire.encoding.generated import compile_function

# Returns a dict with a value for every field.
Complete = Callable[[Any], dict[str, Any]]


def write_elements(items: Sequence[Any], write: Writer, own_words: int, tail: list[Any]) -> int:
    """Append the elements of a list, then what they point to; return how many words that is.

    `own_words` is the size of one element.
    """
    first, section = len(tail), own_words * len(items)
    at = section
    heads: list[bytes] = []
    add = heads.append
    for item in items:
        head, at = write(item, at, tail)
        add(head)
        at -= own_words
    tail[first:first] = heads
    return section + at


def compile_writer(
    name: str,
    fields: Sequence[Field],
    sizes: tuple[int, int],
    complete: Complete,
    number: Atom | None,
) -> Writer:
    """Return the writer of a struct, which takes a mapping of names to values.

    One that lacks a field goes through `complete` first; a name that is no field raises
    `KeyError`. `sizes` are those of the data section, in words, and of the pointer section.
    `number` is the place of the number of the active member of a union, None without one.
    """
    plain = [field for field in fields if field.member is None]
    names: dict[str, object] = {"complete": complete, "nothing": bytes(8 * sum(sizes))}
    count, completed, union, heads = f"{len(plain)}", [], [], []
    if number is not None:
        members = {
            field.name: _member_writer(name, field, sizes, number)
            for field in fields
            if field.member is not None
        }
        voids = {field.name for field in fields if field.is_void}
        names["given"] = frozenset(members).intersection
        names["choose"] = partial(_choose, members, voids)
        count += " + len(members := given(v))"
        completed = ["    members = given(v)"]
        union, heads = ["union, at = choose(v, members)(v, at, tail)"], ["union"]
    body = [
        f"if type(v) is not dict or len(v) != {count}:",
        "    v = complete(v)",
        "    if not v:",
        "        return nothing, at",
        *completed,
        *union,
        *_section(plain, sizes, names, heads),
    ]
    return _compiled(name, body, names)


def _member_writer(name: str, field: Field, sizes: tuple[int, int], number: Atom) -> Writer:
    """Return what writes a member of a union and its number, and of all else zeros."""
    names: dict[str, object] = {}
    chosen = Field("", field.get, atom=replace(number, expression=str(field.member)))
    return _compiled(f"{name}.{field.name}", _section([chosen, field], sizes, names, []), names)


def _nothing(_value: Any, at: int, _tail: list[Any]) -> tuple[bytes, int]:
    return b"", at


def _choose(
    members: Mapping[str, Writer],
    voids: AbstractSet[str],
    values: Mapping[str, Any],
    given: AbstractSet[str],
) -> Writer:
    """Return what writes the member of a union that `values` choose, which have those `given`.

    None chooses a member that is Void, and no other.

    Raises:
        ValueError: More than one is chosen.
        TypeError: A member that is Void has a value.
    """
    if len(given) == 1:
        # The usual case, in half the time.
        (name,) = given
        if values[name] is not None and name not in voids:
            return members[name]
    chosen = [name for name in given if values[name] is not None or name in voids]
    if len(chosen) > 1:
        all_chosen = " and ".join(name for name in members if name in chosen)
        raise ValueError(f"{all_chosen} are in one union: give one of them")
    for name in chosen:
        if name in voids and values[name] is not None:
            raise TypeError(f"expected None for {name}, not {type(values[name]).__name__}")
        return members[name]
    return _nothing


def compile_element_writer(pointer_type: PointerType) -> Writer:
    """Return the writer of an element of a list of pointers."""
    names: dict[str, object] = {"pack": struct.Struct("<Q").pack}
    body = ["x = v", *pointer_type.write_source("p0", 0, names), "return pack(p0), at"]
    return _compiled("element", body, names)


def _compiled(name: str, body: Iterable[str], names: dict[str, object]) -> Writer:
    source = "def write(v, at, tail):\n" + "".join(f"    {line}\n" for line in body)
    writer: Writer = compile_function("write", f"writer of {name}", source, names)
    return writer


def _section(
    fields: Sequence[Field], sizes: tuple[int, int], names: dict[str, object], heads: list[str]
) -> list[str]:
    """Return the lines that write fields and return the bytes of the struct.

    They are combined with `heads`, which have the fields of groups and unions: what one of them
    writes is zero in the others.
    """
    data_words, pointer_count = sizes
    body, heads = [], [*heads]
    words: dict[int, str] = {}
    for number, field in enumerate(fields):
        value = f"v[{field.name!r}]"
        if field.group is not None:
            head = f"group{number}"
            heads.append(head)
            names[f"write_{head}"] = field.group.writer
            body += [
                f"x = {value}",
                f"{head}, at = write_{head}({{}} if x is None else x, at, tail)",
            ]
        elif field.pointer_type is not None:
            assert field.slot is not None
            word = words[field.slot] = f"p{field.slot}"
            lines = field.pointer_type.write_source(word, data_words + field.slot, names)
            body += [f"x = {value}", "if x is None:", f"    {word} = 0", "else:"]
            body += [f"    {line}" for line in lines]
    data_format, data = _data_section(fields, data_words, names)
    pointer_format = "".join("Q" if slot in words else "8x" for slot in range(pointer_count))
    pointers = [words[slot] for slot in sorted(words)]
    names["pack"] = struct.Struct(f"<{data_format}{pointer_format}").pack
    packed = f"pack({', '.join([*data, *pointers])})"
    if heads:
        names["number"] = int.from_bytes
        numbers = " | ".join(f"number({head}, 'little')" for head in [packed, *heads])
        packed = f"({numbers}).to_bytes({8 * sum(sizes)}, 'little')"
    return [*body, f"return {packed}, at"]


def _data_section(
    fields: Sequence[Field], data_words: int, names: dict[str, object]
) -> tuple[str, list[str]]:
    """Return the format of a data section and the expressions that it packs."""
    # By its first byte: bools share one.
    parts: dict[int, tuple[str, list[str]]] = {}
    for field in fields:
        atom = field.atom
        if atom is None:
            continue
        names.update(atom.names)
        expression = atom.expression.format(value=f"v[{field.name!r}]")
        if atom.bit:
            expression = f"{expression} << {atom.bit}"
        parts.setdefault(atom.byte, (atom.code, []))[1].append(expression)
    layout, expressions, end = "", [], 0
    for byte, (code, values) in sorted(parts.items()):
        layout += f"{byte - end}x{code}"
        end = byte + struct.calcsize(code)
        expressions.append(" | ".join(values))
    return f"{layout}{8 * data_words - end}x", expressions

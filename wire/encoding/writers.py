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
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from capnp_rig.wire.encoding.field_types import Field, PointerType, Writer
from capnp_rig.wire.encoding.generated import compile_function

# Returns a dict with a value for every field.
Complete = Callable[[Any], dict[str, Any]]


class NeedsFallback(Exception):
    """A value is for a field that only pycapnp writes."""


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
    name: str, fields: Sequence[Field], data_words: int, pointer_count: int, complete: Complete
) -> Writer:
    """Return the writer of a struct, which takes a mapping of names to values.

    One that lacks a field goes through `complete` first. A value for a field of the fallback
    raises `NeedsFallback`, a name that is no field `KeyError`.
    """
    names: dict[str, object] = {
        "complete": complete,
        "NeedsFallback": NeedsFallback,
        "nothing": bytes(8 * (data_words + pointer_count)),
    }
    body = [
        f"if type(v) is not dict or len(v) != {len(fields)}:",
        "    v = complete(v)",
        "    if not v:",
        "        return nothing, at",
    ]
    words: dict[int, str] = {}
    for number, field in enumerate(fields):
        value = f"v[{field.name!r}]"
        if field.is_fallback:
            names[f"unset_{number}"] = field.default
            body += [f"if {value} is not unset_{number}:", "    raise NeedsFallback"]
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
    return _compiled(name, body, [*data, *pointers], names)


def compile_element_writer(pointer_type: PointerType) -> Writer:
    """Return the writer of an element of a list of pointers."""
    names: dict[str, object] = {"pack": struct.Struct("<Q").pack}
    body = ["x = v", *pointer_type.write_source("p0", 0, names)]
    return _compiled("element", body, ["p0"], names)


def _compiled(
    name: str, body: Iterable[str], packed: Iterable[str], names: dict[str, object]
) -> Writer:
    lines = [*body, f"return pack({', '.join(packed)}), at"]
    source = "def write(v, at, tail):\n" + "".join(f"    {line}\n" for line in lines)
    writer: Writer = compile_function("write", f"writer of {name}", source, names)
    return writer


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

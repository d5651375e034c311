"""Readers of whole structs: functions whose source is put together from a schema, then compiled.

The data and the pointers of a struct are unpacked at once, and texts, data and numbers are taken
from the buffer in place. That takes 2.3 µs for the benchmarks' record of 12 mixed fields; one
accessor after the other takes 5.3 µs (CPython 3.11). A far pointer or a bad one is left to the
accessors, which read it or refuse it; so is a number that has become a struct.

Of ``struct Point { x @0 :Int32; name @1 :Text; }`` the reader is::

    def read(view):
        message, start, end, data, _, pointers, pointers_end, depth = view._at
        buffer = message.buffer
        if not (pointers - data == 8 and pointers_end - pointers == 8
                and depth > 0 and type(buffer) is bytes):
            return otherwise(view)
        [raw0, low0, high0] = unpack(buffer, data)
        budget = message.budget_words
        first = pointers + 6 + 2 * low0
        last = first + (high0 >> 3) - 1
        if (low0 & 3 == 1 and high0 & 7 == 2
                and start <= first <= last < end and not buffer[last]
                and (budget := budget - (high0 + 56 >> 6)) >= 0):
            try:
                x0 = buffer[first:last].decode()
            except UnicodeDecodeError:
                x0 = native0(view)
        elif not (low0 or high0):
            x0 = ''
        else:
            message.budget_words = budget
            x0 = native0(view)
            budget = message.budget_words
        message.budget_words = budget
        result = {'x': raw0, 'name': x0}
        return result
"""

import struct
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from capnp_rig.wire.encoding.field_types import Accessor, Atom, Field
from capnp_rig.wire.encoding.generated import compile_function
from capnp_rig.wire.encoding.pointers import Buffer

# The name of a field, and what reads a value of it that does not need the buffer.
Native = tuple[str, Accessor]
# Returns the fields of a view.
Reader = Callable[[Any], dict[str, Any]]


class Union(NamedTuple):
    """A union: where the number of the active member stands, and the members by their number.

    `first_slot` is the pointer of member 0 if a null one is left out.
    """

    number: Atom
    members: Mapping[int, Native]
    first_slot: int | None


def compile_reader(
    name: str,
    fields: Sequence[Field],
    data_words: int,
    pointer_count: int,
    union: Union | None,
    one_by_one: Reader,
) -> Reader:
    """Return the reader of a struct with a union, if it has one, and fields that are in none.

    It is the method `to_dict` of the views. What it does not read at once, `one_by_one` does.
    """
    sizes = data_words, pointer_count
    # One for bytes and our sizes, and one for all buffers and sizes, which takes 9 % longer.
    in_any_buffer = _reader(name, fields, sizes, union, one_by_one, is_bytes=False)
    return _reader(name, fields, sizes, union, in_any_buffer, is_bytes=True)


def _reader(
    name: str,
    fields: Sequence[Field],
    sizes: tuple[int, int],
    union: Union | None,
    otherwise: Reader,
    *,
    is_bytes: bool,
) -> Reader:
    data_words, pointer_count = sizes
    names: dict[str, object] = {"otherwise": otherwise}
    atoms = [field.atom for field in fields if field.atom is not None]
    slots = {field.slot for field in fields}
    if union is not None:
        atoms.append(union.number)
        slots.add(union.first_slot)
    layout, raw = _layout(atoms, slots, data_words, pointer_count)
    is_ours = [
        f"pointers - data == {8 * data_words} and pointers_end - pointers == {8 * pointer_count}",
        "        and depth > 0",
    ]
    unpack = f"[{', '.join(raw)}] = unpack({{}})"
    # Structs without size have a place that need not be in the buffer.
    at_once = unpack.format("buffer, data") if raw else "pass"
    fitted = unpack.format("fitted(buffer, data, pointers, pointers_end)") if raw else "pass"
    body = [
        "message, start, end, data, _, pointers, pointers_end, depth = view._at",
        "buffer = message.buffer",
    ]
    if is_bytes:
        body += [f"if not ({is_ours[0]}", f"{is_ours[1]} and type(buffer) is bytes):"]
        body += ["    return otherwise(view)", at_once]
    else:
        body += [f"if ({is_ours[0]}", f"{is_ours[1]}):", f"    {at_once}"]
        body += ["elif pointers - data & 7 or depth <= 0:", "    return otherwise(view)"]
        body += ["else:", f"    {fitted}"]
    names["unpack"] = struct.Struct(layout).unpack_from
    names["fitted"] = partial(_fitted, 8 * data_words, 8 * pointer_count)
    values = [_value(number, field, names) for number, field in enumerate(fields)]
    lines = [line for field in fields for line in _pointer_lines(field, names, is_bytes=is_bytes)]
    if lines:
        body += ["budget = message.budget_words", *lines, "message.budget_words = budget"]
    body += _result_lines(fields, values)
    if union is not None:
        names["members"] = union.members
        active, first = f"raw{union.number.byte}", union.first_slot
        is_present = "" if first is None else f" and ({active} or low{first} or high{first})"
        body += [
            f"if {active} in members{is_present}:",
            f"    name, read = members[{active}]",
            "    result[name] = read(view)",
        ]
    source = "def read(view):\n" + "".join(f"    {line}\n" for line in [*body, "return result"])
    reader: Reader = compile_function("read", f"reader of {name}", source, names)
    return reader


def _fitted(
    data_bytes: int, pointer_bytes: int, buffer: Buffer, data: int, pointers: int, end: int
) -> bytes:
    """Return the sections of a struct of an older or a newer schema as if they had our sizes.

    What it lacks is zero: defaults, since values are sent XORed with them, and null pointers.
    """
    section = bytes(buffer[data : min(pointers, data + data_bytes)]).ljust(data_bytes, b"\0")
    return section + bytes(buffer[pointers : min(end, pointers + pointer_bytes)]).ljust(
        pointer_bytes, b"\0"
    )


def _layout(
    atoms: Sequence[Atom], slots: Container[int | None], data_words: int, pointer_count: int
) -> tuple[str, list[str]]:
    """Return the format of a struct and the names of what it unpacks to."""
    # Bools share a byte.
    codes = {atom.byte: atom.code for atom in atoms}
    layout, raw, end = "<", [], 0
    for byte, code in sorted(codes.items()):
        layout += f"{byte - end}x{code}"
        end = byte + struct.calcsize(code)
        raw.append(f"raw{byte}")
    layout += f"{8 * data_words - end}x"
    for slot in range(pointer_count):
        layout += "iI" if slot in slots else "8x"
        raw += [f"low{slot}", f"high{slot}"] if slot in slots else []
    return layout, raw


def _pointer_lines(field: Field, names: dict[str, object], *, is_bytes: bool) -> list[str]:
    """Return the lines that read the value of a pointer field into ``x`` and its slot."""
    pointer_type, slot = field.pointer_type, field.slot
    if pointer_type is None or field.omits_null:
        return []
    assert slot is not None
    names[f"native{slot}"] = native_accessor(field)
    lines = []
    source = pointer_type.native_source(f"high{slot}", names)
    if source is not None:
        lines += [
            f"first = pointers + {8 * slot + 6} + 2 * low{slot}",  # as in `accessors`
            f"last = first + {source.offset}",
            f"if (low{slot} & 3 == 1 and high{slot} & 7 == {source.element}",
            f"        and start <= first {source.condition}",
            f"        and (budget := budget - ({source.words})) >= 0):",
            "    try:",
            f"        x{slot} = {source.value if is_bytes else source.value_in_any_buffer}",
            "    except UnicodeDecodeError:",
            f"        x{slot} = native{slot}(view)",
        ]
    if field.null_source is not None:
        condition = f"if not (low{slot} or high{slot}):"
        lines += [f"el{condition}" if lines else condition, f"    x{slot} = {field.null_source}"]
    by_accessor = [
        "message.budget_words = budget",
        f"x{slot} = native{slot}(view)",
        "budget = message.budget_words",
    ]
    return [*lines, "else:", *(f"    {line}" for line in by_accessor)] if lines else by_accessor


def _value(number: int, field: Field, names: dict[str, object]) -> str:
    if field.pointer_type is not None:
        if not field.omits_null:
            return f"x{field.slot}"
        names[f"native{field.slot}"] = native_accessor(field)
        return f"native{field.slot}(view)"
    if field.group is not None:
        # The group has the same place and sizes as the view: what is read at once, it is, too.
        names[f"group{number}"] = field.group.view.to_dict
        return f"group{number}(view)"
    if field.atom is None:
        return "None"
    names.update(field.atom.read_names)
    if field.atom.read is not None:
        return field.atom.read.format(raw=f"raw{field.atom.byte}")
    names[f"field{number}"] = field.get
    return f"field{number}(view)"


def _result_lines(fields: Sequence[Field], values: Sequence[str]) -> list[str]:
    """Return the lines that make the dict; a struct that is null is left out of it."""
    pairs = list(zip(fields, values, strict=True))
    omitted = [at for at, field in enumerate(fields) if field.omits_null]
    plain = omitted[0] if omitted else len(pairs)
    entries = ", ".join(f"{field.name!r}: {value}" for field, value in pairs[:plain])
    lines = [f"result = {{{entries}}}"]
    for at, (field, value) in enumerate(pairs[plain:], plain):
        line = f"result[{field.name!r}] = {value}"
        slot = field.slot
        lines.append(f"if low{slot} or high{slot}: {line}" if at in omitted else line)
    return lines


def native_accessor(field: Field) -> Accessor:
    """Return an accessor of values that do not need the buffer."""
    get, to_native = field.get, field.to_native
    return get if to_native is None else lambda view: to_native(get(view))

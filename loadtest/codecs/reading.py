"""Readers that feed a checksum, one for all codecs: they differ in how a field is reached only.

A loop over names with `getattr` would cost more than most codecs, and hand-written readers
would drift apart, so the readers are compiled from one template per kind of field. That of one
field of a wire view is::

    def read(r):
        return (len(t := r.name) + ord(t[-1]))
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from capnp_rig.loadtest.codecs.messages import KINDS, NUMERIC, Record, Tensor
from capnp_rig.loadtest.stats.messages import Message
from capnp_rig.wire.encoding.generated import compile_function

# Shares of the fields: a percentage, or one of these.
Share = int | str
ONE_FIELD = "one field"
ONE_COLUMN, NUMERIC_COLUMNS = "one column", "numeric columns"
# The names of the columns that are read, or written.
COLUMNS: Mapping[Share, Sequence[str]] = {ONE_COLUMN: ("price",), NUMERIC_COLUMNS: tuple(NUMERIC)}
PERCENTS = (1, 10, 50, 100)
SHARES: tuple[int | str, ...] = (ONE_FIELD, *PERCENTS)

# Returns the checksum of what a codec opened.
Read = Callable[[Any], float]

FIELDS = Record._fields
_NAMED_FIELD = "name"
KIND_NUMBERS = {kind: number for number, kind in enumerate(KINDS)}
_OTHER_FIELDS = ("content", "records", "data", "shape")
_TEXT, _DATA = "len(t := {}) + ord(t[-1])", "len(d := {}) + d[-1]"
# What of a field's value goes into the checksum, of a number itself.
_TERMS = {"name": _TEXT, "note": _TEXT, "key": _DATA, "readings": "sum({})"}


def spread(count: int, percent: int) -> list[int]:
    """Return `percent` of `count` indexes, evenly spread, at least one."""
    taken = max(1, -(-count * percent // 100))
    return [index * count // taken for index in range(taken)]


def readers(
    reach: str,
    own: Mapping[str, str] | None = None,
    records: Callable[[Any], Any] | None = None,
    every: Callable[[Any, int], Iterable[Any]] | None = None,
    **names: object,
) -> dict[Message, dict[Share, Read]]:
    """Return the readers of every share of every message.

    `reach` says how a field of ``r``, which was opened, is reached: ``r.{}`` or ``r["{}"]``. A
    field that is reached in another way, or does not give the plain Python value, has its
    expression in `own`, written with `names`; that of a kind gives its number. `records` gets the
    list of what was opened where no field is one, `every` each n-th of a list that has no slices.
    """
    values = {field: reach.format(field) for field in (*FIELDS, *_OTHER_FIELDS)}
    values |= {"kind": f"KIND_NUMBERS[{values['kind']}]", **(own or {})}
    names |= {"KIND_NUMBERS": KIND_NUMBERS, "read_text": read_text}

    def read(what: str, expression: str) -> Any:
        source = f"def read(r):\n    return {expression}\n"
        return compile_function("read", f"reader of {what} by {reach}", source, {**names})

    def read_record(share: Share) -> Read:
        fields = (
            [_NAMED_FIELD]
            if share == ONE_FIELD
            else [FIELDS[index] for index in spread(len(FIELDS), int(share))]
        )
        terms = [_TERMS.get(field, "{}").format(values[field]) for field in fields]
        reader: Read = read(f"{share} of a record", " + ".join(f"({term})" for term in terms))
        return reader

    record = {share: read_record(share) for share in SHARES}
    data, shape = read("data", values["data"]), read("shape", values["shape"])
    if records is None:
        records = read("records", values["records"])
    return {
        Message.TEXT: {100: read("a text", f"read_text({values['content']})")},
        Message.RECORD: record,
        Message.RECORDS: _records_reads(records, record, every),
        Message.TENSOR: _tensor_reads(data, shape),
    }


def record_dicts(
    reach: str, own: Mapping[str, str] | None = None, **names: object
) -> Callable[[Any], dict[str, Any]]:
    """Return what makes a dict of a record, by the names of its fields.

    Arguments are as for `readers`, but a kind gives its name. A `reach` of ``{}`` is for a
    `Record`, which is unpacked.
    """
    values = {field: reach.format(field) for field in FIELDS}
    values |= own or {}
    items = ", ".join(f"{field!r}: {value}" for field, value in values.items())
    unpacking = f"    {', '.join(FIELDS)} = r\n" if reach == "{}" else ""
    source = f"def fields(r):\n{unpacking}    return {{{items}}}\n"
    convert: Callable[[Any], dict[str, Any]] = compile_function(
        "fields", f"fields of a record by {reach}", source, names
    )
    return convert


def _records_reads(
    records: Callable[[Any], Any],
    reads: Mapping[Share, Read],
    every: Callable[[Any, int], Iterable[Any]] | None,
) -> dict[Share, Read]:
    read_all, read_one = reads[100], reads[ONE_FIELD]

    def of(percent: int) -> Read:
        step = 100 // percent
        if every is None:
            return lambda opened: sum(map(read_all, records(opened)[::step]))
        return lambda opened: sum(map(read_all, every(records(opened), step)))

    def one_field(opened: Any) -> float:
        listed = records(opened)
        return read_one(listed[len(listed) // 2])

    return {ONE_FIELD: one_field, **{percent: of(percent) for percent in PERCENTS}}


def _tensor_reads(
    data: Callable[[Any], Any], shape: Callable[[Any], Sequence[int]]
) -> dict[Share, Read]:
    def of(percent: int) -> Read:
        step = 100 // percent

        def read(opened: Any) -> float:
            values = np.frombuffer(data(opened), "<f4").reshape(shape(opened))
            return float(values[::step].sum())

        return read

    def one_field(opened: Any) -> float:
        values = np.frombuffer(data(opened), "<f4")
        return float(values[0] + values[-1])

    return {ONE_FIELD: one_field, **{percent: of(percent) for percent in PERCENTS}}


def read_text(text: str) -> float:
    """Return the checksum of a text: it cannot be had undecoded, and costs next to nothing."""
    return len(text) + ord(text[0]) + ord(text[-1])


def total(columns: Iterable[Any]) -> float:
    """Return the checksum of columns: exact, since a float32 is summed as a float64."""
    return float(
        sum(float(each.sum(dtype="<f8" if each.dtype == "<f4" else None)) for each in columns)
    )


def columns_of(reach: str, *, kind: str = "KIND_NUMBERS[{}]") -> Callable[[Any, Any], list[Any]]:
    """Return what makes numpy arrays of some fields of opened records.

    `reach` is as for `readers`, `kind` the number of what it gives for a kind.
    """
    names = {"KIND_NUMBERS": KIND_NUMBERS}
    columns = {}
    for field, dtype in NUMERIC.items():
        value = reach.format(field)
        value = kind.format(value) if field == "kind" else value
        source = f"def values(records):\n    return ({value} for r in records)\n"
        values = compile_function("values", f"a column by {reach}", source, {**names})
        columns[field] = (values, np.dtype(dtype))

    def read(records: Any, fields: Iterable[str]) -> list[Any]:
        count = len(records)
        return [
            np.fromiter(values(records), dtype, count)
            for values, dtype in map(columns.__getitem__, fields)
        ]

    return read


_READS = readers("r.{}", {"content": "r", "records": "r", "data": "r.values"})


def _table_read(names: Iterable[str]) -> Read:
    return lambda table: total(table.columns[name] for name in names)


_READS[Message.TABLE] = {share: _table_read(names) for share, names in COLUMNS.items()}


def checksum(message: Message, values: Any, share: Share) -> float:
    """Return what reading a share of a message's native values gives, without any codec."""
    return _READS[message][share](values)


def same(message: Message, first: Any, second: Any) -> bool:
    """Tell whether two native values of a message are equal.

    A record may also be a dict or an object with attributes, as the codec gives it.
    """
    if message is Message.TEXT:
        return type(first) is type(second) is str and first == second
    if message is Message.RECORD:
        return _plain(first) == _plain(second)
    if message is Message.RECORDS:
        return [_plain(record) for record in first] == [_plain(record) for record in second]
    return _is_float32(first) and _is_float32(second) and _tensor_key(first) == _tensor_key(second)


def _plain(record: Any) -> Record:
    if isinstance(record, Record):
        return record
    if isinstance(record, Mapping):
        return Record(**record)
    return Record(*(getattr(record, field) for field in FIELDS))


def _is_float32(value: object) -> bool:
    return isinstance(value, Tensor) and value.values.dtype == np.dtype("<f4")


def _tensor_key(tensor: Tensor) -> tuple[object, ...]:
    return tensor.name, list(tensor.shape), tensor.values.shape, tensor.values.tobytes()

"""Readers that feed a checksum, one for all codecs: they differ in how a field is reached only.

A loop over names with `getattr` would cost more than most codecs, and hand-written readers
would drift apart, so the readers of records are compiled from one template per kind of field. That
of one field of a wire view is::

    def read(r):
        return (len(t := r.name) + ord(t[-1]))
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from capnp_rig.loadtest.codecs.messages import KINDS, Message, Record, Tensor
from capnp_rig.wire.encoding.generated import compile_function

# Shares of the fields: a percentage, or this.
ONE_FIELD = "one field"
PERCENTS = (1, 10, 50, 100)
SHARES: tuple[int | str, ...] = (ONE_FIELD, *PERCENTS)

Share = int | str
# Returns the checksum of what a codec opened.
Read = Callable[[Any], float]

FIELDS = Record._fields
_NAMED_FIELD = "name"
KIND_NUMBERS = {kind: number for number, kind in enumerate(KINDS)}
_TEXT, _DATA = "len(t := {}) + ord(t[-1])", "len(d := {}) + d[-1]"
_TERMS = {
    **dict.fromkeys(FIELDS, "{}"),
    "kind": "KIND_NUMBERS[{}]",
    "name": _TEXT,
    "note": _TEXT,
    "key": _DATA,
    "readings": "sum({})",
}


def spread(count: int, percent: int) -> list[int]:
    """Return `percent` of `count` indexes, evenly spread, at least one."""
    taken = max(1, -(-count * percent // 100))
    return [index * count // taken for index in range(taken)]


def record_read(reach: str, share: Share, own: Mapping[str, str], **names: object) -> Read:
    """Return the reader of a share of a record's fields.

    `reach` says how a field of ``r`` is reached: ``r.{}`` or ``r["{}"]``. A field that is
    not the plain Python value has its whole term in `own`, written with `names`.
    """
    fields = (
        [_NAMED_FIELD]
        if share == ONE_FIELD
        else [FIELDS[index] for index in spread(len(FIELDS), int(share))]
    )
    terms = [own.get(field) or _TERMS[field].format(reach.format(field)) for field in fields]
    source = f"def read(r):\n    return {' + '.join(f'({term})' for term in terms)}\n"
    what = f"reader of a record by {reach}, {share}"
    reader: Read = compile_function("read", what, source, {"KIND_NUMBERS": KIND_NUMBERS, **names})
    return reader


def record_reads(
    reach: str, own: Mapping[str, str] | None = None, **names: object
) -> dict[Share, Read]:
    """Return the readers of every share of a record; arguments as for `record_read`."""
    return {share: record_read(reach, share, own or {}, **names) for share in SHARES}


def records_reads(
    records: Callable[[Any], Sequence[Any]],
    reads: Mapping[Share, Read],
    every: Callable[[Sequence[Any], int], Iterable[Any]] | None = None,
) -> dict[Share, Read]:
    """Return the readers of every share of a list of records.

    `records` gets the list of what was opened, `reads` are those of one record, and `every`
    gets each n-th of the list, for lists that cannot be sliced.
    """
    read_all, read_one = reads[100], reads[ONE_FIELD]

    def of(percent: int) -> Read:
        step = 100 // percent
        if every is None:
            return lambda opened: sum(map(read_all, records(opened)[::step]))
        return lambda opened: sum(map(read_all, every(records(opened), step)))

    def one(opened: Any) -> float:
        found = records(opened)
        return read_one(found[len(found) // 2])

    return {ONE_FIELD: one, **{percent: of(percent) for percent in PERCENTS}}


def tensor_reads(
    data: Callable[[Any], Any], shape: Callable[[Any], Sequence[int]]
) -> dict[Share, Read]:
    """Return the readers of every share of a tensor, by numpy.

    `data` gets the elements as a buffer of their bytes, `shape` the numbers of rows and columns.
    """

    def of(percent: int) -> Read:
        step = 100 // percent

        def read(opened: Any) -> float:
            values = np.frombuffer(data(opened), "<f4").reshape(shape(opened))
            return float(values[::step].sum())

        return read

    def one(opened: Any) -> float:
        values = np.frombuffer(data(opened), "<f4")
        return float(values[0] + values[-1])

    return {ONE_FIELD: one, **{percent: of(percent) for percent in PERCENTS}}


def read_text(text: str) -> float:
    """Return the checksum of a text: it cannot be had undecoded, and costs next to nothing."""
    return len(text) + ord(text[0]) + ord(text[-1])


_RECORD_READS = record_reads("r.{}")
_READS: dict[Message, Mapping[Share, Read]] = {
    Message.TEXT: {100: read_text},
    Message.RECORD: _RECORD_READS,
    Message.RECORDS: records_reads(lambda native: native, _RECORD_READS),
    Message.TENSOR: tensor_reads(lambda native: native.values, lambda native: native.shape),
}


def checksum(message: Message, values: Any, share: Share) -> float:
    """Return what reading a share of a message's native values gives, without any codec."""
    return _READS[message][share](values)


def same(message: Message, one: Any, other: Any) -> bool:
    """Tell whether two native values of a message are equal.

    A record may also be a dict or an object with attributes, as the codec gives it.
    """
    if message is Message.TEXT:
        return type(one) is type(other) is str and one == other
    if message is Message.RECORD:
        return _plain(one) == _plain(other)
    if message is Message.RECORDS:
        return [_plain(record) for record in one] == [_plain(record) for record in other]
    return _is_float32(one) and _is_float32(other) and _tensor_key(one) == _tensor_key(other)


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

"""The messages that every codec carries: seeded native values, and what reading them must give.

    text      the tutorial's message, one Text
    record    12 mixed fields: integers, a bool, an enum, floats, texts, bytes, a list of floats
    records   a list of 1,000 records
    tensor    a name, a shape and float32 elements, 16 to a row
    table     100 records or more, for those who want their numbers as columns of numpy

Reading feeds a checksum, which is the same for every codec since it is taken of the values:

- of a text: its length, first and last character. It is one field, whole or not at all.
- of a number itself, of an enum its number, of a text or bytes the length and the last
  character or byte, of a list the sum.
- of a tensor the sum of elements, which are so few-digited that it is exact in any order.

``k %`` of a record are evenly spread fields, at least one; of the records every (100 / k)-th
record with all its fields; of a tensor every (100 / k)-th row. ``one field`` is the name of
the record, or of the record in the middle, and the tensor's elements as a numpy array of which
the first and the last are read. ``one column`` of a table is the sum of its prices, ``numeric
columns`` that of the sums of all.
"""

import random
import string
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from capnp_rig.loadtest.stats.messages import (
    FIXED_BYTES,
    KEY_LENGTH,
    NAME_LENGTH,
    NOTE_LENGTH,
    READINGS,
    RECORD_BYTES,
    RECORD_COUNT,
    Message,
)

# Part of every result: another seed or another recipe below gives other figures.
DATA_SEED = 1
KINDS = ("created", "updated", "moved", "removed")
ROW = 16

_LETTERS = (string.ascii_letters + string.digits + " .").encode()
# Every byte to a letter, each of the 64 equally often.
_TO_LETTER = _LETTERS * 4


# The fields of a record that are numbers, which come first, and their types.
NUMERIC = {
    "id": "<u8",
    "time": "<i8",
    "kind": "<u2",
    "active": "?",
    "total": "<u4",
    "change": "<i4",
    "price": "<f8",
    "weight": "<f4",
}


class Record(NamedTuple):
    """A record's native values, in the order of the schema; `kind` is one of `KINDS`."""

    id: int
    time: int
    kind: str
    active: bool
    total: int
    change: int
    price: float
    weight: float
    name: str
    note: str
    key: bytes
    readings: list[float]


def numbers_of(record: Record) -> tuple[Any, ...]:
    """Return the numeric fields of a record, its kind as a number."""
    return (*record[:2], KINDS.index(record.kind), *record[3 : len(NUMERIC)])


class Table(NamedTuple):
    """A table's native values: the records, and their numbers twice, however a codec likes them.

    `columns` has an array per numeric field, a `kind` as its number, `array` the same as one
    structured array.
    """

    records: list[Record]
    columns: dict[str, "np.ndarray[Any, Any]"]
    array: "np.ndarray[Any, Any]"


class Tensor(NamedTuple):
    """A tensor's native values: `values` is a C-contiguous float32 array of that `shape`."""

    name: str
    shape: list[int]
    values: "np.ndarray[Any, Any]"


@lru_cache(maxsize=4)
def native(message: Message, size_bytes: int) -> Any:
    """Return the values of a message of `size_bytes`: a str, Record, list of them, or Tensor.

    Raises:
        ValueError: There is no such size of this message.
    """
    if size_bytes != FIXED_BYTES.get(message, size_bytes):
        raise ValueError(f"a {message} has {FIXED_BYTES[message]} bytes, not {size_bytes}")
    rng = random.Random(DATA_SEED)
    if message is Message.TEXT:
        return _text(rng, size_bytes)
    if message is Message.RECORD:
        return _record(rng)
    if message is Message.RECORDS:
        return [_record(rng) for _ in range(RECORD_COUNT)]
    if message is Message.TABLE:
        return _table(rng, size_bytes)
    return _tensor(rng, size_bytes)


def _text(rng: random.Random, length: int) -> str:
    # ASCII alone. A text beyond it would flatter orjson: Python keeps the UTF-8 of a str once
    # it was asked for, so from the second time on it would only copy (2 µs in place of 180
    # for 64 KiB), which no server with fresh texts ever does.
    return rng.randbytes(length).translate(_TO_LETTER).decode("ascii")


def _record(rng: random.Random) -> Record:
    # Sums of these are exact in a double. Readings have up to 16 digits, prices and weights few,
    # which spares the text formats some work.
    return Record(
        id=rng.getrandbits(31),
        time=rng.getrandbits(32),
        kind=rng.choice(KINDS),
        active=rng.random() < 0.5,
        total=rng.getrandbits(20),
        change=rng.randrange(-(2**20), 2**20),
        price=rng.getrandbits(26) / 4,
        weight=rng.getrandbits(10) / 8,
        name=_text(rng, NAME_LENGTH),
        note=_text(rng, NOTE_LENGTH),
        key=rng.randbytes(KEY_LENGTH),
        readings=[rng.getrandbits(30) / 1024 for _ in range(READINGS)],
    )


def _table(rng: random.Random, size_bytes: int) -> Table:
    count, rest = divmod(size_bytes, RECORD_BYTES)
    if rest:
        raise ValueError(f"a table has records of {RECORD_BYTES} bytes, not {size_bytes} bytes")
    # Past a thousand they come again, which spares seconds here, and cache misses those who write.
    some = [_record(rng) for _ in range(min(count, RECORD_COUNT))]
    records = (some * -(-count // RECORD_COUNT))[:count]
    array = np.array([numbers_of(record) for record in records], list(NUMERIC.items()))
    columns = {name: array[name].copy() for name in NUMERIC}
    for each in (array, *columns.values()):
        each.flags.writeable = False
    return Table(records, columns, array)


def _tensor(rng: random.Random, size_bytes: int) -> Tensor:
    rows, rest = divmod(size_bytes, 4 * ROW)
    if rest:
        raise ValueError(f"a tensor has rows of {4 * ROW} bytes, not {size_bytes} bytes")
    numbers = np.frombuffer(rng.randbytes(size_bytes // 4), dtype="i1")
    values = (numbers / np.float32(128)).astype("<f4").reshape(rows, ROW)
    values.flags.writeable = False
    return Tensor("tensor", [rows, ROW], values)

"""FlatBuffers by Google's package: tables that are read where they lie, by plain Python.

The accessors are written by hand after what ``flatc --python`` generates of this schema, one
method of the package's `Table` per field, so that building needs no compiler:

    enum Kind : ushort { created, updated, moved, removed }
    table Text { content: string; }
    table Record {
      id: uint64; time: int64; kind: Kind; active: bool; total: uint32; change: int32;
      price: double; weight: float; name: string; note: string; key: [ubyte]; readings: [double];
    }
    table Records { records: [Record]; }
    table Tensor { name: string; shape: [uint32]; data: [float]; }

Building starts from a buffer of about the right size, since it doubles otherwise. The builder
holds the finished bytes; `encode` is its `Output`, which copies them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import number_types
from flatbuffers.table import Table

from capnp_rig.loadtest.codecs.codec import Built, Codec, Frame, MessageCodec, Native, Opened
from capnp_rig.loadtest.codecs.messages import KINDS, Record, Tensor
from capnp_rig.loadtest.codecs.reading import FIELDS, KIND_NUMBERS, readers, record_dicts
from capnp_rig.loadtest.stats.messages import RECORD_BYTES, Message

# Tables, vtables, offsets and padding beside the values.
_EXTRA_BYTES = 256
_ALIGNMENT = 4

_SCALARS = {
    "id": "Uint64",
    "time": "Int64",
    "kind": "Uint16",
    "active": "Bool",
    "total": "Uint32",
    "change": "Int32",
    "price": "Float64",
    "weight": "Float32",
}
_SLOTS = {field: slot for slot, field in enumerate(FIELDS)}
_SCALAR_SLOTS = [(_SLOTS[name], f"Prepend{kind}Slot") for name, kind in _SCALARS.items()]
_NAME, _NOTE, _KEY, _READINGS = (_SLOTS[name] for name in FIELDS[len(_SCALARS) :])

Getter = Callable[[Any], Any]


def _scalar(slot: int, kind: str) -> Getter:
    flags, vtable_offset = getattr(number_types, f"{kind}Flags"), 4 + 2 * slot

    def get(self: Any) -> Any:
        table = self._tab
        offset = table.Offset(vtable_offset)
        return table.Get(flags, offset + table.Pos) if offset else flags.py_type(0)

    return get


def _string(slot: int) -> Getter:
    vtable_offset = 4 + 2 * slot

    def get(self: Any) -> bytes | None:
        table = self._tab
        offset = table.Offset(vtable_offset)
        return table.String(offset + table.Pos) if offset else None

    return get


def _numbers(slot: int, kind: str) -> Getter:
    flags, vtable_offset = getattr(number_types, f"{kind}Flags"), 4 + 2 * slot

    def get(self: Any) -> Any:
        table = self._tab
        offset = table.Offset(vtable_offset)
        return table.GetVectorAsNumpy(flags, offset) if offset else 0

    return get


class _Root:
    """What flatc writes into every table's class."""

    __slots__ = ("_tab",)

    def __init__(self, frame: Frame, position: int) -> None:
        self._tab = Table(frame, position)

    @classmethod
    def get_root_as(cls, frame: Frame) -> Any:
        return cls(frame, flatbuffers.encode.Get(flatbuffers.packer.uoffset, frame, 0))


def _table(**getters: Getter) -> Any:
    return type("_Table", (_Root,), {"__slots__": (), **getters})


_Text = _table(content=_string(0))
_Record = _table(
    **{name: _scalar(_SLOTS[name], kind) for name, kind in _SCALARS.items()},
    name=_string(_NAME),
    note=_string(_NOTE),
    key=_numbers(_KEY, "Uint8"),
    readings=_numbers(_READINGS, "Float64"),
)
_Tensor = _table(name=_string(0), shape=_numbers(1, "Uint32"), data=_numbers(2, "Float32"))


class _Records(_Root):
    __slots__ = ()

    def record(self, index: int) -> Any:
        table = self._tab
        position = table.Vector(table.Offset(4)) + 4 * index
        return _Record(table.Bytes, table.Indirect(position))

    def length(self) -> int:
        table = self._tab
        length: int = table.VectorLen(table.Offset(4))
        return length


_open_text, _open_tensor = _Text.get_root_as, _Tensor.get_root_as
_open_record, _open_records = _Record.get_root_as, _Records.get_root_as


# --- writing ---------------------------------------------------------------------------------


def _finished(builder: Any, root: int) -> Built:
    builder.Finish(root)
    return builder


def _encode(built: Built) -> Frame:
    return built.Output()


def _text_build(text: str) -> Built:
    builder = flatbuffers.Builder(len(text) + _EXTRA_BYTES)
    content = builder.CreateString(text)
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, content, 0)
    return _finished(builder, builder.EndObject())


def _add_record(builder: Any, record: Record) -> int:
    *scalars, name, note, key, readings = record
    scalars[2] = KIND_NUMBERS[record.kind]
    offsets = (
        (_READINGS, builder.CreateNumpyVector(np.array(readings))),
        (_KEY, builder.CreateByteVector(key)),
        (_NOTE, builder.CreateString(note)),
        (_NAME, builder.CreateString(name)),
    )
    builder.StartObject(len(FIELDS))
    for slot, offset in offsets:
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    for (slot, prepend), value in zip(_SCALAR_SLOTS, scalars, strict=True):
        getattr(builder, prepend)(slot, value, 0)
    end: int = builder.EndObject()
    return end


def _record_build(record: Record) -> Built:
    builder = flatbuffers.Builder(RECORD_BYTES + _EXTRA_BYTES)
    return _finished(builder, _add_record(builder, record))


def _records_build(records: Sequence[Record]) -> Built:
    builder = flatbuffers.Builder(len(records) * (RECORD_BYTES + _EXTRA_BYTES))
    offsets = [_add_record(builder, record) for record in records]
    builder.StartVector(_ALIGNMENT, len(offsets), _ALIGNMENT)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    vector = builder.EndVector()
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, vector, 0)
    return _finished(builder, builder.EndObject())


def _tensor_build(tensor: Tensor) -> Built:
    builder = flatbuffers.Builder(tensor.values.nbytes + _EXTRA_BYTES)
    data = builder.CreateNumpyVector(tensor.values.reshape(-1))
    shape = builder.CreateNumpyVector(np.array(tensor.shape, dtype="<u4"))
    name = builder.CreateString(tensor.name)
    builder.StartObject(3)
    for slot, offset in enumerate((name, shape, data)):
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    return _finished(builder, builder.EndObject())


# --- reading ---------------------------------------------------------------------------------


class _RecordList:
    """The list of a `_Records`, as a sequence."""

    __slots__ = ("_opened",)

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    def __len__(self) -> int:
        return self._opened.length()  # type: ignore[no-any-return] # opened tables are Any

    def __getitem__(self, index: int) -> Opened:
        return self._opened.record(index)


def _every_nth(records: Sequence[Opened], step: int) -> Iterable[Opened]:
    return map(records.__getitem__, range(0, len(records), step))


# A string comes as its UTF-8; to be a text as everywhere else it has to be decoded.
_VALUES = {
    "name": "r.name().decode()",
    "note": "r.note().decode()",
    "key": "r.key().tobytes()",
    "readings": "r.readings().tolist()",
}
_READS = readers(
    "r.{}()",
    {**_VALUES, "kind": "r.kind()", "content": "r.content().decode()"},
    records=_RecordList,
    every=_every_nth,
)
_native = record_dicts("r.{}()", {**_VALUES, "kind": "KINDS[r.kind()]"}, KINDS=KINDS)


def _records_to_native(frame: Frame) -> Native:
    opened = _open_records(frame)
    return [_native(opened.record(index)) for index in range(opened.length())]


def _tensor_to_native(frame: Frame) -> Native:
    opened = _open_tensor(frame)
    shape = opened.shape().tolist()
    return Tensor(opened.name().decode(), shape, opened.data().reshape(shape).copy())


FLATBUFFERS = Codec(
    "flatbuffers",
    {
        Message.TEXT: MessageCodec(
            build=_text_build,
            encode=_encode,
            open=_open_text,
            reads=_READS[Message.TEXT],
            to_native=lambda frame: _open_text(frame).content().decode(),
        ),
        Message.RECORD: MessageCodec(
            build=_record_build,
            encode=_encode,
            open=_open_record,
            reads=_READS[Message.RECORD],
            to_native=lambda frame: _native(_open_record(frame)),
        ),
        Message.RECORDS: MessageCodec(
            build=_records_build,
            encode=_encode,
            open=_open_records,
            reads=_READS[Message.RECORDS],
            to_native=_records_to_native,
        ),
        Message.TENSOR: MessageCodec(
            build=_tensor_build,
            encode=_encode,
            open=_open_tensor,
            reads=_READS[Message.TENSOR],
            to_native=_tensor_to_native,
        ),
    },
)

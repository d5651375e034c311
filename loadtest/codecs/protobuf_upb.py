"""Protocol Buffers by Google's package, whose C backend is upb.

The messages are those of this file, described here at run time so that no generated module has to
match the installed version; the classes are the same as protoc's.

    syntax = "proto3";
    message Text { string content = 1; }
    enum Kind { created = 0; updated = 1; moved = 2; removed = 3; }
    message Record {
      uint64 id = 1; int64 time = 2; Kind kind = 3; bool active = 4; uint32 total = 5;
      sint32 change = 6; double price = 7; float weight = 8; string name = 9; string note = 10;
      bytes key = 11; repeated double readings = 12;
    }
    message Records { repeated Record records = 1; }
    message Tensor { string name = 1; repeated uint32 shape = 2; bytes data = 3; }

A list is appended to with `add(**fields)`, which fills the element where it lies.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import api_implementation

from capnp_rig.loadtest.codecs.codec import Built, Codec, Frame, MessageCodec, Native, Opened
from capnp_rig.loadtest.codecs.messages import KINDS, Message, Record, Tensor
from capnp_rig.loadtest.codecs.plain import tensor_of
from capnp_rig.loadtest.codecs.reading import (
    KIND_NUMBERS,
    read_text,
    record_reads,
    records_reads,
    tensor_reads,
)

# Which of protobuf's implementations is timed: upb, or python where it has no wheel.
BACKEND: str = api_implementation.Type()

_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "capnp_rig"
_MESSAGES = {
    "Text": {"content": "string"},
    "Record": {
        "id": "uint64",
        "time": "int64",
        "kind": "Kind",
        "active": "bool",
        "total": "uint32",
        "change": "sint32",
        "price": "double",
        "weight": "float",
        "name": "string",
        "note": "string",
        "key": "bytes",
        "readings": "repeated double",
    },
    "Records": {"records": "repeated Record"},
    "Tensor": {"name": "string", "shape": "repeated uint32", "data": "bytes"},
}


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="capnp_rig/codecs.proto", package=_PACKAGE, syntax="proto3"
    )
    kind = file.enum_type.add(name="Kind")
    for number, name in enumerate(KINDS):
        kind.value.add(name=name, number=number)
    for name, fields in _MESSAGES.items():
        described = file.message_type.add(name=name)
        for number, (field, declared) in enumerate(fields.items(), start=1):
            _add_field(described, field, number, declared)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


def _add_field(
    described: descriptor_pb2.DescriptorProto, name: str, number: int, declared: str
) -> None:
    type_name = declared.removeprefix("repeated ")
    label = _FIELD.LABEL_REPEATED if declared != type_name else _FIELD.LABEL_OPTIONAL
    if type_name[0].isupper():
        which = _FIELD.TYPE_ENUM if type_name == "Kind" else _FIELD.TYPE_MESSAGE
        full = f".{_PACKAGE}.{type_name}"
        described.field.add(name=name, number=number, label=label, type=which, type_name=full)
    else:
        which = _FIELD.Type.Value(f"TYPE_{type_name.upper()}")
        described.field.add(name=name, number=number, label=label, type=which)


_CLASSES: Mapping[str, Any] = _classes()
_Text, _Record, _Records, _Tensor = (_CLASSES[name] for name in _MESSAGES)
_RECORD_READS = record_reads("r.{}", {"kind": "r.kind"})


def _encode(built: Built) -> bytes:
    encoded: bytes = built.SerializeToString()
    return encoded


def _text_build(text: str) -> Built:
    return _Text(content=text)


def _text_write(text: str) -> Frame:
    return _Text(content=text).SerializeToString()


def _text_read(opened: Opened) -> float:
    return read_text(opened.content)


def _text_open_read(frame: Frame) -> float:
    return read_text(_Text.FromString(frame).content)


def _text_to_native(frame: Frame) -> Native:
    return _Text.FromString(frame).content


def _fields(record: Record) -> dict[str, Any]:
    id_, time, kind, active, total, change, price, weight, name, note, key, readings = record
    return {
        "id": id_,
        "time": time,
        "kind": KIND_NUMBERS[kind],
        "active": active,
        "total": total,
        "change": change,
        "price": price,
        "weight": weight,
        "name": name,
        "note": note,
        "key": key,
        "readings": readings,
    }


def _record_build(record: Record) -> Built:
    return _Record(**_fields(record))


def _native(opened: Opened) -> dict[str, Any]:
    return {
        "id": opened.id,
        "time": opened.time,
        "kind": KINDS[opened.kind],
        "active": opened.active,
        "total": opened.total,
        "change": opened.change,
        "price": opened.price,
        "weight": opened.weight,
        "name": opened.name,
        "note": opened.note,
        "key": opened.key,
        "readings": list(opened.readings),
    }


def _record_to_native(frame: Frame) -> Native:
    return _native(_Record.FromString(frame))


def _records_build(records: Sequence[Record]) -> Built:
    built = _Records()
    add = built.records.add
    for record in records:
        add(**_fields(record))
    return built


def _records_of(opened: Opened) -> Opened:
    return opened.records


def _records_to_native(frame: Frame) -> Native:
    return [_native(record) for record in _Records.FromString(frame).records]


def _tensor_build(tensor: Tensor) -> Built:
    # It takes bytes only, no buffer.
    return _Tensor(name=tensor.name, shape=tensor.shape, data=tensor.values.tobytes())


def _tensor_data(opened: Opened) -> Frame:
    return opened.data


def _tensor_shape(opened: Opened) -> Sequence[int]:
    return list(opened.shape)


def _tensor_to_native(frame: Frame) -> Native:
    opened = _Tensor.FromString(frame)
    return tensor_of(opened.name, list(opened.shape), opened.data, copy=False)


PROTOBUF = Codec(
    "protobuf",
    {
        Message.TEXT: MessageCodec(
            build=_text_build,
            encode=_encode,
            build_encode=_text_write,
            open=_Text.FromString,
            reads={100: _text_read},
            open_reads={100: _text_open_read},
            to_native=_text_to_native,
        ),
        Message.RECORD: MessageCodec(
            build=_record_build,
            encode=_encode,
            open=_Record.FromString,
            reads=_RECORD_READS,
            to_native=_record_to_native,
        ),
        Message.RECORDS: MessageCodec(
            build=_records_build,
            encode=_encode,
            open=_Records.FromString,
            reads=records_reads(_records_of, _RECORD_READS),
            to_native=_records_to_native,
        ),
        Message.TENSOR: MessageCodec(
            build=_tensor_build,
            encode=_encode,
            open=_Tensor.FromString,
            reads=tensor_reads(_tensor_data, _tensor_shape),
            to_native=_tensor_to_native,
        ),
    },
)

"""Protocol Buffers by Google's package, whose C backend is upb.

The messages are described here at run time, so that no generated module has to match the installed
version; the classes are the same as those that protoc makes of the same file.

A list is appended to with `add(**fields)`, which fills the element where it lies.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import api_implementation

from capnp_rig.loadtest.codecs.codec import Built, Codec, Frame, MessageCodec, Native, table_codec
from capnp_rig.loadtest.codecs.messages import KINDS, Record, Table, Tensor
from capnp_rig.loadtest.codecs.plain import column_lists, tensor_of
from capnp_rig.loadtest.codecs.reading import (
    KIND_NUMBERS,
    columns_of,
    read_text,
    readers,
    record_dicts,
)
from capnp_rig.loadtest.stats.messages import Message

# Which of protobuf's implementations is timed: upb, or python where it has no wheel.
BACKEND: str = api_implementation.Type()

_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "capnp_rig"
# In proto3, numbered from 1; the numbers of `Kind` are those of `KINDS`.
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
    kinds = file.enum_type.add(name="Kind")
    for number, name in enumerate(KINDS):
        kinds.value.add(name=name, number=number)
    for name, fields in _MESSAGES.items():
        described = file.message_type.add(name=name)
        for number, (field, declared) in enumerate(fields.items(), start=1):
            *repeated, kind = declared.split()
            label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            added = described.field.add(name=field, number=number, label=label)
            if kind[0].isupper():
                added.type_name = f".{_PACKAGE}.{kind}"
            else:
                added.type = _FIELD.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


_CLASSES: Mapping[str, Any] = _classes()
_Text, _Record, _Records, _Tensor = (_CLASSES[name] for name in _MESSAGES)
_READS = readers("r.{}", {"kind": "r.kind", "shape": "list(r.shape)"})
_columns = columns_of("r.{}", kind="{}")
_fields = record_dicts("{}", {"kind": "KIND_NUMBERS[kind]"}, KIND_NUMBERS=KIND_NUMBERS)
_native = record_dicts(
    "r.{}", {"kind": "KINDS[r.kind]", "readings": "list(r.readings)"}, KINDS=KINDS
)


def _encode(built: Built) -> bytes:
    encoded: bytes = built.SerializeToString()
    return encoded


def _records_build(records: Sequence[Record]) -> Built:
    built = _Records()
    add = built.records.add
    for record in records:
        add(**_fields(record))
    return built


def _write_columns(table: Table, names: Sequence[str]) -> Frame:
    built = _Records()
    add = built.records.add
    for row in zip(*column_lists(table, names, named_kinds=False), strict=True):
        add(**dict(zip(names, row, strict=True)))
    return _encode(built)


def _tensor_build(tensor: Tensor) -> Built:
    # It takes bytes only, no buffer.
    return _Tensor(name=tensor.name, shape=tensor.shape, data=tensor.values.tobytes())


def _tensor_to_native(frame: Frame) -> Native:
    opened = _Tensor.FromString(frame)
    return tensor_of(opened.name, list(opened.shape), opened.data, copy=False)


PROTOBUF = Codec(
    "protobuf",
    {
        Message.TEXT: MessageCodec(
            build=lambda text: _Text(content=text),
            encode=_encode,
            build_encode=lambda text: _Text(content=text).SerializeToString(),
            open=_Text.FromString,
            reads=_READS[Message.TEXT],
            open_reads={100: lambda frame: read_text(_Text.FromString(frame).content)},
            to_native=lambda frame: _Text.FromString(frame).content,
        ),
        Message.RECORD: MessageCodec(
            build=lambda record: _Record(**_fields(record)),
            encode=_encode,
            open=_Record.FromString,
            reads=_READS[Message.RECORD],
            to_native=lambda frame: _native(_Record.FromString(frame)),
        ),
        Message.RECORDS: MessageCodec(
            build=_records_build,
            encode=_encode,
            open=_Records.FromString,
            reads=_READS[Message.RECORDS],
            to_native=lambda frame: [_native(each) for each in _Records.FromString(frame).records],
        ),
        Message.TENSOR: MessageCodec(
            build=_tensor_build,
            encode=_encode,
            open=_Tensor.FromString,
            reads=_READS[Message.TENSOR],
            to_native=_tensor_to_native,
        ),
        Message.TABLE: table_codec(
            lambda records: _encode(_records_build(records)),
            lambda frame, names: _columns(_Records.FromString(frame).records, names),
            _write_columns,
        ),
    },
)

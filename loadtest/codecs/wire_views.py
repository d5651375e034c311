"""Cap'n Proto by `wire`: struct views that read where the bytes lie.

`wire` writes from a dict of the fields, which is thus its object.
"""

import struct
from collections.abc import Sequence

from capnp_rig.loadtest.codecs.codec import Built, Codec, Frame, MessageCodec, Native, Opened
from capnp_rig.loadtest.codecs.messages import Message, Tensor
from capnp_rig.loadtest.codecs.plain import record_dict, records_dict, tensor_dict, tensor_of
from capnp_rig.loadtest.codecs.reading import read_text, record_reads, records_reads, tensor_reads
from capnp_rig.schema import load_schema, message
from capnp_rig.wire.encoding.structs import compile_struct

_text = compile_struct(message.MessageStream.MessageContent.schema).compile()
_record = compile_struct(load_schema("records.capnp").Record.schema).compile()
_records = compile_struct(load_schema("records.capnp").Records.schema).compile()
_tensor = compile_struct(load_schema("tensor.capnp").TensorService.Tensor.schema).compile()
# The table of one segment, and the pointer to the struct in the next word.
_head = struct.Struct("<IIII").pack
_RECORD_READS = record_reads("r.{}")


def _text_build(text: str) -> Built:
    return {"content": text}


def _text_write(text: str) -> bytes:
    return _text.to_bytes({"content": text})


def _text_read(opened: Opened) -> float:
    return read_text(opened.content)


def _text_open_read(frame: Frame) -> float:
    return read_text(_text.from_bytes(frame).content)


def _text_to_native(frame: Frame) -> Native:
    return _text.from_bytes(frame).content


def _record_to_native(frame: Frame) -> Native:
    return _record.from_bytes(frame).to_dict()


def _records_to_native(frame: Frame) -> Native:
    return _records.from_bytes(frame).to_dict()["records"]


def _records_of(opened: Opened) -> Opened:
    return opened.records


def _tensor_segments(tensor: Tensor) -> Sequence[Frame]:
    sizes, parts, words = _tensor.pack(tensor_dict(tensor))
    return [_head(0, words + 1, 0, sizes), *parts]


def _tensor_data(opened: Opened) -> memoryview:
    data: memoryview = opened.data
    return data


def _tensor_shape(opened: Opened) -> tuple[int, ...]:
    return tuple(opened.shape)


def _tensor_to_native(frame: Frame) -> Native:
    opened = _tensor.from_bytes(frame)
    return tensor_of(opened.name, tuple(opened.shape), opened.data, copy=True)


WIRE = Codec(
    "wire",
    {
        Message.TEXT: MessageCodec(
            build=_text_build,
            encode=_text.to_bytes,
            build_encode=_text_write,
            open=_text.from_bytes,
            reads={100: _text_read},
            open_reads={100: _text_open_read},
            to_native=_text_to_native,
        ),
        Message.RECORD: MessageCodec(
            build=record_dict,
            encode=_record.to_bytes,
            open=_record.from_bytes,
            reads=_RECORD_READS,
            to_native=_record_to_native,
        ),
        Message.RECORDS: MessageCodec(
            build=records_dict,
            encode=_records.to_bytes,
            open=_records.from_bytes,
            reads=records_reads(_records_of, _RECORD_READS),
            to_native=_records_to_native,
        ),
        Message.TENSOR: MessageCodec(
            build=tensor_dict,
            encode=_tensor.to_bytes,
            open=_tensor.from_bytes,
            reads=tensor_reads(_tensor_data, _tensor_shape),
            to_native=_tensor_to_native,
            segments=_tensor_segments,
        ),
    },
)

"""Cap'n Proto by `wire`: struct views that read where the bytes lie.

`wire` writes from a dict of the fields, which is thus its object.
"""

import struct
from collections.abc import Sequence
from typing import Any

from capnp_rig.loadtest.codecs.codec import Codec, Frame, MessageCodec, Native, table_codec
from capnp_rig.loadtest.codecs.messages import Tensor
from capnp_rig.loadtest.codecs.plain import record_dict, records_dict, tensor_dict, tensor_of
from capnp_rig.loadtest.codecs.reading import read_text, readers
from capnp_rig.loadtest.stats.messages import Message
from capnp_rig.schema import load_schema, message
from capnp_rig.wire.encoding.structs import compile_struct

_text = compile_struct(message.MessageStream.MessageContent.schema).compile()
_record = compile_struct(load_schema("records.capnp").Record.schema).compile()
_records = compile_struct(load_schema("records.capnp").Records.schema).compile()
_tensor = compile_struct(load_schema("tensor.capnp").TensorService.Tensor.schema).compile()
# The table of one segment, and the pointer to the struct in the next word.
_head = struct.Struct("<IIII").pack
_READS = readers("r.{}", {"shape": "tuple(r.shape)"})


def _tensor_segments(tensor: Tensor) -> Sequence[Frame]:
    sizes, parts, words = _tensor.pack(tensor_dict(tensor))
    return [_head(0, words + 1, 0, sizes), *parts]


def _tensor_to_native(frame: Frame) -> Native:
    opened = _tensor.from_bytes(frame)
    return tensor_of(opened.name, tuple(opened.shape), opened.data, copy=True)


def _read_columns(frame: Frame, names: Sequence[str]) -> list[Any]:
    records = _records.from_bytes(frame).records
    return [records.column(name) for name in names]


WIRE = Codec(
    "wire",
    {
        Message.TEXT: MessageCodec(
            build=lambda text: {"content": text},
            encode=_text.to_bytes,
            build_encode=lambda text: _text.to_bytes({"content": text}),
            open=_text.from_bytes,
            reads=_READS[Message.TEXT],
            open_reads={100: lambda frame: read_text(_text.from_bytes(frame).content)},
            to_native=lambda frame: _text.from_bytes(frame).content,
        ),
        Message.RECORD: MessageCodec(
            build=record_dict,
            encode=_record.to_bytes,
            open=_record.from_bytes,
            reads=_READS[Message.RECORD],
            to_native=lambda frame: _record.from_bytes(frame).to_dict(),
        ),
        Message.RECORDS: MessageCodec(
            build=records_dict,
            encode=_records.to_bytes,
            open=_records.from_bytes,
            reads=_READS[Message.RECORDS],
            to_native=lambda frame: _records.from_bytes(frame).to_dict()["records"],
        ),
        Message.TENSOR: MessageCodec(
            build=tensor_dict,
            encode=_tensor.to_bytes,
            open=_tensor.from_bytes,
            reads=_READS[Message.TENSOR],
            to_native=_tensor_to_native,
            segments=_tensor_segments,
        ),
        Message.TABLE: table_codec(
            lambda records: _records.to_bytes(records_dict(records)),
            _read_columns,
            lambda table, names: _records.to_bytes(
                {"records": {name: table.columns[name] for name in names}}
            ),
        ),
    },
)

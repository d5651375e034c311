"""MessagePack by msgpack-python: dicts, one `Packer` for all, `unpackb` as documented."""

from collections.abc import Sequence

import msgpack

from capnp_rig.loadtest.codecs.codec import Built, Codec, Frame, MessageCodec, Native, Opened
from capnp_rig.loadtest.codecs.messages import Message
from capnp_rig.loadtest.codecs.plain import record_dict, records_dict, tensor_dict, tensor_of
from capnp_rig.loadtest.codecs.reading import read_text, record_reads, records_reads, tensor_reads

_pack = msgpack.Packer().pack
_unpack = msgpack.unpackb
_RECORD_READS = record_reads('r["{}"]')


def _text_build(text: str) -> Built:
    return {"content": text}


def _text_write(text: str) -> Frame:
    return _pack({"content": text})


def _text_read(opened: Opened) -> float:
    return read_text(opened["content"])


def _text_open_read(frame: Frame) -> float:
    return read_text(_unpack(frame)["content"])


def _text_to_native(frame: Frame) -> Native:
    return _unpack(frame)["content"]


def _records_of(opened: Opened) -> Opened:
    return opened["records"]


def _records_to_native(frame: Frame) -> Native:
    return _unpack(frame)["records"]


def _tensor_data(opened: Opened) -> Frame:
    return opened["data"]


def _tensor_shape(opened: Opened) -> Sequence[int]:
    shape: list[int] = opened["shape"]
    return shape


def _tensor_to_native(frame: Frame) -> Native:
    opened = _unpack(frame)
    return tensor_of(opened["name"], opened["shape"], opened["data"], copy=False)


MSGPACK = Codec(
    "msgpack",
    {
        Message.TEXT: MessageCodec(
            build=_text_build,
            encode=_pack,
            build_encode=_text_write,
            open=_unpack,
            reads={100: _text_read},
            open_reads={100: _text_open_read},
            to_native=_text_to_native,
        ),
        Message.RECORD: MessageCodec(
            build=record_dict,
            encode=_pack,
            open=_unpack,
            reads=_RECORD_READS,
            to_native=_unpack,
        ),
        Message.RECORDS: MessageCodec(
            build=records_dict,
            encode=_pack,
            open=_unpack,
            reads=records_reads(_records_of, _RECORD_READS),
            to_native=_records_to_native,
        ),
        Message.TENSOR: MessageCodec(
            build=tensor_dict,
            encode=_pack,
            open=_unpack,
            reads=tensor_reads(_tensor_data, _tensor_shape),
            to_native=_tensor_to_native,
        ),
    },
)

"""MessagePack by msgpack-python: dicts, one `Packer` for all, `unpackb` as documented."""

import msgpack

from capnp_rig.loadtest.codecs.codec import Codec, Frame, MessageCodec, Native
from capnp_rig.loadtest.codecs.messages import Message
from capnp_rig.loadtest.codecs.plain import (
    DICT_READS,
    record_dict,
    records_dict,
    tensor_dict,
    tensor_of,
    text_codec,
)

_pack = msgpack.Packer().pack
_unpack = msgpack.unpackb


def _tensor_to_native(frame: Frame) -> Native:
    opened = _unpack(frame)
    return tensor_of(opened["name"], opened["shape"], opened["data"], copy=False)


MSGPACK = Codec(
    "msgpack",
    {
        Message.TEXT: text_codec(_pack, _unpack),
        Message.RECORD: MessageCodec(
            build=record_dict,
            encode=_pack,
            open=_unpack,
            reads=DICT_READS[Message.RECORD],
            to_native=_unpack,
        ),
        Message.RECORDS: MessageCodec(
            build=records_dict,
            encode=_pack,
            open=_unpack,
            reads=DICT_READS[Message.RECORDS],
            to_native=lambda frame: _unpack(frame)["records"],
        ),
        Message.TENSOR: MessageCodec(
            build=tensor_dict,
            encode=_pack,
            open=_unpack,
            reads=DICT_READS[Message.TENSOR],
            to_native=_tensor_to_native,
        ),
    },
)

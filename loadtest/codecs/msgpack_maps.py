"""MessagePack by msgpack-python: dicts, one `Packer` for all, `unpackb` as documented."""

import msgpack

from capnp_rig.loadtest.codecs.codec import Codec, Frame, MessageCodec, Native
from capnp_rig.loadtest.codecs.plain import DICT_READS, dict_codecs, tensor_dict, tensor_of
from capnp_rig.loadtest.stats.messages import Message

_pack = msgpack.Packer().pack
_unpack = msgpack.unpackb


def _tensor_to_native(frame: Frame) -> Native:
    opened = _unpack(frame)
    return tensor_of(opened["name"], opened["shape"], opened["data"], copy=False)


MSGPACK = Codec(
    "msgpack",
    {
        **dict_codecs(_pack, _unpack),
        Message.TENSOR: MessageCodec(
            build=tensor_dict,
            encode=_pack,
            open=_unpack,
            reads=DICT_READS[Message.TENSOR],
            to_native=_tensor_to_native,
        ),
    },
)

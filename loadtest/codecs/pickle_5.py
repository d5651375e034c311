"""pickle, protocol 5: dicts, and for tensors numpy arrays, also out of band.

Out of band (PEP 574) the array's bytes are not part of the pickle. They follow it here in the
same frame: two lengths, the pickle, zeros up to a multiple of 64, the bytes. Read back, the array
lies in the frame; nothing is copied but what joins the frame, as in `wire`.

Unpickling runs what the sender asks for: this is no format for a network.
"""

import pickle
import struct
from collections.abc import Callable, Sequence

from capnp_rig.loadtest.codecs.codec import Built, Codec, Frame, MessageCodec, Native, Opened
from capnp_rig.loadtest.codecs.messages import Message, Tensor
from capnp_rig.loadtest.codecs.plain import record_dict, records_dict
from capnp_rig.loadtest.codecs.reading import read_text, record_reads, records_reads, tensor_reads

_loads = pickle.loads
_RECORD_READS = record_reads('r["{}"]')
_lengths = struct.Struct("<QQ")
_ALIGNMENT = 64
_PADDING = bytes(_ALIGNMENT)


def _dumps(built: Built) -> bytes:
    return pickle.dumps(built, 5)


def _text_build(text: str) -> Built:
    return {"content": text}


def _text_write(text: str) -> bytes:
    return pickle.dumps({"content": text}, 5)


def _text_read(opened: Opened) -> float:
    return read_text(opened["content"])


def _text_open_read(frame: Frame) -> float:
    return read_text(_loads(frame)["content"])


def _text_to_native(frame: Frame) -> Native:
    return _loads(frame)["content"]


def _records_of(opened: Opened) -> Opened:
    return opened["records"]


def _records_to_native(frame: Frame) -> Native:
    return _loads(frame)["records"]


# --- tensors ---------------------------------------------------------------------------------


def _tensor_build(tensor: Tensor) -> Built:
    return {"name": tensor.name, "values": tensor.values}


def _tensor_data(opened: Opened) -> Frame:
    return opened["values"]


def _tensor_shape(opened: Opened) -> Sequence[int]:
    shape: tuple[int, ...] = opened["values"].shape
    return shape


def _tensor_native(opened: Opened, *, copy: bool) -> Tensor:
    values = opened["values"]
    return Tensor(opened["name"], list(values.shape), values.copy() if copy else values)


def _tensor_to_native(frame: Frame) -> Native:
    return _tensor_native(_loads(frame), copy=False)


def _dumps_out_of_band(built: Built) -> Sequence[Frame]:
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(built, 5, buffer_callback=buffers.append)
    (data,) = (buffer.raw() for buffer in buffers)
    padding = _PADDING[(_lengths.size + len(pickled)) % _ALIGNMENT or _ALIGNMENT :]
    return [_lengths.pack(len(pickled) + len(padding), len(data)), pickled, padding, data]


def _encode_out_of_band(built: Built) -> bytes:
    return b"".join(_dumps_out_of_band(built))


def _tensor_segments(tensor: Tensor) -> Sequence[Frame]:
    return _dumps_out_of_band(_tensor_build(tensor))


def _loads_out_of_band(frame: Frame) -> Opened:
    pickled, length = _lengths.unpack_from(frame)
    view = memoryview(frame)
    first = _lengths.size + pickled
    # A pickle ends itself; what follows it is padding.
    return _loads(view[_lengths.size : first], buffers=[view[first : first + length]])


def _tensor_to_native_out_of_band(frame: Frame) -> Native:
    return _tensor_native(_loads_out_of_band(frame), copy=True)


def _tensor_codec(
    encode: Callable[[Built], Frame],
    opener: Callable[[Frame], Opened],
    to_native: Callable[[Frame], Native],
    segments: Callable[[Native], Sequence[Frame]] | None = None,
) -> MessageCodec:
    return MessageCodec(
        build=_tensor_build,
        encode=encode,
        open=opener,
        reads=tensor_reads(_tensor_data, _tensor_shape),
        to_native=to_native,
        segments=segments,
    )


PICKLE = Codec(
    "pickle 5",
    {
        Message.TEXT: MessageCodec(
            build=_text_build,
            encode=_dumps,
            build_encode=_text_write,
            open=_loads,
            reads={100: _text_read},
            open_reads={100: _text_open_read},
            to_native=_text_to_native,
        ),
        Message.RECORD: MessageCodec(
            build=record_dict,
            encode=_dumps,
            open=_loads,
            reads=_RECORD_READS,
            to_native=_loads,
        ),
        Message.RECORDS: MessageCodec(
            build=records_dict,
            encode=_dumps,
            open=_loads,
            reads=records_reads(_records_of, _RECORD_READS),
            to_native=_records_to_native,
        ),
        Message.TENSOR: _tensor_codec(_dumps, _loads, _tensor_to_native),
    },
)
PICKLE_OUT_OF_BAND = Codec(
    "pickle 5 out of band",
    {
        Message.TENSOR: _tensor_codec(
            _encode_out_of_band,
            _loads_out_of_band,
            _tensor_to_native_out_of_band,
            _tensor_segments,
        )
    },
)

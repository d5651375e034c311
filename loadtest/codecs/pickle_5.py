"""pickle, protocol 5: dicts, and for tensors numpy arrays, also out of band.

Out of band (PEP 574) the array's bytes are not part of the pickle. They follow it here in the
same frame: two lengths, the pickle, zeros up to a multiple of 64, the bytes. Read back, the array
lies in the frame; nothing is copied but what joins the frame, as in `wire`.

Unpickling runs what the sender asks for: this is no format for a network.
"""

import pickle
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from capnp_rig.loadtest.codecs.codec import Built, Codec, Frame, MessageCodec, Opened, table_codec
from capnp_rig.loadtest.codecs.messages import NUMERIC, Record, Table, Tensor, numbers_of
from capnp_rig.loadtest.codecs.plain import dict_codecs
from capnp_rig.loadtest.codecs.reading import readers
from capnp_rig.loadtest.stats.messages import Message

_loads = pickle.loads
_TENSOR_READS = readers('r["{}"]', {"data": 'r["values"]', "shape": 'r["values"].shape'})[
    Message.TENSOR
]
_lengths = struct.Struct("<QQ")
_ALIGNMENT = 64
_PADDING = bytes(_ALIGNMENT)


def _dumps(built: Built) -> bytes:
    return pickle.dumps(built, 5)


def _tensor_build(tensor: Tensor) -> Built:
    return {"name": tensor.name, "values": tensor.values}


def _tensor_native(opened: Opened, *, copy: bool) -> Tensor:
    values = opened["values"]
    return Tensor(opened["name"], list(values.shape), values.copy() if copy else values)


def _dumps_out_of_band(built: Built) -> Sequence[Frame]:
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(built, 5, buffer_callback=buffers.append)
    (data,) = (buffer.raw() for buffer in buffers)
    padding = _PADDING[(_lengths.size + len(pickled)) % _ALIGNMENT or _ALIGNMENT :]
    return [_lengths.pack(len(pickled) + len(padding), len(data)), pickled, padding, data]


def _loads_out_of_band(frame: Frame) -> Opened:
    pickled, length = _lengths.unpack_from(frame)
    view = memoryview(frame)
    first = _lengths.size + pickled
    # A pickle ends itself; what follows it is padding.
    return _loads(view[_lengths.size : first], buffers=[view[first : first + length]])


# As a structured array has them: texts and bytes as long as the longest.
_RECORD_TYPE = np.dtype(
    [*NUMERIC.items(), ("name", "S12"), ("note", "S37"), ("key", "V16"), ("readings", "<f8", 4)]
)


def _write_records(records: Sequence[Record]) -> Frame:
    rows = [
        (
            *numbers_of(each),
            each.name.encode(),
            each.note.encode(),
            each.key,
            each.readings,
        )
        for each in records
    ]
    return b"".join(_dumps_out_of_band({"records": np.array(rows, _RECORD_TYPE)}))


def _read_columns(frame: Frame, names: Sequence[str]) -> Iterable[Any]:
    records = _loads_out_of_band(frame)["records"]
    return [records[name] for name in names]


def _write_columns(table: Table, names: Sequence[str]) -> Frame:
    array = table.array
    if len(names) == 1:
        # A column is an array of records with that field alone.
        array = table.columns[names[0]].view([(names[0], NUMERIC[names[0]])])
    return b"".join(_dumps_out_of_band({"records": array}))


PICKLE = Codec(
    "pickle 5",
    {
        **dict_codecs(_dumps, _loads, lambda text: pickle.dumps({"content": text}, 5)),
        Message.TENSOR: MessageCodec(
            build=_tensor_build,
            encode=_dumps,
            open=_loads,
            reads=_TENSOR_READS,
            to_native=lambda frame: _tensor_native(_loads(frame), copy=False),
        ),
    },
)
PICKLE_OUT_OF_BAND = Codec(
    "pickle 5 out of band",
    {
        Message.TENSOR: MessageCodec(
            build=_tensor_build,
            encode=lambda built: b"".join(_dumps_out_of_band(built)),
            open=_loads_out_of_band,
            reads=_TENSOR_READS,
            to_native=lambda frame: _tensor_native(_loads_out_of_band(frame), copy=True),
            segments=lambda tensor: _dumps_out_of_band(_tensor_build(tensor)),
        ),
        Message.TABLE: table_codec(
            _write_records, _read_columns, _write_columns, note="of one structured array"
        ),
    },
)

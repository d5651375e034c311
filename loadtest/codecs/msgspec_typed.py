"""msgspec: JSON and MessagePack of typed structs, as its performance tips advise.

https://jcristharif.com/msgspec/perf-tips.html: encoders and decoders made once, structs rather than
dicts, `gc=False`, for MessagePack `array_like=True`, and no decoding of what is not read:
of a record in JSON a struct with the name alone, of a list `msgspec.Raw` elements of which those
that are read are decoded. MessagePack's bytes are decoded as memoryviews into the frame.

A struct of Python values is native already; nothing is converted further.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Raw, Struct

from capnp_rig.loadtest.codecs.codec import Built, Codec, Frame, MessageCodec, Native, Opened
from capnp_rig.loadtest.codecs.messages import Message, Tensor
from capnp_rig.loadtest.codecs.plain import tensor_of
from capnp_rig.loadtest.codecs.reading import ONE_FIELD, PERCENTS, Read, Share, read_text, readers

_Kind = Literal["created", "updated", "moved", "removed"]


class _Text(Struct, gc=False):
    content: str


class _Record(Struct, gc=False):
    id: int
    time: int
    kind: _Kind
    active: bool
    total: int
    change: int
    price: float
    weight: float
    name: str
    note: str
    key: bytes
    readings: list[float]


class _NameOfRecord(Struct, gc=False):
    name: str


class _Records(Struct, gc=False):
    records: list[_Record]


class _RawRecords(Struct, gc=False):
    records: list[Raw]


class _Tensor(Struct, gc=False):
    name: str
    shape: list[int]
    data: bytes


class _TextArray(_Text, gc=False, array_like=True):
    pass


class _RecordArray(_Record, gc=False, array_like=True):
    pass


class _RecordsArray(Struct, gc=False, array_like=True):
    records: list[_RecordArray]


class _RawRecordsArray(_RawRecords, gc=False, array_like=True):
    pass


class _TensorArray(Struct, gc=False, array_like=True):
    name: str
    shape: list[int]
    data: memoryview


class _Types(NamedTuple):
    """The structs of one format; without `name_of_record` a whole record is read for its name."""

    text: Callable[..., Built]
    record: Callable[..., Built]
    records: Callable[..., Built]
    raw_records: Callable[..., Built]
    tensor: Callable[..., Built]
    name_of_record: Callable[..., Built] | None = None


_READS = readers("r.{}")
_RECORD_READS = _READS[Message.RECORD]


def _raw_reads(
    open_raw: Callable[[Frame], Opened], decode: Callable[[Raw], Opened]
) -> dict[Share, Read]:
    """Return readers of part of a list that decode no more than that part."""
    read_all, read_one = _RECORD_READS[100], _RECORD_READS[ONE_FIELD]

    def of(percent: int) -> Read:
        step = 100 // percent

        def open_read(frame: Frame) -> float:
            return sum(read_all(decode(raw)) for raw in open_raw(frame).records[::step])

        return open_read

    def one(frame: Frame) -> float:
        raws = open_raw(frame).records
        return read_one(decode(raws[len(raws) // 2]))

    # All of them are faster decoded at once.
    return {ONE_FIELD: one, **{percent: of(percent) for percent in PERCENTS if percent < 100}}


def _codec(
    name: str, encode: Callable[[Built], bytes], decoder: Callable[[Any], Any], types: _Types
) -> Codec:
    text, record, records, raw_records, tensor, name_of_record = types
    open_text, open_tensor = decoder(text).decode, decoder(tensor).decode
    open_record, open_records = decoder(record).decode, decoder(records).decode

    def build_tensor(values: Tensor) -> Built:
        return tensor(values.name, values.shape, values.values.data.cast("B"))

    def tensor_to_native(frame: Frame) -> Native:
        opened = open_tensor(frame)
        # Bytes are the reader's own already, a view is not.
        copy = type(opened.data) is memoryview
        return tensor_of(opened.name, opened.shape, opened.data, copy=copy)

    name_reads: dict[Share, Read] = {}
    if name_of_record is not None:
        open_name, read_name = decoder(name_of_record).decode, _RECORD_READS[ONE_FIELD]
        name_reads[ONE_FIELD] = lambda frame: read_name(open_name(frame))
    return Codec(
        name,
        {
            Message.TEXT: MessageCodec(
                build=text,
                encode=encode,
                build_encode=lambda content: encode(text(content)),
                open=open_text,
                reads=_READS[Message.TEXT],
                open_reads={100: lambda frame: read_text(open_text(frame).content)},
                to_native=lambda frame: open_text(frame).content,
            ),
            Message.RECORD: MessageCodec(
                build=lambda values: record(*values),
                encode=encode,
                open=open_record,
                reads=_RECORD_READS,
                open_reads=name_reads,
                to_native=open_record,
            ),
            Message.RECORDS: MessageCodec(
                build=lambda values: records([record(*each) for each in values]),
                encode=encode,
                open=open_records,
                reads=_READS[Message.RECORDS],
                open_reads=_raw_reads(decoder(raw_records).decode, decoder(record).decode),
                to_native=lambda frame: open_records(frame).records,
                note="parts of the list are decoded one by one, the rest stays raw",
            ),
            Message.TENSOR: MessageCodec(
                build=build_tensor,
                encode=encode,
                open=open_tensor,
                reads=_READS[Message.TENSOR],
                to_native=tensor_to_native,
            ),
        },
    )


MSGSPEC_JSON = _codec(
    "msgspec JSON",
    msgspec.json.Encoder().encode,
    msgspec.json.Decoder,
    _Types(_Text, _Record, _Records, _RawRecords, _Tensor, _NameOfRecord),
)
MSGSPEC_MSGPACK = _codec(
    "msgspec MessagePack",
    msgspec.msgpack.Encoder().encode,
    msgspec.msgpack.Decoder,
    _Types(_TextArray, _RecordArray, _RecordsArray, _RawRecordsArray, _TensorArray),
)

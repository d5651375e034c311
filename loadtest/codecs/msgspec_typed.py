"""msgspec: JSON and MessagePack of typed structs, as its performance tips advise.

https://jcristharif.com/msgspec/perf-tips.html: encoders and decoders made once, structs rather than
dicts, `gc=False`, for MessagePack `array_like=True`, and no decoding of what is not read:
of a record in JSON a struct with the name alone, of a list `msgspec.Raw` elements of which those
that are read are decoded. MessagePack's bytes are decoded as memoryviews into the frame.

A struct of Python values is native already; nothing is converted further.
"""

from collections.abc import Callable, Sequence
from types import GenericAlias
from typing import Any, Literal, get_type_hints

import msgspec
from msgspec import Raw

from capnp_rig.loadtest.codecs.codec import (
    Built,
    Codec,
    Frame,
    MessageCodec,
    Native,
    Opened,
    table_codec,
)
from capnp_rig.loadtest.codecs.messages import KINDS, NUMERIC, Record, Table, Tensor
from capnp_rig.loadtest.codecs.plain import column_lists, tensor_of
from capnp_rig.loadtest.codecs.reading import (
    COLUMNS,
    FIELDS,
    ONE_FIELD,
    PERCENTS,
    Read,
    Share,
    columns_of,
    read_text,
    readers,
)
from capnp_rig.loadtest.stats.messages import Message

_RECORD_FIELDS = {
    **get_type_hints(Record),
    "kind": Literal["created", "updated", "moved", "removed"],
}
# For the fields in front of a column, where they are sent by position.
_BLANK = dict.fromkeys(NUMERIC, 0) | {"kind": KINDS[0], "active": False}
_columns = columns_of("r.{}")
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
    name: str,
    encode: Callable[[Built], bytes],
    decoder: Callable[[Any], Any],
    data: type,
    *,
    array_like: bool,
) -> Codec:
    def struct(kind: str, /, **fields: object) -> Any:
        return msgspec.defstruct(kind, list(fields.items()), gc=False, array_like=array_like)

    text, record = struct("Text", content=str), struct("Record", **_RECORD_FIELDS)
    # mypy would take `list[record]` for a type of its own.
    records = struct("Records", records=GenericAlias(list, record))
    tensor = struct("Tensor", name=str, shape=list[int], data=data)
    open_text, open_tensor = decoder(text).decode, decoder(tensor).decode
    open_record, open_records = decoder(record).decode, decoder(records).decode
    open_raw = decoder(struct("RawRecords", records=list[Raw])).decode

    def build_tensor(values: Tensor) -> Built:
        return tensor(values.name, values.shape, values.values.data.cast("B"))

    def tensor_to_native(frame: Frame) -> Native:
        opened = open_tensor(frame)
        # Bytes are the reader's own already, a view is not.
        copy = type(opened.data) is memoryview
        return tensor_of(opened.name, opened.shape, opened.data, copy=copy)

    def table_row(names: Sequence[str]) -> tuple[Any, Any, list[object]]:
        """Return the struct that has some fields, its decoder, and what stands before them."""
        # What follows in an array is skipped, as other keys are in an object.
        last = max(map(FIELDS.index, names)) + 1
        before = FIELDS[: last - len(names)] if array_like else ()
        fields = {name: _RECORD_FIELDS[name] for name in (*before, *names)}
        row = struct("Row", **fields)
        rows = struct("Rows", records=GenericAlias(list, row))
        return row, decoder(rows).decode, [_BLANK[name] for name in before]

    table_rows = {names: table_row(names) for names in COLUMNS.values()}

    def write_columns(table: Table, names: Sequence[str]) -> Frame:
        row, _, before = table_rows[tuple(names)]
        columns = column_lists(table, names)
        rows = [row(*before, *values) for values in zip(*columns, strict=True)]
        return encode({"records": rows} if not array_like else [rows])

    name_reads: dict[Share, Read] = {}
    # An array has no names of fields: the whole record is decoded for that one.
    if not array_like:
        open_name, read_name = decoder(struct("Name", name=str)).decode, _RECORD_READS[ONE_FIELD]
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
                open_reads=_raw_reads(open_raw, open_record),
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
            Message.TABLE: table_codec(
                lambda values: encode(records([record(*each) for each in values])),
                lambda frame, names: _columns(table_rows[tuple(names)][1](frame).records, names),
                write_columns,
                note="no field is decoded that is not read, but those in front of it in an array",
            ),
        },
    )


MSGSPEC_JSON = _codec(
    "msgspec JSON",
    msgspec.json.Encoder().encode,
    msgspec.json.Decoder,
    bytes,
    array_like=False,
)
MSGSPEC_MSGPACK = _codec(
    "msgspec MessagePack",
    msgspec.msgpack.Encoder().encode,
    msgspec.msgpack.Decoder,
    memoryview,
    array_like=True,
)

"""Cap'n Proto by pycapnp, the reference implementation's binding.

Three idioms: attribute assignment, by far the fastest way to build; keywords, which look every
field up in the schema; and packed frames. A fourth differs in reading Data only:
`get_data_as_view` does not copy, but in 2.2.4 keeps the whole frame for good (pycapnp #406).

A message that is encoded twice warns, so `encode` clears the flag as the warning advises.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from capnp_rig.loadtest.codecs.codec import (
    Built,
    Codec,
    Frame,
    MessageCodec,
    Native,
    Opened,
    table_codec,
)
from capnp_rig.loadtest.codecs.messages import Record, Table, Tensor
from capnp_rig.loadtest.codecs.plain import column_lists, record_dict, records_dict, tensor_of
from capnp_rig.loadtest.codecs.reading import Read, Share, columns_of, readers
from capnp_rig.loadtest.stats.messages import Message
from capnp_rig.schema import load_schema, message

_Text = message.MessageStream.MessageContent
_Record = load_schema("records.capnp").Record
_Records = load_schema("records.capnp").Records
_Tensor = load_schema("tensor.capnp").TensorService.Tensor


def _every_nth(records: Sequence[Opened], step: int) -> Iterable[Opened]:
    """Yield each `step`-th of pycapnp's list, which cannot be sliced."""
    if step == 1:
        return records
    return (records[index] for index in range(0, len(records), step))


# --- writing ---------------------------------------------------------------------------------


def _text_build(text: str) -> Built:
    built = _Text.new_message()
    built.content = text
    return built


def _record_build(record: Record) -> Built:
    built = _Record.new_message()
    _fill(built, record)
    return built


def _fill(built: Built, record: Record) -> None:
    built.id = record.id
    built.time = record.time
    built.kind = record.kind
    built.active = record.active
    built.total = record.total
    built.change = record.change
    built.price = record.price
    built.weight = record.weight
    built.name = record.name
    built.note = record.note
    built.key = record.key
    built.readings = record.readings


def _records_build(records: Sequence[Record]) -> Built:
    built = _Records.new_message()
    for slot, record in zip(built.init("records", len(records)), records, strict=True):
        _fill(slot, record)
    return built


def _tensor_build(tensor: Tensor) -> Built:
    built = _Tensor.new_message()
    built.name = tensor.name
    built.shape = tensor.shape
    built.data = tensor.values.data.cast("B")
    return built


def _encode(built: Built) -> Frame:
    frame = built.to_bytes()
    built.clear_write_flag()
    return frame


def _encode_packed(built: Built) -> Frame:
    frame = built.to_bytes_packed()
    built.clear_write_flag()
    return frame


# --- reading ---------------------------------------------------------------------------------


def _opener(struct: Any) -> Callable[[Frame], Opened]:
    from_bytes = struct.from_bytes

    def opener(frame: Frame) -> Opened:
        with from_bytes(frame) as reader:
            return reader

    return opener


def _within(struct: Any, convert: Callable[[Opened], Any]) -> Callable[[Frame], Any]:
    """Return a function that opens a frame and converts it, as pycapnp wants it: inside `with`."""
    from_bytes = struct.from_bytes

    def open_convert(frame: Frame) -> Any:
        with from_bytes(frame) as reader:
            return convert(reader)

    return open_convert


def _after(struct: Any, convert: Callable[[Opened], Any]) -> Callable[[Frame], Any]:
    """Return a function that unpacks a frame and converts it."""
    from_bytes_packed = struct.from_bytes_packed
    return lambda frame: convert(from_bytes_packed(frame))


def _tensor_native(opened: Opened) -> Native:
    return tensor_of(opened.name, list(opened.shape), opened.data, copy=False)


_columns = columns_of("r.{}", kind="{}.raw")
_OWN = {"kind": "r.kind.raw", "shape": "list(r.shape)"}
_READS = readers("r.{}", _OWN, every=_every_nth)
_VIEW_READS = readers("r.{}", {**_OWN, "data": 'r.get_data_as_view("data")'})[Message.TENSOR]
_NATIVE: dict[Message, Callable[[Opened], Native]] = {
    Message.TEXT: lambda opened: opened.content,
    Message.RECORD: lambda opened: opened.to_dict(),
    Message.RECORDS: lambda opened: opened.to_dict()["records"],
    Message.TENSOR: _tensor_native,
}
_STRUCTS = {
    Message.TEXT: _Text,
    Message.RECORD: _Record,
    Message.RECORDS: _Records,
    Message.TENSOR: _Tensor,
}
_ATTRIBUTES: dict[Message, Callable[[Any], Built]] = {
    Message.TEXT: _text_build,
    Message.RECORD: _record_build,
    Message.RECORDS: _records_build,
    Message.TENSOR: _tensor_build,
}
_KEYWORDS: dict[Message, Callable[[Any], Built]] = {
    Message.RECORD: lambda record: _Record.new_message(**record_dict(record)),
    Message.RECORDS: lambda records: _Records.new_message(**records_dict(records)),
}


def _message_codec(
    message: Message,
    build: Callable[[Native], Built] | None = None,
    reads: Mapping[Share, Read] | None = None,
    *,
    packed: bool = False,
    note: str = "",
) -> MessageCodec:
    struct = _STRUCTS[message]
    opening = _after if packed else _within
    chosen = reads or _READS[message]
    return MessageCodec(
        build=build or _ATTRIBUTES[message],
        encode=_encode_packed if packed else _encode,
        open=struct.from_bytes_packed if packed else _opener(struct),
        reads=chosen,
        open_reads={share: opening(struct, read) for share, read in chosen.items()},
        to_native=opening(struct, _NATIVE[message]),
        note=note,
    )


def _read_columns(frame: Frame, names: Sequence[str]) -> list[Any]:
    with _Records.from_bytes(frame) as reader:
        return _columns(reader.records, names)


def _write_columns(table: Table, names: Sequence[str]) -> Frame:
    built = _Records.new_message()
    slots = built.init("records", len(table.records))
    for name, values in zip(names, column_lists(table, names), strict=True):
        for slot, value in zip(slots, values, strict=True):
            setattr(slot, name, value)
    return _encode(built)


PYCAPNP = Codec(
    "pycapnp",
    {
        **{message: _message_codec(message) for message in _STRUCTS},
        Message.TABLE: table_codec(
            lambda records: _encode(_records_build(records)), _read_columns, _write_columns
        ),
    },
)
PYCAPNP_PACKED = Codec(
    "pycapnp packed", {message: _message_codec(message, packed=True) for message in _STRUCTS}
)
PYCAPNP_KEYWORDS = Codec(
    "pycapnp keywords",
    {message: _message_codec(message, build) for message, build in _KEYWORDS.items()},
    reads=False,
)
PYCAPNP_VIEW = Codec(
    "pycapnp view",
    {
        Message.TENSOR: _message_codec(
            Message.TENSOR,
            reads=_VIEW_READS,
            note="leaks a reference to the frame at every read (pycapnp #406)",
        )
    },
    writes=False,
)

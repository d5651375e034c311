"""JSON by the standard library and by orjson: a dict of the fields, bytes as base64.

orjson is the fastest untyped one, with pybase64 beside it: the standard library's base64 would
take ten times as long as orjson itself. The standard library's pair is shown, since it is what
most programs use. Both write UTF-8 and read bytes.

orjson reserves 16 times the length of a text before it writes it. From 2 MiB on that is more than
glibc takes from its heap, so each call pays for fresh pages: its times jump there.
"""

import base64
import json
from collections.abc import Callable
from typing import Any

import orjson
import pybase64

from capnp_rig.loadtest.codecs.codec import (
    Built,
    Codec,
    Frame,
    MessageCodec,
    Native,
    Opened,
    table_codec,
)
from capnp_rig.loadtest.codecs.messages import Record, Tensor
from capnp_rig.loadtest.codecs.plain import (
    dict_codecs,
    record_dict,
    row_dicts,
    tensor_dict,
    tensor_of,
)
from capnp_rig.loadtest.codecs.reading import COLUMNS, columns_of, readers
from capnp_rig.loadtest.stats.messages import Message

_columns = columns_of('r["{}"]')
_ROWS = {names: row_dicts(names) for names in COLUMNS.values()}
_dumps_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _stdlib_dumps(built: Built) -> bytes:
    return _dumps_compact(built).encode()


def _codec(
    name: str,
    dumps: Callable[[Built], bytes],
    loads: Callable[[Frame], Opened],
    to_base64: Callable[[Frame], str],
    from_base64: Callable[[str], bytes],
) -> Codec:
    own = {"key": 'from_base64(r["key"])', "data": 'from_base64(r["data"])'}
    reads = readers('r["{}"]', own, from_base64=from_base64)

    def build_record(record: Record) -> dict[str, Any]:
        built = record_dict(record)
        built["key"] = to_base64(record.key)
        return built

    def build_tensor(tensor: Tensor) -> Built:
        built = tensor_dict(tensor)
        built["data"] = to_base64(built["data"])
        return built

    def native_record(opened: Opened) -> Native:
        opened["key"] = from_base64(opened["key"])
        return opened

    def tensor_to_native(frame: Frame) -> Native:
        opened = loads(frame)
        data = from_base64(opened["data"])
        return tensor_of(opened["name"], opened["shape"], data, copy=False)

    return Codec(
        name,
        {
            Message.TEXT: dict_codecs(dumps, loads)[Message.TEXT],
            Message.RECORD: MessageCodec(
                build=build_record,
                encode=dumps,
                open=loads,
                reads=reads[Message.RECORD],
                to_native=lambda frame: native_record(loads(frame)),
            ),
            Message.RECORDS: MessageCodec(
                build=lambda records: {"records": [build_record(record) for record in records]},
                encode=dumps,
                open=loads,
                reads=reads[Message.RECORDS],
                to_native=lambda frame: [native_record(each) for each in loads(frame)["records"]],
            ),
            Message.TENSOR: MessageCodec(
                build=build_tensor,
                encode=dumps,
                open=loads,
                reads=reads[Message.TENSOR],
                to_native=tensor_to_native,
            ),
            Message.TABLE: table_codec(
                lambda records: dumps({"records": [build_record(each) for each in records]}),
                lambda frame, names: _columns(loads(frame)["records"], names),
                lambda table, names: dumps({"records": _ROWS[names](table)}),
            ),
        },
    )


def _to_base64(data: Frame) -> str:
    return base64.b64encode(data).decode("ascii")


def _from_base64_fast(text: str) -> bytes:
    # To refuse other characters is faster than to skip them.
    return pybase64.b64decode(text, validate=True)


JSON = _codec("json", _stdlib_dumps, json.loads, _to_base64, base64.b64decode)
ORJSON = _codec(
    "orjson", orjson.dumps, orjson.loads, pybase64.b64encode_as_string, _from_base64_fast
)

r"""The JSON RPC: JSON values in both directions, back to back over one connection.

Wire format, client to server: a stream of JSON values (RFC 8259, UTF-8). Whitespace and line
ends may stand between two values, and nothing has to, because each ends where it ends. Two kinds
of value are requests, answered in order:

    "Ping"
    {"method": "read", "params": {"content": "Hello"}, "id": 7}
    {"method": "reverse_bytes", "params": {"data": "AQID"}, "id": 8}

Server to client:

    "Ack"                            for "Ping": five bytes, no line end, as in the tutorial
    {"id":7,"result":"olleH"}\n      for a call that went well
    {"id":8,"result":"AwIB"}\n
    {"id":7,"error":"no such ..."}\n for an object that is no such call; the connection lives

`id` is a string, a number or null (which stands for a missing one too), and comes back as it
is, except that integers beyond 64 bits lose digits. Other members of a call are ignored. The
result of `read` holds the content reversed by code point, that of `reverse_bytes` the bytes of its
base64 (RFC 4648, 4) in reverse order.

What is no JSON, and any other value, is unreadable: what came before is answered, then the
connection is closed without a word, as in the tutorial. So is the value of more than
`limits.MAX_MESSAGE_BYTES`, after `{"id":null,"error":"..."}\n`.
"""

from typing import Any

import orjson

from capnp_rig.server.engines.engine import OnEnd
from capnp_rig.server.services.reverse import Note
from capnp_rig.server.stacks.json_jobs import UnfitError, reverse_content, reverse_data
from capnp_rig.server.stacks.json_values import UNREADABLE, JsonReader
from capnp_rig.server.stacks.limits import MAX_MESSAGE_BYTES
from capnp_rig.server.stacks.streams import Stream, StreamEngine

_ACK = b'"Ack"'
# Of one connection, as many as of the wire engine's.
_ANSWERS_PER_TURN = 256
_JOBS = {"read": reverse_content, "reverse_bytes": reverse_data}
_ID_TYPES = (int, str, type(None), float)


def answer(value: Any, note: Note = None) -> bytes | None:
    """Return the bytes that answer one value, or None if it is no request at all."""
    if type(value) is dict:
        return orjson.dumps(_call(value, note), None, orjson.OPT_APPEND_NEWLINE)
    if value == "Ping":
        return _ACK
    return None


def _call(call: dict[str, Any], note: Note) -> dict[str, Any]:
    number = call.get("id")
    # Not isinstance: True is an int to it.
    if type(number) not in _ID_TYPES:
        return {"id": None, "error": "id must be a string, a number or null"}
    method = call.get("method")
    if type(method) is not str or method not in _JOBS:
        return {"id": number, "error": "no such method: there are read and reverse_bytes"}
    try:
        return {"id": number, "result": _JOBS[method](call.get("params"), note)}
    except UnfitError as error:
        return {"id": number, "error": f"params.{error}"}


class JsonConnection(Stream):
    """One connection."""

    def __init__(self, engine: StreamEngine, on_end: OnEnd) -> None:
        super().__init__(engine, on_end)
        self._reader = JsonReader(MAX_MESSAGE_BYTES)

    @property
    def pending_bytes(self) -> int:
        """Bytes of a value that is only partly here."""
        return self._reader.pending_bytes

    def last_words(self, reason: str) -> bytes:
        """Return the error that tells why the connection ends."""
        return orjson.dumps({"id": None, "error": reason}) + b"\n"

    def data_received(self, data: bytes) -> None:
        """Answer the values that end in it."""
        self.received_bytes += len(data)
        answers = []
        fault = None
        for value in self._reader.feed(data):
            words = answer(value, self._note)
            if words is None:
                fault = UNREADABLE
                break
            answers.append(words)
        fault = fault or self._reader.fault
        if fault is not None and fault is not UNREADABLE:
            answers.append(self.last_words(fault))
        if answers:
            # All answers of one read leave in one write.
            self._transport.write(b"".join(answers))
        if fault is not None:
            self.break_off(fault)
        elif len(answers) > _ANSWERS_PER_TURN:
            self.give_way()

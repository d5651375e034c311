"""How often a payload is copied on its way, path by path (tables, no I/O); tests prove the lines.

A path leads from a numpy array to what can be sent, or from what a receiver holds, one frame of
bytes, to a numpy array of its elements. A copy writes every byte of the payload anew; what the
kernel and the socket copy is the same for all and not counted.

`copies` is the least number: a growing output buffer, as msgspec's and pickle's, may move
once more. `allocated` is how many payloads Python's allocators give out at most at a time, None
where a library asks for more than it touches or the number is its own affair. Memory of
pycapnp's builders and of protobuf's messages is C++'s and C's and not in it; `loadtest bench`
measures the resident set of every path.
"""

from dataclasses import dataclass

SEND = "array to frame"
SEND_SEGMENTS = "array to segments"
RECEIVE = "frame to array"


@dataclass(frozen=True, slots=True)
class CopyPath:
    """One path of one codec; `is_view` where the array lies in the frame, or the frame in it."""

    codec: str
    path: str
    copies: int
    allocated: float | None
    is_view: bool = False
    note: str = ""


LEDGER = (
    CopyPath("wire", SEND, 1, 1, note="into the frame"),
    CopyPath("wire", SEND_SEGMENTS, 0, 0, is_view=True),
    CopyPath("wire", RECEIVE, 0, 0, is_view=True),
    CopyPath("pycapnp", SEND, 2, 1, note="into the builder, then to_bytes"),
    CopyPath("pycapnp", RECEIVE, 1, 1, note="Data is read as bytes (pycapnp #390)"),
    CopyPath("pycapnp packed", SEND, 2, None, note="into the builder, then packed"),
    CopyPath("pycapnp packed", RECEIVE, 2, 1, note="unpacked, then read as bytes"),
    CopyPath(
        "pycapnp view",
        RECEIVE,
        0,
        0,
        is_view=True,
        note="get_data_as_view leaks a reference to the frame per call (pycapnp #406)",
    ),
    CopyPath("json", SEND, 4, 4, note="base64, str, dumps, UTF-8; each 4/3 of the payload"),
    CopyPath("json", RECEIVE, 4, 11 / 3, note="UTF-8, loads, ASCII, base64"),
    CopyPath("orjson", SEND, 2, None, note="base64 as str, dumps"),
    CopyPath("orjson", RECEIVE, 3, None, note="the input, the str, base64"),
    CopyPath("msgspec JSON", SEND, 1, None, note="base64 straight into the output"),
    CopyPath("msgspec JSON", RECEIVE, 1, 1, note="base64 straight into bytes"),
    CopyPath("msgspec MessagePack", SEND, 1, None, note="into the output"),
    CopyPath("msgspec MessagePack", RECEIVE, 0, 0, is_view=True, note="typed as memoryview"),
    CopyPath("msgpack", SEND, 2, 1, note="into the packer's buffer, then bytes"),
    CopyPath("msgpack", RECEIVE, 1, 1),
    CopyPath("protobuf", SEND, 3, 1, note="tobytes, into the message, serialised"),
    CopyPath("protobuf", RECEIVE, 2, 1, note="into the message, then bytes"),
    CopyPath("pickle 5", SEND, 1, None, note="into the output"),
    CopyPath("pickle 5", RECEIVE, 1, 1),
    CopyPath("pickle 5 out of band", SEND, 1, 1, note="into the frame"),
    CopyPath("pickle 5 out of band", SEND_SEGMENTS, 0, 0, is_view=True),
    CopyPath("pickle 5 out of band", RECEIVE, 0, 0, is_view=True),
    CopyPath("flatbuffers", SEND, 3, 3, note="tobytes, into the builder, Output"),
    CopyPath("flatbuffers", RECEIVE, 0, 0, is_view=True),
)

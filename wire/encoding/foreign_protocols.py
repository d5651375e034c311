"""Recognise, by its first bytes, what is no stream of Cap'n Proto frames.

Only errors use this, to name what came instead; nothing is refused because of it.
"""

import struct
from enum import Enum

from capnp_rig.wire.encoding.pointers import Buffer

# Enough for the longest table that is looked at and the root pointer behind it.
_LOOKED_AT_BYTES = 256
_MAX_SEGMENTS = 16
_MAX_WORDS = 2**28
# A request, an answer, and HTTP/2's preface.
_METHODS = (b"GET", b"PUT", b"POST", b"HEAD", b"PATCH", b"TRACE", b"DELETE", b"OPTIONS", b"CONNECT")
_HTTP = (*(method + b" " for method in _METHODS), b"HTTP/", b"PRI * HTTP/2")
# Records: change_cipher_spec, alert, handshake, application_data; SSL 3.0 to TLS 1.3.
_TLS_RECORDS = range(20, 24)
_TLS_MINORS = range(5)


class Foreign(Enum):
    """What it looks like; the value is its name for people."""

    HTTP = "HTTP"
    TLS = "TLS"
    PACKED = "packed Cap'n Proto"


def recognise(first_bytes: Buffer) -> Foreign | None:
    """Return what the bytes at the start of a stream or a message look like, if not a frame.

    Four bytes are enough; None where they are the start of a frame, or of something unknown.
    """
    start = bytes(first_bytes[:_LOOKED_AT_BYTES])
    if len(start) < 4 or _has_segments(start):
        return None
    if any(start[: len(word)] == word[: len(start)] for word in _HTTP) or _is_http2(start):
        return Foreign.HTTP
    if start[0] in _TLS_RECORDS and start[1] == 3 and start[2] in _TLS_MINORS:
        return Foreign.TLS
    return Foreign.PACKED if _is_packed(start) else None


def _is_http2(start: bytes) -> bool:
    """Whether a server speaks first: short SETTINGS without flags, on stream 0 (RFC 9113, 3.4)."""
    return start[:2] == b"\0\0" and start[3] == 4 and not any(start[4:9])


def hint(first_bytes: Buffer) -> str:
    """Return how to go on a message about bytes that are no frame: with what they look like."""
    match recognise(first_bytes):
        case None:
            return ""
        case Foreign.PACKED:
            return ": it looks like packed Cap'n Proto, which must be unpacked first"
        case foreign:
            return f": it looks like {foreign.value}"


def _has_segments(start: bytes) -> bool:
    """Whether a frame may start like this: 512 segments and more are refused by everybody."""
    return int.from_bytes(start[:4], "little") < 511


def _is_packed(start: bytes) -> bool:
    """Whether the bytes unpack to a segment table with a root pointer that fits behind it.

    What does not stand in the bytes any more is taken for right.
    """
    words = _unpacked(start)
    if len(words) < 8:
        return False
    count = int.from_bytes(words[:4], "little") + 1
    if count > _MAX_SEGMENTS:
        return False
    table_bytes = (count // 2 + 1) * 8
    sizes = struct.unpack_from(f"<{min(count, len(words) // 4 - 1)}I", words, 4)
    if not sizes[0] or sum(sizes) > _MAX_WORDS:
        return False
    root = words[table_bytes : table_bytes + 8]
    return len(root) < 8 or _is_root(int.from_bytes(root, "little"), sizes)


def _is_root(pointer: int, sizes: tuple[int, ...]) -> bool:
    """Whether it is null, to a struct inside the first segment, or into another segment."""
    if pointer & 3 == 2:
        return pointer >> 32 < len(sizes)
    offset, data_words, pointers = pointer >> 2 & 0x3FFFFFFF, pointer >> 32 & 0xFFFF, pointer >> 48
    return pointer & 3 == 0 and 1 + offset + data_words + pointers <= sizes[0]


def _unpacked(packed: bytes) -> bytes:
    """Return the whole words that the bytes unpack to (encoding.html#packing)."""
    words = bytearray()
    at, size = 0, len(packed)
    while at < size and len(words) < _LOOKED_AT_BYTES:
        tag = packed[at]
        at += 1
        end = at + tag.bit_count()
        if end > size:
            break
        present = iter(packed[at:end])
        words += bytes(next(present) if tag >> bit & 1 else 0 for bit in range(8))
        at = end
        if tag in {0x00, 0xFF}:
            if at == size:
                break
            run = packed[at]
            at += 1
            # After 00 so many words of zeros, after FF so many words as they are.
            words += bytes(8 * run) if tag == 0 else packed[at : at + 8 * run]
            at += 8 * run if tag else 0
    return bytes(words[: len(words) & -8])

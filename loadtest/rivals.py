"""The codecs that `loadtest bench` compares, each in its best idiom, on the tutorial's message.

The message is ``MessageContent``, one Text: ``{"content": "..."}`` in JSON. Contracts
are those of the figures: what is inside the clock.

    build+encode    the text → bytes ready to send
    encode          an existing object → bytes ready to send
    open            bytes → something readable; for JSON that is the whole decode
    open+read 100%  bytes → every field read, and fed to a checksum
"""

import json
import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from schema import message
from wire.structs import compile_struct

BUILD_ENCODE = "build+encode"
ENCODE = "encode"
OPEN = "open"
OPEN_READ = "open+read 100%"
CONTRACTS = (BUILD_ENCODE, ENCODE, OPEN, OPEN_READ)

SIZES_BYTES = (32, 65_536)
_DATA_SEED = 1

_MessageContent = message.MessageStream.MessageContent
_codec = compile_struct(_MessageContent.schema)
# Table of one segment, then the pointer to a struct in the next word.


class CodecMismatch(Exception):  # noqa: N818 - names the thing
    """A codec does not give back what it was given: its times mean nothing."""


@dataclass(frozen=True, slots=True)
class Codec:
    """One way to send the message.

    `build` makes what `encode` takes, None where the codec writes bytes at once. `content`
    reads the text of what `open` returned.
    """

    name: str
    build_encode: Callable[[str], bytes]
    build: Callable[[str], Any] | None
    encode: Callable[[Any], bytes]
    open: Callable[[bytes], Any]
    open_read: Callable[[bytes], int]
    content: Callable[[bytes], str]


def checksum(text: str) -> int:
    """Return a number that cannot be had without the decoded text, for next to no time."""
    return len(text) + ord(text[0]) + ord(text[-1])


def sample_text(size_bytes: int) -> str:
    """Return the text of a payload: seeded, `size_bytes` of ASCII.

    A text beyond ASCII would flatter orjson: Python keeps the UTF-8 of a str once it was
    asked for, so from the second time on it would only copy (2 µs in place of 180 for
    64 KiB), which no server with fresh texts ever does.
    """
    rng = random.Random(_DATA_SEED)  # noqa: S311 - repeatable, not secret
    return "".join(rng.choices(string.ascii_letters + string.digits + " ", k=size_bytes))


# --- Cap'n Proto by pycapnp ------------------------------------------------------------------


def _pycapnp_build_encode(text: str) -> bytes:
    built = _MessageContent.new_message()
    built.content = text
    return built.to_bytes()  # type: ignore[no-any-return] # pycapnp is untyped


def _pycapnp_build(text: str) -> Any:  # noqa: ANN401 - a pycapnp builder
    built = _MessageContent.new_message()
    built.content = text
    return built


def _pycapnp_encode(built: Any) -> bytes:  # noqa: ANN401 - a pycapnp builder
    return built.to_bytes()  # type: ignore[no-any-return] # pycapnp is untyped


def _pycapnp_open(data: bytes) -> Any:  # noqa: ANN401 - a pycapnp reader
    with _MessageContent.from_bytes(data) as reader:
        return reader


def _pycapnp_open_read(data: bytes) -> int:
    with _MessageContent.from_bytes(data) as reader:
        return checksum(reader.content)


def _pycapnp_content(data: bytes) -> str:
    with _MessageContent.from_bytes(data) as reader:
        return str(reader.content)


# --- Cap'n Proto by our own struct views -----------------------------------------------------


def _wire_build_encode(text: str) -> bytes:
    return _codec.to_bytes({"content": text})


def _wire_open(data: bytes) -> Any:  # noqa: ANN401 - a view of the schema's struct
    return _codec.from_bytes(data)


def _wire_open_read(data: bytes) -> int:
    return checksum(_wire_open(data).content)


def _wire_content(data: bytes) -> str:
    return str(_wire_open(data).content)


# --- JSON --------------------------------------------------------------------------------------


def _json_build_encode(text: str) -> bytes:
    return json.dumps({"content": text}, ensure_ascii=False).encode()


def _json_build(text: str) -> dict[str, str]:
    return {"content": text}


def _json_encode(built: dict[str, str]) -> bytes:
    return json.dumps(built, ensure_ascii=False).encode()


def _json_open_read(data: bytes) -> int:
    return checksum(json.loads(data)["content"])


def _json_content(data: bytes) -> str:
    return str(json.loads(data)["content"])


def _orjson_build_encode(text: str) -> bytes:
    return orjson.dumps({"content": text})


def _orjson_open_read(data: bytes) -> int:
    return checksum(orjson.loads(data)["content"])


def _orjson_content(data: bytes) -> str:
    return str(orjson.loads(data)["content"])


CODECS = {
    codec.name: codec
    for codec in (
        Codec(
            "json",
            _json_build_encode,
            _json_build,
            _json_encode,
            json.loads,
            _json_open_read,
            _json_content,
        ),
        Codec(
            "orjson",
            _orjson_build_encode,
            _json_build,
            orjson.dumps,
            orjson.loads,
            _orjson_open_read,
            _orjson_content,
        ),
        Codec(
            "pycapnp",
            _pycapnp_build_encode,
            _pycapnp_build,
            _pycapnp_encode,
            _pycapnp_open,
            _pycapnp_open_read,
            _pycapnp_content,
        ),
        Codec(
            "wire",
            _wire_build_encode,
            None,
            _wire_build_encode,
            _wire_open,
            _wire_open_read,
            _wire_content,
        ),
    )
}


def verify(codec: Codec, text: str) -> bytes:
    """Return the encoded message, after checking that the codec gives the text back.

    Raises:
        CodecMismatch: It does not.
    """
    data = codec.build_encode(text)
    if codec.build is not None and codec.encode(codec.build(text)) != data:
        raise CodecMismatch(f"{codec.name} encodes an object in another way")
    if codec.content(data) != text or codec.open_read(data) != checksum(text):
        raise CodecMismatch(f"{codec.name} does not give back the text")
    return data


def timed_call(codec: Codec, contract: str, text: str) -> tuple[Callable[[], Any], Any]:
    """Return what to time, and what it must return; None where it returns something opaque.

    Raises:
        CodecMismatch: The codec does not give back the text.
    """
    data = verify(codec, text)
    if contract == BUILD_ENCODE:
        build_encode = codec.build_encode
        return lambda: build_encode(text), data
    if contract == ENCODE:
        assert codec.build is not None, "asked only of codecs that have an object to encode"
        encode, built = codec.encode, codec.build(text)
        return lambda: encode(built), data
    if contract == OPEN:
        opener = codec.open
        return lambda: opener(data), None
    open_read = codec.open_read
    return lambda: open_read(data), checksum(text)

"""What the stacks beside capnp are sent, and what they must answer, in the form that each takes.

Texts of UTF-8 are reversed by code point, random bytes by byte; `workload.bodies` has the nonces.
In base64 a body and its nonce meet where groups of three bytes do, so that the few bytes around
the seam alone are encoded per request.
"""

import json
from binascii import b2a_base64
from collections.abc import Callable
from dataclasses import dataclass

from capnp_rig.loadtest.workload import WorkloadConfig, WorkloadError, read_contents
from capnp_rig.loadtest.workload.bodies import NONCE_BYTES, Bodies, Body

# What the servers take at most.
_MOST_BYTES = 16_777_216
# Larger ones are not kept encoded for each request, nor are more than these of one connection.
_KEPT_BYTES = 4096
_KEPT_BODIES = 256


@dataclass(frozen=True, slots=True)
class Payload:
    """The payload of one request, and that of its right reply, each in two parts."""

    request: tuple[bytes, bytes]
    reply: tuple[bytes, bytes]


# Makes the body of a content and of that reversed, both as plain bytes.
Form = Callable[[bytes, bytes], Body[Payload]]


class RawBody:
    """Goes as it is, and comes back reversed."""

    def __init__(self, content: bytes, reverse: bytes) -> None:
        self._content, self._reverse = content, reverse

    def behind(self, nonce: bytes) -> Payload:
        """Return the payload; see `bodies.Body`."""
        return Payload((nonce, self._content), (self._reverse, nonce[::-1]))


class EchoBody:
    """Goes as it is, and comes back so."""

    def __init__(self, content: bytes, _reverse: bytes) -> None:
        self._content = content

    def behind(self, nonce: bytes) -> Payload:
        """Return the payload; see `bodies.Body`."""
        sent = (nonce, self._content)
        return Payload(sent, sent)


def json_text(content: bytes, reverse: bytes) -> RawBody:
    """Return the body as the inside of a JSON string."""
    # What a nonce has needs no escapes.
    return RawBody(_escape(content), _escape(reverse))


def _escape(text: bytes) -> bytes:
    return json.dumps(text.decode(), ensure_ascii=False)[1:-1].encode()


class Base64Body:
    """Goes as base64, and comes back so: what JSON has for bytes."""

    def __init__(self, content: bytes, reverse: bytes) -> None:
        # 16 digits and two bytes are six groups of three.
        self._behind_nonce, self._rest = content[:2], _base64(content[2:])
        whole = len(reverse) // 3 * 3
        self._start, self._before_nonce = _base64(reverse[:whole]), reverse[whole:]

    def behind(self, nonce: bytes) -> Payload:
        """Return the payload; see `bodies.Body`."""
        return Payload(
            (_base64(nonce + self._behind_nonce), self._rest),
            (self._start, _base64(self._before_nonce + nonce[::-1])),
        )


def _base64(data: bytes) -> bytes:
    return b2a_base64(data, newline=False)


Payloads = Bodies[Payload]


def read_payloads(config: WorkloadConfig, form: Form) -> Payloads:
    """Return the payloads of one process of a run, encoded.

    While none is longer than 4 KiB, and there are no more than 256 bodies, those of a connection
    are a cycle, `is_repeating`; else each is new.

    Raises:
        WorkloadError: The config asks for what cannot be sent.
    """
    contents = read_contents(config, _MOST_BYTES)
    longest = max(len(content) for content, _ in contents) + NONCE_BYTES
    if longest > _MOST_BYTES:
        raise WorkloadError(f"a payload has {longest} bytes, the servers take {_MOST_BYTES}")
    return Bodies(
        [form(content, reverse) for content, reverse in contents],
        payload_bytes=config.payload_bytes,
        is_corpus=config.has_texts,
        is_repeating=longest <= _KEPT_BYTES and len(contents) <= _KEPT_BODIES,
    )

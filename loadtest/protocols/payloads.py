"""What the stacks beside capnp are sent, and what they must answer, in the form that each takes.

A payload is a nonce of 16 hex digits and a body, as `workload.texts` has it: eight digits tell the
connection, eight more the request, so that a reply which belongs to another request is noticed.
The body is a text of UTF-8, reversed by code point, or random bytes, reversed by byte.

Bodies are encoded once per process. Requests share those bytes, and so do the replies that are
expected: behind the reversed body comes the reversed nonce. In base64 the two meet where groups of
three bytes do, so that the few bytes around the seam alone are encoded per request.
"""

import json
from binascii import b2a_base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from capnp_rig.loadtest.workload import BINARY, WorkloadConfig, WorkloadError
from capnp_rig.loadtest.workload.binaries import nonce_of, random_bodies
from capnp_rig.loadtest.workload.texts import NONCE_CHARS, generate, parse_corpus, prepare

# What the servers take at most.
_MOST_BYTES = 16_777_216
# Larger ones are not kept encoded for each request, nor are more than these of one connection.
_KEPT_BYTES = 4096
_KEPT_BODIES = 256
_BODIES, _BODIES_BYTES = 16, 1 << 20


@dataclass(frozen=True, slots=True)
class Payload:
    """The payload of one request, and that of its right reply, each in two parts."""

    request: tuple[bytes, bytes]
    reply: tuple[bytes, bytes]


class Body(Protocol):
    """A body, encoded for one form, without the nonce in front of it."""

    def behind(self, nonce: bytes) -> Payload:
        """Return the payload that has the body behind a nonce, which stands alone if it is short.

        A nonce of another length than 16 goes with an empty body only.
        """


# Makes the body of a content and of that reversed, both as plain bytes.
Form = Callable[[bytes, bytes], Body]


class RawBody:
    """Goes as it is, and comes back reversed."""

    def __init__(self, content: bytes, reverse: bytes) -> None:
        self._content, self._reverse = content, reverse

    def behind(self, nonce: bytes) -> Payload:
        """Return the payload; see `Body`."""
        return Payload((nonce, self._content), (self._reverse, nonce[::-1]))


class EchoBody:
    """Goes as it is, and comes back so."""

    def __init__(self, content: bytes, _reverse: bytes) -> None:
        self._content = content

    def behind(self, nonce: bytes) -> Payload:
        """Return the payload; see `Body`."""
        sent = (nonce, self._content)
        return Payload(sent, sent)


def json_text(content: bytes, reverse: bytes) -> Body:
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
        """Return the payload; see `Body`."""
        return Payload(
            (_base64(nonce + self._behind_nonce), self._rest),
            (self._start, _base64(self._before_nonce + nonce[::-1])),
        )


def _base64(data: bytes) -> bytes:
    return b2a_base64(data, newline=False)


class Payloads:
    """The payloads of one process of a run.

    While none is longer than 4 KiB, and there are no more than 256 bodies, those of a connection
    are a cycle, `is_repeating`; else each is new.
    """

    def __init__(self, config: WorkloadConfig, form: Form) -> None:
        """Encode what `config` asks for.

        Raises:
            TextError, WorkloadError: It asks for what cannot be sent.
        """
        contents = _contents(config)
        self._bodies = [form(content, reverse) for content, reverse in contents]
        self._is_corpus = bool(config.text) or config.corpus is not None
        self._nonce_bytes = NONCE_CHARS
        if not self._is_corpus:
            self._nonce_bytes = min(config.payload_bytes, NONCE_CHARS)
        longest = max(len(content) for content, _ in contents) + NONCE_CHARS
        if longest > _MOST_BYTES:
            raise WorkloadError(f"a payload has {longest} bytes, the servers take {_MOST_BYTES}")
        self.is_repeating = longest <= _KEPT_BYTES and len(contents) <= _KEPT_BODIES

    def lap(self, user: int, in_flight: int) -> Iterator[Payload]:
        """Yield the payloads of a connection: one lap of its cycle, or without end.

        `user` is a number that no other connection of the run has. The cycle is twice as long as
        the calls in flight, and one: a reply that belongs to an earlier request is told from the
        right one.
        """
        bodies = self._bodies
        size = 2 * in_flight + 1
        if self._is_corpus:
            size += -size % len(bodies)
        for number in range(size) if self.is_repeating else count():
            # Not all connections start with the same one.
            nonce = nonce_of(user, number, self._nonce_bytes)
            yield bodies[(user + number) % len(bodies)].behind(nonce)


def _contents(config: WorkloadConfig) -> Sequence[tuple[bytes, bytes]]:
    """Return the contents of the bodies, each with that reversed."""
    size = config.payload_bytes
    if size < 1:
        raise WorkloadError(f"the payload must be at least 1 byte, not {size}")
    if config.payload_kind == BINARY:
        if config.text or config.corpus is not None:
            raise WorkloadError("text and corpus are texts: leave them out of a binary payload")
        bodies = random_bodies(min(size, _MOST_BYTES + 1), seed=config.seed)
        return [(body, body[::-1]) for body in bodies]
    if config.text and config.corpus is not None:
        raise WorkloadError("text and corpus exclude each other: give one of them")
    if config.text:
        texts = [config.text]
    elif config.corpus is not None:
        texts = parse_corpus(config.corpus)
    elif size < NONCE_CHARS:
        texts = [""]
    else:
        texts = generate(min(size, _MOST_BYTES + 1), seed=config.seed, count=_count(size))
    return [(text.content.encode(), text.reversed) for text in prepare(texts)]


def _count(size: int) -> int:
    return max(1, min(_BODIES, _BODIES_BYTES // size))

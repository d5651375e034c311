"""What the tutorial's `read` is sent, and the answer it must give.

Every request starts with a nonce, so that a reply which belongs to another request
is noticed. The nonce is ASCII and of fixed length: the payload keeps its size, and
the expected answer is the text, reversed once beforehand, and the nonce, reversed.

What follows the nonce is encoded once per process, and all requests that send it share these
bytes, as they share the reversed ones: a request takes 0.5 kB, however long its text.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.structs import StructCodec

# Eight characters tell the user, eight more the request.
NONCE_CHARS = 16
_USER_BITS = 32
_REQUESTS = 16**8

# One to four bytes of UTF-8 each: reversal is by code point, and must not cut one.
_ALPHABET = "abcdefghijklmnopqrstuvwxyz 0123456789äöüéßñøλπжя中文日本語한국어🙂🚀🎉"
_ASCII = "abcdefghijklmnopqrstuvwxyz"


class TextError(ValueError):
    """The texts to send are unusable; the message says why."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text without its nonce, and what its half of the answer must be."""

    content: str
    reversed: bytes


def prepare(contents: Sequence[str]) -> tuple[Text, ...]:
    """Return the texts with their answers.

    Raises:
        TextError: There is none, or one cannot be encoded as UTF-8.
    """
    if not contents:
        raise TextError("no text to send")
    try:
        return tuple(Text(content, content[::-1].encode()) for content in contents)
    except UnicodeEncodeError as error:
        raise TextError(f"a text is not valid Unicode: {error.reason}") from error


def generate(payload_bytes: int, *, seed: int, count: int = 16) -> list[str]:
    """Return random texts that fill `payload_bytes` of UTF-8 together with a nonce.

    Raises:
        TextError: The nonce alone is longer.
    """
    if payload_bytes < NONCE_CHARS:
        raise TextError(f"a payload has at least {NONCE_CHARS} bytes, its nonce")
    rng = random.Random(seed)
    return [_random_text(payload_bytes - NONCE_CHARS, rng) for _ in range(count)]


def _random_text(size_bytes: int, rng: random.Random) -> str:
    parts: list[str] = []
    left = size_bytes
    while left >= 4:
        # As many as fit, were each of four bytes: one by one would take seven times as long.
        part = "".join(rng.choices(_ALPHABET, k=left // 4))
        parts.append(part)
        left -= len(part.encode())
    return "".join(parts + rng.choices(_ASCII, k=left))


def parse_corpus(text: str) -> list[str]:
    """Return the lines of a corpus file, without the empty ones."""
    return [line for line in text.splitlines() if line]


def requests(texts: Sequence[Text], user: int) -> Iterator[tuple[str, bytes]]:
    """Yield contents to send and the answers to expect, without end.

    `user` is a number that no other user of the run has.
    """
    prefix = f"{user % 2**_USER_BITS:08x}"
    number = 0
    while True:
        for text in texts:
            nonce = f"{prefix}{number % _REQUESTS:08x}"
            number += 1
            yield nonce + text.content, text.reversed + nonce[::-1].encode()


# --- encoded texts --------------------------------------------------------------------------

# The params of a call, and what tells whether its results are right: None, or the kind of fault.
TextRequest = tuple[EncodedTuple, Callable[[Any], str | None]]

WRONG_REPLY = "wrong reply"
# Callers may keep a frame and a reply for each request of a cycle, in every connection: at most
# 1 MiB of each, or as much as is in flight twice. That is a text of 4 KiB and what it stands in.
KEPT_WORDS = 520
KEPT_REQUESTS = 256
_BODIES = 16
_BODIES_BYTES = 1 << 20


class Texts:
    """The requests of the tutorial's workload.

    While no text is longer than 4 KiB, and there are no more than 256 of them, the requests of a
    connection are a cycle; else each is new. `words` is the size of the largest params.
    """

    def __init__(self, codec: StructCodec, contents: Sequence[str], *, is_corpus: bool) -> None:
        """Encode `contents`; every text of a corpus is sent in turn.

        Raises:
            TextError: As `prepare`.
        """
        self._bodies = [_Body(codec, text) for text in prepare(contents)]
        self._is_corpus = is_corpus
        self.words = max(body.words for body in self._bodies)
        self.is_repeating = self.words <= KEPT_WORDS and len(contents) <= KEPT_REQUESTS

    def lap(self, user: int, in_flight: int) -> Iterator[TextRequest]:
        """Yield the requests of a connection: one lap of its cycle, or without end.

        The cycle is twice as long as the calls in flight, and one: a reply that belongs to an
        earlier request is told from the right one.
        """
        prefix = f"{user % 2**_USER_BITS:08x}"
        bodies = self._bodies
        size = 2 * in_flight + 1
        if self._is_corpus:
            size += -size % len(bodies)
        for number in range(size) if self.is_repeating else count():
            nonce = f"{prefix}{number % _REQUESTS:08x}"
            # Not all connections start with the same one.
            yield bodies[(user + number) % len(bodies)].behind(nonce)


class _Body:
    """A text, encoded but for the nonce in front of it."""

    __slots__ = ("_head", "_reversed", "_sizes", "_tail", "words")

    def __init__(self, codec: StructCodec, text: Text) -> None:
        nonce = "-" * NONCE_CHARS
        self._sizes, parts, self.words = codec.pack({"request": {"content": nonce + text.content}})
        self._head, _, self._tail = b"".join(parts).partition(nonce.encode())
        self._reversed = text.reversed

    def behind(self, nonce: str) -> TextRequest:
        """Return the request that sends the text behind a nonce."""
        front = nonce.encode()
        params: EncodedTuple = (self._sizes, [self._head + front, self._tail], self.words)
        return params, partial(_fault, self._reversed, front[::-1])


def _fault(start: bytes, end: bytes, results: Any) -> str | None:
    # As bytes: a memoryview is compared element by element.
    reply = bytes(results.chunk)
    if len(reply) == len(start) + len(end) and reply.startswith(start) and reply.endswith(end):
        return None
    return WRONG_REPLY


class ShortTexts:
    """The requests of a workload whose payload has no room for a nonce.

    The texts are as short as they can be while they differ from all others, at least
    `payload_bytes`: four bytes for the first connections of a run.
    """

    is_repeating = True

    def __init__(self, codec: StructCodec, payload_bytes: int) -> None:
        self._codec = codec
        self._payload_bytes = payload_bytes
        self.words = 4

    def lap(self, user: int, in_flight: int) -> Iterator[TextRequest]:
        """Yield the requests of a connection: one lap of its cycle."""
        for number in range(2 * in_flight + 1):
            nonce = f"{user:x}-{number:x}."
            text = (nonce + _ASCII)[: max(self._payload_bytes, len(nonce))]
            params = self._codec.pack({"request": {"content": text}})
            yield params, partial(_fault, b"", text[::-1].encode())


def generated_texts(codec: StructCodec, payload_bytes: int, *, seed: int) -> Texts | ShortTexts:
    """Return requests of `payload_bytes` of UTF-8 each, or of a few more where those are too few.

    There are 16 different texts behind the nonces, fewer where they would be over 1 MiB together.
    """
    if payload_bytes < NONCE_CHARS:
        return ShortTexts(codec, payload_bytes)
    number = max(1, min(_BODIES, _BODIES_BYTES // payload_bytes))
    contents = generate(payload_bytes, seed=seed, count=number)
    return Texts(codec, contents, is_corpus=False)

"""Payloads: a nonce of 16 hex digits, and a body of text or bytes behind it.

By its nonce a reply that belongs to another request is noticed: eight digits tell the connection,
eight more the request. It is ASCII and of fixed length, so the payload keeps its size, and the
expected answer is the body, reversed once beforehand, and the nonce, reversed.

Bodies are encoded once per process. All requests that send one share its bytes, as they share the
reversed ones: a request takes 0.5 kB, however long its body.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Generic, Protocol, TypeVar

NONCE_BYTES = 16
WRONG_REPLY = "wrong reply"
_NUMBERS = 16**8

# One to four bytes of UTF-8 each: reversal is by code point, and must not cut one.
_ALPHABET = "abcdefghijklmnopqrstuvwxyz 0123456789äöüéßñøλπжя中文日本語한국어🙂🚀🎉"
_ASCII = "abcdefghijklmnopqrstuvwxyz"
# Fewer where they would be over 1 MiB together.
_BODIES, _BODIES_BYTES = 16, 1 << 20

Made_co = TypeVar("Made_co", covariant=True)


def nonce_of(user: int, number: int, payload_bytes: int) -> bytes:
    """Return what tells a request from all others: 16 digits, or fewer where those are too many.

    `user` is a number that no other connection of the run has. A payload without room for 16 is
    as short as it can be: four bytes for the first connections of a run.
    """
    if payload_bytes >= NONCE_BYTES:
        return b"%08x%08x" % (user % _NUMBERS, number % _NUMBERS)
    least = b"%x-%x." % (user, number)
    return least.ljust(payload_bytes, b"+")


def random_texts(payload_bytes: int, *, seed: int, count: int | None = None) -> list[str]:
    """Return texts, 16 by default, that fill `payload_bytes` of UTF-8 together with a nonce."""
    rng = random.Random(seed)
    size = max(0, payload_bytes - NONCE_BYTES)
    return [_random_text(size, rng) for _ in range(count or _count(payload_bytes))]


def random_bytes(payload_bytes: int, *, seed: int) -> list[bytes]:
    """Return random bytes that fill `payload_bytes` together with a nonce."""
    rng = random.Random(seed)
    size = max(0, payload_bytes - NONCE_BYTES)
    return [rng.randbytes(size) for _ in range(_count(payload_bytes))]


def _count(payload_bytes: int) -> int:
    return max(1, min(_BODIES, _BODIES_BYTES // payload_bytes))


def _random_text(size_bytes: int, rng: random.Random) -> str:
    parts: list[str] = []
    left = size_bytes
    while left >= 4:
        # As many as fit, were each of four bytes: one by one would take seven times as long.
        part = "".join(rng.choices(_ALPHABET, k=left // 4))
        parts.append(part)
        left -= len(part.encode())
    return "".join(parts + rng.choices(_ASCII, k=left))


class Body(Protocol[Made_co]):
    """A body, encoded in the form of one protocol, without the nonce in front of it."""

    def behind(self, nonce: bytes) -> Made_co:
        """Return what is sent with the body behind a nonce, and its right reply.

        A nonce of another length than 16 goes with an empty body only.
        """


@dataclass(frozen=True, slots=True)
class Bodies(Generic[Made_co]):
    """The bodies of one process; those of a corpus are sent in turn.

    Where `is_repeating`, the requests of a connection are a cycle; else each is new.
    """

    bodies: Sequence[Body[Made_co]]
    payload_bytes: int
    is_corpus: bool
    is_repeating: bool

    def lap(self, user: int, in_flight: int) -> Iterator[Made_co]:
        """Yield what a connection sends: one lap of its cycle, or without end.

        The cycle is twice as long as the calls in flight, and one: a reply that belongs to an
        earlier request is told from the right one.
        """
        bodies = self.bodies
        nonce_bytes = NONCE_BYTES if self.is_corpus else self.payload_bytes
        size = 2 * in_flight + 1
        if self.is_corpus:
            size += -size % len(bodies)
        for number in range(size) if self.is_repeating else count():
            nonce = nonce_of(user, number, nonce_bytes)
            # Not all connections start with the same one.
            yield bodies[(user + number) % len(bodies)].behind(nonce)

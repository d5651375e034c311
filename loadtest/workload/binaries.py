"""What ``Binary.reverse`` is sent, and the answer it must give: the texts' job on bytes.

As `workload.texts` has it, each request starts with a nonce of 16 digits, random bytes follow, and
what follows is encoded once per process.
"""

import random
from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import Any

from capnp_rig.loadtest.workload.texts import KEPT_WORDS, NONCE_CHARS, WRONG_REPLY, TextRequest
from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.structs import StructCodec

# As many as there are texts, or fewer where those would be over 1 MiB together.
_BODIES, _BODIES_BYTES = 16, 1 << 20
_NUMBERS = 16**8


def nonce_of(user: int, number: int, payload_bytes: int) -> bytes:
    """Return what tells a request from all others: 16 digits, or fewer where those are too many."""
    if payload_bytes >= NONCE_CHARS:
        return b"%08x%08x" % (user % _NUMBERS, number % _NUMBERS)
    least = b"%x-%x." % (user, number)
    return least.ljust(payload_bytes, b"+")


def random_bodies(payload_bytes: int, *, seed: int) -> list[bytes]:
    """Return random bytes that fill `payload_bytes` together with a nonce."""
    rng = random.Random(seed)
    number = max(1, min(_BODIES, _BODIES_BYTES // payload_bytes))
    return [rng.randbytes(max(0, payload_bytes - NONCE_CHARS)) for _ in range(number)]


class Binaries:
    """The requests of one process; `words` is the size of the largest params.

    Up to 4 KiB the requests of a connection are a cycle; beyond, each is new.
    """

    def __init__(self, codec: StructCodec, payload_bytes: int, *, seed: int) -> None:
        self._payload_bytes = payload_bytes
        nonce = nonce_of(0, 0, payload_bytes)
        bodies = random_bodies(payload_bytes, seed=seed)
        self._bodies = [_Body(codec, nonce, body) for body in bodies]
        self.words = max(body.words for body in self._bodies)
        self.is_repeating = self.words <= KEPT_WORDS

    def lap(self, user: int, in_flight: int) -> Iterator[TextRequest]:
        """Yield the requests of a connection: one lap of its cycle, or without end."""
        bodies = self._bodies
        for number in range(2 * in_flight + 1) if self.is_repeating else count():
            nonce = nonce_of(user, number, self._payload_bytes)
            yield bodies[(user + number) % len(bodies)].behind(nonce)


class _Body:
    """Bytes, encoded but for the nonce in front of them."""

    __slots__ = (
        "_codec",
        "_content",
        "_head",
        "_nonce_bytes",
        "_reverse",
        "_sizes",
        "_tail",
        "words",
    )

    def __init__(self, codec: StructCodec, nonce: bytes, content: bytes) -> None:
        self._codec, self._content, self._reverse = codec, content, content[::-1]
        self._nonce_bytes = len(nonce)
        self._sizes, parts, self.words = codec.pack({"data": nonce + content})
        self._head, _, self._tail = b"".join(parts).partition(nonce)

    def behind(self, nonce: bytes) -> TextRequest:
        """Return the request that sends the bytes behind a nonce."""
        params: EncodedTuple = (self._sizes, [self._head + nonce, self._tail], self.words)
        if len(nonce) != self._nonce_bytes:
            params = self._codec.pack({"data": nonce + self._content})
        return params, partial(_fault, self._reverse, nonce[::-1])


def _fault(start: bytes, end: bytes, results: Any) -> str | None:
    # As bytes: a memoryview is compared element by element.
    reply = bytes(results.data)
    if len(reply) == len(start) + len(end) and reply.startswith(start) and reply.endswith(end):
        return None
    return WRONG_REPLY

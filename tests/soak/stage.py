"""What all kinds of calls share: where the server is, what is asked, and what is right."""

import itertools
import random
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any

from raw_peer import RawPeer
from soak.service import SCHEMA

from capnp_rig.wire.rpc.interfaces import compile_interface

SOAK = compile_interface(SCHEMA.Soak)
NEWER = compile_interface(SCHEMA.Newer)

_POOL_BYTES = 1 << 16
# Of most calls; every so often one does not fit into a segment of a page.
_USUAL_BYTES = 600
_LONG_BYTES = 20_000


@dataclass(frozen=True, slots=True)
class Question:
    """A call with the one answer that is right."""

    method: str
    nonce: int
    params: Mapping[str, Any]
    right: bytes


class Stage:
    """One server under soak, and the model that knows its answers. Threads may share it."""

    def __init__(self, address: str, engine: str, seed: int) -> None:
        self.address = address
        self.engine = engine
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        self.random = random.Random(seed)
        self.sent: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        # Connections that last for the whole soak, so that what they hold is looked at as well.
        self.lasting: dict[str, Any] = {}
        self.closing = AsyncExitStack()
        self._nonces = itertools.count(self.random.getrandbits(32))
        self._pool = self.random.randbytes(_POOL_BYTES)
        self.lock = threading.Lock()

    def ask(self, method: str, size: int | None = None) -> Question:
        """Return a fresh call of one of the methods that answer with their data reversed."""
        with self.lock:
            nonce = next(self._nonces)
            self.sent[method] += 1
            start = self.random.randrange(_POOL_BYTES // 2)
            if size is None:
                size = self.random.randrange(_LONG_BYTES if nonce % 64 == 0 else _USUAL_BYTES)
        data = (self._pool[start : start + size] * (size // _POOL_BYTES + 1))[:size]
        return Question(method, nonce, {"nonce": nonce, "data": data}, data[::-1])

    def nonce(self) -> int:
        with self.lock:
            return next(self._nonces)

    def check(self, question: Question, results: Any) -> None:
        """Count an answer; raise AssertionError unless it is the question's own."""
        assert results.nonce == question.nonce, (results.nonce, question.nonce)
        data = bytes(results.data)
        assert data == question.right, f"wrong data for {question.method} {question.nonce}"
        with self.lock:
            self.answered[question.method] += 1


def closed(peer: RawPeer) -> bool:
    """Return whether the server has closed, whatever it said before."""
    with suppress(TimeoutError):
        return peer.until_eof()[-1].kind == "eof"
    return False

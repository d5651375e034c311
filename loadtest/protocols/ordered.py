"""One connection of a protocol that answers in the order of the requests, without its socket.

What is sent again and again is encoded once, and so is its right reply: whatever does not vary is
compared, all of it, byte for byte (0.1 µs where it is one piece). A reply that differs is taken
apart by the protocol's `judge`, which finds its end and what is wrong with it; where it is right
after all, say with a header of its own, it is what replies to that request are held against next.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from itertools import cycle, starmap

from capnp_rig.client.errors import ProtocolError
from capnp_rig.loadtest.protocols.exchange import Answered, Failed
from capnp_rig.loadtest.protocols.payloads import Payload, Payloads

Bytes = bytes | bytearray

# Two ways to judge: not all of the reply is here; or its length, and what is wrong with it.
NOT_WHOLE = 0, None
Judgement = tuple[int, Exception | None]


class Prepared:
    """A request as it leaves, and the parts of the reply that it gets, one or more."""

    __slots__ = ("payload", "reply_bytes", "reply_head", "reply_rest", "request")

    def __init__(
        self, payload: Payload, request: tuple[bytes, ...], reply: tuple[bytes, ...]
    ) -> None:
        self.payload = payload
        self.request = request
        self.expect(*reply)

    def expect(self, *reply: bytes) -> None:
        """Take these parts together as the right reply."""
        self.reply_head, *rest = reply
        self.reply_rest = tuple(rest)
        self.reply_bytes = sum(map(len, reply))

    def join(self) -> None:
        """Make each one piece, which is worth its copy where it is used again."""
        self.request = (b"".join(self.request),)
        self.expect(b"".join((self.reply_head, *self.reply_rest)))


class OrderedExchange(ABC):
    """The calls of one connection; a protocol says how they are encoded and judged.

    `answered` and `failed` are told of each call's end.
    """

    def __init__(
        self,
        payloads: Payloads,
        user: int,
        in_flight: int,
        *,
        answered: Answered,
        failed: Failed,
    ) -> None:
        self.is_ready = True
        self.is_repeating = payloads.is_repeating
        # Length that must be there before another look at the next reply brings anything.
        self.needed = 0
        self._slots = in_flight
        self._answered = answered
        self._failed = failed
        prepared = starmap(self._prepared, enumerate(payloads.lap(user, in_flight)))
        # Prepared when first sent, and kept from then on.
        self._requests = cycle(prepared) if self.is_repeating else prepared
        # The request, when it was due, when it was sent.
        self._flight: deque[tuple[Prepared, int, int]] = deque()
        self._out: list[bytes] = []
        self._kept: Bytes = b""

    @abstractmethod
    def prepare(self, number: int, payload: Payload) -> Prepared:
        """Encode a request; no other in flight has its `number`."""

    @abstractmethod
    def judge(self, prepared: Prepared, data: Bytes, at: int) -> Judgement:
        """Find the end of the reply at `at`, which is not the expected one, or not all here.

        Raises:
            ClientError: It is no reply; the connection is of no further use.
        """

    @property
    def free(self) -> int:
        """How many more calls may be sent now."""
        return self._slots - len(self._flight)

    @property
    def in_flight(self) -> int:
        """How many calls wait for their reply."""
        return len(self._flight)

    def waiting(self) -> Iterator[tuple[int, int]]:
        """Yield when each call in flight was due and sent, the longest in flight first."""
        for _, due_ns, sent_ns in self._flight:
            yield due_ns, sent_ns

    def send(self, due_ns: int, now_ns: int) -> None:
        """Queue the next request on a free slot; `output` has its bytes."""
        prepared = next(self._requests)
        self._flight.append((prepared, due_ns, now_ns))
        self._out += prepared.request

    def output(self) -> bytes:
        """Return the bytes to send, and forget them."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def receive(self, data: bytes, now_ns: int) -> int:
        """Take received bytes; return how many slots they freed.

        Raises:
            ClientError: The server broke the protocol; the connection is of no further use.
        """
        whole = self._whole(data)
        flight, answered = self._flight, self._answered
        at, size, count = 0, len(whole), len(flight)
        if size < self.needed:
            at = size
            self._kept = whole
        while at < size:
            if not flight:
                raise ProtocolError("the server answered a call that was not made, or twice")
            prepared, due_ns, sent_ns = flight[0]
            if whole.startswith(prepared.reply_head, at) and (
                not prepared.reply_rest or _follow(prepared, whole, at)
            ):
                taken, failure = prepared.reply_bytes, None
            else:
                taken, failure = self.judge(prepared, whole, at)
                if not taken:
                    self._keep(whole, at)
                    break
            self.needed = 0
            at += taken
            flight.popleft()
            if failure is None:
                answered(due_ns, sent_ns, now_ns)
            else:
                self._failed(failure, sent_ns, now_ns)
        return count - len(flight)

    def give_up(self, error: Exception, now_ns: int) -> int:
        """Count all calls in flight as failed; return how many they were."""
        count = len(self._flight)
        for _, _, sent_ns in self._flight:
            self._failed(error, sent_ns, now_ns)
        self._flight.clear()
        return count

    def _prepared(self, number: int, payload: Payload) -> Prepared:
        prepared = self.prepare(number, payload)
        if self.is_repeating:
            prepared.join()
        return prepared

    def _whole(self, data: bytes) -> Bytes:
        """Return what was kept with `data` behind it; nothing is kept any more."""
        kept = self._kept
        if not kept:
            return data
        self._kept = b""
        whole = kept if isinstance(kept, bytearray) else bytearray(kept)
        whole += data
        return whole

    def _keep(self, data: Bytes, at: int) -> None:
        # A large reply of many reads is not copied at each of them.
        self._kept = data if at == 0 else data[at:]


def _follow(prepared: Prepared, data: Bytes, at: int) -> bool:
    """Tell whether the parts of the expected reply follow its head at `at`."""
    at += len(prepared.reply_head)
    for part in prepared.reply_rest:
        if not data.startswith(part, at):
            return False
        at += len(part)
    return True

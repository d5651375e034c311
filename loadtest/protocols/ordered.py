"""One connection of a protocol that answers in the order of the requests, without its socket.

What is sent again and again is encoded once, and so is its right reply: whatever does not vary is
compared, all of it, byte for byte (0.1 µs where it is one piece). A reply that differs is taken
apart by the protocol's `judge`, which finds its end and what is wrong with it; where it is right
after all, say with a header of its own, it is what replies to that request are held against next.
"""

from abc import abstractmethod
from collections import deque
from collections.abc import Iterator

from capnp_rig.loadtest.protocols.exchange import (
    Answered,
    Bytes,
    Failed,
    PayloadExchange,
    has_parts,
    told,
)
from capnp_rig.loadtest.protocols.payloads import Payload, Payloads
from capnp_rig.objects.errors import ProtocolError

# Two ways to judge: not all of the reply is here; or its length, and what is wrong with it.
NOT_WHOLE = 0, None
Judgement = tuple[int, Exception | None]
Parts = tuple[bytes, ...]


class Prepared:
    """A request as it leaves, and the parts of the reply that it gets, one or more."""

    __slots__ = ("payload", "reply_bytes", "reply_head", "reply_rest", "request")

    def __init__(self, payload: Payload, request: Parts, reply: Parts) -> None:
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


class OrderedExchange(PayloadExchange):
    """The calls of one connection; a protocol says how they are encoded and judged."""

    def __init__(
        self,
        payloads: Payloads,
        user: int,
        in_flight: int,
        *,
        answered: Answered,
        failed: Failed,
    ) -> None:
        super().__init__(payloads, user, in_flight, answered=answered, failed=failed)
        self.is_ready = True
        # The request, when it was due, when it was sent.
        self._flight: deque[tuple[Prepared, int, int]] = deque()

    def prepare(self, number: int, payload: Payload) -> Prepared:
        """Encode a request, in one piece where it is used again."""
        prepared = Prepared(payload, *self.encode(number, payload))
        if self.is_repeating:
            prepared.join()
        return prepared

    @abstractmethod
    def encode(self, number: int, payload: Payload) -> tuple[Parts, Parts]:
        """Return the parts of a request and of its reply; no other in flight has its `number`."""

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

    def waiting(self) -> Iterator[tuple[int, int]]:
        """Yield when each call in flight was due and sent, the longest in flight first."""
        for _, due_ns, sent_ns in self._flight:
            yield due_ns, sent_ns

    def send(self, due_ns: int, now_ns: int) -> None:
        """Queue the next request on a free slot; `output` has its bytes."""
        prepared = next(self._requests)
        self._flight.append((prepared, due_ns, now_ns))
        self._out += prepared.request

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
                not prepared.reply_rest
                or has_parts(whole, at + len(prepared.reply_head), prepared.reply_rest)
            ):
                taken, failure = prepared.reply_bytes, None
            else:
                taken, failure = self.judge(prepared, whole, at)
                if not taken:
                    self._keep(whole, at)
                    break
            self.needed = 0
            flight.popleft()
            if failure is None:
                answered(due_ns, sent_ns, now_ns)
            else:
                # Of a reply whose head is not known yet, a zero byte stands in its place.
                head = prepared.reply_head.removeprefix(b"\0")
                expected = head, *prepared.reply_rest
                came = whole[at : at + taken]
                failure = told(failure, prepared.request, expected, came)
                self._failed(failure, sent_ns, now_ns)
            at += taken
        return count - len(flight)

"""The seam between the generators and the protocols: the calls of one connection, without I/O."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle, starmap
from typing import Any

from capnp_rig.loadtest.protocols.payloads import Payload, Payloads
from capnp_rig.loadtest.stats.failures import CallTexts, with_call

Bytes = bytes | bytearray

# Gets when a call was due, sent and rightly answered, in ns of the owner's clock.
Answered = Callable[[int, int, int], None]
# Gets the error of a call that failed, and when it was sent and failed.
Failed = Callable[[Exception, int, int], None]


class AnyExchange(ABC):
    """Bytes go in with `receive`, bytes to send come out of `output`; a clock is never read.

    `answered` and `failed` are told of each call's end. `is_ready` is whether calls can be sent:
    where the server speaks first, that it has. `walk_ns` is how long the calls took that lead to
    what is called, None where there are none.
    """

    is_ready: bool
    walk_ns: int | None = None

    @property
    def awaited(self) -> str:
        """The call whose answer is waited for until all is ready, in words; empty without any."""
        return ""

    # What is in flight, in the order of sending: a dict or a deque.
    _flight: Any
    _answered: Answered
    _failed: Failed

    @property
    @abstractmethod
    def free(self) -> int:
        """How many more calls may be sent now."""

    @property
    def in_flight(self) -> int:
        """How many calls wait for their reply."""
        return len(self._flight)

    @abstractmethod
    def waiting(self) -> Iterator[tuple[int, int]]:
        """Yield when each call in flight was due and sent, the longest in flight first."""

    @abstractmethod
    def send(self, due_ns: int, now_ns: int) -> None:
        """Queue the next request on a free slot; `output` has its bytes."""

    @abstractmethod
    def output(self) -> bytes:
        """Return the bytes to send, and forget them."""

    @abstractmethod
    def receive(self, data: bytes, now_ns: int) -> int:
        """Take received bytes; return how many slots they freed, all when it has become ready.

        Raises:
            ClientError: The server broke the protocol, or ended the connection in its words; the
                connection is of no further use.
        """

    def give_up(self, error: Exception, now_ns: int) -> int:
        """Count all calls in flight as failed; return how many they were."""
        count = len(self._flight)
        for _, sent_ns in self.waiting():
            self._failed(error, sent_ns, now_ns)
        self._flight.clear()
        return count


class PayloadExchange(AnyExchange):
    """What the exchanges beside capnp share: requests made of payloads, and bytes both ways."""

    def __init__(
        self,
        payloads: Payloads,
        user: int,
        in_flight: int,
        *,
        answered: Answered,
        failed: Failed,
    ) -> None:
        self.is_repeating = payloads.is_repeating
        # Length that must be there before another look at what comes next brings anything.
        self.needed = 0
        self._slots = in_flight
        self._answered = answered
        self._failed = failed
        prepared = starmap(self.prepare, enumerate(payloads.lap(user, in_flight)))
        # Prepared when first sent, and kept from then on.
        self._requests: Iterator[Any] = cycle(prepared) if self.is_repeating else prepared
        self._out: list[bytes | memoryview] = []
        self._kept: Bytes = b""

    @abstractmethod
    def prepare(self, number: int, payload: Payload) -> Any:
        """Encode a request; no other in flight has its `number`."""

    def output(self) -> bytes:
        """Return the bytes to send, and forget them."""
        out = b"".join(self._out)
        self._out.clear()
        return out

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


def told(
    failure: Exception, request: Iterable[Bytes], expected: Iterable[Bytes], came: Bytes
) -> Exception:
    """Return a failure that can tell of its call, in the bytes that travelled."""

    def texts() -> CallTexts:
        parts = (b"".join(request), b"".join(expected), came)
        return CallTexts(*(part.decode(errors="backslashreplace") for part in parts))

    return with_call(failure, texts)


def has_parts(data: Bytes, at: int, parts: Sequence[bytes]) -> bool:
    """Tell whether `parts` stand at `at`, one after the other."""
    for part in parts:
        if not data.startswith(part, at):
            return False
        at += len(part)
    return True

"""The seam between the generators and the protocols: the calls of one connection, without I/O."""

from collections.abc import Callable, Iterator
from typing import Protocol

# Gets when a call was due, sent and rightly answered, in ns of the owner's clock.
Answered = Callable[[int, int, int], None]
# Gets the error of a call that failed, and when it was sent and failed.
Failed = Callable[[Exception, int, int], None]


class AnyExchange(Protocol):
    """Bytes go in with `receive`, bytes to send come out of `output`; a clock is never read."""

    @property
    def is_ready(self) -> bool:
        """Whether calls can be sent: where the server speaks first, that it has."""

    @property
    def free(self) -> int:
        """How many more calls may be sent now."""

    @property
    def in_flight(self) -> int:
        """How many calls wait for their reply."""

    def waiting(self) -> Iterator[tuple[int, int]]:
        """Yield when each call in flight was due and sent, the longest in flight first."""

    def send(self, due_ns: int, now_ns: int) -> None:
        """Queue the next request on a free slot; `output` has its bytes."""

    def output(self) -> bytes:
        """Return the bytes to send, and forget them."""

    def receive(self, data: bytes, now_ns: int) -> int:
        """Take received bytes; return how many slots they freed, all when it has become ready.

        Raises:
            ClientError: The server broke the protocol, or ended the connection in its words; the
                connection is of no further use.
        """

    def give_up(self, error: Exception, now_ns: int) -> int:
        """Count all calls in flight as failed; return how many they were."""

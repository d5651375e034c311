"""The window of a stream: how many bytes of its calls are on their way.

As in C++ (kj's `FixedWindowFlowController`): a call is sent while fewer bytes than the window are
unanswered, so one call more than fits may be on its way.
"""

from typing import Any

from capnp_rig.objects.errors import ClientError, fresh

# `DEFAULT_WINDOW_SIZE` of C++'s rpc-twoparty.
STREAM_WINDOW_BYTES = 65_536


class StreamWindow:
    """The calls of streaming methods of one capability that are not answered.

    The first that fails ends the stream: what is called afterwards fails with the same.
    """

    __slots__ = ("_error", "_limit_bytes", "_sizes", "_used_bytes", "wake")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._sizes: dict[int, int] = {}
        self._error: ClientError | None = None
        # Futures of an event loop, set when there may be room again.
        self.wake: list[Any] = []

    @property
    def has_room(self) -> bool:
        """Whether another call may be sent, if it is only to fail."""
        return self._used_bytes < self._limit_bytes or self._error is not None

    def check(self) -> None:
        """Raise what the stream has failed with.

        Raises:
            ClientError: A call has failed.
        """
        if self._error is not None:
            raise fresh(self._error)

    def sent(self, question_id: int, size: int) -> None:
        """Count a call that was sent, of so many bytes."""
        self._sizes[question_id] = size
        self._used_bytes += size

    def answered(self, question_id: int, error: ClientError | None) -> None:
        """Count the answer to a call, whose error ends the stream."""
        self._used_bytes -= self._sizes.pop(question_id)
        self._error = self._error or error
        if self.has_room:
            wake, self.wake = self.wake, []
            for future in wake:
                if not future.done():
                    future.set_result(None)

"""The echo and the length-prefixed frames of the stack selectors; ``server/stacks`` has both."""

import struct

from capnp_rig.loadtest.protocols.exchange import Bytes
from capnp_rig.loadtest.protocols.ordered import (
    NOT_WHOLE,
    Judgement,
    OrderedExchange,
    Parts,
    Prepared,
)
from capnp_rig.loadtest.protocols.payloads import Payload
from capnp_rig.loadtest.stats.failures import WrongReply
from capnp_rig.loadtest.workload.bodies import WRONG_REPLY
from capnp_rig.objects.errors import ProtocolError

_LENGTH = struct.Struct("<I")
# In the length: the payload is bytes, to be reversed as such.
_IS_BINARY = 0x8000_0000
_SPARE_BYTES = 65_536


class EchoExchange(OrderedExchange):
    """Sends payloads back to back; as many bytes come back for each."""

    def encode(self, number: int, payload: Payload) -> tuple[Parts, Parts]:
        """Return the payload as it is."""
        return payload.request, payload.reply

    def judge(self, prepared: Prepared, data: Bytes, at: int) -> Judgement:
        """Judge as many bytes as were sent."""
        if len(data) - at < prepared.reply_bytes:
            self.needed = prepared.reply_bytes
            return NOT_WHOLE
        return prepared.reply_bytes, WrongReply(WRONG_REPLY)


class FrameExchange(OrderedExchange):
    """Sends and gets frames: a length of four bytes, then the text."""

    _flag = 0

    def encode(self, number: int, payload: Payload) -> tuple[Parts, Parts]:
        """Return the payload behind its length."""
        return self._frame(payload.request), self._frame(payload.reply)

    def _frame(self, parts: tuple[bytes, bytes]) -> Parts:
        first, second = parts
        return _LENGTH.pack(len(first) + len(second) | self._flag), first, second

    def judge(self, prepared: Prepared, data: Bytes, at: int) -> Judgement:
        """Judge a frame.

        Raises:
            ProtocolError: Its length is none that a server of this protocol sends.
        """
        if len(data) - at < _LENGTH.size:
            return NOT_WHOLE
        length = _LENGTH.unpack_from(data, at)[0] ^ self._flag
        # What is no length would be waited for until the deadline.
        if length > prepared.reply_bytes + _SPARE_BYTES:
            raise ProtocolError("the reply is too long, or no frame")
        self.needed = _LENGTH.size + length
        if len(data) - at < self.needed:
            return NOT_WHOLE
        return self.needed, WrongReply(WRONG_REPLY)


class BinaryFrameExchange(FrameExchange):
    """The same with frames of bytes, which the highest bit of the length tells."""

    _flag = _IS_BINARY

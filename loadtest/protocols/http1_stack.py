"""HTTP/1.1 with JSON bodies; ``server/stacks/http_server.py`` has the format.

With more than one call in flight requests are pipelined. Hardly any client does that, and not
every server can: the comparison of stacks uses connections with one call each.
"""

import json
import re

from capnp_rig.loadtest.protocols.exchange import Answered, Bytes, Failed, has_parts
from capnp_rig.loadtest.protocols.ordered import (
    NOT_WHOLE,
    Judgement,
    OrderedExchange,
    Parts,
    Prepared,
)
from capnp_rig.loadtest.protocols.payloads import Payload, Payloads
from capnp_rig.loadtest.stats.failures import WrongReply
from capnp_rig.loadtest.workload.bodies import WRONG_REPLY
from capnp_rig.objects.errors import ProtocolError, RemoteError

_OK = 200
_HEAD_END = b"\r\n\r\n"
_MOST_HEAD_BYTES = 65_536
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,12})[ \t]*\r\n", re.IGNORECASE)


class JsonBody:
    """What is posted, and what must come back, as JSON objects of one member."""

    def __init__(self, path: str, sent: str, received: str) -> None:
        self.path = path
        self._sent, self._received = sent, received

    def request(self, payload: Payload) -> tuple[bytes, ...]:
        """Return the parts of the body of a request."""
        return (b'{"%s":"' % self._sent.encode(), *payload.request, b'"}')

    def reply(self, payload: Payload) -> tuple[bytes, ...]:
        """Return the parts of the body of the right reply."""
        return (b'{"%s":"' % self._received.encode(), *payload.reply, b'"}')

    def judge(self, status: int, payload: Payload, body: Bytes) -> Exception | None:
        """Return what is wrong with a reply whose bytes are not those that were expected."""
        if status != _OK:
            return RemoteError(f"HTTP status {status}")
        try:
            answer, right = json.loads(body), json.loads(b"".join(self.reply(payload)))
        except ValueError:
            return WrongReply(WRONG_REPLY)
        # Other members are none of our business.
        if not isinstance(answer, dict) or answer.get(self._received) != right[self._received]:
            return WrongReply(WRONG_REPLY)
        return None


TEXT_BODY = JsonBody("/reverse", "content", "chunk")
BINARY_BODY = JsonBody("/reverse-bytes", "data", "data")


class Http1Exchange(OrderedExchange):
    """Posts `body` to the server called `authority`."""

    def __init__(
        self,
        payloads: Payloads,
        user: int,
        in_flight: int,
        *,
        answered: Answered,
        failed: Failed,
        body: JsonBody,
        authority: str,
    ) -> None:
        super().__init__(payloads, user, in_flight, answered=answered, failed=failed)
        self._body, self._authority = body, authority

    def encode(self, number: int, payload: Payload) -> tuple[Parts, Parts]:
        """Return the request; what its reply has for a head is learned from the first one."""
        parts = self._body.request(payload)
        head = (
            f"POST {self._body.path} HTTP/1.1\r\n"
            f"Host: {self._authority}\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {sum(map(len, parts))}\r\n\r\n"
        )
        # Until then: no reply starts with this.
        return (head.encode(), *parts), (b"\0", *self._body.reply(payload))

    def judge(self, prepared: Prepared, data: Bytes, at: int) -> Judgement:
        """Judge a reply.

        Raises:
            ProtocolError: It is no HTTP, or does not say how long it is.
        """
        end = data.find(_HEAD_END, at)
        if end < 0:
            if len(data) - at > _MOST_HEAD_BYTES:
                raise ProtocolError("the head of the reply is too long, or it is no HTTP")
            return NOT_WHOLE
        start = end + len(_HEAD_END)
        head = bytes(data[at:start])
        status, length = _read_head(head)
        self.needed = start - at + length
        if len(data) - at < self.needed:
            return NOT_WHOLE
        expected = self._body.reply(prepared.payload)
        if status == _OK and length == sum(map(len, expected)) and has_parts(data, start, expected):
            failure = None
        else:
            failure = self._body.judge(status, prepared.payload, data[start : start + length])
        if failure is None and self.is_repeating:
            prepared.expect(bytes(data[at : start + length]))
        return self.needed, failure


def _read_head(head: bytes) -> tuple[int, int]:
    """Return the status and the length of the body.

    Raises:
        ProtocolError: One of them is missing.
    """
    status, length = _STATUS.match(head), _LENGTH.search(head)
    if status is None:
        raise ProtocolError("the reply is no HTTP")
    if length is None:
        raise ProtocolError("the reply does not say how long it is")
    return int(status[1]), int(length[1])

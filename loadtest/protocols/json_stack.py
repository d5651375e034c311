"""The JSON RPC: one line of JSON each way; ``server/stacks/json_rpc.py`` has the format."""

import json
from typing import Any

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
from capnp_rig.objects.errors import ProtocolError, RemoteError

# Longer than any error; a line without an end is no reply.
_SPARE_BYTES = 65_536


class JsonExchange(OrderedExchange):
    """Calls ``read`` with texts."""

    _start = b'{"method":"read","params":{"content":"'

    def encode(self, number: int, payload: Payload) -> tuple[Parts, Parts]:
        """Return the call with its number as id."""
        sent, back = payload.request, payload.reply
        request = (self._start, *sent, b'"},"id":%d}\n' % number)
        return request, (b'{"id":%d,"result":"' % number, *back, b'"}\n')

    def judge(self, prepared: Prepared, data: Bytes, at: int) -> Judgement:
        """Judge a line.

        Raises:
            ProtocolError: It has no end, is no JSON object, or answers another call.
        """
        # What was looked through for an end before is kept in `needed`.
        end = data.find(b"\n", at + max(self.needed - 1, 0)) + 1
        if not end:
            self.needed = len(data) - at + 1
            if self.needed > prepared.reply_bytes + _SPARE_BYTES:
                raise ProtocolError("the reply has no end")
            return NOT_WHOLE
        line = bytes(data[at:end])
        right = _object(b"".join((prepared.reply_head, *prepared.reply_rest)))
        answer = _object(line)
        if "error" in answer:
            return end - at, RemoteError(str(answer["error"]))
        if answer.get("id") != right["id"]:
            raise ProtocolError("the server answered another call")
        if answer.get("result") != right["result"]:
            return end - at, WrongReply(WRONG_REPLY)
        if self.is_repeating:
            prepared.expect(line)
        return end - at, None


class BinaryJsonExchange(JsonExchange):
    """Calls ``reverse_bytes`` with base64."""

    _start = b'{"method":"reverse_bytes","params":{"data":"'


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ProtocolError("the reply is no JSON") from error
    if not isinstance(value, dict):
        raise ProtocolError("the reply is no JSON object")
    return value

"""What a connection over the limit is told, in its own protocol: pure wording."""

import json

from capnp_rig.wire.rpc.message_encoder import encode_abort
from capnp_rig.wire.rpc.messages import ExceptionType, RemoteError


def refusal(stack: str, reason: str, kind: ExceptionType = ExceptionType.OVERLOADED) -> bytes:
    """Return the bytes that tell a peer of `stack` why its connection is closed.

    The `kind` is told where the protocol has kinds of errors.

    Empty where the protocol has no words for it: the echo of nothing, a frame that is no answer.
    """
    match stack:
        case "capnp":
            return encode_abort(RemoteError(reason, kind))
        case "json":
            return _error_object(reason, id=None) + b"\n"
        case "http":
            body = _error_object(reason)
            return (
                b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body)
            )
        case _:
            return b""


def _error_object(reason: str, **fields: None) -> bytes:
    return json.dumps({**fields, "error": reason}).encode()

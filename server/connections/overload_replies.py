"""What a refused connection is sent, in its own protocol: pure."""

import json

from capnp_rig.wire.rpc.message_encoder import encode_abort
from capnp_rig.wire.rpc.messages import ExceptionType, RemoteError


def overload_reply(
    stack: str, reason: str, type_: ExceptionType = ExceptionType.OVERLOADED
) -> bytes:
    """Return the bytes that tell a client of `stack` why its connection is closed.

    `type_` is sent where the protocol has types of errors. The result is empty where the protocol
    has no error messages.
    """
    match stack:
        case "capnp":
            return encode_abort(RemoteError(reason, type_))
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

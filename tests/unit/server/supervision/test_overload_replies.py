import json

import pytest

from capnp_rig.server.config import STACKS
from capnp_rig.server.supervision.refused_connections import overload_reply
from capnp_rig.wire.encoding.frames import FrameDecoder
from capnp_rig.wire.rpc.messages import Abort, ExceptionType, RemoteError, decode


def test_capnp_is_refused_with_an_abort() -> None:
    (message,) = FrameDecoder().feed(overload_reply("capnp", "full"))
    assert decode(message) == Abort(RemoteError("full", ExceptionType.OVERLOADED))


def test_json_is_refused_with_an_error_of_no_call() -> None:
    assert json.loads(overload_reply("json", "full")) == {"id": None, "error": "full"}


def test_http_is_refused_with_a_whole_response() -> None:
    head, _, body = overload_reply("http", "full").partition(b"\r\n\r\n")
    assert json.loads(body) == {"error": "full"}
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 503 Service Unavailable",
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"connection: close",
    ]


@pytest.mark.parametrize("stack", sorted(set(STACKS) - {"capnp", "json", "http"}))
def test_the_others_are_only_closed(stack: str) -> None:
    assert overload_reply(stack, "full") == b""

"""The HTTP stack's application: raw ASGI and orjson, no framework. `http_server` has the format."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from capnp_rig.server.services.reverse import Note
from capnp_rig.server.stacks.json_jobs import UnfitError, reverse_content, reverse_data
from capnp_rig.server.stacks.limits import MAX_MESSAGE_BYTES

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_METHODS = {"/reverse": ("POST",), "/reverse-bytes": ("POST",), "/health": ("GET", "HEAD")}
_JSON = (b"content-type", b"application/json")


class _Refused(Exception):
    """The request is not served: `status`, and what is wrong, in words."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def make_app(note: Note) -> App:
    """Return the ASGI application."""

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # A WebSocket over HTTP/2 gets this far.
            await send({"type": "websocket.close"})
            return
        headers = [_JSON]
        try:
            # Before anything is refused, too: hypercorn gives up a connection on which the rest
            # of an answered request arrives.
            body = await _read(receive)
            if body is None:
                return
            status, reply = 200, _serve(scope["method"], scope["path"], body, note)
        except _Refused as refused:
            status, reply = refused.status, {"error": str(refused)}
            if status == 405:
                headers.append((b"allow", ", ".join(_METHODS[scope["path"]]).encode()))
        answer = orjson.dumps(reply)
        headers.append((b"content-length", b"%d" % len(answer)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


async def _read(receive: Receive) -> bytes | None:
    """Return the whole body, or None if the peer went away."""
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_MESSAGE_BYTES:
            # The rest is read, and not kept.
            parts.clear()
        more = message.get("more_body", False)
    if size > MAX_MESSAGE_BYTES:
        raise _Refused(413, f"the body may have at most {MAX_MESSAGE_BYTES} bytes")
    return b"".join(parts)


def _serve(method: str, path: str, body: bytes, note: Note) -> dict[str, str]:
    methods = _METHODS.get(path)
    if methods is None:
        raise _Refused(404, "no such path: there are /reverse, /reverse-bytes and /health")
    if method not in methods:
        raise _Refused(405, f"{path} takes {' or '.join(methods)}")
    if path == "/health":
        return {"status": "ok"}
    try:
        request = orjson.loads(body)
        if path == "/reverse":
            return {"chunk": reverse_content(request, note)}
        return {"data": reverse_data(request, note)}
    except orjson.JSONDecodeError as error:
        raise _Refused(400, "the body is not JSON") from error
    except UnfitError as error:
        raise _Refused(400, str(error)) from error

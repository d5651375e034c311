"""The ASGI application alone, called as a server calls it."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

pytest.importorskip("orjson", reason="needs the extra stacks: orjson")

from capnp_rig.server.stacks.http_app import make_app
from capnp_rig.server.stacks.limits import MAX_MESSAGE_BYTES

Event = MutableMapping[str, Any]


def request(method: str, path: str, *parts: bytes, scope_type: str = "http") -> list[Event]:
    """Return what the application sends in answer to a request whose body comes in parts."""
    events: list[Event] = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)}
        for number, part in enumerate(parts, start=1)
    ] or [{"type": "http.request"}]
    events.append({"type": "http.disconnect"})
    sent: list[Event] = []

    async def receive() -> Event:
        return events.pop(0)

    async def send(event: Event) -> None:
        sent.append(event)

    scope = {"type": scope_type, "method": method, "path": path}
    asyncio.run(make_app(None)(scope, receive, send))
    if scope_type == "http":
        # The whole request was read, whatever became of it.
        assert [event["type"] for event in events] == ["http.disconnect"]
    return sent


def answer(*arguments: Any) -> tuple[int, bytes]:
    start, body = request(*arguments)
    headers = dict(start["headers"])
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"content-length"] == b"%d" % len(body["body"])
    return start["status"], body["body"]


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/reverse", '{"content":"añb","x":1}', (200, '{"chunk":"bña"}')),
        ("POST", "/reverse", '{"content":""}', (200, '{"chunk":""}')),
        ("POST", "/reverse-bytes", '{"data":"AQID"}', (200, '{"data":"AwIB"}')),
        ("POST", "/reverse-bytes", '{"data":""}', (200, '{"data":""}')),
        ("POST", "/reverse-bytes", "{", (400, '{"error":"the body is not JSON"}')),
        ("POST", "/reverse-bytes", "[]", (400, '{"error":"data must be base64"}')),
        ("POST", "/reverse-bytes", '{"data":7}', (400, '{"error":"data must be base64"}')),
        ("POST", "/reverse-bytes", '{"data":"AQI"}', (400, '{"error":"data must be base64"}')),
        ("POST", "/reverse-bytes", '{"data":"ä"}', (400, '{"error":"data must be base64"}')),
        ("GET", "/reverse-bytes", "", (405, '{"error":"/reverse-bytes takes POST"}')),
        ("GET", "/health", "", (200, '{"status":"ok"}')),
        ("POST", "/reverse", "{", (400, '{"error":"the body is not JSON"}')),
        ("POST", "/reverse", "", (400, '{"error":"the body is not JSON"}')),
        ("POST", "/reverse", "[]", (400, '{"error":"content must be a string"}')),
        ("POST", "/reverse", '{"content":1}', (400, '{"error":"content must be a string"}')),
        ("GET", "/reverse", "", (405, '{"error":"/reverse takes POST"}')),
        ("POST", "/health", "x", (405, '{"error":"/health takes GET or HEAD"}')),
        (
            "GET",
            "/",
            "",
            (404, '{"error":"no such path: there are /reverse, /reverse-bytes and /health"}'),
        ),
    ],
)
def test_each_request_has_its_answer(
    method: str, path: str, body: str, expected: tuple[int, str]
) -> None:
    assert answer(method, path, body.encode()) == (expected[0], expected[1].encode())


def test_a_wrong_method_is_told_the_right_ones() -> None:
    start, _ = request("PUT", "/health")
    assert (b"allow", b"GET, HEAD") in start["headers"]


def test_a_body_may_come_in_parts() -> None:
    assert answer("POST", "/reverse", b'{"con', b"", b'tent":', b'"ab"}') == (
        200,
        b'{"chunk":"ba"}',
    )


def test_a_body_over_the_limit_is_read_to_its_end_and_refused() -> None:
    part = bytes(MAX_MESSAGE_BYTES // 2)
    refused = (413, b'{"error":"the body may have at most %d bytes"}' % MAX_MESSAGE_BYTES)
    assert answer("POST", "/reverse", part, part, b"xx", part) == refused
    assert answer("POST", "/reverse", bytes(MAX_MESSAGE_BYTES + 1)) == refused
    assert answer("POST", "/reverse", part, part) == (400, b'{"error":"the body is not JSON"}')


def test_a_peer_that_goes_away_gets_no_answer() -> None:
    events = [{"type": "http.disconnect"}]
    sent: list[Event] = []

    async def receive() -> Event:
        return events.pop(0)

    async def send(event: Event) -> None:
        sent.append(event)

    scope = {"type": "http", "method": "POST", "path": "/reverse"}
    asyncio.run(make_app(None)(scope, receive, send))
    assert not sent


def test_a_websocket_is_refused() -> None:
    assert request("GET", "/reverse", scope_type="websocket") == [{"type": "websocket.close"}]

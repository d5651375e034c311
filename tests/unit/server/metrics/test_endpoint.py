import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from capnp_rig.server.metrics import endpoint
from capnp_rig.server.metrics.endpoint import open_endpoint
from capnp_rig.server.metrics.state import ServerState

GET = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"


@asynccontextmanager
async def _served(is_ready: Callable[[], bool] = lambda: True) -> AsyncIterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        name: tuple[str, int] = sock.getsockname()
        opened = await open_endpoint(sock, lambda: ServerState(accepted=7), is_ready)
        try:
            yield name
        finally:
            opened.close()


async def _ask(name: tuple[str, int], request: bytes, *, ends: bool = False) -> bytes:
    reader, writer = await asyncio.open_connection(*name)
    writer.write(request)
    if ends:
        writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 4)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def _run(scenario: Callable[[], Any]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scenario(), 30)

    asyncio.run(bounded())


@pytest.mark.parametrize(
    ("request_bytes", "status", "text"),
    [
        (GET % b"/metrics", b"200 OK", b"capnp_rig_connections_accepted_total 7.0"),
        (GET % b"/metrics?name=x", b"200 OK", b"capnp_rig_ready"),
        (GET % b"/health/live", b"200 OK", b"live"),
        (GET % b"/health/ready", b"200 OK", b"ready"),
        (GET % b"/", b"404 Not Found", b"try /metrics"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405 Method Not Allowed", b"only GET"),
        (b"\x16\x03\x01\x02\r\n\r\n", b"400 Bad Request", b"expected"),
        (b"GET /metrics\r\n\r\n", b"400 Bad Request", b"expected"),
        (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n\r\n", b"400 Bad Request", b"expected"),
    ],
)
def test_requests_are_answered(request_bytes: bytes, status: bytes, text: bytes) -> None:
    async def scenario() -> None:
        async with _served() as name:
            answer = await _ask(name, request_bytes)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 " + status + b"\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        assert text in body

    _run(scenario)


def test_head_has_no_body_and_openmetrics_is_given_to_who_accepts_it() -> None:
    async def scenario() -> None:
        async with _served() as name:
            head = await _ask(name, (GET % b"/metrics").replace(b"GET", b"HEAD"))
            assert head.endswith(b"\r\n\r\n")
            accept = b"\r\nAccept: application/openmetrics-text;version=1.0.0\r\n\r\n"
            answer = await _ask(name, (GET % b"/metrics")[:-4] + accept)
            assert answer.endswith(b"# EOF\n")

    _run(scenario)


def test_a_server_that_takes_no_calls_is_not_ready_but_lives() -> None:
    async def scenario() -> None:
        async with _served(lambda: False) as name:
            ready = await _ask(name, GET % b"/health/ready")
            assert ready.startswith(b"HTTP/1.1 503 ")
            assert (await _ask(name, GET % b"/health/live")).startswith(b"HTTP/1.1 200 ")

    _run(scenario)


def test_who_ends_early_or_is_slow_gets_nothing_and_others_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "_TIMEOUT_S", 0.2)

    async def scenario() -> None:
        async with _served() as name:
            slow = asyncio.create_task(_ask(name, b"GET /metr"))
            assert await _ask(name, b"GET /metr", ends=True) == b""
            assert (await _ask(name, GET % b"/health/live")).startswith(b"HTTP/1.1 200 ")
            assert await slow == b""

    _run(scenario)


def test_no_more_connections_stay_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "_MOST_CONNECTIONS", 1)

    async def scenario() -> None:
        async with _served() as name:
            reader, held = await asyncio.open_connection(*name)
            held.write(GET % b"/health/live")
            # It has asked, and stays until both sides have closed.
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
            # That one says nothing, and is closed long before its time is over.
            assert await _ask(name, b"") == b""
            held.close()
            answer = b""
            while not answer.startswith(b"HTTP/1.1 200 "):
                answer = await _ask(name, GET % b"/metrics")

    _run(scenario)


def test_the_silent_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_MOST_CONNECTIONS", 2)

    async def scenario() -> None:
        async with _served() as name:
            silent = [await asyncio.open_connection(*name) for _ in range(3)]
            for _, writer in silent:
                writer.write(b"GET")
            assert (await _ask(name, GET % b"/health/live")).startswith(b"HTTP/1.1 200 ")
            # The oldest went, long before its time was over.
            with suppress(ConnectionResetError):
                assert await asyncio.wait_for(silent[0][0].read(), 4) == b""
            for _, writer in silent:
                writer.close()

    _run(scenario)


def test_the_end_is_quiet_for_those_who_are_still_here() -> None:
    reported: list[dict[str, Any]] = []

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: reported.append(told))
        async with _served() as name:
            reader, held = await asyncio.open_connection(*name)
            held.write(b"GET")
            await _ask(name, GET % b"/health/live")
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        held.close()

    _run(scenario)
    assert reported == []

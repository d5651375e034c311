"""Whose fault an error is that uvicorn logs: by the state of the transport, not by its words."""

import asyncio
import logging
from typing import Any

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from capnp_rig.server.stacks.http_server import _is_of_closed_transport

LOG = logging.getLogger("test")


class Transport:
    def __init__(self, *, closing: bool) -> None:
        self._closing = closing

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: bytes) -> None:
        raise RuntimeError("no handle")


def error_of_answer(transport: Any) -> BaseException:
    async def answer() -> None:
        cycle = RequestResponseCycle(
            {"method": "GET", "path": "/"},  # type: ignore[typeddict-item]
            transport,
            FlowControl(transport),
            LOG,
            LOG,
            access_log=False,
            default_headers=[],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=True,
            on_response=lambda: None,
        )
        await cycle.send({"type": "http.response.start", "status": 200, "headers": []})
        await cycle.send({"type": "http.response.body", "body": b""})

    with pytest.raises(RuntimeError) as caught:
        asyncio.run(answer())
    return caught.value


def test_an_answer_for_a_connection_that_ends_is_the_peers() -> None:
    assert _is_of_closed_transport(error_of_answer(Transport(closing=True)))


def test_any_other_error_is_ours() -> None:
    assert not _is_of_closed_transport(error_of_answer(Transport(closing=False)))
    assert not _is_of_closed_transport(RuntimeError("no handle"))
    assert not _is_of_closed_transport(ValueError())

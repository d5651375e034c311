"""A server that has all the connections it wants, met with every client."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop
from fake_server import fake_server, reset
from running_server import TELLING, running_server

from capnp_rig.client import AsyncReverseClient, Overloaded, ReverseClient
from capnp_rig.wire.rpc.message_encoder import encode_abort
from capnp_rig.wire.rpc.messages import ExceptionType, RemoteError

TRIES = 10
REASON = "1 connections are open: try again later"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a server whose one connection is taken."""
    with running_server(*TELLING, "--workers", "1", "--max-connections", "1") as server:
        held = socket.create_connection((server.host, server.port), 5)
        server.out.wait_for("RPC system started")
        yield f"{server.host}:{server.port}"
        held.close()


def check(error: Overloaded) -> None:
    assert type(error) is Overloaded
    assert str(error) == REASON


def test_a_refused_connection_is_overloaded(address: str) -> None:
    for _ in range(TRIES):
        with ReverseClient.connect(address) as client:
            # The second one finds the connection ended.
            for text in ("first", "second"):
                with pytest.raises(Overloaded) as error:
                    client.read(text)
                check(error.value)
            assert not client.is_open


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_refused_connection_is_overloaded_for_all_its_calls(
    address: str, run: Callable[[Any], None]
) -> None:
    async def call() -> None:
        for pause_s in [0, 0.05] * (TRIES // 2):
            async with await AsyncReverseClient.connect(address) as client:
                await asyncio.sleep(pause_s)
                calls = (client.read(f"call {n}") for n in range(20))
                for error in await asyncio.gather(*calls, return_exceptions=True):
                    assert isinstance(error, Overloaded)
                    check(error)
                with pytest.raises(Overloaded) as late:
                    await client.read("late")
                check(late.value)
                assert not client.is_open

    run(call())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_what_came_before_a_reset_is_read_where_writing_fails_first(
    run: Callable[[Any], None],
) -> None:
    gone = threading.Event()

    def refuse_and_reset(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(encode_abort(RemoteError(REASON, ExceptionType.OVERLOADED)))
        reset(connection)
        connection.close()
        gone.set()

    async def call(address: str) -> None:
        client = await AsyncReverseClient.connect(address)
        # On purpose nothing is read meanwhile: the write of the call comes first.
        assert await_event(gone)
        with pytest.raises(Overloaded) as error:
            await client.read("x")
        check(error.value)
        await client.close()

    with fake_server(refuse_and_reset) as address:
        run(call(address))


def await_event(event: threading.Event) -> bool:
    return event.wait(10)

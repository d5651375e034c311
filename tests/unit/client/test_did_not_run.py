"""`ClientError.did_not_run`: true only where nothing was sent, or the server refused to begin."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from capnp_rig.client import AsyncReverseClient, ClientError, DeadlineExceeded, ReverseClient
from capnp_rig.client.asyncio_client import _Protocol
from capnp_rig.client.connecting import adopt

PARAMS = {"request": {"content": "x"}}
FAR_TOO_LONG_S = 20.0


@pytest.fixture
def ours() -> Iterator[socket.socket]:
    """Yield the client's end of a connection whose server reads nothing and says nothing."""
    ours, theirs = socket.socketpair()
    with theirs:
        yield ours


def test_a_blocking_call(ours: socket.socket) -> None:
    with ReverseClient(ours, timeout_s=FAR_TOO_LONG_S) as client:
        ends: list[ClientError] = []

        def wait() -> None:
            try:
                client.call("read", PARAMS)
            except ClientError as error:
                ends.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        while client._owner is None:
            pass
        with pytest.raises(DeadlineExceeded, match="other calls had the connection") as caught:
            client.call("read", PARAMS, timeout_s=0.01)
        assert caught.value.did_not_run
        client.close()
        waiting.join(FAR_TOO_LONG_S)
        assert [error.did_not_run for error in ends] == [False]
        with pytest.raises(ClientError) as closed:
            client.call("read", PARAMS)
        assert closed.value.did_not_run


def test_a_submitted_call_is_sent_by_its_deadline(ours: socket.socket) -> None:
    with ReverseClient(ours, timeout_s=FAR_TOO_LONG_S) as client:
        began_s = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.submit_by(began_s + 0.05, "read", {"request": {"content": "x" * 4_000_000}})
        assert time.monotonic() - began_s < FAR_TOO_LONG_S / 2


def test_an_asyncio_call(ours: socket.socket) -> None:
    async def body() -> None:
        ours.setblocking(False)
        protocol = _Protocol(AsyncReverseClient.interface, ours, FAR_TOO_LONG_S, 65_536)
        await adopt(ours, protocol)
        client = AsyncReverseClient(protocol)
        with pytest.raises(DeadlineExceeded, match="no answer") as sent:
            await client.call("read", PARAMS, timeout_s=0.01)
        assert not sent.value.did_not_run
        protocol.pause_writing()
        with pytest.raises(DeadlineExceeded, match="nothing was sent") as unsent:
            await client.call("read", PARAMS, timeout_s=0.01)
        assert unsent.value.did_not_run
        protocol.resume_writing()
        running = asyncio.ensure_future(client.call("read", PARAMS))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(ClientError) as lost:
            await running
        assert not lost.value.did_not_run
        with pytest.raises(ClientError) as closed:
            await client.call("read", PARAMS)
        assert closed.value.did_not_run

    asyncio.run(asyncio.wait_for(body(), FAR_TOO_LONG_S))

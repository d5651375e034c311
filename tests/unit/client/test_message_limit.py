"""How large the messages of a client may be: what it sends, and what it takes."""

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from capnp_rig.client.asyncio_client import AsyncClient
from capnp_rig.client.blocking_client import Client
from capnp_rig.client.channels.asyncio_channel import AsyncChannel
from capnp_rig.client.channels.blocking_channel import Channel
from capnp_rig.client.message_limit import limits_of
from capnp_rig.client.reverse import MESSAGE_STREAM
from capnp_rig.objects.errors import RemoteError, ResultsTooLarge, UsageError
from capnp_rig.rigcli.message_limit import LEAST_BYTES, MOST_BYTES
from capnp_rig.wire.encoding.frames import (
    LEAST_MESSAGE_BYTES,
    MESSAGE_BYTES,
    MOST_MESSAGE_BYTES,
)
from capnp_rig.wire.errors import EncodeError
from capnp_rig.wire.rpc.connection import Called, Limits
from capnp_rig.wire.rpc.server_connection import ServerConnection

LIMIT_BYTES = 65_536
READ = MESSAGE_STREAM.methods["read"]
RAISED_BY = r"\(--max-message or max_message_bytes of the client\)"


def answer(listener: socket.socket) -> None:
    """Answer calls of `read` on one connection with as many bytes as their text says."""
    sock, _ = listener.accept()
    wire = ServerConnection(Limits.of_message(1 << 20, ""))
    with sock:
        sock.settimeout(10)
        while data := sock.recv(65_536):
            for event in wire.events(data):
                if isinstance(event, Called):
                    size = int(READ.params.open(event.params).request.content)
                    wire.send_results(event.question_id, READ.results.pack({"chunk": bytes(size)}))
            sock.sendall(wire.data_to_send())


def ask_blocking(address: str, sizes: list[int]) -> list[int | BaseException]:
    outcomes: list[int | BaseException] = []
    with Client.connect(
        address, interface=MESSAGE_STREAM, timeout_s=10, max_message_bytes=LIMIT_BYTES
    ) as client:
        for size in sizes:
            try:
                results = client.call("read", {"request": {"content": str(size)}})
                outcomes.append(len(results.chunk))
            except RemoteError as error:
                outcomes.append(error)
    return outcomes


def ask_asyncio(address: str, sizes: list[int]) -> list[int | BaseException]:
    async def run() -> list[int | BaseException]:
        async with await AsyncClient.connect(
            address, interface=MESSAGE_STREAM, timeout_s=10, max_message_bytes=LIMIT_BYTES
        ) as client:

            async def ask(size: int) -> int:
                results = await client.call("read", {"request": {"content": str(size)}})
                return len(results.chunk)

            return await asyncio.gather(*map(ask, sizes), return_exceptions=True)

    return asyncio.run(run())


@pytest.mark.parametrize("ask", [ask_blocking, ask_asyncio])
def test_c5_results_over_the_limit_fail_their_call_alone(
    ask: Callable[[str, list[int]], list[int | BaseException]],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=[listener])
        thread.start()
        port = listener.getsockname()[1]
        small, over, last = ask(f"127.0.0.1:{port}", [60_000, 500_000, 50_000])
        thread.join(10)
    assert (small, last) == (60_000, 50_000)
    assert isinstance(over, ResultsTooLarge)
    assert not over.did_not_run
    assert f"the limit is {LIMIT_BYTES} (--max-message or max_message_bytes of the client)" in str(
        over
    )


def test_c6_params_over_the_limit_are_not_sent() -> None:
    ours, theirs = socket.socketpair()
    with theirs, Client(ours, interface=MESSAGE_STREAM, max_message_bytes=LIMIT_BYTES) as client:
        with pytest.raises(EncodeError, match=f"the limit is {LIMIT_BYTES} {RAISED_BY}"):
            client.submit("read", {"request": {"content": "x" * LIMIT_BYTES}})
        assert client.is_open


def open_channel(kind: Any) -> None:
    kind("127.0.0.1:1", interface=MESSAGE_STREAM, max_message_bytes=1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: limits_of(MOST_MESSAGE_BYTES + 1),
        lambda: Client.connect("127.0.0.1:1", interface=MESSAGE_STREAM, max_message_bytes=1),
        lambda: asyncio.run(
            AsyncClient.connect("127.0.0.1:1", interface=MESSAGE_STREAM, max_message_bytes=1)
        ),
        lambda: open_channel(Channel),
        lambda: open_channel(AsyncChannel),
    ],
)
def test_c12_a_limit_out_of_range_is_refused_before_anything_is_connected(
    make: Callable[[], object],
) -> None:
    with pytest.raises(UsageError, match=r"max_message_bytes: .* must be 64 KiB to 512 MiB"):
        make()


@pytest.mark.parametrize("size", [None, "4MiB", 1e6])
def test_c12_a_limit_that_is_no_number_of_bytes_is_refused(size: Any) -> None:
    with pytest.raises(UsageError, match="max_message_bytes must be a number of bytes, not"):
        limits_of(size)


def test_the_option_has_the_range_of_the_keyword() -> None:
    assert (LEAST_BYTES, MOST_BYTES) == (LEAST_MESSAGE_BYTES, MOST_MESSAGE_BYTES)
    assert limits_of(MESSAGE_BYTES).frame.max_words == Limits().frame.max_words

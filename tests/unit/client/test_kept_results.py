"""Results that a caller keeps stay valid and unchanged, whatever comes later (C14)."""

import asyncio
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from capnp_rig.client import AsyncClient, Client
from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.pointers import StructTuple
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.server_connection import ServerConnection

TENSOR = compile_interface(load_schema("tensor.capnp").TensorService)
DESCRIBE = TENSOR.methods["describe"]
# Of one read, of several, and in turn.
SIZES = [0, 10, 5_000, 100_000, 700_000] * 4
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def echo(params: StructTuple | None) -> EncodedTuple:
    return DESCRIBE.results.pack({"tensor": {"data": DESCRIBE.params.open(params).tensor.data}})


INLINE = {(DESCRIBE.interface_id, DESCRIBE.method_id): echo}


def sent(number: int, size: int) -> bytes:
    return bytes([number + 1]) * size


def check(kept: list[tuple[Any, memoryview]]) -> None:
    for number, (size, (results, data)) in enumerate(zip(SIZES, kept, strict=True)):
        assert data == results.tensor.data == sent(number, size)
        assert data.readonly


def answer(sock: socket.socket) -> None:
    server = ServerConnection()
    with sock:
        while data := sock.recv(1 << 16):
            for _ in server.events(data, INLINE):
                pass
            sock.sendall(server.data_to_send())


def test_c14_results_of_a_blocking_client_stay() -> None:
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=answer, args=[theirs])
    thread.start()
    kept = []
    with Client(ours, interface=TENSOR) as client:
        for number, size in enumerate(SIZES):
            results = client.call("describe", {"tensor": {"data": sent(number, size)}})
            kept.append((results, results.tensor.data))
        check(kept)
    thread.join(10)
    check(kept)


async def answer_later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    server = ServerConnection()
    while data := await reader.read(1 << 16):
        for _ in server.events(data, INLINE):
            pass
        writer.write(server.data_to_send())
    writer.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_c14_results_of_an_asyncio_client_stay(loop: str, tmp_path: Path) -> None:
    async def body() -> None:
        path = str(tmp_path / "socket")
        async with (
            await asyncio.start_unix_server(answer_later, path),
            await AsyncClient.connect(f"unix:{path}", interface=TENSOR) as client,
        ):
            calls = [
                client.call("describe", {"tensor": {"data": sent(number, size)}})
                for number, size in enumerate(SIZES)
            ]
            found = await asyncio.gather(*calls)
            kept = [(results, results.tensor.data) for results in found]
            # More, into whatever the first ones came in.
            for number, size in enumerate(SIZES):
                await client.call("describe", {"tensor": {"data": sent(~number % 9, size)}})
            check(kept)
        check(kept)

    factory: Callable[[], asyncio.AbstractEventLoop] = LOOPS[loop]
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(asyncio.wait_for(body(), 30))

"""A server that calls what a client gave it, and reads no answer, does not take all memory."""

import asyncio
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capnp_rig import AsyncClient, Client, Disconnected, load_schema
from capnp_rig.client import asyncio_client, blocking_client
from capnp_rig.client.asyncio_client import _Protocol
from capnp_rig.client.connecting import adopt
from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT
from capnp_rig.wire.rpc.connection import Called, Connection, Failed, Limits
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.messages import ExceptionType

PIPE = load_schema(Path(__file__).parents[2] / "data" / "unread.capnp").Reader
READ = compile_interface(PIPE).methods["read"]
ANSWER_BYTES, MOST_BYTES = 100_000, 2_000_000


class Reader:
    interface = PIPE

    def __init__(self) -> None:
        self.calls = 0

    def read(self, _params: Any) -> dict[str, Any]:
        self.calls += 1
        return {"data": bytes(ANSWER_BYTES)}

    def follow(self, _params: Any) -> None:
        """What the server has."""


def call_much(server: socket.socket) -> None:
    """Take a call, then call the object in its params 1,000 times, and read nothing."""
    wire, targets = Connection(bootstrap="server"), list[Any]()
    while not targets:
        for event in wire.events(server.recv(65_536)):
            if isinstance(event, Called) and event.params is not None:
                targets.append(event.params[0].capabilities[0])  # type: ignore[attr-defined]
    for _ in range(1_000):
        wire.call(targets[0], READ.interface_id, READ.method_id, EMPTY_STRUCT)
    try:
        server.sendall(wire.data_to_send())
    except OSError:
        return


async def call_async(ours: socket.socket, reader: Reader, limits: Limits | None = None) -> None:
    protocol = _Protocol(compile_interface(PIPE), ours, 10, 65_536, limits)
    await adopt(ours, protocol)
    async with AsyncClient(protocol) as client:
        await client.call("follow", {"reader": reader})


def call_blocking(ours: socket.socket, reader: Reader) -> None:
    with Client(ours, interface=PIPE, timeout_s=10) as client:
        client.call("follow", {"reader": reader})


@pytest.mark.parametrize(
    "call",
    [call_blocking, lambda *given: asyncio.run(call_async(*given))],
    ids=["blocking", "asyncio"],
)
def test_a_server_that_calls_and_reads_nothing_is_given_up(
    call: Callable[[socket.socket, Reader], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (asyncio_client, blocking_client):
        monkeypatch.setattr(module, "most_unread_bytes", lambda _: MOST_BYTES)
    server, ours = socket.socketpair()
    thread = threading.Thread(target=call_much, args=[server])
    thread.start()
    reader = Reader()
    with pytest.raises(Disconnected, match="reads no answers"):
        call(ours, reader)
    # A little more is answered before it is noticed.
    assert reader.calls * ANSWER_BYTES < 3 * MOST_BYTES
    thread.join(5)
    server.close()


class SlowReader(Reader):
    async def read(self, _params: Any) -> dict[str, Any]:  # type: ignore[override]
        await asyncio.Event().wait()
        return {}


def call_twice(server: socket.socket, failures: list[Failed]) -> None:
    """Take a call, call the object in its params twice, and take what fails first."""
    wire, targets = Connection(bootstrap="server"), list[Any]()
    while not failures:
        for event in wire.events(server.recv(65_536)):
            if isinstance(event, Called) and event.params is not None:
                targets.append(event.params[0].capabilities[0])  # type: ignore[attr-defined]
                for _ in range(2):
                    wire.call(targets[0], READ.interface_id, READ.method_id, EMPTY_STRUCT)
            elif isinstance(event, Failed):
                failures.append(event)
        server.sendall(wire.data_to_send())
    server.close()


def test_calls_of_callbacks_whose_params_hold_too_much_are_refused() -> None:
    # Any is enough: the first call has none before it.
    limits = Limits(max_params_bytes=0)
    server, ours = socket.socketpair()
    server.settimeout(10)
    failures: list[Failed] = []
    thread = threading.Thread(target=call_twice, args=[server, failures])
    thread.start()
    with pytest.raises(Disconnected):
        asyncio.run(call_async(ours, SlowReader(), limits))
    thread.join(10)
    assert [each.error.type for each in failures] == [ExceptionType.OVERLOADED]

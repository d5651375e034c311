import asyncio
from typing import Any

import pytest

from capnp_rig.loadtest.engine import process
from capnp_rig.loadtest.engine.process import EngineConfig, Load
from capnp_rig.loadtest.stats.process_use import ports_key
from capnp_rig.objects.errors import Disconnected
from capnp_rig.schema import message
from capnp_rig.wire.rpc.connection import Called
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.message_encoder import encode_abort
from capnp_rig.wire.rpc.messages import ExceptionType, RemoteError
from capnp_rig.wire.rpc.server_connection import ServerConnection

READ = compile_interface(message.MessageStream).methods["read"]


def test_a_connection_that_is_lost_as_soon_as_it_is_ready_was_not_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever waits for it learns that only in the loop's next turn."""

    async def opened(*how: Any) -> None:
        connection = how[-1](None)
        connection.ready.set_result(None)
        connection.connection_lost(None)

    async def connect() -> None:
        load = Load(EngineConfig("127.0.0.1:1"))
        with pytest.raises(Disconnected, match="the server closed it"):
            await load.connect(0)
        assert (load.connections, load.in_flight) == ({}, 0)

    monkeypatch.setattr(process, "open_secured", opened)
    asyncio.run(connect())


class _Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.is_closed = False

    def get_extra_info(self, name: str) -> object:
        return ("127.0.0.1", 5) if name == "sockname" else ("127.0.0.1", 6)

    def is_closing(self) -> bool:
        return self.is_closed

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True


async def _retire_with_the_last_call() -> None:
    load = Load(EngineConfig("127.0.0.1:1,127.0.0.1:2", connections=1, calls=1))
    load.tally.open(0)
    wire: Any = _Wire()
    connection = process._Connection(load, 0, load.endpoints[1])
    connection.connection_made(wire)
    server = ServerConnection()

    def answer() -> None:
        for event in server.receive_data(wire.written):
            assert isinstance(event, Called)
            text: str = READ.params.open(event.params).request.content
            results = READ.results.pack({"chunk": text[::-1].encode()})
            server.send_results(event.question_id, results)
        wire.written = b""
        data = server.data_to_send()
        load.buffer[: len(data)] = data
        connection.buffer_updated(len(data))

    answer()
    load.connections[0] = connection
    connection.begin()
    del load.connections[0]
    connection.retire()
    # Its call is waited for, and no other one is made.
    assert (wire.is_closed, load.in_flight, load.stopped.is_set()) == (False, 1, False)
    answer()
    assert (wire.is_closed, load.in_flight, load.stopped.is_set()) == (True, 0, True)
    assert load.by_port() == {ports_key(5, 6): 1}
    parts = load.tally.take().total.endpoints
    assert {name: part.answered for name, part in parts.items()} == {
        "127.0.0.1:1": 0,
        "127.0.0.1:2": 1,
    }


def test_a_connection_that_retires_waits_for_its_calls_and_may_end_the_run() -> None:
    asyncio.run(_retire_with_the_last_call())


async def _failures_of_a_quiet_connection(ending: bytes) -> int:
    """Return how many calls count as failed where a connection without any ends so."""
    load = Load(EngineConfig("127.0.0.1:1"))
    load.tally.open(0)
    wire: Any = _Wire()
    connection = load.connections[0] = process._Connection(load, 0, load.endpoints[0])
    connection.connection_made(wire)
    server = ServerConnection()
    server.receive_data(wire.written)
    data = server.data_to_send()
    load.buffer[: len(data)] = data
    connection.buffer_updated(len(data))
    assert connection.exchange.is_ready
    if ending:
        load.buffer[: len(ending)] = ending
        connection.buffer_updated(len(ending))
    else:
        connection.connection_lost(None)
    assert not connection.is_open
    # It is made anew.
    (reconnecting,) = load._tasks
    reconnecting.cancel()
    return load.tally.take().total.failed


@pytest.mark.parametrize(
    ("ending", "failures"),
    [
        (encode_abort(RemoteError("idle", ExceptionType.DISCONNECTED)), 0),
        (encode_abort(RemoteError("broken")), 1),
        (b"", 1),
    ],
    ids=["goodbye", "complaint", "end"],
)
def test_a_goodbye_without_calls_in_flight_is_no_failed_call(ending: bytes, failures: int) -> None:
    assert asyncio.run(_failures_of_a_quiet_connection(ending)) == failures

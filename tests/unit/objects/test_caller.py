"""Calls of capabilities in an event loop, joined with a server without sockets."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from capnp_rig.objects.caller import AsyncCapability
from capnp_rig.objects.errors import DeadlineExceeded, Disconnected, RemoteError
from capnp_rig.objects.peer import Peer
from capnp_rig.objects.serving import Serving
from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT
from capnp_rig.wire.rpc.client_connection import ClientConnection
from capnp_rig.wire.rpc.connection import Called, Cancelled, Connection, Event, Released
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.messages import RemoteError as WireRemoteError

DATA = Path(__file__).parents[2] / "data"
FILES = compile_interface(load_schema(DATA / "chains.capnp").Files)
UPLOAD = compile_interface(load_schema(DATA / "streams.capnp").Upload)
LOGIN = {"user": "ada"}
# The results of a login: after a text, a capability.
SESSION = (3 << 16, [bytes(8), bytes([3, 0, 0, 0, 0, 0, 0, 0]), bytes(8)], 3)


class Joined:
    """A client's half and a server that is answered by hand."""

    def __init__(self, interface: Any = FILES) -> None:
        wire = ClientConnection()
        self.peer = Peer(wire, Serving(lambda *_: "", lambda _: None), lambda: None)
        self.main = AsyncCapability(self.peer, wire.main, interface)
        self.server = Connection(bootstrap="main")
        self._wire = wire

    def events(self) -> list[Event]:
        """Return what the server hears of what was sent."""
        return self.server.receive_data(self._wire.data_to_send())

    async def called(self, count: int = 1) -> list[Called]:
        """Return the calls that tasks make in their next turns."""
        await turns()
        calls = [event for event in self.events() if isinstance(event, Called)]
        assert len(calls) == count
        return calls

    async def answer(self) -> None:
        """Take what the server has answered."""
        for event in self._wire.events(self.server.data_to_send()):
            self.peer.take(event)
        await turns()


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 10))


async def logged_in(joined: Joined) -> Any:
    task = asyncio.ensure_future(joined.main.call("login", LOGIN))
    (login,) = await joined.called()
    joined.server.send_results(login.question_id, SESSION, ["session"])
    await joined.answer()
    return await task


@pytest.mark.parametrize("how", ["close", "with", "forget"])
def test_a_session_is_released_once(how: str) -> None:
    async def test() -> None:
        joined = Joined()
        results = await logged_in(joined)
        joined.events()
        if how == "close":
            results.session.close()
            results.session.close()
        elif how == "with":
            async with results.session:
                pass
        else:
            del results
            gc.collect()
        assert joined.events() == [Released("session")]

    run(test)


@pytest.mark.parametrize("ends", ["deadline", "cancel"])
def test_a_call_that_is_given_up_is_cancelled_and_its_answer_dropped(ends: str) -> None:
    async def test() -> None:
        joined = Joined()
        timeout_s = 0.01 if ends == "deadline" else 10
        task = asyncio.ensure_future(joined.main.call("login", LOGIN, timeout_s=timeout_s))
        (login,) = await joined.called()
        if ends == "cancel":
            task.cancel()
        with pytest.raises((DeadlineExceeded, asyncio.CancelledError)):
            await task
        assert joined.events() == [Cancelled(login.question_id)]
        joined.server.send_results(login.question_id, EMPTY_STRUCT)
        await joined.answer()
        assert not joined.peer.is_waiting

    run(test)


def test_a_pipeline_and_a_call_on_it_leave_together() -> None:
    async def test() -> None:
        joined = Joined()
        login = joined.main.pipeline("login", LOGIN)
        read = asyncio.ensure_future(login.session.call("read", {"number": 1}))
        (asked,) = await joined.called()
        assert joined.server.calls_in_flight == 2
        joined.server.send_exception(asked.question_id, WireRemoteError("wrong password"))
        await joined.answer()
        for waiting in (read, login):
            with pytest.raises(RemoteError, match="wrong password"):
                await waiting

    run(test)


def test_a_pipeline_that_nobody_awaits_is_silent_and_leads_into_its_results() -> None:
    async def test() -> None:
        joined = Joined()
        faults: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        joined.main.pipeline("login", LOGIN)
        login = joined.main.pipeline("login", LOGIN)
        first, second = await joined.called(2)
        joined.server.send_exception(first.question_id, WireRemoteError("no"))
        joined.server.send_results(second.question_id, SESSION, ["session"])
        await joined.answer()
        gc.collect()
        assert faults == []
        assert login.session is (await login).session
        assert login.pair is not None

    run(test)


def test_a_pipeline_that_was_given_up_stays_so_whose_number_is_another_calls() -> None:
    async def test() -> None:
        joined = Joined()
        given_up = joined.main.pipeline("login", LOGIN)
        waiting = asyncio.ensure_future(given_up._wait())
        (first,) = await joined.called()
        waiting.cancel()
        await turns()
        joined.events()
        joined.server.send_results(first.question_id, EMPTY_STRUCT)
        await joined.answer()
        other = asyncio.create_task(joined.main.call("login", LOGIN))
        (second,) = await joined.called()
        assert second.question_id == first.question_id
        for _ in range(2):
            with pytest.raises(DeadlineExceeded, match="given up"):
                await given_up
            with pytest.raises(DeadlineExceeded, match="given up"):
                _ = given_up.session
        joined.server.send_results(second.question_id, SESSION, ["session"])
        await joined.answer()
        assert (await other).session is not None

    asyncio.run(test())


def test_a_stream_waits_for_room_and_fails_with_its_first_failure() -> None:
    async def test() -> None:
        joined = Joined(UPLOAD)
        joined.peer.stream_window_bytes = 1000
        chunk = {"chunk": bytes(1500)}
        task = asyncio.ensure_future(joined.main.call("write", chunk))
        (write,) = await joined.called()
        assert not task.done()
        joined.server.send_results(write.question_id, EMPTY_STRUCT)
        await joined.answer()
        assert await task is None
        task = asyncio.ensure_future(joined.main.call("write", chunk))
        (write,) = await joined.called()
        joined.server.send_exception(write.question_id, WireRemoteError("full"))
        await joined.answer()
        for failing in (task, joined.main.call("write", chunk)):
            with pytest.raises(RemoteError, match="full"):
                await failing

    run(test)


def test_the_end_fails_all_that_waits_and_what_is_called_later() -> None:
    async def test() -> None:
        joined = Joined()
        session = (await logged_in(joined)).session
        waiting = [
            asyncio.ensure_future(joined.main.call("login", LOGIN)),
            asyncio.ensure_future(session.call("read", {"number": 1})),
        ]
        await joined.called(2)
        joined.peer.leave()
        for failing in [*waiting, session.call("logout")]:
            with pytest.raises(Disconnected):
                await failing

    run(test)

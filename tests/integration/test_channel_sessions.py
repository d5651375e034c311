"""Capabilities, sessions and discovery over channels: what is of a connection stays with it."""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from running_peer import running_peer
from running_server import running_server

from capnp_rig.client import (
    AsyncChannel,
    Channel,
    ConnectError,
    Disconnected,
    UnusableCapability,
    UsageError,
)
from capnp_rig.schema import load_schema

HERE = Path(__file__).resolve().parent.parent
FILES = load_schema(HERE / "data" / "chains.capnp").Files
WORLD = load_schema(HERE / "data" / "places.capnp").World
ADA = {"user": "ada", "tag": 1}
# Nothing takes so long.
FAR_TOO_LONG_S = 20.0


class Peer:
    """A server of pycapnp in a process of its own."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.address = self._stack.enter_context(running_peer("session_server.py"))
        self.kill = self._stack.close


@pytest.fixture
def peers() -> Iterator[tuple[Peer, Peer]]:
    with ExitStack() as stack:
        pair = Peer(), Peer()
        for peer in pair:
            stack.callback(peer.kill)
        yield pair


@pytest.fixture(scope="module")
def world() -> Iterator[str]:
    service = ("--service", "place_services:World", "--workers", "1")
    with running_server(*service, cwd=HERE) as running:
        yield f"127.0.0.1:{running.port}"


def run(work: Awaitable[None]) -> None:
    async def body() -> None:
        await asyncio.wait_for(work, FAR_TOO_LONG_S)

    asyncio.run(body())


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await asyncio.sleep(0.005)


def connections(channel: AsyncChannel | Channel) -> dict[str, int]:
    return {str(each.address): each.connections for each in channel.endpoints}


def test_a_session_stays_on_its_connection_and_breaks_with_it(peers: tuple[Peer, Peer]) -> None:
    async def body() -> None:
        addresses = [peer.address for peer in peers]
        async with AsyncChannel(addresses, interface=FILES, eager=True) as channel:
            await until(lambda: all(connections(channel).values()))
            session = (await channel.call("login", ADA)).session
            # Another server numbers its capabilities alike, and would answer as well.
            where = next(str(each.address) for each in channel.endpoints if each.calls)
            texts = [(await session.call("read", {"number": page})).text for page in range(10)]
            assert texts == [f"ada {page}" for page in range(10)]
            next(peer for peer in peers if peer.address == where).kill()
            await until(lambda: connections(channel)[where] == 0)
            with pytest.raises(Disconnected) as caught:
                await session.call("read", {"number": 1})
            assert caught.value.did_not_run
            # The channel goes on with the other one.
            other = (await channel.call("login", ADA)).session
            assert (await other.call("read", {"number": 1})).text == "ada 1"

    run(body())


def test_a_session_of_a_blocking_channel_likewise(peers: tuple[Peer, Peer]) -> None:
    with Channel([peer.address for peer in peers], interface=FILES) as channel:
        session = channel.call("login", ADA).session
        where = next(str(each.address) for each in channel.endpoints if each.calls)
        assert session.call("read", {"number": 3}).text == "ada 3"
        next(peer for peer in peers if peer.address == where).kill()
        with pytest.raises(Disconnected):
            session.call("read", {"number": 1}, timeout_s=FAR_TOO_LONG_S)
        for _ in range(3):
            assert channel.call("login", ADA).session.call("read", {"number": 1}).text == "ada 1"


def test_a_connection_for_a_session_does_all_that_a_client_does(peers: tuple[Peer, Peer]) -> None:
    async def body() -> None:
        async with AsyncChannel(peers[0].address, interface=FILES) as channel:
            async with channel.connection() as client:
                reading = client.pipeline("login", ADA).session.call("read", {"number": 7})
                assert (await reading).text == "ada 7"
                assert channel.endpoints[0].in_flight == 1
            assert channel.endpoints[0].in_flight == 0

    run(body())
    with Channel(peers[0].address, interface=FILES) as channel:
        with channel.connection() as client:
            login = client.pipeline("login", ADA)
            assert login.session.call("read", {"number": 7}).text == "ada 7"
            assert channel.endpoints[0].in_flight == 1
        assert channel.endpoints[0].in_flight == 0


def test_a_held_capability_keeps_its_connection_open(peers: tuple[Peer, Peer]) -> None:
    async def body() -> None:
        channel = AsyncChannel(peers[0].address, interface=FILES, idle_s=0.05)
        async with channel:
            session = (await channel.call("login", ADA)).session
            idle_since_s = time.monotonic()
            await until(lambda: time.monotonic() > idle_since_s + 1.2)
            assert (await session.call("read", {"number": 3})).text == "ada 3"
            assert connections(channel) == {peers[0].address: 1}
            # Those of the other session in the results, too.
            session.close()
            del session
            await until(lambda: connections(channel) == {peers[0].address: 0})
            assert (await channel.call("live")).sessions == 0

    run(body())


def test_a_call_with_a_capability_goes_where_that_is(world: str) -> None:
    async def body() -> None:
        options: dict[str, Any] = {"interface": WORLD, "size": 3, "eager": True}
        async with (
            AsyncChannel(world, **options) as channel,
            AsyncChannel(world, **options) as other,
        ):
            await until(lambda: connections(channel) == {world: 3})
            leaves = [(await channel.call("give", {"how": f"l{n}"})).leaf for n in range(3)]
            for number, leaf in enumerate(leaves):
                results = await channel.call("ask", {"leaf": leaf, "how": "name"})
                assert results.text == f"l{number}"
            with pytest.raises(UnusableCapability, match="not this channel's"):
                await other.call("ask", {"leaf": leaves[0], "how": "name"})

    run(body())


def test_a_stream_is_for_a_connection(world: str) -> None:
    interface = load_schema(HERE / "data" / "places.capnp").Leaf
    with Channel(world, interface=interface) as channel, pytest.raises(UsageError, match="stream"):
        channel.call("stream", {"number": 1})


@pytest.mark.parametrize("is_async", [False, True])
def test_endpoints_are_found_again_and_again(peers: tuple[Peer, Peer], is_async: bool) -> None:
    present = [peers[0].address]

    async def ask() -> list[str]:
        return present

    async def body() -> None:
        source = ask if is_async else (lambda: present)
        async with AsyncChannel(source, interface=FILES, refresh_s=0.02) as channel:
            assert (await channel.call("live")).sessions == 0
            assert list(connections(channel)) == [peers[0].address]
            present[:] = [peers[1].address]
            await until(lambda: list(connections(channel)) == [peers[1].address])
            assert (await channel.call("live")).sessions == 0
            present[:] = ["nonsense"]
            await until(lambda: channel._discovery.due_s < float("inf"))
            assert (await channel.call("live")).sessions == 0

    run(body())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("end", [asyncio.CancelledError, SystemExit])
def test_a_discovery_that_was_cancelled_is_asked_again(end: type[BaseException]) -> None:
    asked: list[bool] = []

    def ask() -> list[str]:
        asked.append(True)
        if len(asked) == 1:
            raise end
        return ["127.0.0.1:1"]

    async def ask_async() -> list[str]:
        return ask()

    if end is SystemExit:
        channel = Channel(ask, interface=FILES, refresh_s=0.02)
        with channel, pytest.raises(ConnectError, match="refused"):
            channel.call("live", timeout_s=FAR_TOO_LONG_S)
        return

    async def body() -> None:
        async with AsyncChannel(ask_async, interface=FILES, refresh_s=0.02):
            await until(lambda: len(asked) > 1)

    run(body())


def test_a_discovery_that_is_under_way_when_its_loop_closes_ends_quietly() -> None:
    async def ask() -> list[str]:
        await asyncio.sleep(FAR_TOO_LONG_S)
        return []

    async def begin() -> list[Any]:
        calling = asyncio.create_task(AsyncChannel(ask, interface=FILES).call("live"))
        await asyncio.sleep(0.02)
        return [calling, *asyncio.all_tasks()]

    with closing(asyncio.new_event_loop()) as loop:
        loop.set_exception_handler(lambda *_: None)
        tasks = loop.run_until_complete(begin())
    # An error in a coroutine's last moments would be an unraisable one.
    tasks.clear()
    gc.collect()


def test_a_discovery_that_fails_is_a_typed_error() -> None:
    def ask() -> list[str]:
        raise LookupError("no such service")

    async def body() -> None:
        async with AsyncChannel(ask, interface=FILES, policies=[]) as channel:
            with pytest.raises(ConnectError, match="LookupError: no such service"):
                await channel.call("live")

    run(body())
    reason = "LookupError: no such service"
    channel = Channel(ask, interface=FILES, policies=[])
    with channel, pytest.raises(ConnectError, match=reason):
        channel.call("live")


def test_f7_an_interrupt_before_the_end_of_a_call_is_told_loses_no_place(
    peers: tuple[Peer, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Channel(peers[0].address, interface=FILES, size=1) as channel:
        channel.call("live")

        def interrupted(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(channel._pool, "succeed", interrupted)
        with pytest.raises(KeyboardInterrupt) as caught:
            channel.call("live")
        monkeypatch.undo()
        # Its traceback, which holds the frames of the call, still lives.
        assert caught.tb is not None
        assert channel.endpoints[0].in_flight == 0
        assert channel.call("live", timeout_s=FAR_TOO_LONG_S).sessions == 0

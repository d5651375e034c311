"""The same service classes on both engines: capabilities in all places, and how they end."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from place_services import SCHEMA, World, names_in
from running_server import Running, running_server

from capnp_rig.client import AsyncClient, DeadlineExceeded, RemoteError

HERE = Path(__file__).resolve().parent.parent
NAMES = [
    *("leaf", "l0", "null", "l2", "g00", "null", "g21", "inner", "one", "null", "null"),
    *("i1", "i10", "group", "first", "any", "box"),
]


@pytest.fixture(scope="module", params=["wire", "pycapnp"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(engine: str) -> Iterator[Running]:
    service = ("--service", "place_services:World", "--workers", "1", "--engine", engine)
    with running_server(*service, cwd=HERE) as running:
        yield running


@asynccontextmanager
async def connected(server: Running) -> AsyncIterator[AsyncClient]:
    address = f"127.0.0.1:{server.port}"
    async with await AsyncClient.connect(address, interface=SCHEMA.World) as client:
        yield client


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def body() -> None:
        await asyncio.wait_for(work(), 20)

    asyncio.run(body())


async def ask(client: AsyncClient, leaf: Any, how: str) -> str:
    return str((await client.call("ask", {"leaf": leaf, "how": how})).text)


async def closed(client: AsyncClient, names: set[str]) -> None:
    """Wait until all of these were closed, which must be once."""
    listed: list[str] = []
    while not names <= set(listed):
        listed = list((await client.call("closed")).names)
    assert len(listed) == len(set(listed))


def test_capabilities_are_in_all_places(server: Running) -> None:
    async def work() -> None:
        async with connected(server) as client:
            theirs = (await client.call("make")).places
            assert [name async for name in names_in(theirs)] == NAMES
            assert list((await client.call("names", {"places": theirs})).names) == NAMES
            mine = World().make(None)["places"]
            assert list((await client.call("names", {"places": mine})).names) == NAMES
            back = (await client.call("back", {"places": mine})).places
            assert [name async for name in names_in(back)] == NAMES
            rest = back.number, back.group.text, back.several.count, bytes(back.inner.data)
            assert rest == (7, "text", 3, b"d")

    run(work)


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("service", "RemoteError: as asked"),
        ("secret", "RemoteError: internal error in fail"),
        ("null", "RemoteError: "),
        ("early", "mine"),
        ("late", "DeadlineExceeded: no answer within the deadline"),
        ("closed", "UnusableCapability: the capability was released before"),
        ("unknown", "AttributeError: Leaf has no method 'nothing'"),
        ("misfit", "EncodeError: Leaf.fail$Params.how: expected a str, not int"),
        ("stream", "mine012"),
    ],
)
def test_a_callback_ends_alike(server: Running, how: str, text: str) -> None:
    async def work() -> None:
        async with connected(server) as client:
            answer = await ask(client, World().leaf("mine"), how)
            assert answer.startswith(text)
            assert await ask(client, None, how) == "null"

    run(work)


def test_a_call_that_is_given_up_gives_up_its_callback(server: Running) -> None:
    async def work() -> None:
        world = World()
        async with connected(server) as client:
            call = client.call("ask", {"leaf": world.leaf("mine"), "how": "hang"}, timeout_s=0.05)
            with pytest.raises(DeadlineExceeded):
                await call
            while world.closed_names != ["mine"]:
                await client.call("closed")

    run(work)


def test_a_capability_of_another_connection_is_called_and_not_passed(server: Running) -> None:
    async def work() -> None:
        async with connected(server) as client:
            async with connected(server) as other:
                assert await ask(other, World().leaf("others"), "keep") == "others"
                assert await ask(client, World().leaf("mine"), "kept") == "others"
                with pytest.raises(RemoteError, match="internal error"):
                    await client.call("give", {"how": "kept"})
            answer = await ask(client, World().leaf("mine"), "kept")
            assert answer == "Disconnected: the connection has ended"

    run(work)


def test_objects_are_closed_once_and_at_the_end_of_their_connection(server: Running) -> None:
    async def work() -> None:
        async with connected(server) as client:
            for name in ("once", "bad"):
                with (await client.call("give", {"how": name})).leaf as leaf:
                    assert (await leaf.call("name")).name == name
            await closed(client, {"once", "bad"})
            async with connected(server) as other:
                held = [(await other.call("give", {"how": name})).leaf for name in ("a", "b")]
                assert len(held) == 2
            await closed(client, {"a", "b"})
            with pytest.raises(RemoteError, match="internal error"):
                await client.call("give", {"how": "broken"})

    run(work)


def test_methods_of_one_name_are_all_served(server: Running) -> None:
    async def work() -> None:
        async with connected(server) as client:
            twin = (await client.call("twin")).twin
            assert (await twin.cast(SCHEMA.Base).call("name")).name == "twin"
            assert (await twin.cast(SCHEMA.Numbered).call("name", {"number": 2})).number == 3

    run(work)


def test_several_interfaces_are_refused_by_pycapnp_alone(server: Running, engine: str) -> None:
    async def work() -> None:
        async with connected(server) as client:
            called = client.call("give", {"how": "both"})
            if engine == "wire":
                await (await called).leaf.cast(SCHEMA.Other).call("other")
            else:
                with pytest.raises(RemoteError, match="internal error"):
                    await called
                server.err.wait_for(
                    "pycapnp serves objects of one interface, not of Leaf and Other"
                )

    run(work)


def test_objects_are_closed_before_the_worker_ends(server: Running) -> None:
    async def work() -> None:
        async with connected(server) as client:
            assert (await client.call("give", {"how": "last"})).leaf is not None
            kept = (await client.call("give", {"how": "kept last"})).leaf
            os.kill(server.pid, signal.SIGTERM)
            await asyncio.to_thread(server.out.wait_for, "Closed kept last")
            assert not kept.is_closed

    run(work)

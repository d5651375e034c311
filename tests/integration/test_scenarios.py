"""Each scenario between all pairs of a client and a server: the same is seen."""

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from proxy import proxy
from pycapnp_peer import run
from scenarios import cpp, pycapnp_side, rig_side
from scenarios.play import SCENARIOS, Cell, Giver, played
from scenarios.serving import serving, serving_cpp

CLIENTS = {
    "pycapnp": pycapnp_side.client,
    "AsyncClient": rig_side.async_client,
    "Client": rig_side.blocking_client,
}


@pytest.fixture(scope="module", params=["wire", "pycapnp"])
def port(request: pytest.FixtureRequest) -> Iterator[int | None]:
    with serving(request.param) as server:
        yield server.port


@pytest.fixture(scope="session")
def cpp_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    reason = cpp.missing()
    if reason is not None:
        pytest.skip(reason)
    return cpp.build(tmp_path_factory.mktemp("cpp"))


@pytest.fixture(scope="module")
def cpp_port(cpp_program: Path) -> Iterator[int]:
    with serving_cpp(cpp_program) as number:
        yield number


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("client", CLIENTS)
def test_the_same_is_seen(port: int, client: str, name: str) -> None:
    assert seen(port, client, name) == SCENARIOS[name][1]


@pytest.mark.parametrize("client", ["AsyncClient", "Client"])
def test_a_pipeline_is_used_after_its_answer(port: int, client: str) -> None:
    async def work() -> tuple[str, int]:
        async with CLIENTS[client](port) as lobby:
            world = (await lobby.call("enter", {})).world
            login = world.pipeline("login", {"user": "ada"})
            await login
            # It has the id of the first by now.
            cell = world.pipeline("cell", {"name": "a"})
            root = login.session.pipeline("root", {}).root
            name = (await root.call("stat", {})).name
            await cell
            return name, (await cell.cell.call("add", {"number": 0})).total

    assert run(work) == ("ada", 0)


# pycapnp lets go when Python collects what its tasks have left.
def test_what_nobody_looked_at_is_let_go_without_another_call() -> None:
    async def work(port: int) -> None:
        async with rig_side.async_client(port) as lobby:
            world, mine = (await lobby.call("enter", {})).world, Cell()
            giver = Giver(mine)
            giver.may_give.set()
            # The server does not read what it is given: it only passes on that it will be.
            promised = world.pipeline("later", {"giver": giver}).cell
            await promised.call("add", {"number": 0})
            promised.close()
            async with asyncio.timeout(10):
                while not mine.closed:
                    await asyncio.sleep(0.001)

    with serving("wire") as server:
        assert server.port is not None
        run(partial(work, server.port))


# The build of C++ takes 13 s.
@pytest.mark.nightly
@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("client", CLIENTS)
def test_the_same_is_seen_of_cpp(cpp_port: int, client: str, name: str) -> None:
    assert seen(cpp_port, client, name) == SCENARIOS[name][1]


@pytest.mark.nightly
@pytest.mark.parametrize("name", SCENARIOS)
def test_cpp_sees_the_same(port: int, cpp_program: Path, name: str) -> None:
    with proxy("127.0.0.1", port) as link:
        assert cpp.played(cpp_program, name, link) == SCENARIOS[name][1]


@pytest.mark.nightly
@pytest.mark.parametrize("name", SCENARIOS)
def test_cpp_sees_the_same_of_itself(cpp_port: int, cpp_program: Path, name: str) -> None:
    with proxy("127.0.0.1", cpp_port) as link:
        assert cpp.played(cpp_program, name, link) == SCENARIOS[name][1]


def seen(port: int, client: str, name: str) -> str:
    """Return what a client sees in a scenario."""
    with proxy("127.0.0.1", port) as link:

        async def work() -> str:
            async with CLIENTS[client](link.port) as lobby:
                return await played(name, link, lobby)

        transcript: str = run(work)
        return transcript

"""Each scenario between all pairs of a client and a server: the same is seen."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pycapnp_peer import run
from relay import relay
from scenarios import pycapnp_side, wire_side
from scenarios.play import SCENARIOS, played

TESTS = Path(__file__).resolve().parents[1]
CLIENTS = {"pycapnp": pycapnp_side.client, "wire": wire_side.client}


@contextmanager
def serving(module: str) -> Iterator[int]:
    """Run a side as a server; yield its port."""
    command = [sys.executable, "-m", f"scenarios.{module}"]
    with subprocess.Popen(
        command, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.communicate(timeout=20)


@pytest.fixture(scope="module", params=["pycapnp_side", "wire_side"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    with serving(request.param) as number:
        yield number


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("client", CLIENTS)
def test_the_same_is_seen(port: int, client: str, name: str) -> None:
    with relay("127.0.0.1", port) as link:

        async def work() -> str:
            async with CLIENTS[client](link.port) as lobby:
                return await played(name, link, lobby)

        assert run(work) == SCENARIOS[name][1]

"""Messages of 64 MiB and of 500 MiB, where both sides allow them (faults.md, C6)."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import capnp
import pytest
from pycapnp_peer import run as run_kj
from running_server import Running, running_server

from capnp_rig.client.asyncio_client import AsyncClient
from capnp_rig.client.blocking_client import Client
from capnp_rig.schema import load_schema
from capnp_rig.server.engines.kj_gate import Gate

BINARY = load_schema("binary.capnp").Binary
MIB = 1 << 20
Call = Callable[[Running, int, bytes], bytes]


@pytest.fixture(scope="module", params=["wire", "pycapnp"])
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    with serving("--engine", request.param, "--max-message", "80MiB") as running:
        yield running


def address_of(server: Running) -> str:
    return f"{server.host}:{server.port}"


def serving(*arguments: str) -> Any:
    service = "capnp_rig.server.services.binary:Binary"
    return running_server("--workers", "1", "--service", service, *arguments)


def call_blocking(server: Running, limit_bytes: int, data: bytes) -> bytes:
    with Client.connect(
        f"{server.host}:{server.port}",
        interface=BINARY,
        timeout_s=60,
        max_message_bytes=limit_bytes,
    ) as client:
        return bytes(client.call("reverse", {"data": data}).data)


def call_asyncio(server: Running, limit_bytes: int, data: bytes) -> bytes:
    async def work() -> bytes:
        async with await AsyncClient.connect(
            f"{server.host}:{server.port}",
            interface=BINARY,
            timeout_s=60,
            max_message_bytes=limit_bytes,
        ) as client:
            return bytes((await client.call("reverse", {"data": data})).data)

    return asyncio.run(work())


def call_pycapnp(server: Running, limit_bytes: int, data: bytes) -> bytes:
    """As pycapnp does, which has a limit of its own: what can be read of a message."""

    async def work() -> bytes:
        made: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: Gate(made.set_result), server.host, server.port)
        client = capnp.TwoPartyClient(await made, traversal_limit_in_words=limit_bytes >> 3)
        try:
            return bytes((await client.bootstrap().cast_as(BINARY).reverse(data)).data)
        finally:
            client.close()

    result: bytes = run_kj(work, 60)
    return result


@pytest.mark.parametrize(
    "call",
    [
        call_blocking,
        pytest.param(call_asyncio, marks=pytest.mark.nightly),
        pytest.param(call_pycapnp, marks=pytest.mark.nightly),
    ],
)
def test_c6_64_mib_go_both_ways(server: Running, call: Call) -> None:
    data = bytes(range(256)) * (256 << 10)
    answer = call(server, 80 * MIB, data)
    assert (len(answer), answer == data[::-1]) == (64 * MIB, True)


# What is there at a time: the message as it comes, the service's copy, and what waits to be sent.
@pytest.mark.nightly
@pytest.mark.parametrize("call", [call_blocking, call_asyncio])
@pytest.mark.parametrize(("engine", "most_copies"), [("wire", 4), ("pycapnp", 7)])
def test_c6_500_mib_go_both_ways(engine: str, most_copies: int, call: Call) -> None:
    data = bytes(range(256)) * (2_000 << 10)
    with serving("--engine", engine, "--max-message", "512MiB") as running:
        answer = call(running, 512 * MIB, data)
        assert (len(answer), answer == data[::-1]) == (500 * MIB, True)
        (worker,) = running.workers()
        peak = peak_bytes(worker)
    assert peak < most_copies * 500 * MIB + 100 * MIB


def peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (line,) = [each for each in status.splitlines() if each.startswith("VmHWM")]
    return int(line.split()[1]) << 10

"""Networks and strangers between a channel and its servers (faults.md, B and F).

Each text that is sent is a nonce, and its answer is checked.
"""

import asyncio
import errno
import os
import random
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest
from callers import Connected, both_channels, each_channel, reverse
from deadline import eventually
from fake_server import Behaviour, black_hole, fake_server, finish, until_closed
from ledger_server import Does, ledger_server
from proxy import HELD, proxy
from running_server import running_server
from toxics import Bandwidth, Latency, LimitData, ResetPeer, Slicer

from capnp_rig.client import AsyncChannel, ClientError, ConnectError, DeadlineExceeded, Disconnected
from capnp_rig.client.policies import RetryBudget
from capnp_rig.schema import message

IDEMPOTENT = {"read"}
# A busy machine's; what is asserted is that nothing waits for something else.
SOON_S = 8.0


@pytest.fixture(autouse=True)
def budget(monkeypatch: pytest.MonkeyPatch) -> RetryBudget:
    """The budget of the process, which no other test has used."""
    budget = RetryBudget()
    monkeypatch.setattr("capnp_rig.client.policies.retry.PROCESS_BUDGET", budget)
    return budget


def right(channel: Any, text: str, timeout_s: float = 10.0) -> bool:
    assert reverse(channel, text, timeout_s) == text[::-1]
    return True


def answers(channel: Any, text: str, timeout_s: float = 10.0) -> bool:
    try:
        return right(channel, text, timeout_s)
    except ClientError:
        return False


# --- F-4: late answers --------------------------------------------------------------------


@each_channel
def test_f4_a_late_answer_of_a_channel_goes_to_nobody(channel: Connected) -> None:
    with (
        ledger_server(lambda text: Does.BE_LATE if "late" in text else Does.ANSWER) as server,
        channel(server.address, size=1) as caller,
    ):
        for number in range(8):
            with pytest.raises(DeadlineExceeded):
                reverse(caller, f"late {number}", timeout_s=0.01)
            assert right(caller, f"check {number}")
        assert server.accepted == 1
        assert caller.endpoints[0].in_flight == 0


# --- F-9: strangers -----------------------------------------------------------------------


def speaks_http(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    finish(connection)


def speaks_first(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
    until_closed(connection)


def sends_garbage(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(random.Random(9).randbytes(4096))
    until_closed(connection)


def closes(connection: socket.socket) -> None:
    finish(connection)


NIGHTLY = pytest.mark.nightly
STRANGERS = [
    speaks_http,
    speaks_first,
    pytest.param(sends_garbage, marks=NIGHTLY),
    pytest.param(closes, marks=NIGHTLY),
    until_closed,
]


@each_channel
@pytest.mark.parametrize("stranger", STRANGERS)
def test_f9_b3_a_stranger_among_the_endpoints_is_not_called(
    channel: Connected, stranger: Behaviour
) -> None:
    with (
        fake_server(stranger) as bad,
        ledger_server() as good,
        channel([bad, good.address], connect_timeout_s=0.2) as caller,
    ):
        for number in range(20):
            assert right(caller, f"nonce {number}")
        strange = caller.endpoints[0]
        assert (strange.calls, strange.in_flight) == (0, 0)
        eventually(lambda: caller.endpoints[0].error is not None)


@each_channel
@pytest.mark.parametrize("stranger", STRANGERS)
def test_f9_b3_nothing_but_a_stranger_is_a_typed_error_before_the_deadline(
    channel: Connected, stranger: Behaviour
) -> None:
    with fake_server(stranger) as bad, channel(bad, connect_timeout_s=0.2) as caller:
        began_s = time.monotonic()
        with pytest.raises(ConnectError, match="no endpoint can be called") as raised:
            reverse(caller, "abc", timeout_s=60)
        assert raised.value.did_not_run
        assert time.monotonic() - began_s < SOON_S


# --- F-10: names --------------------------------------------------------------------------


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say which ports the name `name.test` has from now on; without any it is not known."""
    real, ports = socket.getaddrinfo, list[int]()

    def getaddrinfo(host: str, *args: Any, flags: int = 0, **options: Any) -> Any:
        if host != "name.test":
            return real(host, *args, flags=flags, **options)
        if flags & socket.AI_NUMERICHOST or not ports:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        tcp = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*tcp, ("127.0.0.1", port)) for port in ports]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    def replace(*present: int) -> None:
        ports[:] = present

    return replace


@each_channel
def test_f10_a_channel_tries_the_addresses_of_a_name_in_turn(
    channel: Connected, resolve: Callable[..., None]
) -> None:
    with black_hole() as (_, hole), ledger_server() as server:
        resolve(hole, server.port)
        with channel("name.test:1") as caller:
            assert right(caller, "abc", 5)


@each_channel
def test_f10_a_name_is_looked_up_again_for_each_connection(
    channel: Connected, resolve: Callable[..., None]
) -> None:
    with channel("name.test:1") as caller:
        with pytest.raises(ConnectError, match="not known"):
            reverse(caller, "too early")
        with ledger_server() as server:
            resolve(server.port)
            assert right(caller, "first")
        with ledger_server() as server:
            resolve(server.port)
            eventually(lambda: answers(caller, "moved") and server.runs)


# --- B11: no ports ------------------------------------------------------------------------


@each_channel
def test_b11_a_channel_without_a_free_port_says_so_and_uses_what_it_has(
    channel: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoPort(socket.socket):
        def connect(self, address: object, /) -> None:
            raise OSError(self.connect_ex(address), os.strerror(errno.EADDRNOTAVAIL))

        def connect_ex(self, _address: object, /) -> int:
            return errno.EADDRNOTAVAIL

    with (
        ledger_server() as server,
        channel(server.address) as connected,
        channel(server.address) as late,
    ):
        assert right(connected, "before")
        monkeypatch.setattr(socket, "socket", NoPort)
        with pytest.raises(ConnectError, match="Cannot assign requested address"):
            reverse(late, "abc")
        for number in range(50):
            assert right(connected, f"nonce {number}")
        monkeypatch.undo()
        assert right(late, "now")
        # Where a connection carries a call at a time, the next one is made in advance.
        assert server.accepted <= 4


# --- B12, B14, B15: what a network does ---------------------------------------------------


@each_channel
def test_b12_a_reset_within_the_request_or_after_the_reply(channel: Connected) -> None:
    """That within the reply is F-6."""
    with ledger_server() as server, proxy("127.0.0.1", server.port) as network:
        network.upstream = [LimitData(30_000)]
        with channel(network.address) as caller:
            with pytest.raises(Disconnected):
                reverse(caller, "x" * 100_000)
            assert right(caller, "small")
            network.heal()
            assert right(caller, "x" * 100_000)
            # After the reply it takes nothing away, and the next call does not notice.
            network.poison(ResetPeer())
            network.heal()
            time.sleep(0.03)
            assert right(caller, "after")
        assert server.runs == {"x" * 100_000: 1, "small": 1, "after": 1}


@both_channels
def test_b14_a_slow_network_costs_no_retries_and_no_deadline(channel: Connected) -> None:
    slow = (Latency(0.1, 0.02), Bandwidth(64_000), Slicer(700, 600))
    with ExitStack() as stack:
        servers = [stack.enter_context(ledger_server()) for _ in range(2)]
        networks = [stack.enter_context(proxy("127.0.0.1", each.port, *slow)) for each in servers]
        addresses = [network.address for network in networks]
        caller = stack.enter_context(channel(addresses, idempotent=IDEMPOTENT))
        pool = stack.enter_context(ThreadPoolExecutor(8))
        texts = [f"nonce {number} " * 50 for number in range(16)]
        assert all(pool.map(lambda text: right(caller, text, 30), texts))
        began_s = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            reverse(caller, "too slow", timeout_s=0.05)
        assert time.monotonic() - began_s < SOON_S
        assert right(caller, "after")
        assert sum(server.attempts for server in servers) <= 16 + 2


@both_channels
@pytest.mark.parametrize(
    "seconds", [1.0, pytest.param(5.0, marks=pytest.mark.nightly)], ids=["short", "long"]
)
def test_b15_a_channel_recovers_from_a_partition(channel: Connected, seconds: float) -> None:
    with (
        ledger_server() as server,
        proxy("127.0.0.1", server.port) as network,
        channel(network.address) as caller,
    ):
        assert right(caller, "before")
        network.poison(HELD)
        until_s = time.monotonic() + seconds
        number = 0
        while time.monotonic() < until_s:
            began_s = time.monotonic()
            with pytest.raises(ClientError):
                reverse(caller, f"lost {number}", timeout_s=0.3)
            assert time.monotonic() - began_s < 0.3 + SOON_S
            number += 1
        network.heal()
        healed_s = time.monotonic()
        eventually(lambda: answers(caller, "after", 0.5))
        # One second and a connect timeout, and what a busy machine takes.
        assert time.monotonic() - healed_s < 2 + SOON_S
        # What was held back arrives after all, or does not: once at most.
        assert all(count == 1 for text, count in server.runs.items() if "lost" in text)


@both_channels
def test_b15_many_channels_do_not_come_back_at_once(channel: Connected) -> None:
    with (
        ledger_server() as server,
        proxy("127.0.0.1", server.port) as network,
        ExitStack() as stack,
    ):
        callers = [
            stack.enter_context(channel(network.address, size=1, wait_for_ready=True))
            for _ in range(12)
        ]
        pool = stack.enter_context(ThreadPoolExecutor(12))
        assert all(pool.map(lambda caller: right(caller, "before"), callers))
        # All of them see it at once, and try again and again.
        network.down()
        eventually(lambda: not server.standing)
        # A connection is looked at before a call is sent only if it was idle for 10 ms.
        time.sleep(0.02)
        before = len(network.accepted_s)
        calls = [pool.submit(answers, caller, "during") for caller in callers]
        time.sleep(0.8)
        network.up()
        assert all(call.result() for call in calls)
        times = network.accepted_s[before:]
        assert len(times) == 12
        assert times[-1] - times[0] > 0.05


@pytest.mark.nightly
@pytest.mark.parametrize("is_unix", [False, True], ids=["tcp", "unix"])
def test_b9_channels_that_make_5000_connections_at_once_are_served(
    tmp_path: Path, *, is_unix: bool
) -> None:
    """A Unix socket refuses with EAGAIN what its backlog has no room for."""

    async def run(address: str) -> None:
        options = {"interface": message.MessageStream, "eager": True, "connect_timeout_s": 60}
        async with AsyncExitStack() as stack:
            channels = [
                await stack.enter_async_context(AsyncChannel(address, size=500, **options))  # type: ignore[arg-type]
                for _ in range(10)
            ]
            async with asyncio.timeout(60):
                while sum(each.endpoints[0].connections for each in channels) < 5000:
                    await asyncio.sleep(0.05)
            for channel in channels:
                params = {"request": {"content": "abc"}}
                assert bytes((await channel.call("read", params)).chunk) == b"cba"

    address = f"unix:{tmp_path}/s" if is_unix else "127.0.0.1:0"
    with running_server("--workers", "2", address=address, fd_limit=12_000) as server:
        asyncio.run(run(address if is_unix else f"{server.host}:{server.port}"))

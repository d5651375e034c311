"""Channels in threads, forks, loops, greenlets, and at the end (faults.md, F-7).

Each text that is sent is a nonce, and its answer is checked.
"""

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest
from callers import reverse
from deadline import eventually
from forked import error_of, in_child
from interrupting import interrupted
from ledger_server import Does, LedgerServer, ledger_server
from running_server import ROOT, environment

import capnp_rig
from capnp_rig.client import AsyncChannel, Channel, UsageError, UsedAfterFork
from capnp_rig.schema import message

SOON_S = 20.0
# Newer Pythons warn of what is tested here.
FORKS = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


@pytest.fixture
def server() -> Iterator[LedgerServer]:
    with ledger_server(
        lambda text: Does.KEEP_SILENT if "never" in text else Does.ANSWER
    ) as running:
        yield running


def right(channel: Channel, text: str) -> bool:
    return reverse(channel, text, SOON_S) == text[::-1]


def channel_to(server: LedgerServer, **options: object) -> Channel:
    return Channel(server.address, interface=message.MessageStream, **options)  # type: ignore[arg-type]


# --- threads ------------------------------------------------------------------------------


def test_f7_64_threads_share_a_channel(server: LedgerServer) -> None:
    with channel_to(server, size=8) as channel, ThreadPoolExecutor(64) as pool:
        texts = [f"nonce {number}" for number in range(512)]
        assert all(pool.map(lambda text: right(channel, text), texts))
        assert channel.endpoints[0].in_flight == 0
        assert channel.endpoints[0].connections <= 8
        assert server.accepted <= 8
    assert set(server.runs.values()) == {1}


def test_f7_closing_ends_the_calls_of_all_threads(server: LedgerServer) -> None:
    """Those that run, and those that wait for a place."""
    with channel_to(server, size=2) as channel, ThreadPoolExecutor(6) as pool:
        calls = [
            pool.submit(error_of, lambda: reverse(channel, f"never {number}", 60))
            for number in range(6)
        ]
        eventually(lambda: server.runs.total() == 2)
        channel.close()
        names = [error.__name__ for call in calls if (error := call.result(SOON_S)) is not None]
    assert names == ["Disconnected"] * 6


# --- forks --------------------------------------------------------------------------------


@FORKS
def test_f7_a_child_has_connections_of_its_own(server: LedgerServer) -> None:
    with channel_to(server, size=2) as channel:
        assert right(channel, "before")
        for number in range(3):
            assert in_child(lambda: str(right(channel, f"child {number}"))) == "True"
            assert right(channel, f"parent {number}")
    assert set(server.runs.values()) == {1}


@FORKS
def test_f7_a_fork_amid_calls_of_other_threads(server: LedgerServer) -> None:
    """Whatever lock they hold is held in the child for ever."""
    is_over = threading.Event()

    def call_on(number: int) -> bool:
        return all(
            right(channel, f"thread {number} {turn}")
            for turn in iter(lambda: not is_over.is_set() and len(server.runs), False)
        )

    with channel_to(server) as channel, ThreadPoolExecutor(4) as pool:
        busy = [pool.submit(call_on, number) for number in range(4)]
        try:
            for number in range(5):
                assert in_child(lambda: str(right(channel, f"child {number}"))) == "True"
        finally:
            is_over.set()
        assert all(each.result(SOON_S) for each in busy)


@FORKS
def test_f7_an_async_channel_refuses_a_child(server: LedgerServer) -> None:
    async def run() -> tuple[str, bool]:
        channel = AsyncChannel(server.address, interface=message.MessageStream)
        async with channel:
            params = {"request": {"content": "abc"}}
            await channel.call("read", params)

            def use() -> str:
                with closing(asyncio.new_event_loop()) as loop:
                    # The one that runs is the parent's.
                    asyncio._set_running_loop(None)
                    call = channel.call("read", params)
                    return str(error_of(lambda: loop.run_until_complete(call)))

            refused = in_child(use)
            results = await channel.call("read", params)
            return refused, bytes(results.chunk) == b"cba"

    assert asyncio.run(run()) == (str(UsedAfterFork), True)


# --- event loops --------------------------------------------------------------------------


def test_f7_a_channel_inside_a_running_loop(server: LedgerServer) -> None:
    async def run() -> None:
        with channel_to(server) as channel:
            assert right(channel, "in the loop")
            texts = [f"in a thread {number}" for number in range(8)]
            calls = [asyncio.to_thread(right, channel, text) for text in texts]
            assert all(await asyncio.gather(*calls))

    asyncio.run(run())


# Nobody could close it in its loop any more.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_f7_an_async_channel_belongs_to_its_loop(server: LedgerServer) -> None:
    async def use(channel: AsyncChannel) -> None:
        await channel.call("read", {"request": {"content": "abc"}})

    def use_twice() -> None:
        channel = AsyncChannel(server.address, interface=message.MessageStream)
        asyncio.run(use(channel))
        with pytest.raises(UsageError, match="another event loop"):
            asyncio.run(use(channel))

    use_twice()
    gc.collect()


# --- KeyboardInterrupt --------------------------------------------------------------------

TRACED = (str(Path(capnp_rig.__file__).parent / "client") + "/",)
NIGHTLY = pytest.param(1, marks=pytest.mark.nightly)


def call(channel: Channel, number: int) -> None:
    right(channel, f"interrupted {number}")


def call_of_a_session(channel: Channel, number: int) -> None:
    with channel.connection(timeout_s=SOON_S) as client:
        client.call("read", {"request": {"content": f"interrupted {number}"}})


@pytest.mark.timeout(600)
@pytest.mark.parametrize("is_warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("work", [call, call_of_a_session])
@pytest.mark.parametrize("step", [13, NIGHTLY])
def test_f7_an_interrupt_at_any_bytecode_leaves_a_channel_that_is_right(
    server: LedgerServer, work: Callable[[Channel, int], None], step: int, *, is_warm: bool
) -> None:
    """There is one place for a call: what kept it would keep the next one out for ever."""
    at = 1
    is_interrupted = True
    while is_interrupted:
        with channel_to(server, size=1) as channel:
            if is_warm:
                assert right(channel, f"warm {at}")
            with interrupted(at, TRACED, only_at_calls=True) as came:
                with suppress(KeyboardInterrupt):
                    work(channel, at)
                is_interrupted = came()
            # What only a cycle of the exception holds.
            if at % 10 == 1:
                gc.collect()
            assert right(channel, f"after {at}")
            assert right(channel, f"again {at}")
            assert channel.endpoints[0].in_flight == 0
        at += step
    assert at > 3 * step
    assert max(server.runs.values()) == 1


# --- processes of their own ---------------------------------------------------------------

GREENLETS = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent
from capnp_rig.client import Channel, ConnectError, DeadlineExceeded, Disconnected
from capnp_rig.schema import message

def right(text):
    results = channel.call("read", {"request": {"content": text}}, timeout_s=10)
    return bytes(results.chunk).decode() == text[::-1]

def never():
    channel.call("read", {"request": {"content": "never"}}, timeout_s=60)

with Channel(sys.argv[1], interface=message.MessageStream, size=3) as channel:
    callers = [gevent.spawn(right, f"nonce {n}") for n in range(60)]
    gevent.joinall(callers, raise_error=True)
    assert all(caller.value for caller in callers)
    for _ in range(3):
        # Killed in their calls, and while they wait for a place.
        callers = [gevent.spawn(never) for _ in range(5)]
        gevent.sleep(0.05)
        gevent.killall(callers)
        assert right("after")
    with gevent.Timeout(0.05, False):
        never()
    assert right("timeout")
    assert channel.endpoints[0].in_flight == 0
print("right")
"""

AT_EXIT = """
import asyncio, sys, threading, time
from capnp_rig.client import AsyncChannel, Channel
from capnp_rig.schema import message
channel = Channel(sys.argv[1], interface=message.MessageStream)
call = ["read", {"request": {"content": "never"}}]
threading.Thread(target=channel.call, args=call, daemon=True).start()
while not channel.endpoints[0].in_flight:
    time.sleep(0.001)
# Nobody closes this one either.
async def use():
    other = AsyncChannel(sys.argv[1], interface=message.MessageStream)
    await other.call("read", {"request": {"content": "abc"}})
    asyncio.create_task(other.call(*call))
    await asyncio.sleep(0.01)
asyncio.run(use())
print("right")
"""


@pytest.mark.parametrize("program", [GREENLETS, AT_EXIT], ids=["gevent", "exit"])
def test_f7_channels_elsewhere(server: LedgerServer, program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program, server.address],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env=environment(),
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("right\n", "", 0)

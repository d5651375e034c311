import asyncio
import time

from capnp_rig.loadtest.clients.precise_timer import PreciseTimer


def test_it_wakes_when_it_is_time_and_at_once_when_that_is_past() -> None:
    asyncio.run(asyncio.wait_for(wake_twice(), 30))


async def wake_twice() -> None:
    woken = asyncio.Event()
    with PreciseTimer(woken.set) as timer:
        due_ns = time.monotonic_ns() + 20_000_000
        timer.set(due_ns)
        await woken.wait()
        assert time.monotonic_ns() >= due_ns
        woken.clear()
        timer.set(0)
        await woken.wait()

import asyncio
import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Coroutine
from typing import Any

import pytest

from capnp_rig.server.control.call_stamp import (
    MARK,
    MAX_READS,
    Stamp,
    StampPage,
    mark_of,
    open_stamp,
    stamped,
)


def test_what_a_process_writes_is_read_after_its_death() -> None:
    page = StampPage()
    try:
        assert page.read() == (0, 0)
        script = (
            "import os, sys; "
            "from capnp_rig.server.control.call_stamp import MARK, MAX_READS, mark_of, open_stamp; "
            "stamp = open_stamp(int(sys.argv[1])); stamp[MARK] = mark_of(1 << 40, 7); os.abort()"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(page.fd)],
            pass_fds=[page.fd],
            check=False,
            timeout=20,
            preexec_fn=no_core,
        )
        assert done.returncode < 0
        assert page.read() == (1 << 40, 7)
    finally:
        page.close()


def no_core() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def test_a_view_outlives_its_descriptor() -> None:
    page = StampPage()
    stamp = open_stamp(os.dup(page.fd))
    stamp[MARK] = mark_of(5, 1_000)
    assert page.read() == (5, MAX_READS)
    page.close()
    stamp[MARK] = mark_of(6, 1)


class Service:
    """Looks at the stamp from within a method."""

    def __init__(self, stamp: Stamp) -> None:
        self._stamp = stamp
        self.seen: list[int] = []
        self.cancelled = False

    def look(self) -> None:
        self.seen.append(self._stamp[MARK])

    async def answer(self) -> str:
        self.look()
        await asyncio.sleep(0)
        self.look()
        await asyncio.wait([asyncio.create_task(asyncio.sleep(0.001))])
        self.look()
        return "done"

    async def fail(self) -> str:
        await asyncio.sleep(0)
        raise ValueError("no")

    async def wait(self) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.look()
            await asyncio.sleep(0)
            self.cancelled = True
            raise
        return "never"


def run(work: Coroutine[Any, Any, Any], stamp: Stamp) -> tuple[Any, list[int]]:
    """Return the result, and what others saw in the stamp meanwhile."""
    others = []

    async def body() -> Any:
        task = asyncio.ensure_future(stamped(work, stamp, mark_of(9, 4)))
        while not task.done():
            others.append(stamp[MARK])
            await asyncio.sleep(0)
        return await task

    return asyncio.run(body()), others


def test_a16_an_async_method_is_stamped_in_every_step_and_not_while_it_waits() -> None:
    stamp = [0]
    service = Service(stamp)
    result, others = run(service.answer(), stamp)
    assert result == "done"
    assert service.seen == [mark_of(9, 4)] * 3
    assert set(others) == {0}
    assert stamp[MARK] == 0


def test_a_method_that_fails_passes_its_error_on() -> None:
    stamp = [0]
    with pytest.raises(ValueError, match="no"):
        run(Service(stamp).fail(), stamp)
    assert stamp[MARK] == 0


def test_a_cancelled_method_is_cancelled_within() -> None:
    stamp = [0]
    service = Service(stamp)

    async def body() -> None:
        task = asyncio.ensure_future(stamped(service.wait(), stamp, mark_of(9, 4)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(body())
    assert service.cancelled
    assert service.seen == [mark_of(9, 4)]
    assert stamp[MARK] == 0


def test_a_method_that_is_thrown_away_is_closed() -> None:
    stamp = [0]
    service = Service(stamp)
    work = service.answer()
    steps = stamped(work, stamp, mark_of(9, 4))
    steps.send(None)
    steps.close()
    assert work.cr_frame is None
    assert stamp[MARK] == 0


class Held:
    """What a method has when it is cancelled."""


def test_what_a_cancelled_method_had_is_freed_without_the_collector() -> None:
    stamp = [0]

    async def wait(held: Held) -> None:
        await asyncio.sleep(60)
        del held

    async def body() -> None:
        held = Held()
        freed = weakref.ref(held)
        task = asyncio.ensure_future(stamped(wait(held), stamp, mark_of(9, 4)))
        del held
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        del task
        assert freed() is None

    gc.disable()
    try:
        asyncio.run(body())
    finally:
        gc.enable()

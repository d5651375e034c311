import asyncio
import gc
import os
import weakref
from collections.abc import Coroutine
from typing import Any

import pytest

from capnp_rig.objects.binding import BoundMethod
from capnp_rig.server.control.call_stamp import (
    MARK,
    MAX_METHODS,
    RESUMES,
    STEPS,
    Stamp,
    StampPage,
    mark_of,
    open_stamp,
    unwatched,
)
from capnp_rig.server.engines.method_stamps import MethodStamps

# Nothing here looks at the schema's side of a method.
ANY_METHOD: Any = None


class Service:
    """Looks at the stamp from within a method."""

    def __init__(self, stamp: Stamp) -> None:
        self._stamp = stamp
        self.seen: list[int] = []
        self.cancelled = False

    def look(self, _params: Any = None) -> None:
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


def stamped(work: Coroutine[Any, Any, Any], stamp: Stamp) -> Any:
    return MethodStamps(stamp).stamped(work, mark_of(9, 4))


def run(work: Coroutine[Any, Any, Any], stamp: Stamp) -> tuple[Any, list[int]]:
    """Return the result, and what others saw in the stamp meanwhile."""
    others = []

    async def body() -> Any:
        task = asyncio.ensure_future(stamped(work, stamp))
        while not task.done():
            others.append(stamp[MARK])
            await asyncio.sleep(0)
        return await task

    return asyncio.run(body()), others


def test_a16_an_async_method_is_stamped_in_every_step_and_not_while_it_waits() -> None:
    stamp = unwatched()
    service = Service(stamp)
    result, others = run(service.answer(), stamp)
    assert result == "done"
    assert service.seen == [mark_of(9, 4)] * 3
    assert set(others) == {0}
    assert stamp[MARK] == 0
    # Three steps, of which two began no call.
    assert (stamp[STEPS + 1], stamp[RESUMES]) == (3, 2)


def test_a_method_that_fails_passes_its_error_on() -> None:
    stamp = unwatched()
    with pytest.raises(ValueError, match="no"):
        run(Service(stamp).fail(), stamp)
    assert stamp[MARK] == 0


def test_a_cancelled_method_is_cancelled_within() -> None:
    stamp = unwatched()
    service = Service(stamp)

    async def body() -> None:
        task = asyncio.ensure_future(stamped(service.wait(), stamp))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(body())
    assert service.cancelled
    assert service.seen == [mark_of(9, 4)]
    assert stamp[MARK] == 0


def test_a_method_that_is_thrown_away_is_closed() -> None:
    stamp = unwatched()
    service = Service(stamp)
    work = service.answer()
    steps = stamped(work, stamp)
    steps.send(None)
    steps.close()
    assert work.cr_frame is None
    assert stamp[MARK] == 0


class Held:
    """What a method has when it is cancelled."""


def test_what_a_cancelled_method_had_is_freed_without_the_collector() -> None:
    stamp = unwatched()

    async def wait(held: Held) -> None:
        await asyncio.sleep(60)
        del held

    async def body() -> None:
        held = Held()
        freed = weakref.ref(held)
        task = asyncio.ensure_future(stamped(wait(held), stamp))
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


def test_a5_each_call_of_a_plain_method_has_a_number_of_its_own_and_the_methods_name() -> None:
    page = StampPage()
    stamp = open_stamp(os.dup(page.fd))
    stamps = MethodStamps(stamp)
    service = Service(stamp)
    look = stamps.watched(BoundMethod(ANY_METHOD, service.look, is_async=False))
    other = stamps.watched(BoundMethod(ANY_METHOD, "text".removeprefix, is_async=False))
    stamp[MARK] = mark_of(1, 1)
    works = []
    for call in (look, other, look):
        call.call("te")
        works.append(page.work())
    assert [work.step for work in works] == [1, 2, 3]
    names = [page.method(work.method) for work in works]
    assert names == ["Service.look", "str.removeprefix", "Service.look"]
    assert works[-1].calls == 3
    page.close()


def test_a_name_is_cut_and_more_methods_than_there_is_room_for_are_still_counted() -> None:
    page = StampPage()
    stamp = open_stamp(os.dup(page.fd))
    stamps = MethodStamps(stamp)
    for number in range(MAX_METHODS + 2):

        def method(params: Any) -> Any:
            return params

        method.__qualname__ = f"{'x' * 80}{number}"
        watched = stamps.watched(BoundMethod(ANY_METHOD, method, is_async=False))
        stamp[MARK] = mark_of(1, 1)
        assert watched.call(number) == number
        name = page.method(page.work().method)
        assert name == (method.__qualname__[-64:] if number < MAX_METHODS else "a method")
    assert page.work().calls == MAX_METHODS + 2
    page.close()

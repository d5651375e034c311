"""Calls of an `AsyncChannel` that are cancelled at each of their awaits (faults.md, F-3, F-4).

The awaits of a call are counted; it is made again and again, cancelled at the first one, the
second one, and so on. Nothing may be left of it, and nobody may get its answer.
"""

import asyncio
import types
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop
from ledger_server import Does, LedgerServer, ledger_server

from capnp_rig.client import AsyncChannel
from capnp_rig.client.policies import (
    Call,
    ConcurrencyLimit,
    Deadline,
    Hedge,
    Retry,
    RetryBudget,
)
from capnp_rig.schema import message

# More awaits than any call here has.
MANY = 60
each_loop = pytest.mark.parametrize(
    "run", [asyncio.run, pytest.param(uvloop.run, marks=pytest.mark.nightly)]
)


def cancelled_at(number: int, work: Any, *, is_late: bool) -> Awaitable[Any]:
    """Await `work` in a task that is cancelled at its await of that number, counted from 1.

    It is cancelled as it begins to wait; with `is_late` when what it waits for has come, and the
    task has not run yet: then the answer is there and nobody takes it.
    """

    @types.coroutine
    def drive() -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None
        coroutine = work.__await__()
        for count in range(1, MANY):
            try:
                waited_for = next(coroutine)
            except StopIteration as end:
                return end.value
            if count == number:
                if is_late and waited_for is not None:
                    # Before the task adds its own, which wakes it.
                    waited_for.add_done_callback(lambda _: task.cancel())
                else:
                    task.cancel()
            try:
                yield waited_for
            except BaseException as error:
                return (yield from _thrown(coroutine, error))
        raise AssertionError("a call has fewer awaits")

    async def run() -> Any:
        return await drive()

    return run()


def _thrown(coroutine: Any, error: BaseException) -> Generator[Any, Any, Any]:
    try:
        waited_for = coroutine.throw(error)
    except StopIteration as end:
        return end.value
    yield waited_for
    return (yield from coroutine)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def check(channel: AsyncChannel, text: str) -> None:
    """Call; the answer is to be that of this call."""
    results = await channel.call("read", {"request": {"content": text}})
    assert bytes(results.chunk).decode() == text[::-1]


class HedgeAtOnce(Hedge):
    """Makes the second attempt in the next turn of the loop."""

    def hedge_s(self, call: Call) -> float | None:
        return 0.0


@dataclass(frozen=True)
class Case:
    """What happens to a call that is cancelled; texts with "check" are answered all the time."""

    does: Does = Does.ANSWER
    # What it meets if it comes again.
    later: Does = Does.ANSWER
    is_warm: bool = True
    # Whether another call has the only place when it comes.
    waits: bool = False
    is_hedged: bool = False

    def does_with(self, server: LedgerServer) -> Callable[[str], Does]:
        seen: set[str] = set()

        def does(text: str) -> Does:
            if "check" in text:
                return Does.ANSWER
            if "holds" in text:
                return Does.BE_LATE
            if text in seen:
                return self.later
            seen.add(text)
            return self.does

        return does


CASES = {
    "connects": Case(is_warm=False),
    "is connected": Case(),
    "is refused first": Case(Does.OVERLOADED),
    "dies first": Case(Does.DIE_IN_REPLY),
    "waits for a place": Case(waits=True),
    "is hedged": Case(Does.BE_LATE, Does.BE_LATE, is_hedged=True),
}


@each_loop
@pytest.mark.parametrize("is_late", [False, True], ids=["waiting", "answered"])
@pytest.mark.parametrize("case", CASES)
def test_f3_a_call_may_be_cancelled_at_every_await(
    run: Callable[[Any], None], case: str, *, is_late: bool
) -> None:
    this = CASES[case]

    async def is_cancelled(server: LedgerServer, number: int) -> bool:
        limit = ConcurrencyLimit(1)
        retry = Retry(budget=RetryBudget(per_s=1000))
        hedge = HedgeAtOnce(budget=RetryBudget(per_s=1000))
        # One place for a call: what is left of one would keep the next one out for ever.
        async with AsyncChannel(
            server.address,
            interface=message.MessageStream,
            size=1,
            calls_per_connection=1 + this.is_hedged,
            policies=[Deadline(10), retry, limit, *([hedge] * this.is_hedged)],
            idempotent={"read"},
        ) as channel:
            if this.is_warm:
                await check(channel, f"check warm {number}")
            holder = asyncio.ensure_future(
                check(channel, f"holds {number}") if this.waits else asyncio.sleep(0)
            )
            await asyncio.sleep(0)
            call = check(channel, f"cancelled {number} {is_late} {case}")
            was_cancelled = False
            try:
                await asyncio.ensure_future(cancelled_at(number, call, is_late=is_late))
            except asyncio.CancelledError:
                was_cancelled = True
            await holder
            await check(channel, f"check {number}")
            await check(channel, f"check again {number}")
            # The slower one of two is cancelled in a turn of its own.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert channel.endpoints[0].in_flight == 0
            assert limit.running == 0
            assert channel._pool.waiting == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return was_cancelled

    async def all_awaits() -> None:
        before = None
        for number in range(1, MANY):
            if not await is_cancelled(server, number):
                break
            await asyncio.sleep(0)
            before = before or descriptors()
        # There is at least the answer to wait for.
        assert number > 1
        async with asyncio.timeout(10):
            while server.standing or descriptors() > before:
                await asyncio.sleep(0.01)

    with ledger_server() as server:
        server.does = this.does_with(server)
        run(all_awaits())

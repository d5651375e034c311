"""Calls of async methods, on literal messages and without sockets."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from level_1_frames import call, message, sent

from capnp_rig.objects.async_calls import AsyncCalls, RunningCall
from capnp_rig.objects.serving import AsyncMethod, StreamOrder
from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT
from capnp_rig.wire.rpc.connection import Called, Connection


class Calls:
    """Those of one connection; `done` has the numbers of the methods that ran, in order."""

    def __init__(self) -> None:
        self.connection = Connection(bootstrap="main")
        self.connection.receive_data(message("bootstrap", questionId=0))
        self.connection.data_to_send()
        self.ended: list[int] = []
        self.done: list[int] = []
        self.order = StreamOrder()
        self._calls = AsyncCalls(
            self.connection,
            lambda name, error: f"{name}: {error}",
            lambda _: None,
            lambda call: self.ended.append(call.question_id),
        )

    def start(
        self,
        number: int,
        work: Callable[[], Awaitable[Any]] | None = None,
        *,
        streams: bool = True,
        in_order: bool = True,
    ) -> RunningCall:
        async def run(_: Any) -> Any:
            self.done.append(number)
            return None if work is None else await work()

        (event,) = self.connection.receive_data(call(number, export=0))
        assert isinstance(event, Called)
        method = AsyncMethod("m", "M.m", run, lambda _: None, lambda _: (EMPTY_STRUCT, []), streams)
        return self._calls.start(method, event, self.order if in_order else None)

    def cancel_all(self) -> None:
        self._calls.cancel_all()


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def fail() -> None:
    raise ValueError("full")


def run(test: Callable[[Calls], Awaitable[None]]) -> Calls:
    async def main() -> Calls:
        calls = Calls()
        await test(calls)
        return calls

    return asyncio.run(main())


def test_calls_without_streams_run_side_by_side() -> None:
    async def test(calls: Calls) -> None:
        gate = asyncio.Event()
        calls.start(1, gate.wait, in_order=False)
        calls.start(2, in_order=False)
        await turns()
        assert sent(calls.connection) == ["return 2 results"]
        gate.set()
        await turns()
        assert sent(calls.connection) == ["return 1 results"]

    assert run(test).ended == [2, 1]


def test_what_fails_and_what_is_cancelled_is_answered() -> None:
    async def test(calls: Calls) -> None:
        calls.start(1, fail, in_order=False)
        calls.start(2, asyncio.Event().wait, in_order=False)
        await turns()
        # Before its first step.
        calls.start(3, in_order=False)
        calls.cancel_all()
        await turns()
        assert sorted(sent(calls.connection)) == [
            "return 1 exception: m: full",
            "return 2 exception: the call was cancelled",
            "return 3 exception: the call was cancelled",
        ]

    assert run(test).done == [1, 2]


def test_a_call_waits_for_the_streaming_one_before_it() -> None:
    async def test(calls: Calls) -> None:
        gate = asyncio.Event()
        calls.start(1, gate.wait)
        calls.start(2)
        calls.start(3, streams=False)
        await turns()
        assert calls.done == [1]
        gate.set()
        await turns()

    assert run(test).done == [1, 2, 3]


def test_a_streaming_call_that_fails_fails_all_after_it() -> None:
    async def test(calls: Calls) -> None:
        calls.start(1, fail)
        calls.start(2)
        calls.start(3, streams=False)
        await turns()
        assert sent(calls.connection) == [
            f"return {number} exception: m: full" for number in (1, 2, 3)
        ]

    assert run(test).done == [1]


def test_calls_that_are_cancelled_before_their_turn_keep_the_order() -> None:
    async def test(calls: Calls) -> None:
        gate = asyncio.Event()
        calls.start(1, gate.wait)
        waiting = [calls.start(2), calls.start(3)]
        await turns()
        # It waits already, then one that has no step behind it.
        waiting.append(calls.start(4))
        for each in waiting:
            each.cancel()
        calls.start(5)
        await turns()
        calls.start(6)
        await turns()
        assert calls.done == [1]
        gate.set()
        await turns()

    assert run(test).done == [1, 5, 6]

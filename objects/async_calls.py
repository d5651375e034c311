"""Calls of async methods of objects of ours: a task each, on the event loop of the connection."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from capnp_rig.objects.binding import unusable
from capnp_rig.objects.call_context import CURRENT, CallContext
from capnp_rig.objects.serving import AsyncMethod, Explain, StreamOrder
from capnp_rig.objects.session import release_all
from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT
from capnp_rig.wire.encoding.pointers import StructTuple, detached
from capnp_rig.wire.rpc.connection import Called, Connection
from capnp_rig.wire.rpc.messages import RemoteError

_CANCELLED = RemoteError("the call was cancelled")


class RunningCall:
    """An async call from its start to the end of its task.

    `label` is that of its method, `size` that of its params; `is_ordered` tells that its object
    has streaming methods.
    """

    __slots__ = (
        *("before", "context", "has_failed", "is_answered", "is_cancelled", "is_ordered", "label"),
        *("question_id", "size", "started_s", "task"),
    )

    def __init__(
        self, question_id: int, label: str, started_s: float, size: int, *, is_ordered: bool
    ) -> None:
        self.task: asyncio.Task[Any]
        # The streaming call that it waits for.
        self.before: RunningCall | None = None
        # What the method may ask about it.
        self.context: CallContext | None = None
        self.question_id = question_id
        self.label = label
        self.started_s = started_s
        self.size = size
        self.is_ordered = is_ordered
        self.is_answered = False
        # It was answered with an error.
        self.has_failed = False
        # By us: a Finish came, or the connection ended.
        self.is_cancelled = False

    @property
    def in_the_way(self) -> "RunningCall | None":
        """Which call those that come after it wait for: one before it, if its turn never came."""
        call: RunningCall | None = self
        while call is not None and call.task.done():
            call = call.before if call.task.cancelled() else None
        return call

    def cancel(self) -> None:
        """Cancel its task."""
        self.is_cancelled = True
        if self.context is not None:
            self.context.cancel()
        self.task.cancel()


# Gets the coroutine of a method, and its call; returns what is awaited, within the call's task.
Around = Callable[[Coroutine[Any, Any, Any], RunningCall], Awaitable[Any]]


def _without_context(work: Coroutine[Any, Any, Any], _: RunningCall) -> Awaitable[Any]:
    """Await `work`; that of the call in which a client was made is none of its objects' calls."""
    CURRENT.set(None)
    return work


class AsyncCalls:
    """Those of one connection.

    `answered` is called when one has been answered, with the words of its results; `ended` when its
    task is over.
    """

    __slots__ = (
        "_answered",
        "_around",
        "_ended",
        "_explain",
        "_loop",
        "_wire",
        "params_bytes",
        "running",
    )

    def __init__(
        self,
        wire: Connection,
        explain: Explain,
        answered: Callable[[int], None],
        ended: Callable[[RunningCall], None],
        around: Around = _without_context,
    ) -> None:
        self._wire = wire
        self._explain = explain
        self._answered = answered
        self._ended = ended
        self._around = around
        self._loop = asyncio.get_running_loop()
        self.running: dict[int, RunningCall] = {}
        # Of those that run.
        self.params_bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether the params of those that run hold more than the connection may."""
        return self.params_bytes > self._wire.limits.max_params_bytes

    def start(
        self, method: AsyncMethod, called: Called, order: StreamOrder | None = None
    ) -> RunningCall:
        """Start the task of a call."""
        params, size = called.params, 0
        if params is not None:
            params = detached(params)
            size = len(params[0].buffer)
        is_ordered = order is not None
        call = RunningCall(
            called.question_id, method.label, self._loop.time(), size, is_ordered=is_ordered
        )
        if order is None:
            call.task = self._loop.create_task(self._run(method, params, call))
        else:
            call.before = order.last and order.last.in_the_way
            call.task = self._loop.create_task(self._run_in_order(method, params, call, order))
            if method.is_streaming:
                order.last = call
        self.running[call.question_id] = call
        self.params_bytes += size
        call.task.add_done_callback(lambda _: self._done(call))
        return call

    def cancel(self, question_id: int) -> RunningCall:
        """Cancel a call; it ends soon."""
        call = self.running[question_id]
        call.cancel()
        return call

    def cancel_all(self) -> None:
        """Cancel each."""
        for call in self.running.values():
            call.cancel()

    async def _run(
        self, method: AsyncMethod, params: StructTuple | None, call: RunningCall
    ) -> RemoteError | None:
        """Run a method and answer the call; return what it failed with."""
        results: Any = None
        try:
            results = await self._around(method.call(method.open_params(params)), call)
            self._answer(method, call.question_id, results)
        # Here and not at the task, because asyncio raises what is no `Exception` out of the loop,
        # and with it ends the process.
        except BaseException as error:  # noqa: BLE001 - the boundary: no exception reaches a peer
            if call.is_cancelled and isinstance(error, asyncio.CancelledError):
                return None
            failure = RemoteError(self._explain(method.name, unusable(results) or error))
            self._wire.send_exception(call.question_id, failure)
            call.is_answered = call.has_failed = True
            return failure
        call.is_answered = True
        return None

    async def _run_in_order(
        self,
        method: AsyncMethod,
        params: StructTuple | None,
        call: RunningCall,
        order: StreamOrder,
    ) -> None:
        """Run a call once the streaming call before it is over, if none has failed."""
        while call.before is not None:
            await asyncio.wait([call.before.task])
            call.before = call.before.in_the_way
        if order.error is None:
            failure = await self._run(method, params, call)
            if method.is_streaming:
                order.error = order.error or failure
        else:
            self._wire.send_exception(call.question_id, order.error)
            call.is_answered = call.has_failed = True

    def _answer(self, method: AsyncMethod, question_id: int, results: Any) -> None:
        if results is None:
            self._wire.send_results(question_id, EMPTY_STRUCT)
            return
        body, references = method.pack_results(results)
        try:
            self._wire.send_results(question_id, body, references)
        finally:
            release_all(references)
        self._answered(body[2])

    def _done(self, call: RunningCall) -> None:
        # A peer that asks again before it was answered has put another call in this place.
        if self.running.get(call.question_id) is call:
            del self.running[call.question_id]
        if not call.is_answered:
            # It was ended by a Finish or with the connection. This is not done in the task: a task
            # that is cancelled before its first step never runs.
            self._wire.send_exception(call.question_id, _CANCELLED)
        self.params_bytes -= call.size
        self._ended(call)

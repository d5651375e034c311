"""Calls of ours that wait for their answers, in one event loop."""

import asyncio
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Protocol

from capnp_rig.objects.capabilities import AnyCapability, CapabilityOwner, Params
from capnp_rig.objects.errors import ClientError, DeadlineExceeded, fresh, given_up
from capnp_rig.objects.pipelines import Names, Path, PipelinedResults, capability_in
from capnp_rig.objects.session import Outcome, PreparedCall, Session
from capnp_rig.objects.streams import StreamWindow
from capnp_rig.objects.typed_calls import (
    Interface_co,
    Named,
    OtherInterface,
    Typed,
    async_call,
    async_pipeline,
)
from capnp_rig.wire.rpc.capabilities import Capability as Reference


class AsyncOwner(CapabilityOwner, Protocol):
    """The connection of an `AsyncCapability`."""

    async def call(
        self, target: "AsyncCapability", name: str, params: Params, timeout_s: float | None
    ) -> Any:
        """Call a capability."""

    def pipeline(
        self, target: "AsyncCapability", name: str, params: Params, timeout_s: float | None
    ) -> "AsyncPipeline":
        """Call a capability whose results are used before they come."""


class AsyncCapability(AnyCapability, Typed[Interface_co]):
    """A capability whose calls are awaited."""

    __slots__ = ()

    owner: AsyncOwner

    if TYPE_CHECKING:

        def cast(self, interface: Named[OtherInterface]) -> "AsyncCapability[OtherInterface]":
            """Return one more reference to the same object, with the methods of `interface`."""

    @async_call
    async def call(
        self, method: str, params: Params = None, *, timeout_s: float | None = None
    ) -> Any:
        """Call a method by its schema name; return a view of its results.

        A streaming method returns None as soon as the next call may be sent.

        Raises:
            AttributeError: The interface has no such method, or is not known.
            EncodeError: The params do not fit the schema or the message limit.
            UnusableCapability: It, or one in the params, was closed or is another connection's.
            ClientError: As `AsyncClient.call`.
        """
        return await self.owner.call(self, method, params, timeout_s)

    @async_pipeline
    def pipeline(
        self, method: str, params: Params = None, *, timeout_s: float | None = None
    ) -> "AsyncPipeline":
        """Call a method whose results are used before they come, as `AsyncClient.pipeline`."""
        return self.owner.pipeline(self, method, params, timeout_s)


class AsyncPipeline(PipelinedResults):
    """The results of a call that is on its way: await them, or call what will be in them."""

    def __await__(self) -> Generator[Any, None, Any]:
        wait: Generator[Any, None, Any] = self._wait().__await__()
        return wait


class Caller:
    """The calls of one connection; `changed` is called when there is something to send."""

    __slots__ = ("_changed", "_loop", "_session", "_waiting", "_windows")

    def __init__(self, session: Session, changed: Callable[[], None]) -> None:
        self._session = session
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        # By question id, which is another call's as soon as the answer is here.
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._windows: dict[int, StreamWindow] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is to come."""
        return bool(self._waiting or self._windows)

    async def call(
        self, prepared: PreparedCall, target: Reference | None, deadline_s: float
    ) -> Any:
        """Send a call and return its results; `deadline_s` is a time of the event loop.

        Raises:
            EncodeError, UnusableCapability, ClientError: As `Session.begin`.
            DeadlineExceeded: No answer came in time; the call is cancelled.
        """
        question_id = self._session.begin(prepared, target)
        future = self._waiting[question_id] = self._loop.create_future()
        self._changed()
        timer = self._loop.call_at(deadline_s, expire, future)
        try:
            return await future
        finally:
            timer.cancel()
            if self._waiting.get(question_id) is future:
                self._give_up(question_id, future)
            # It holds the error, whose traceback holds this frame.
            del future

    def pipeline(
        self, prepared: PreparedCall, target: Reference | None, deadline_s: float
    ) -> AsyncPipeline:
        """Send a call; return its results to be.

        Raises:
            ClientError: As `call`; that it is too late is told to who awaits them.
        """
        question_id = self._session.begin(prepared, target)
        future = self._waiting[question_id] = self._loop.create_future()
        self._changed()
        timer = self._loop.call_at(deadline_s, self._expire_pipeline, question_id, future)

        def done(future: asyncio.Future[Any]) -> None:
            timer.cancel()
            if not future.cancelled():
                # Who does not await the results does not want to hear of it.
                future.exception()

        future.add_done_callback(done)

        def results() -> Any:
            error = future.exception()
            if error is not None:
                # Of its own for each who asks.
                raise fresh(error) if isinstance(error, ClientError) else error
            return future.result()

        async def wait() -> Any:
            try:
                # Others may await the same.
                await asyncio.wait([future])
            except asyncio.CancelledError:
                self._give_up(question_id, future)
                if not future.done():
                    # Its number is another call's from now on.
                    future.set_exception(given_up())
                raise
            return results()

        def promised(names: Names, path: Path, interface: Any) -> AnyCapability | None:
            # The number is another call's by then.
            if future.done():
                capability: AnyCapability | None = capability_in(results(), names)
                return capability
            return self._session.pipeline(question_id, path, interface)

        return AsyncPipeline(wait, promised, prepared.method.results)

    async def stream(
        self,
        prepared: PreparedCall,
        target: Reference | None,
        window: StreamWindow,
        deadline_s: float,
    ) -> None:
        """Send a call of a streaming method; return once the window has room for another.

        Raises:
            DeadlineExceeded: There was no room in time; the call is on its way.
            ClientError: This call, or one before it, has failed.
        """
        window.check()
        question_id = self._session.begin(prepared, target)
        self._windows[question_id] = window
        window.sent(question_id, prepared.size)
        self._changed()
        while not window.has_room:
            room = self._loop.create_future()
            window.wake.append(room)
            timer = self._loop.call_at(deadline_s, expire, room)
            try:
                await room
            finally:
                timer.cancel()
        window.check()

    def take(self, outcome: Outcome) -> None:
        """Hand a call its outcome."""
        question_id, results, error = outcome
        if question_id in self._windows:
            self._windows.pop(question_id).answered(question_id, error)
            return
        future = self._waiting.pop(question_id)
        # Its task has given up, or is about to find that its time is over.
        if future.done():
            return
        if error is None:
            future.set_result(results)
        else:
            future.set_exception(error)

    def fail_all(self) -> None:
        """Fail what waits with the error of the session."""
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                error = self._session.error
                assert error is not None
                future.set_exception(error)
        windows, self._windows = self._windows, {}
        for question_id, window in windows.items():
            window.answered(question_id, self._session.error)

    def _expire_pipeline(self, question_id: int, future: asyncio.Future[Any]) -> None:
        expire(future)
        self._give_up(question_id, future)

    def _give_up(self, question_id: int, future: asyncio.Future[Any]) -> None:
        # Under this id there may be another task's call by now.
        if self._waiting.get(question_id) is future:
            del self._waiting[question_id]
            self._session.cancel(question_id)
            self._changed()


def expire(future: asyncio.Future[Any], reason: str = "no answer within the deadline") -> None:
    """Fail what was waited for too long."""
    if not future.done():
        future.set_exception(DeadlineExceeded(reason))

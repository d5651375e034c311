"""Which call `call_context` finds, and which it does not."""

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from capnp_rig import CallPeer, call_context, simulated_call
from capnp_rig.objects.call_context import INLINE, CallContext, outside_of_calls
from capnp_rig.objects.closing import Closing
from capnp_rig.objects.serving import Serving
from capnp_rig.schema import message


class Site:
    """A connection whose calls are numbered."""

    peer = CallPeer("here")
    is_left = False
    drain_remaining_s = None

    def __init__(self) -> None:
        self.calls = 0

    def next_call_id(self) -> str:
        self.calls += 1
        return f"0-1-{self.calls}"

    def write(self, *_: object) -> None:
        raise AssertionError

    def call_context(self) -> CallContext:
        return CallContext(self)

    def note_trace(self, note: tuple[str, str]) -> None:
        raise AssertionError


@pytest.fixture
def served() -> Any:
    """Return what runs plain methods as the engine does: each within one served read."""
    INLINE.thread = threading.get_ident()

    def serve(*calls: Any) -> None:
        def fail(_name: str, error: BaseException) -> str:
            raise error

        site = Site()
        serving = Serving(fail, lambda _: None, inline=INLINE)
        methods = []
        for call in calls:

            class Service:
                interface = message.MessageStream

                def read(self, params: Any, call: Any = call) -> None:
                    call()

            one = serving.shared(Service())
            assert one is not None
            methods += one.inline.values()
        INLINE.connection = site
        try:
            for method in methods:
                method(None)
        finally:
            INLINE.connection = None

    return serve


def test_outside_of_calls_it_says_so() -> None:
    with pytest.raises(LookupError, match=r"there is no call here: .* simulated_call\(\)"):
        call_context()


def test_a_plain_method_has_one_context_and_the_next_call_another(served: Any) -> None:
    seen: list[CallContext] = []

    def ask() -> None:
        seen.extend([call_context(), call_context()])

    served(ask, lambda: None, ask)
    assert [each.call_id for each in seen] == ["0-1-1", "0-1-1", "0-1-2", "0-1-2"]
    assert seen[0] is seen[1]
    with pytest.raises(LookupError):
        call_context()


def test_a_method_that_raises_has_ended_as_well(served: Any) -> None:
    def fail() -> None:
        call_context()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        served(fail)
    assert INLINE.context is None
    with pytest.raises(LookupError):
        call_context()


def test_a_context_of_the_methods_own_does_no_harm(served: Any) -> None:
    served(lambda: contextvars.copy_context().run(call_context))
    with pytest.raises(LookupError):
        call_context()


def test_another_thread_does_not_see_the_call_that_is_served(served: Any) -> None:
    errors: list[Any] = []

    def ask() -> None:
        try:
            errors.append(call_context())
        except LookupError as error:
            errors.append(type(error))

    def start() -> None:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()

    served(start)
    assert errors == [LookupError]


def test_tasks_have_the_context_of_the_plain_method_that_asked_and_started_them(
    served: Any,
) -> None:
    async def work() -> None:
        seen: list[Any] = []
        tasks: list[asyncio.Task[None]] = []

        async def later() -> None:
            await asyncio.sleep(0)
            seen.append(call_context().call_id)

        def start() -> None:
            call_context()
            tasks.append(asyncio.ensure_future(later()))

        served(start, start)
        await asyncio.gather(*tasks)
        assert sorted(seen) == ["0-1-1", "0-1-2"]

    asyncio.run(work())


def test_the_end_of_an_object_belongs_to_no_call() -> None:
    seen: list[str] = []

    class Plain:
        def close(self) -> None:
            try:
                call_context()
            except LookupError:
                seen.append("plain")

    class Async:
        async def close(self) -> None:
            try:
                call_context()
            except LookupError:
                seen.append("async")

    async def work() -> None:
        closing = Closing(lambda _, error: str(error))
        with simulated_call():
            closing.close(Plain())
            closing.close(Async())
            assert call_context().call_id
        await closing.finish()

    asyncio.run(work())
    assert seen == ["plain", "async"]


def test_outside_of_calls_ends_with_its_block() -> None:
    with simulated_call() as context:
        with outside_of_calls(), pytest.raises(LookupError):
            call_context()
        assert call_context() is context


def test_a_simulated_call_is_as_the_test_says(caplog: pytest.LogCaptureFixture) -> None:
    peer = CallPeer("unix:pid=1,uid=1000", pid=1, uid=1000)
    with simulated_call(peer, is_cancelled=True, drain_remaining_s=2.5) as context:
        assert call_context() is context
        assert (context.peer.uid, context.is_cancelled, context.drain_remaining_s) == (
            *(1000, True),
            2.5,
        )
        context.log.warning("spilt", cups=2)
        context.log.error("broken", traceback=ValueError("cup"))
    first, second = caplog.records
    assert (first.levelname, first.message, vars(first)["fields"]) == (
        *("WARNING", "spilt"),
        {"cups": 2},
    )
    assert vars(first)["call"] == vars(second)["call"] == context.call_id
    assert second.exc_info is not None
    with simulated_call() as other:
        assert other.call_id != context.call_id
    with pytest.raises(LookupError):
        call_context()

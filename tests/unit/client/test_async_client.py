"""`AsyncReverseClient` on a transport without a socket, where every turn of the loop counts."""

import asyncio
import gc
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from virtual_loop import VirtualLoop, connect_fake

from capnp_rig.client import (
    AsyncReverseClient,
    ClientError,
    DeadlineExceeded,
    Disconnected,
    EncodeError,
    UsageError,
)
from capnp_rig.client.reverse import MESSAGE_STREAM
from capnp_rig.wire.rpc.connection import Called
from capnp_rig.wire.rpc.message_encoder import encode_abort, encode_finish
from capnp_rig.wire.rpc.messages import RemoteError as WireRemoteError
from capnp_rig.wire.rpc.server_connection import ServerConnection

READ = MESSAGE_STREAM.methods["read"]


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop()
    yield loop
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.settle()
    assert loop.faults == []
    loop.close()


class Echo:
    """A server that answers when told to, with what it was asked."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.wire = ServerConnection()
        self.asked: list[tuple[int, str]] = []
        self.client, self.transport = connect_fake(loop, self.take)
        self.protocol = self.client._protocol
        loop.settle()

    def take(self, data: bytes) -> None:
        for event in self.wire.receive_data(data):
            if isinstance(event, Called):
                text = READ.params.open(event.params).request.content
                self.asked.append((event.question_id, text))

    def answer(self) -> None:
        """Answer all that was asked, in one read of the client's."""
        for question_id, text in self.asked:
            self.wire.send_results(question_id, READ.results.pack({"chunk": text.encode()}))
        self.asked.clear()
        self.protocol.data_received(self.wire.data_to_send())


@pytest.fixture
def echo(loop: VirtualLoop) -> Echo:
    return Echo(loop)


async def outcome(call: Any) -> Any:
    try:
        return await call
    except (ClientError, ValueError) as error:
        return error


def test_an_id_that_is_another_tasks_by_now_is_left_alone(loop: VirtualLoop, echo: Echo) -> None:
    """Both are answered in one read; the first to run asks again, under the other's old id."""
    results: dict[str, list[bytes]] = {"a": [], "b": []}
    asked_ids = []

    async def ask(name: str) -> None:
        for number in range(5):
            results[name].append(await echo.client.read(f"{name}{number}"))

    tasks = [loop.create_task(ask(name)) for name in results]
    for _ in range(5):
        loop.settle()
        asked_ids.append([question_id for question_id, _ in echo.asked])
        echo.answer()
    loop.settle()
    # The premise: an id goes from task to task, before the first one's call has returned.
    assert asked_ids[0] != asked_ids[1]
    assert sorted(asked_ids[0]) == sorted(asked_ids[1])
    assert all(task.done() for task in tasks)
    for name, got in results.items():
        assert got == [f"{name}{number}".encode() for number in range(5)]


def test_two_hundred_tasks_that_share_a_connection_lose_no_call(
    loop: VirtualLoop, echo: Echo
) -> None:
    async def ask(name: int) -> list[bytes]:
        return [await echo.client.read(f"{name}.{number}") for number in range(5)]

    tasks = [loop.create_task(ask(name)) for name in range(200)]
    for _ in range(5):
        loop.settle()
        echo.answer()
    loop.settle()
    for name, task in enumerate(tasks):
        assert task.result() == [f"{name}.{number}".encode() for number in range(5)]


# --- ends -------------------------------------------------------------------------------


def by_eof(echo: Echo) -> None:
    echo.protocol.eof_received()
    echo.transport.close()


def by_abort(echo: Echo) -> None:
    echo.protocol.data_received(encode_abort(WireRemoteError("go")))


def by_reset(echo: Echo) -> None:
    echo.transport.fail(ConnectionResetError(104, "Connection reset by peer"))


ENDS = [by_eof, by_abort, by_reset]


@pytest.mark.parametrize("end", ENDS)
def test_a_call_that_waits_to_be_sent_ends_with_the_connection(
    loop: VirtualLoop, echo: Echo, end: Callable[[Echo], None]
) -> None:
    echo.transport.is_stalled = True
    sent = loop.create_task(outcome(echo.client.read("sent")))
    loop.settle()
    waiting = [loop.create_task(outcome(echo.client.read("waiting"))) for _ in range(3)]
    loop.settle()
    assert len(echo.protocol._unsent) == 3
    end(echo)
    loop.settle()
    errors = [task.result() for task in (sent, *waiting)]
    assert {type(error) for error in errors} == {Disconnected}
    assert len({id(error) for error in errors}) == 4
    assert (echo.protocol._unsent, echo.protocol._caller._waiting) == ({}, {})


def test_the_deadline_covers_the_wait_for_a_server_that_reads(
    loop: VirtualLoop, echo: Echo
) -> None:
    echo.transport.is_stalled = True
    loop.create_task(outcome(echo.client.read("sent", timeout_s=9)))
    loop.settle()
    late = loop.create_task(outcome(echo.client.read("late", timeout_s=1)))
    early = loop.create_task(outcome(echo.client.read("early", timeout_s=9)))
    loop.advance(1.0)
    assert isinstance(late.result(), DeadlineExceeded)
    assert loop.time() == 1.0
    echo.transport.resume()
    loop.settle()
    assert [text for _, text in echo.asked] == ["sent", "early"]
    echo.answer()
    loop.settle()
    assert early.result() == b"early"


def test_those_who_waited_leave_one_by_one(loop: VirtualLoop, echo: Echo) -> None:
    echo.transport.is_stalled = True
    loop.create_task(outcome(echo.client.read("first")))
    loop.settle()
    for number in range(5):
        loop.create_task(outcome(echo.client.read(f"waiting {number}")))
    loop.settle()
    # It reads what was sent, and stops again.
    echo.transport.resume()
    echo.transport.is_stalled = True
    loop.settle()
    assert len(echo.protocol._unsent) == 4
    echo.transport.resume()
    loop.settle()
    assert [text for _, text in echo.asked] == ["first", *(f"waiting {n}" for n in range(5))]


def test_close_ends_in_time_where_the_server_does_not_read(loop: VirtualLoop, echo: Echo) -> None:
    echo.transport.is_stalled = True
    call = loop.create_task(outcome(echo.client.read("sent")))
    loop.settle()
    closing = loop.create_task(echo.client.close())
    again = loop.create_task(echo.client.close())
    loop.settle()
    # The call at once, the socket when it has had its time.
    assert isinstance(call.result(), Disconnected)
    assert not closing.done()
    loop.advance(1.0)
    assert closing.done()
    assert again.done()
    assert loop.timers() == []


def test_a_cancelled_close_leaves_another_one_unhurt(loop: VirtualLoop, echo: Echo) -> None:
    echo.transport.is_stalled = True
    loop.create_task(outcome(echo.client.read("sent")))
    loop.settle()
    first = loop.create_task(echo.client.close())
    loop.settle()
    first.cancel()
    second = loop.create_task(echo.client.close())
    loop.advance(1.0)
    assert first.cancelled()
    assert second.result() is None


def test_what_had_come_before_a_write_failed_is_taken(loop: VirtualLoop, echo: Echo) -> None:
    answered = loop.create_task(outcome(echo.client.read("answered")))
    lost = loop.create_task(outcome(echo.client.read("lost")))
    loop.settle()
    echo.asked.pop()
    echo.protocol.data_received(echo.wire.data_to_send())
    (question_id, text), *_ = echo.asked
    echo.wire.send_results(question_id, READ.results.pack({"chunk": text.encode()}))
    echo.transport.socket.rest = echo.wire.data_to_send()
    echo.transport.fail(BrokenPipeError(32, "Broken pipe"))
    loop.settle()
    assert answered.result() == b"answered"
    assert str(lost.result()) == "the connection was lost: Broken pipe"


def test_an_ended_connection_costs_nothing_however_often_it_is_called(
    loop: VirtualLoop, echo: Echo
) -> None:
    by_abort(echo)
    loop.settle()

    async def call(count: int) -> int:
        depth = 0
        for _ in range(count):
            error = await outcome(echo.client.read("x"))
            assert type(error) is Disconnected
            trace, depth = error.__traceback__, 0
            while trace is not None:
                trace, depth = trace.tb_next, depth + 1
        return depth

    first = loop.run_until_complete(call(10))
    tracemalloc.start()
    try:
        loop.run_until_complete(call(100))
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        assert loop.run_until_complete(call(10_000)) == first
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 50_000
    assert not echo.client.is_open


def test_a_failed_call_leaves_no_cycle(loop: VirtualLoop, echo: Echo) -> None:
    async def call() -> None:
        with pytest.raises(DeadlineExceeded):
            await echo.client.call("read", {"request": {"content": "x"}}, timeout_s=1)

    def living() -> int:
        return sum(isinstance(each, DeadlineExceeded) for each in gc.get_objects())

    loop.run_until_complete(call())
    gc.collect()
    gc.disable()
    try:
        # Other tests of the process may keep some.
        before = living()
        loop.run_until_complete(call())
        loop.settle()
        assert living() == before
    finally:
        gc.enable()


# --- a server that never stops sending ---------------------------------------------------


def test_f9_a_read_that_takes_long_gives_the_loop_its_turn(loop: VirtualLoop, echo: Echo) -> None:
    ignored = encode_finish(77)
    echo.protocol.data_received(ignored)
    assert echo.transport.reading == []
    echo.protocol.data_received(ignored * 50_000)
    assert echo.transport.reading == ["paused"]
    loop.settle()
    assert echo.transport.reading == ["paused", "resumed"]
    echo.transport.close()
    echo.protocol.data_received(ignored * 50_000)
    loop.settle()
    assert echo.transport.reading == ["paused", "resumed"]


# --- arguments --------------------------------------------------------------------------


def test_a_call_that_cannot_start_leaves_nothing_behind(loop: VirtualLoop, echo: Echo) -> None:
    async def fail() -> list[Any]:
        return [
            await outcome(echo.client.read("\ud800")),
            await outcome(echo.client.read("x" * 5_000_000)),
            await outcome(echo.client.read("x", timeout_s=float("inf"))),
            await outcome(echo.client.read("x", timeout_s=float("nan"))),
            await outcome(echo.client.read("x", timeout_s=1e300)),
            await outcome(echo.client.read("x", timeout_s="1")),  # type: ignore[arg-type]
            await outcome(echo.client.read("x", timeout_s=0)),
        ]

    kinds = [type(error) for error in loop.run_until_complete(fail())]
    assert kinds == [*[EncodeError] * 2, *[UsageError] * 4, DeadlineExceeded]
    assert (echo.protocol._caller._waiting, echo.protocol.session._methods) == ({}, {})
    assert loop.timers() == []
    fine = loop.create_task(echo.client.read("fine", timeout_s=365 * 86_400))
    loop.settle()
    echo.answer()
    assert loop.run_until_complete(fine) == b"fine"
    assert loop.timers() == []


@pytest.mark.parametrize("name", ["timeout_s", "connect_timeout_s"])
def test_connect_takes_no_odd_timeout(loop: VirtualLoop, name: str) -> None:
    with pytest.raises(UsageError):
        loop.run_until_complete(
            AsyncReverseClient.connect("127.0.0.1:1", **{name: float("nan")})  # type: ignore[arg-type]
        )


# --- cancellation -----------------------------------------------------------------------


@pytest.mark.parametrize("is_stalled", [False, True])
def test_f3_a_call_may_be_cancelled_at_every_turn(
    loop: VirtualLoop,
    is_stalled: bool,
) -> None:
    ends = set()
    for turns in range(8):
        echo = Echo(loop)
        other = loop.create_task(echo.client.read("other"))
        if is_stalled:
            echo.transport.is_stalled = True
            loop.settle()
        call = loop.create_task(echo.client.read("call"))
        for turn in range(turns):
            loop.turn()
            # An answer is on its way in the later rounds, so that it meets the cancel.
            if turn == 2:
                echo.transport.resume()
            if turn == 4:
                echo.answer()
        call.cancel()
        echo.transport.resume()
        loop.settle()
        echo.answer()
        loop.settle()
        assert other.result() == b"other"
        ends.add(call.cancelled())
        # The connection is as good as new, and nothing of the call is left.
        after = loop.create_task(echo.client.read("after"))
        loop.settle()
        echo.answer()
        loop.settle()
        assert after.result() == b"after"
        assert (echo.protocol._caller._waiting, echo.protocol._unsent) == ({}, {})
        assert echo.protocol._wire._questions == {}
        assert loop.timers() == []
    assert ends == {True, False}


@pytest.mark.parametrize("is_cancelled", [False, True], ids=["deadline", "cancel"])
def test_f4_a_late_answer_is_dropped_and_its_id_is_not_used_before(
    loop: VirtualLoop,
    echo: Echo,
    is_cancelled: bool,
) -> None:
    late = loop.create_task(outcome(echo.client.read("late", timeout_s=1)))
    loop.settle()
    ((late_id, _),) = echo.asked
    if is_cancelled:
        late.cancel()
    # Answered, but that is still under way when the client gives up.
    echo.wire.send_results(late_id, READ.results.pack({"chunk": b"late"}))
    under_way = echo.wire.data_to_send()
    echo.asked.clear()
    loop.advance(1.0)
    assert late.done()
    others = [loop.create_task(echo.client.read(f"other {n}")) for n in range(3)]
    loop.settle()
    assert late_id not in [question_id for question_id, _ in echo.asked]
    echo.protocol.data_received(under_way)
    loop.settle()
    assert not any(task.done() for task in others)
    echo.answer()
    loop.settle()
    assert [task.result() for task in others] == [b"other 0", b"other 1", b"other 2"]
    reused = loop.create_task(echo.client.read("reused"))
    loop.settle()
    echo.answer()
    assert loop.run_until_complete(reused) == b"reused"


def test_c14_results_that_are_kept_do_not_change(loop: VirtualLoop, echo: Echo) -> None:
    kept = []
    for number in range(50):
        text = f"{number} " * 500
        call = loop.create_task(echo.client.call("read", {"request": {"content": text}}))
        loop.settle()
        question_id, _ = echo.asked.pop()
        echo.wire.send_results(question_id, READ.results.pack({"chunk": text.encode()}))
        data = echo.wire.data_to_send()
        # Some in one piece, some in three.
        for part in [data] if number % 2 else [data[:9], data[9:300], data[300:]]:
            echo.protocol.data_received(part)
        kept.append((text.encode(), loop.run_until_complete(call)))
    for text, results in kept:
        assert bytes(results.chunk) == text


def test_tasks_are_collected(loop: VirtualLoop, echo: Echo) -> None:
    call = loop.create_task(echo.client.read("x"))
    loop.settle()
    echo.answer()
    loop.run_until_complete(call)
    loop.run_until_complete(echo.client.close())
    assert asyncio.all_tasks(loop) == set()
    assert loop.timers() == []

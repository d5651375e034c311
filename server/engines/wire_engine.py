"""The default engine: `wire` on plain bytes, for services that pass no capabilities.

The whole path of a call is `_Connection.buffer_updated`: bytes arrive in the one receive
buffer that all connections of the worker share, each complete message is answered where
it lies, and all answers of one read leave in one write. A plain method runs inline: its
params are views into the shared buffer, valid until it returns. An async method gets a
copy of its message and a task.

What bounds a connection: a batch of calls stops after `Limits.inline_calls`, to let others
have their turn, and after `Limits.inline_words` of results. Nothing more is decoded or read
while `_WRITE_LIMIT` bytes of answers wait for the peer, which is cut off when it reads none
of them for `_STALL_LIMIT_S` or when running calls bring them to `_UNREAD_LIMIT`; nor while
the params of running async calls hold `_PARAMS_LIMIT` bytes.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from server.call_stamp import CONNECTION, READS, Stamp, no_stamp, stamped
from server.engines import Engine, OnEnd
from server.engines.hang_up import has_hung_up
from server.engines.peer_errors import explain
from server.log import Log
from server.service import Results, bind_methods
from wire.connection import Answers, Called, Cancelled, Ended
from wire.encoding import EMPTY_STRUCT, EncodedTuple
from wire.errors import EncodeError, RemoteProtocolError
from wire.interfaces import Method, compile_interface
from wire.messages import ExceptionType, RemoteError
from wire.pointers import Buffer, StructTuple, own
from wire.server_connection import ServerConnection

# As large as Linux lets a default TCP receive buffer become useful in one read.
_RECEIVE_BYTES = 262_144
_WRITE_LIMIT = 1_048_576
_STALL_LIMIT_S = 10.0
# What calls that run already may add to what is unread; Redis cuts its subscribers off there.
_UNREAD_LIMIT = 33_554_432
# An answer so large leaves at once, so that many do not wait for each other in memory.
_LARGE_WORDS = 8_192
_PARAMS_LIMIT = 8_388_608
# Against rapid resets (CVE-2023-44487). A Finish that comes after the answer does not count.
_MAX_CANCELS_PER_S = 500
_DRAIN_POLL_S = 0.005

_TASKS_LIMIT = 4096
_OVERLOADED = RemoteError(
    f"more than {_TASKS_LIMIT} calls in flight on this worker", ExceptionType.OVERLOADED
)
_CANCELLED = RemoteError("the call was cancelled")
Inline = Callable[[StructTuple | None], EncodedTuple | RemoteError]

_SHUTTING_DOWN = RemoteError(
    "the server is shutting down: this call was not started", ExceptionType.OVERLOADED
)


@asynccontextmanager
async def open_wire_engine(
    service: Any,  # noqa: ANN401 - services are anyone's classes
    log: Log,
    *,
    debug: bool,
    stamp: Stamp,
) -> AsyncIterator[Engine]:
    """Serve `service` on the running event loop."""
    if debug and hasattr(service, "note"):
        service.note = log.debug
    engine = _WireEngine(service, log)
    engine.stamp = stamp
    yield engine


class _AsyncMethod:
    """An async method of the service with the codecs of its params and results."""

    __slots__ = ("call", "name", "open_params", "pack_results")

    def __init__(self, method: Method, call: Callable[[Any], Any]) -> None:
        self.name = method.name
        self.call = call
        self.open_params = method.params.open
        self.pack_results = method.results.pack


def _inline(method: Method, call: Callable[[Any], Results], log: Log) -> Inline:
    """Return a plain method as `wire` calls it on the spot."""
    view, pack = method.params.view, method.results.pack
    open_params = method.params.open

    def answer(params: StructTuple | None) -> EncodedTuple | RemoteError:
        try:
            # `open_params`, spelled out for all but null params: a call less in every call.
            results = call(open_params(None) if params is None else view(params))
            return EMPTY_STRUCT if results is None else pack(results)
        except Exception as error:  # noqa: BLE001 - the boundary: no exception reaches a peer
            return RemoteError(explain(method.name, error, log))

    return answer


class _WireEngine:
    def __init__(self, service: Any, log: Log) -> None:  # noqa: ANN401
        interface = compile_interface(service.interface)
        self.stamp = no_stamp()
        self.log = log
        self.draining = False
        # Async calls that run now, over all connections.
        self.tasks = 0
        self.receive_buffer = memoryview(bytearray(_RECEIVE_BYTES))
        self.inline: dict[tuple[int, int], Inline] = {}
        self.async_methods: dict[tuple[int, int], _AsyncMethod] = {}
        for bound in bind_methods(service):
            method = interface.methods[bound.name]
            key = (method.interface_id, method.method_id)
            if bound.is_async:
                self.async_methods[key] = _AsyncMethod(method, bound.call)
            else:
                self.inline[key] = _inline(method, cast("Any", bound.call), log)
        keys = self.inline.keys() | self.async_methods.keys()
        self._interface_ids = {interface.id} | {interface_id for interface_id, _ in keys}
        self.connections: set[_Connection] = set()

    @property
    def unfinished(self) -> int:
        return sum(max(connection.calls_in_flight, 1) for connection in self.connections)

    def protocol(self, on_end: OnEnd, connection: int = 0) -> asyncio.BaseProtocol:
        return _Connection(self, on_end, connection)

    def refusal(self, called: Called) -> RemoteError:
        """Return why a call is not run."""
        if self.draining:
            return _SHUTTING_DOWN
        if (called.interface_id, called.method_id) in self.async_methods:
            return _OVERLOADED
        what = "method" if called.interface_id in self._interface_ids else "interface"
        return RemoteError(f"this {what} is not implemented", ExceptionType.UNIMPLEMENTED)

    async def heartbeat(self) -> None:
        # The loop itself is the machinery: that this runs is the sign of life.
        await asyncio.sleep(0)

    async def drain(self) -> None:
        # Bytes that are here already have been read when the loop has gone round once.
        await asyncio.sleep(0)
        self.draining = True
        # So that these calls come as events too, and are refused.
        self.inline.clear()
        await asyncio.gather(*(connection.finish() for connection in tuple(self.connections)))


class _Connection(asyncio.BufferedProtocol):
    """One connection: bytes, calls, tasks, and its end."""

    def __init__(self, engine: _WireEngine, on_end: OnEnd, number: int = 0) -> None:
        self._engine = engine
        self._on_end = on_end
        self._buffer = engine.receive_buffer
        self._wire = ServerConnection()
        self._loop = asyncio.get_running_loop()
        self._stamp, self._number, self._reads = engine.stamp, number, 0
        self._transport: asyncio.Transport
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._params_bytes = 0
        self._cancels = CancelMeter()
        # The peer does not read: what was received stays undecoded, and nothing more is read.
        self._unwritable = False
        self._paused = False
        # Since the stall timer was started.
        self._added_bytes = 0
        self._flush_scheduled = False
        self._fault: str | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._is_over = False
        self._over: asyncio.Future[None] | None = None

    @property
    def calls_in_flight(self) -> int:
        """The calls whose methods have not ended."""
        return self._wire.calls_in_flight

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_LIMIT)
        self._engine.connections.add(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._serve(self._buffer[:nbytes])

    def eof_received(self) -> None:
        # A peer that closed and one that only ended its half look the same here. Both are
        # taken as gone, as pycapnp does: what was answered still leaves, running calls are
        # cancelled. The transport closes itself.
        for event in self._wire.receive_eof():
            self._note_end(event)

    def pause_writing(self) -> None:
        self._unwritable = True
        self._watch_for_stall()

    def resume_writing(self) -> None:
        self._unwritable = False
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        self._continue_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        self._engine.connections.discard(self)
        for task in self._tasks.values():
            task.cancel()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        self._is_over = True
        if self._over is not None:
            self._over.set_result(None)
        if exc is not None and self._fault is None:
            self._fault = exc.strerror if isinstance(exc, OSError) else "broken"
        self._on_end(self._fault)

    # --- the path of a call

    def _serve(self, data: Buffer) -> None:
        stamp = self._stamp
        stamp[CONNECTION] = self._number
        stamp[READS] = self._reads = self._reads + 1
        events = self._wire.events(data, self._engine.inline)
        for event in events:
            if type(event) is Called:
                self._run(event)
                if self._params_bytes > _PARAMS_LIMIT:
                    break
            elif type(event) is Answers:
                break
            elif type(event) is Cancelled:
                self._cancel(event.question_id)
            elif type(event) is Ended:
                self._end(event)
        else:
            stamp[CONNECTION] = 0
            self._flush()
            if self._unwritable:
                self._pause()
            return
        stamp[CONNECTION] = 0
        # What is not decoded yet stays with `_wire`.
        events.close()
        self._flush()
        self._pause()
        self._continue_soon()

    def _run(self, called: Called) -> None:
        """Start the task of an async method, or refuse the call."""
        method = self._engine.async_methods.get((called.interface_id, called.method_id))
        if method is None or self._engine.draining or self._engine.tasks >= _TASKS_LIMIT:
            self._wire.send_exception(called.question_id, self._engine.refusal(called))
        else:
            self._start(method, called)

    def _answer(self, method: _AsyncMethod, question_id: int, results: Results) -> None:
        body = EMPTY_STRUCT if results is None else method.pack_results(results)
        try:
            self._wire.send_results(question_id, body)
        except EncodeError as error:
            self._wire.send_exception(question_id, RemoteError(str(error)))
        if body[2] > _LARGE_WORDS:
            self._send_answers()

    def _fail(self, method: _AsyncMethod, question_id: int, error: Exception) -> None:
        text = explain(method.name, error, self._engine.log)
        self._wire.send_exception(question_id, RemoteError(text))

    def _flush(self) -> None:
        data = self._wire.data_to_send()
        if data:
            # First, for the write may start the stall timer, which counts from there.
            self._added_bytes += len(data)
            self._transport.write(data)

    # --- async methods

    def _start(self, method: _AsyncMethod, called: Called) -> None:
        question_id, params = called.question_id, called.params
        size = 0
        if params is not None:
            params = own(params)
            size = len(params[0].buffer)
        self._params_bytes += size
        self._engine.tasks += 1
        task = self._loop.create_task(self._run_task(method, question_id, params))
        self._tasks[question_id] = task
        task.add_done_callback(lambda task: self._task_done(task, question_id, size))

    async def _run_task(
        self, method: _AsyncMethod, question_id: int, params: StructTuple | None
    ) -> None:
        try:
            work = method.call(method.open_params(params))
            results = await stamped(work, self._stamp, self._number, self._reads)
            self._answer(method, question_id, results)
        except Exception as error:  # noqa: BLE001 - the boundary, as in `_inline`
            self._fail(method, question_id, error)

    def _task_done(self, task: asyncio.Task[None], question_id: int, size: int) -> None:
        # A peer that asks again before it was answered has put another task in this place.
        if self._tasks[question_id] is task:
            del self._tasks[question_id]
        self._params_bytes -= size
        if task.cancelled():
            # By a Finish or the end of the connection; nobody is told anything but that it
            # is over. Not in the task: one that is cancelled before its first step never runs.
            self._wire.send_exception(question_id, _CANCELLED)
        # The answers of all tasks that end in this turn leave in one write.
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush_answers)

    def _flush_answers(self) -> None:
        self._flush_scheduled = False
        self._send_answers()
        self._continue_soon()

    def _send_answers(self) -> None:
        if self._transport.is_closing():
            return
        self._flush()
        if self._transport.get_write_buffer_size() > _UNREAD_LIMIT:
            self._fault = f"the peer left {_UNREAD_LIMIT >> 20} MiB of its replies unread"
            self._transport.abort()

    def _cancel(self, question_id: int) -> None:
        task = self._tasks.get(question_id)
        if task is not None:
            task.cancel()
        if self._cancels.over_limit(self._loop.time()):
            self._end(self._wire.abort("too many calls were cancelled right after their start"))

    # --- back pressure

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _continue_soon(self) -> None:
        if self._paused:
            self._loop.call_soon(self._continue)

    def _continue(self) -> None:
        """Go on where a batch stopped, unless what stopped it still holds."""
        if not self._paused or self._unwritable or self._transport.is_closing():
            return
        if self._params_bytes > _PARAMS_LIMIT:
            return
        self._paused = False
        self._serve(b"")
        if not self._paused:
            self._transport.resume_reading()

    def _watch_for_stall(self) -> None:
        self._added_bytes = 0
        waiting = self._transport.get_write_buffer_size()
        self._stall_timer = self._loop.call_later(_STALL_LIMIT_S, self._check_stall, waiting)

    def _check_stall(self, waiting_before: int) -> None:
        # Answers of calls that ran already may have come on top of what waits.
        if self._transport.get_write_buffer_size() < waiting_before + self._added_bytes:
            self._watch_for_stall()
            return
        self._fault = f"the peer read none of its replies for {_STALL_LIMIT_S:g} s"
        self._transport.abort()

    # --- the end

    def _note_end(self, ended: Ended) -> None:
        if isinstance(ended.error, RemoteProtocolError):
            self._fault = f"protocol error: {ended.error}"
        elif ended.error is not None:
            self._fault = f"the peer aborted: {ended.error.reason[:200]}"

    def _end(self, ended: Ended) -> None:
        self._note_end(ended)
        self._flush()
        self._transport.close()

    async def finish(self) -> None:
        """Deliver the replies of the calls in flight, then close."""
        # Polled: it happens once in a connection's life, and three things can end the wait.
        while (self._tasks or self._paused) and not self._transport.is_closing():
            await asyncio.sleep(_DRAIN_POLL_S)
            if self._paused and has_hung_up(self._transport):
                self._transport.abort()
        if self._is_over:
            return
        self._over = self._loop.create_future()
        # Closing sends what waits first.
        self._flush()
        self._transport.close()
        await self._over


class CancelMeter:
    """Tells a peer that cancels most of what it starts, which costs it less than it costs us."""

    def __init__(self) -> None:
        self._window_start_s = 0.0
        self._cancels = 0

    def over_limit(self, now_s: float) -> bool:
        """Count one cancelled call; return whether there were too many in this second."""
        if now_s - self._window_start_s > 1.0:
            self._window_start_s = now_s
            self._cancels = 0
        self._cancels += 1
        return self._cancels > _MAX_CANCELS_PER_S

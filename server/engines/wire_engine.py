"""The default engine: `wire` on plain bytes.

The whole path of a call is `_Connection.buffer_updated`: bytes arrive in the one receive
buffer that all connections of the worker share, each complete message is answered where
it lies, and all answers of one read leave in one write. Small reads of one turn of the loop are
served together (`_WireEngine.serve_received`). A plain method runs inline: the views
of its params expire when it returns, and Data that it took from them stays as it is
(`server.engines.receive_buffers`). An async method gets a copy of its message and a task.

What bounds a connection: a batch of calls stops after `Limits.inline_calls`, to let others
have their turn, and after `Limits.inline_words` of results. Nothing more is decoded or read
while `WRITE_LIMIT_BYTES` bytes of answers wait for the peer, which is cut off when it reads none
of them for `STALL_LIMIT_S` or when running calls bring them to `unread_limit_bytes`; nor while
the params of running async calls hold `Limits.max_params_bytes` bytes.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from operator import attrgetter
from resource import RUSAGE_SELF, getrusage
from threading import get_ident
from time import monotonic
from typing import Any, cast

from capnp_rig.objects.async_calls import AsyncCalls, RunningCall
from capnp_rig.objects.binding import BoundMethod
from capnp_rig.objects.call_context import CURRENT, INLINE, CallContext
from capnp_rig.objects.closing import Closing
from capnp_rig.objects.peer import Peer
from capnp_rig.objects.serving import Served, Serving
from capnp_rig.server.config import ConnectionLimits
from capnp_rig.server.connections.limits import (
    SKIP_LIMIT_S,
    SKIPPED_TOO_LONG,
    STALL_LIMIT_S,
    WRITE_LIMIT_BYTES,
    unread_limit_bytes,
)
from capnp_rig.server.connections.lingering import Linger, has_hung_up, is_settled, taken_bytes
from capnp_rig.server.connections.sweeper import LoopSweeper
from capnp_rig.server.connections.time_limits import Overdue, Progress
from capnp_rig.server.control.call_stamp import MARK, MAX_READS, RUNNING, Stamp, mark_of
from capnp_rig.server.engines.call_counts import CallCounts
from capnp_rig.server.engines.call_site import CallSite, WorkerPlace
from capnp_rig.server.engines.early_cancels import EarlyCancels
from capnp_rig.server.engines.engine import (
    CALLS_WITH_STREAMS,
    PARAMS_FULL,
    SHUTTING_DOWN,
    Engine,
    OnEnd,
    Traffic,
    connection_full,
    end_reason,
    wire_limits,
    worker_full,
)
from capnp_rig.server.engines.method_stamps import MethodStamps
from capnp_rig.server.engines.peer_errors import explain
from capnp_rig.server.engines.receive_buffers import ReceiveBuffers
from capnp_rig.server.logs.log import Log
from capnp_rig.wire.encoding.pointers import Buffer
from capnp_rig.wire.errors import RemoteProtocolError
from capnp_rig.wire.rpc.connection import Answers, Called, Cancelled, Ended, Oversized
from capnp_rig.wire.rpc.messages import ExceptionType, RemoteError
from capnp_rig.wire.rpc.server_connection import MAIN, ServerConnection

# An answer so large leaves at once, so that many do not wait for each other in memory.
_LARGE_WORDS = 8_192
# Small reads, of a few calls each, are gathered, so that a turn of the loop is all reads, then all
# calls, then all writes: with 64 connections and a call in flight each, a call takes
# 38 instead of 52 us of CPU. An answer waits so long at most, and for one call of another.
_GATHERED_BYTES = 1_024
_GATHER_S = 500e-6
# A read that comes alone in its turn gains nothing: after it so many are served at once. So are
# those after a call that others waited for so long: there may be more like it.
_LONE_READS = 16
_SLOW_S, _READS_AFTER_SLOW = 1e-3, 1_000
# A stream waits instead of being refused, for its client counts bytes: of C++'s smallest messages
# 546 fill its window. So that whoever waits for a callback, or for another call of the same
# connection, is not stopped, they may all be here, well below `Limits.max_answers`; in a busy
# worker fewer, as each has a task.
_STREAM_CALLS, _BUSY_STREAM_CALLS = 640, 32
_DRAIN_POLL_S = 0.005
# Of a connection that is too old, until its calls have ended.
_RETIRE_POLL_S = 0.05


@asynccontextmanager
async def open_wire_engine(
    service: Any,
    log: Log,
    stamp: Stamp,
    limits: ConnectionLimits,
    place: WorkerPlace | None = None,
    *,
    counts_calls: bool = False,
) -> AsyncIterator[Engine]:
    """Serve `service` on the running event loop."""
    yield _WireEngine(service, log, stamp, limits, place, counts_calls=counts_calls)


class _WireEngine:
    def __init__(
        self,
        service: Any,
        log: Log,
        stamp: Stamp,
        limits: ConnectionLimits,
        place: WorkerPlace | None = None,
        *,
        counts_calls: bool = False,
    ) -> None:
        self.service = service
        self.stamp = stamp
        self.limits = limits
        self.wire_limits = wire_limits(limits)
        self.unread_limit_bytes = unread_limit_bytes(limits)
        self.sweeper = LoopSweeper(limits)
        self.place = place or WorkerPlace()
        INLINE.thread = get_ident()
        self.log = log
        self.draining = False
        # Async calls that run now, over all connections; each leaves as it ends.
        self.tasks: set[asyncio.Task[Any]] = set()
        self.closing = Closing(self.explain)
        self.buffers = ReceiveBuffers(log)
        self.stamps = MethodStamps(stamp)
        self.counts = CallCounts(self.stamps) if counts_calls else None
        # Of connections that are over.
        self._traffic = Traffic()
        self.serving = Serving(
            self.explain,
            self.closing.close,
            boundary=BaseException,
            instrument=self._instrumented,
            count=None if self.counts is None else self.counts.counted,
            inline=INLINE,
            frame_limits=self.wire_limits.frame,
        )
        # The worker has it as long as it lives: a method may return it, and a client give it back.
        self.serving.references.add(service)
        # As it is served on every connection, unless it passes capabilities or has streams.
        self.shared = self.serving.shared(service)
        if self.shared is not None:
            self.offering_traces(self.shared)
        self.connections: set[_Connection] = set()
        # What came with small reads and is not served yet; how many reads do not go there.
        self.received: list[tuple[_Connection, Buffer]] = []
        self.lone_reads = 0
        self._preemptions = 0

    @property
    def unfinished(self) -> int:
        return sum(connection.unfinished for connection in self.connections)

    def _instrumented(self, bound: BoundMethod) -> BoundMethod:
        watched, traces = self.stamps.watched(bound), self.place.traces
        return watched if traces is None else traces.traced(watched)

    def offering_traces(self, main: Served) -> Served:
        """Return the bootstrap object; clients may announce traces to it, if the server traces."""
        if self.place.traces is not None:
            main.inline.update(self.place.traces.announcing)
        return main

    def protocol(self, on_end: OnEnd, connection: int = 0) -> asyncio.BaseProtocol:
        return _Connection(self, on_end, connection)

    def explain(self, method: str, error: BaseException) -> str:
        return explain(method, error, self.log)

    def traffic(self) -> Traffic:
        """Return what all connections received and sent so far."""
        # 1 ms for 10,000 connections.
        every = self.connections
        sums = (sum(map(of_each, every)) for of_each in _TRAFFIC)
        return self._traffic + Traffic(*sums)

    def hit(self, limit: str, label: str | None = None) -> None:
        """Count what a limit refused or ended, for the metrics."""
        if self.counts is not None:
            self.counts.refused(limit, label)

    def leave(self, connection: "_Connection") -> None:
        self.connections.discard(connection)
        self._traffic += connection.traffic
        self.sweeper.discard(connection)

    def refusal(self, called: Called, served: Served) -> RemoteError:
        if self.draining:
            return SHUTTING_DOWN
        what = "method" if served.knows(called.interface_id) else "interface"
        return RemoteError(f"this {what} is not implemented", ExceptionType.UNIMPLEMENTED)

    def serve_received(self) -> None:
        """Serve what was gathered, then write the answers."""
        received, self.received = self.received, []
        if len(received) == 1:
            self.lone_reads = _LONE_READS
        unwritten, due_s = [], monotonic() + _GATHER_S
        for connection, data in received:
            try:
                connection.serve(data)
            # As from `buffer_updated`: a fault of ours ends its own connection.
            except Exception as error:  # noqa: BLE001
                connection.fail(error)
            unwritten.append(connection)
            now_s = monotonic()
            if now_s > due_s:
                for served in unwritten:
                    served.flush()
                if now_s - due_s > _SLOW_S and not self._was_preempted():
                    self.lone_reads = _READS_AFTER_SLOW
                unwritten, due_s = [], monotonic() + _GATHER_S
        for served in unwritten:
            served.flush()

    def _was_preempted(self) -> bool:
        """Return whether other processes may have had the CPU since this was last asked."""
        before, self._preemptions = self._preemptions, getrusage(RUSAGE_SELF).ru_nivcsw
        return self._preemptions != before

    async def heartbeat(self) -> None:
        # The loop itself is the machinery: that this runs is the sign of life.
        await asyncio.sleep(0)

    async def drain(self) -> None:
        # Bytes that are here already have been read when the loop has gone round once.
        await asyncio.sleep(0)
        self.serve_received()
        self.draining = True
        connections = tuple(self.connections)
        for connection in connections:
            connection.stop_inline()
        await asyncio.gather(*(connection.finish() for connection in connections))
        await self.closing.finish()


_TRAFFIC = tuple(map(attrgetter, ("_received_bytes", "_written_bytes", "_wire.overloads")))


class _Connection(asyncio.BufferedProtocol):
    """One connection: bytes, calls, tasks, and its end."""

    def __init__(self, engine: _WireEngine, on_end: OnEnd, number: int = 0) -> None:
        self._engine = engine
        self._on_end = on_end
        self._buffers = engine.buffers
        self._wire = ServerConnection(engine.wire_limits)
        self._peer: Peer | None = None
        self._main = engine.shared or engine.offering_traces(
            self._open_peer().session.serve_bootstrap(engine.service)
        )
        self._loop = asyncio.get_running_loop()
        self._stamp, self._number, self._reads = engine.stamp, number, 0
        self._mark = 0
        self._transport: asyncio.Transport
        self._site: CallSite | None = None
        # Only where there are some: it refers to this, and would leave that to the collector.
        self._calls: AsyncCalls | None = None
        self._cancels = EarlyCancels()
        # Inline calls that `_cancels` knows of.
        self._counted = 0
        # The peer does not read: what was received stays undecoded, and nothing more is read.
        self._unwritable = False
        self._paused = False
        # It is too old, and reads no more calls.
        self._is_retiring = False
        # The one thing that the time limits cost a read.
        self._received_bytes = 0
        self._written_bytes = 0
        self._flush_scheduled = False
        # Calls in flight of objects with streams.
        self._stream_calls = 0
        self._fault: str | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        # While the rest of a message over the limit is dropped.
        self._skip_timer: asyncio.TimerHandle | None = None
        # Since we broke off the connection, or drained it.
        self._linger: Linger | None = None
        self._is_broken_off = False
        self._is_over = False
        self._over: asyncio.Future[None] | None = None

    @property
    def calls_in_flight(self) -> int:
        return self._wire.calls_in_flight

    @property
    def traffic(self) -> Traffic:
        """What was received and sent so far."""
        return Traffic(self._received_bytes, self._written_bytes, self._wire.overloads)

    @property
    def runs_calls(self) -> bool:
        """Whether an async call runs."""
        return self._calls is not None and bool(self._calls.running)

    @property
    def unfinished(self) -> int:
        """The calls in flight, but one for answers that may wait, and none once broken off."""
        if self._linger is None:
            return max(self.calls_in_flight, 1)
        return 0 if self._is_broken_off or not self._transport.get_write_buffer_size() else 1

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_LIMIT_BYTES)
        if not self._transport.can_write_eof():
            # TLS. It does not refer to this, which would leave us to the collector.
            self.get_buffer = self._buffers.view  # type: ignore[method-assign, assignment]
        self._engine.connections.add(self)
        self._engine.sweeper.watch(self)

    def get_buffer(self, sizehint: int) -> bytearray:
        buffers = self._buffers
        return buffers.current if buffers.is_free else buffers.room()

    def buffer_updated(self, nbytes: int) -> None:
        engine = self._engine
        self._received_bytes += nbytes
        if engine.lone_reads:
            engine.lone_reads -= 1
        elif nbytes <= _GATHERED_BYTES:
            if not engine.received:
                self._loop.call_soon(engine.serve_received)
            engine.received.append((self, self._buffers.current[:nbytes]))
            return
        elif engine.received:
            engine.serve_received()
        data = self._buffers.received(nbytes)
        self.serve(data)
        self.flush()
        if type(data) is memoryview:
            # Now: the traceback of an exception that somebody keeps would hold it longer.
            data.release()

    def eof_received(self) -> None:
        # A peer that closed and one that only ended its half look the same here. Both are
        # taken as gone, as pycapnp does: what was answered still leaves, running calls are
        # cancelled. The transport closes itself.
        self._engine.serve_received()
        if self._linger is not None:
            return
        for event in self._wire.receive_eof():
            if type(event) is Ended:
                self._note_end(event)
        self._leave()

    def pause_writing(self) -> None:
        self._unwritable = True
        self._watch_for_stall()

    def resume_writing(self) -> None:
        self._unwritable = False
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        self._continue_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        self._engine.leave(self)
        self._leave()
        # It refers to this.
        self._peer = None
        if self._site is not None:
            self._site.leave()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        if self._skip_timer is not None:
            self._skip_timer.cancel()
        if self._linger is not None:
            self._linger.over()
        self._is_over = True
        if self._over is not None:
            self._over.set_result(None)
        self._on_end(self._fault or end_reason(exc))

    # --- the path of a call

    def serve(self, data: Buffer) -> None:
        """Answer what `data` completes; the answers wait for `flush`."""
        if self._linger is not None:
            self._linger.drop(len(data))
            return
        if self._is_over:
            return
        stamp = self._stamp
        if self._reads < MAX_READS:
            self._reads += 1
            self._mark = mark_of(self._number, self._reads)
        stamp[MARK], INLINE.connection = self._mark, self
        events = self._wire.events(data, self._main.inline)
        for event in events:
            if type(event) is Called:
                self._run(event)
                if self._is_full:
                    break
            elif type(event) is Answers:
                break
            elif type(event) is Cancelled:
                self._cancel(event.question_id)
            elif type(event) is Ended:
                self._end(event)
            elif type(event) is Oversized:
                self._watch_skipping()
            else:
                self._open_peer().take(event)
        else:
            stamp[MARK], INLINE.connection = 0, None
            return
        stamp[MARK], INLINE.connection = 0, None
        # What is not decoded yet stays with `_wire`.
        events.close()
        self._flush()
        self._pause()
        self._continue_soon()

    def fail(self, error: Exception) -> None:
        """End the connection for a fault of ours."""
        self._stamp[MARK], INLINE.connection = 0, None
        self._fault = "internal error"
        context = {"message": "a read was not served", "exception": error}
        self._loop.call_exception_handler(context)
        self._transport.abort()

    def flush(self) -> None:
        """Write the answers; stop reading if the peer does not take them."""
        if self._is_over:
            return
        self._flush()
        if self._unwritable:
            self._pause()

    def _run(self, called: Called) -> None:
        """Start the task of an async method, or refuse the call."""
        engine = self._engine
        served: Served = self._main if called.target is MAIN else called.target
        method = served.async_methods.get((called.interface_id, called.method_id))
        limits, limit, refusal = engine.limits, "", None
        if len(engine.tasks) >= limits.max_worker_calls:
            limit, refusal = "worker-calls", worker_full(limits.max_worker_calls)
        elif self._has_many_params:
            limit, refusal = "params", PARAMS_FULL
        if served.order is not None:
            self._wire.allow_calls(max(CALLS_WITH_STREAMS, limits.max_in_flight))
        elif self.calls_in_flight - self._stream_calls > limits.max_in_flight:
            limit, refusal = "in-flight", connection_full(limits.max_in_flight)
        if method is None or engine.draining:
            limit = "draining" if engine.draining else "unimplemented"
            refusal = engine.refusal(called, served)
        if method is None or refusal is not None:
            assert refusal is not None
            engine.hit(limit, None if method is None else method.label)
            self._wire.take_note()
            self._wire.send_exception(called.question_id, refusal)
            return
        # Refused calls do not count: their Finish cancels nothing, and in a flood of calls with
        # their Finish the refusals would outweigh the cancels.
        self._cancels.count()
        if self._calls is None:
            self._calls = AsyncCalls(
                self._wire, engine.explain, self._answered, self._call_ended, self._around
            )
        call = self._calls.start(method, called, served.order)
        # It runs later.
        call.context = self.call_context()
        self._stream_calls += call.is_ordered
        engine.tasks.add(call.task)
        self._stamp[RUNNING] = len(engine.tasks)

    def _flush(self) -> None:
        wire = self._wire
        if wire.has_large:
            buffers = wire.buffers_to_send()
            self._written_bytes += sum(map(len, buffers))
            self._transport.writelines(buffers)
            return
        data = wire.data_to_send()
        if data:
            # First: the write may start the stall timer, which counts from there.
            self._written_bytes += len(data)
            self._transport.write(data)

    # --- async methods

    def call_context(self) -> CallContext:
        """Return a new context, for the call that `wire` hands out."""
        if self._site is None:
            engine = self._engine
            self._site = CallSite(engine.place, self._number, self._transport, engine.log)
        return CallContext(self._site, self._wire.take_note())

    def note_trace(self, note: tuple[str, str]) -> None:
        """Take note of the trace of the next call that comes."""
        self._wire.note_next(note)

    def _around(self, work: Coroutine[Any, Any, Any], call: RunningCall) -> Awaitable[Any]:
        CURRENT.set(call.context)
        return self._engine.stamps.stamped(work, self._mark)

    def _answered(self, words: int) -> None:
        if words > _LARGE_WORDS:
            self._send_answers()

    def _call_ended(self, call: RunningCall) -> None:
        self._engine.tasks.discard(call.task)
        self._stamp[RUNNING] = len(self._engine.tasks)
        self._stream_calls -= call.is_ordered
        if self._engine.counts is not None:
            self._engine.counts.ended(call, self._loop.time())
        self.flush_soon()

    def flush_soon(self) -> None:
        """Write what is to be sent, in one write with all that comes in this turn."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush_answers)

    def _flush_answers(self) -> None:
        self._flush_scheduled = False
        if self._wire.has_events and not self._paused:
            # Calls that waited for an answer, or the end of an object.
            self.serve(b"")
        self._send_answers()
        if self._wire.has_events and not self._paused:
            # What was sent has given back the last reference to an object.
            self.flush_soon()
        self._continue_soon()

    def _send_answers(self) -> None:
        if self._transport.is_closing():
            return
        self._flush()
        most_bytes = self._engine.unread_limit_bytes
        if self._transport.get_write_buffer_size() > most_bytes:
            self._engine.hit("unread")
            self._fault = f"the peer left {most_bytes >> 20} MiB of its replies unread"
            self._transport.abort()

    def _cancel(self, question_id: int) -> None:
        assert self._calls is not None
        call = self._calls.cancel(question_id)
        inline = self._wire.inline_calls
        self._cancels.count(inline - self._counted)
        self._counted = inline
        if self._cancels.cancelled(self._loop.time() - call.started_s):
            self._engine.hit("early-cancels")
            self._end(self._wire.abort("too many calls were cancelled right after their start"))

    def _leave(self) -> None:
        """End what runs, and what was passed, for this connection."""
        if self._calls is not None:
            self._calls.cancel_all()
        if self._peer is not None:
            self._peer.leave()

    # --- capabilities

    def _open_peer(self) -> Peer:
        if self._peer is None:
            self._peer = Peer(self._wire, self._engine.serving, self.flush_soon)
        return self._peer

    def stop_inline(self) -> None:
        """From now on calls come as events, and are refused."""
        self._main.inline.clear()
        if self._peer is not None:
            self._peer.session.stop_inline()

    # --- back pressure

    @property
    def _is_full(self) -> bool:
        """Whether nothing more is read until async calls end.

        Calls of streams wait, others are refused.
        """
        if self._peer is not None and self._peer.is_waiting:
            # They may wait for an answer that is to be read.
            return False
        if self._is_retiring:
            return True
        is_busy = len(self._engine.tasks) > self._engine.limits.max_worker_calls // 4
        most = _BUSY_STREAM_CALLS if is_busy else _STREAM_CALLS
        return self._stream_calls > most or self._has_many_params

    @property
    def _has_many_params(self) -> bool:
        """Whether the async calls that run have as many bytes of params as they may."""
        return self._calls is not None and self._calls.is_full

    def _pause(self) -> None:
        if not self._paused and self._linger is None:
            self._paused = True
            self._transport.pause_reading()

    def _continue_soon(self) -> None:
        if self._paused:
            self._loop.call_soon(self._continue)

    def _continue(self) -> None:
        """Go on where a batch stopped, unless what stopped it still holds."""
        if not self._paused or self._unwritable or self._transport.is_closing():
            return
        if self._is_full:
            return
        self._paused = False
        self.serve(b"")
        self.flush()
        if not self._paused:
            self._transport.resume_reading()

    def _watch_for_stall(self) -> None:
        self._stall_timer = self._loop.call_later(
            STALL_LIMIT_S, self._check_stall, self._taken_bytes
        )

    @property
    def _taken_bytes(self) -> int:
        return taken_bytes(self._transport, self._written_bytes)

    def _check_stall(self, taken_before: int) -> None:
        if self._taken_bytes > taken_before:
            self._watch_for_stall()
            return
        self._engine.hit("stalled")
        self._fault = f"the peer read none of its replies for {STALL_LIMIT_S:g} s"
        self._transport.abort()

    # --- time limits

    def progress(self) -> Progress:
        """Return what has come so far."""
        received, pending = self._received_bytes, self._wire.pending_bytes
        is_busy = (
            self._paused
            or self._unwritable
            or self.runs_calls
            or self._linger is not None
            or (self._peer is not None and self._peer.is_waiting)
        )
        return Progress(received, received - pending, pending > 0, is_busy)

    def end_overdue(self, overdue: Overdue) -> None:
        """End in good order, for this reason."""
        if self._is_over or self._linger is not None or self._transport.is_closing():
            return
        if overdue is Overdue.AGE and self.runs_calls:
            self._is_retiring = True
            if self._is_full:
                self._pause()
            self._loop.call_later(_RETIRE_POLL_S, self.end_overdue, overdue)
            return
        self._engine.hit(overdue.value)
        reason = overdue.reason(self._engine.limits)
        # What is idle or old ends as a goodbye does: nobody lost anything.
        kind = ExceptionType.FAILED if overdue.is_fault else ExceptionType.DISCONNECTED
        self._end(self._wire.abort(reason, kind))
        self._fault = reason if overdue.is_fault else None

    # --- messages over the limit

    def _watch_skipping(self) -> None:
        if self._skip_timer is not None:
            self._skip_timer.cancel()
        self._skip_timer = self._loop.call_later(SKIP_LIMIT_S, self._check_skipping)

    def _check_skipping(self) -> None:
        self._skip_timer = None
        if self._paused:
            # It is not read: that has limits of its own.
            self._watch_skipping()
        elif self._wire.bytes_to_skip and self._linger is None and not self._is_over:
            self._end(self._wire.abort(SKIPPED_TOO_LONG))

    # --- the end

    def _note_end(self, ended: Ended) -> None:
        if isinstance(ended.error, RemoteProtocolError):
            self._fault = f"protocol error: {ended.error}"
        elif ended.error is not None:
            self._note_abort(ended.error)

    def _note_abort(self, error: RemoteError) -> None:
        text = f"the peer aborted: {error.reason[:200]}"
        if self.calls_in_flight:
            self._fault = text
        # An Abort is also how Go's and Rust's clients say goodbye: with nothing to wait for, it
        # costs nobody an answer. Its type tells a goodbye from a complaint about an answer that
        # was sent, which is worth a line, but no fault of the connection: the peer may be older
        # than the convention.
        elif error.type is ExceptionType.DISCONNECTED:
            self._engine.log.debug(text)
        else:
            self._engine.log.info(text)

    def _end(self, ended: Ended) -> None:
        self._note_end(ended)
        self._flush()
        if not isinstance(ended.error, RemoteProtocolError):
            self._transport.close()
        elif not self._transport.is_closing():
            # The calls that run have nobody to answer any more.
            self._leave()
            self._is_broken_off = True
            self._paused = False
            self._linger = Linger(self._transport)

    @property
    def _is_busy(self) -> bool:
        return self._paused or self.runs_calls

    async def finish(self) -> None:
        """Deliver the replies of the calls in flight, then close."""
        # Polled: it happens once in a connection's life, and three things can end the wait.
        while self._is_busy and not self._transport.is_closing():
            await asyncio.sleep(_DRAIN_POLL_S)
            if self._paused and has_hung_up(self._transport):
                self._transport.abort()
        if self._is_over:
            return
        self._over = self._loop.create_future()
        self._engine.serve_received()
        if self._linger is None:
            self._flush()
            if is_settled(self._transport) and not self._wire.is_within_message:
                self._transport.close()
            else:
                self._linger = Linger(self._transport, is_patient=True)
        # One that lingers ends by itself, soon.
        await self._over

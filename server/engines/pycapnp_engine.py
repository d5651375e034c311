"""The reference implementation as engine: pycapnp's TwoPartyServer behind the gate.

A connection is a `_Connection`: it owns the TwoPartyServer, counts the calls whose handlers run,
and closes the gate. Handlers are `<method>_context` coroutines, because those get the parameters
undecoded: bad text then raises inside our boundary. The limits are the gate's: `kj_meter`.

A peer that half-closes aborts its calls: the transport is closed at EOF, and their replies
are lost.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from time import monotonic
from typing import Any

import capnp

from capnp_rig.objects.binding import BoundMethod, bind_methods, interfaces_of, unusable
from capnp_rig.objects.call_context import CURRENT, CallContext
from capnp_rig.objects.closing import Closing
from capnp_rig.objects.serving import References
from capnp_rig.schema import message
from capnp_rig.server.config import ConnectionLimits
from capnp_rig.server.connections.sweeper import LoopSweeper
from capnp_rig.server.control.call_stamp import RUNNING, Stamp, mark_of
from capnp_rig.server.control.counts import CANCELLED, FAILED
from capnp_rig.server.engines.call_counts import CallCounts
from capnp_rig.server.engines.call_site import CallSite, WorkerPlace
from capnp_rig.server.engines.engine import (
    CALLS_WITH_STREAMS,
    Engine,
    OnEnd,
    Traffic,
    end_reason,
    wire_limits,
)
from capnp_rig.server.engines.kj_capabilities import Peer, Server, widest
from capnp_rig.server.engines.kj_gate import MeteredGate
from capnp_rig.server.engines.kj_meter import CallMeter, WorkerCalls
from capnp_rig.server.engines.kj_results import writer_of
from capnp_rig.server.engines.kj_views import View
from capnp_rig.server.engines.method_stamps import MethodStamps
from capnp_rig.server.engines.peer_errors import explain, peer_error
from capnp_rig.server.logs.log import Log
from capnp_rig.wire.errors import EncodeError

# As large as Linux lets a default TCP receive buffer become useful in one read.
_RECEIVE_BYTES = 262_144
# A reply is on its way two KJ turns after its handler ended; one more is a margin.
_SETTLING_BEATS = 3
_FLUSH_POLL_S = 0.005


@asynccontextmanager
async def open_pycapnp_engine(
    service: Any,
    log: Log,
    stamp: Stamp,
    limits: ConnectionLimits,
    place: WorkerPlace | None = None,
    *,
    counts_calls: bool = False,
) -> AsyncIterator[Engine]:
    """Run the KJ loop for the worker's life and serve `service` on it."""
    async with capnp.kj_loop():
        engine = _PycapnpEngine(service, log, stamp, limits, place or WorkerPlace())
        if counts_calls:
            engine.count_calls()
        yield engine


class _Beat(message.MessageStream.Server):  # type: ignore[misc]
    """The capability behind the heartbeat: any interface will do, none of it leaves the process."""

    async def read_context(self, context: Any) -> None:
        pass


class _PycapnpEngine:
    def __init__(
        self, service: Any, log: Log, stamp: Stamp, limits: ConnectionLimits, place: WorkerPlace
    ) -> None:
        self.log = log
        self.stamp = stamp
        self.stamps = MethodStamps(stamp)
        self.limits = limits
        self.frame_limits = wire_limits(limits).frame
        self.sweeper = LoopSweeper(limits)
        self.place = place
        self.calls = WorkerCalls(limits.max_worker_calls)
        self.counts: CallCounts | None = None
        # Of connections that are over.
        self._traffic = Traffic()
        self.receive_buffer = memoryview(bytearray(_RECEIVE_BYTES))
        self.service = service
        widest(interfaces_of(service))
        self.bound = bind_methods(service)
        self.methods = {(it.method.interface_id, it.method.method_id): it for it in self.bound}
        self.closing = Closing(self.explain)
        self.references = References(self.closing.close)
        self._connections: set[_Connection] = set()
        self._beat = message.MessageStream._new_client(_Beat())

    def count_calls(self) -> None:
        self.counts = CallCounts(self.stamps)
        self.calls.hit = self.counts.refused

    @property
    def unfinished(self) -> int:
        return sum(connection.unfinished for connection in self._connections)

    def traffic(self) -> Traffic:
        """Return what all connections received and sent so far."""
        every = [self._traffic, *(each.traffic for each in self._connections)]
        return Traffic(*map(sum, zip(*every, strict=True)))

    def protocol(self, on_end: OnEnd, connection: int = 0) -> asyncio.BaseProtocol:
        return _Connection(self, on_end, connection).protocol()

    async def heartbeat(self) -> None:
        # A call within the process, but through KJ's queue: it stalls when KJ's loop is dead
        # (https://github.com/capnproto/pycapnp/issues/396), which an asyncio timer would not show.
        await self._beat.read()

    async def drain(self) -> None:
        # Let calls whose bytes are already here reach their handlers before new ones are refused.
        await self.settle()
        self.calls.draining = True
        await asyncio.gather(*(connection.finish() for connection in tuple(self._connections)))
        # KJ lets go of what the connections had.
        await self.settle()
        await self.closing.finish()

    async def settle(self) -> None:
        """Return once KJ has done what was queued, such as writing a reply."""
        for _ in range(_SETTLING_BEATS):
            await self.heartbeat()

    def add(self, connection: "_Connection") -> Any:
        """Keep `connection` and return its bootstrap capability."""
        self._connections.add(connection)
        return Server(self.service, self.bound, connection.answer_stamped)

    def remove(self, connection: "_Connection") -> None:
        self._connections.discard(connection)
        self._traffic += connection.traffic

    def explain(self, method: str, error: BaseException) -> str:
        return explain(method, error, self.log)

    def too_large(self, method: str, size: int) -> str:
        """Return what a peer may know of a reply over the limit, and log the rest."""
        if self.counts is not None:
            # It was taken for an answer when its handler ended.
            for bound in self.bound:
                self.counts.of(bound.label)[FAILED] += bound.name == method
        return self.explain(method, EncodeError(self.frame_limits.too_large(size >> 3)))


class _Connection:
    """One connection: its RPC system, its calls in flight, its end."""

    def __init__(self, engine: _PycapnpEngine, on_end: OnEnd, number: int = 0) -> None:
        self._engine = engine
        self._number, self._calls = number, 0
        self._on_end = on_end
        # Clients of streams count bytes and not calls.
        streams = any(each.method.is_streaming for each in engine.methods.values())
        limits = wire_limits(engine.limits)
        if streams:
            most = max(CALLS_WITH_STREAMS, limits.max_calls_in_flight)
            limits = replace(limits, max_calls_in_flight=most)
        self._meter = CallMeter(engine.calls, engine.methods, engine.too_large, limits)
        self._gate: MeteredGate | None = MeteredGate(
            self._made, self._lost, engine.receive_buffer, self._meter, engine.limits
        )
        self._peer = Peer(engine.references, self.answer_stamped)
        self._meter.peer = self._peer
        self._rpc: Any = None
        self._site: CallSite
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._over = asyncio.Event()

    @property
    def unfinished(self) -> int:
        """At least 1: a connection that still exists in a drain has something left to send.

        But 0 when it is over for us, and only lingers.
        """
        if self._meter.ended is not None or (self._gate is not None and self._gate.is_done):
            return 0
        return max(self._in_flight, self._meter.calls_in_flight, 1)

    @property
    def traffic(self) -> Traffic:
        """What was received and sent so far, nothing once it is over."""
        return Traffic() if self._gate is None else self._gate.traffic

    def protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol, as long as the connection is not over."""
        assert self._gate is not None
        return self._gate

    def _made(self, stream: Any) -> None:
        engine, gate = self._engine, self._gate
        assert gate is not None
        assert gate.transport is not None
        self._site = CallSite(engine.place, self._number, gate.transport, engine.log)
        engine.sweeper.watch(gate)
        bootstrap = engine.add(self)
        self._rpc = capnp.TwoPartyServer(
            stream,
            bootstrap=bootstrap,
            traversal_limit_in_words=self._engine.frame_limits.traversal_words,
        )

    def _lost(self, error: Exception | None) -> None:
        self._engine.remove(self)
        self._site.leave()
        self._over.set()
        # No drain waits for the calls of a peer that is gone.
        self._idle.set()
        assert self._gate is not None
        self._engine.sweeper.discard(self._gate)
        fault = self._gate.fault
        # Breaks the cycle of connection and gate, so that their buffers go now, not with the GC.
        self._gate = None
        # Later, because KJ may be the caller: its stream must not vanish under its feet.
        asyncio.get_running_loop().call_soon(self._dispose)
        self._on_end(fault or end_reason(error))

    def _dispose(self) -> None:
        self._rpc.close()
        self._rpc = None

    async def answer_stamped(self, method: BoundMethod, context: Any) -> None:
        """Run one call, with the connection's stamp while it does not wait."""
        self._calls += 1
        CURRENT.set(CallContext(self._site))
        traces = self._engine.place.traces
        work = self.answer(method if traces is None else traces.traced(method), context)
        mark, stamp = mark_of(self._number, self._calls), self._engine.stamp
        stamp[RUNNING] += 1
        counts, started_s = self._engine.counts, monotonic()
        try:
            await self._engine.stamps.stamped(work, mark, method)
        except BaseException as error:
            if counts is not None:
                _count(counts, method, monotonic() - started_s, error)
            raise
        else:
            if counts is not None:
                _count(counts, method, monotonic() - started_s)
        finally:
            stamp[RUNNING] -= 1

    async def answer(self, method: BoundMethod, context: Any) -> None:
        """Run one call; whatever goes wrong, the peer gets one short line."""
        task = asyncio.current_task()
        self._in_flight += 1
        self._meter.handlers += method.is_async
        self._idle.clear()
        results: Any = None
        failure: BaseException | None = None
        try:
            if not method.is_async:
                results = method.call(self._params(method, context))
                if results is not None:
                    self._write(method, context, results)
                return
            results = await method.call(self._params(method, context))
            if results is not None and self._gate is not None and not self._gate.is_over:
                self._write(method, context, results)
                self._gate.note_filled(8 * context.results.total_size.word_count)
        # The boundary: peers see no exception of ours, and asyncio would raise what is no
        # `Exception` out of the loop, and with it end the worker.
        except BaseException as error:
            if asyncio.current_task() is not task:
                # The coroutine is thrown away; nobody is there any more.
                raise
            is_cancelled = self._is_cancelled(task)
            call = CURRENT.get()
            if is_cancelled and call is not None:
                call.cancel()
            # Raised below, where it does not bring `error` along: that has a traceback, which holds
            # the params, and the capabilities in them.
            failure = asyncio.CancelledError()
            if not (is_cancelled and isinstance(error, asyncio.CancelledError)):
                text = explain(method.name, unusable(results) or error, self._engine.log)
                # Of a cancelled call nobody waits for what its cleaning up failed with.
                failure = failure if is_cancelled else peer_error(text)
        finally:
            # Also when the call is cancelled by a Finish or a disconnect.
            self._in_flight -= 1
            self._meter.handlers -= method.is_async
            if self._in_flight == 0:
                self._idle.set()
        if failure is not None:
            try:
                raise failure
            finally:
                # Its traceback has this frame.
                del failure

    def _params(self, method: BoundMethod, context: Any) -> Any:
        codec = method.method.params
        return (
            View(context.params, codec, self._peer.lift)
            if codec.has_capabilities
            else context.params
        )

    def _write(self, method: BoundMethod, context: Any, results: Any) -> None:
        writer_of(method.method.results).write(context.results, results, self._peer.lower)

    def _is_cancelled(self, task: "asyncio.Task[Any] | None") -> bool:
        """Tell a cancellation by a Finish, or the end of the connection, from one of its own."""
        if task is None or not task.cancelling():
            return False
        meter = self._meter
        is_over = self._gate is None or self._gate.is_over or meter.ended is not None
        return is_over or meter.has_cancelled

    async def finish(self) -> None:
        """Deliver the replies of the calls in flight, then close."""
        await self._idle.wait()
        await self._flushed()
        if self._gate is not None:
            self._gate.finish()
        await self._over.wait()

    async def _flushed(self) -> None:
        # Polled: it happens once in a connection's life, and several things can end the wait.
        # One of them is the peer, who may leave during any wait: then there is no gate any more.
        while (gate := self._gate) is not None and not gate.is_over:
            await self._engine.settle()
            if not (self._meter.calls_in_flight or gate.unsent_bytes):
                return
            await asyncio.sleep(_FLUSH_POLL_S)


def _count(
    counts: CallCounts, method: BoundMethod, took_s: float, error: BaseException | None = None
) -> None:
    of_method = counts.of(method.label)
    if isinstance(error, asyncio.CancelledError):
        of_method[CANCELLED] += 1
    else:
        counts.answered(of_method, took_s, has_failed=error is not None)

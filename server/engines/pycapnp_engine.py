"""The reference implementation as engine: pycapnp's TwoPartyServer behind the gate.

A connection is a `_Connection`: it owns the TwoPartyServer, counts the calls whose handlers run,
and is the only one that closes the transport. Handlers are `<method>_context` coroutines, because
those get the parameters undecoded: bad text then raises inside our boundary.

A peer that half-closes aborts its calls: pycapnp closes the transport at EOF, and their replies
are lost.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import capnp

from schema import message
from server.call_stamp import Stamp, no_stamp, stamped
from server.engines import Engine, OnEnd
from server.engines.kj_gate import Gate, gated
from server.engines.peer_errors import explain, peer_error
from server.log import Log
from server.service import BoundMethod, Results, bind_methods

# 4 MiB, gRPC's limit. KJ counts re-reads of a message against it as well.
MAX_FRAME_WORDS = 524_288
# A reply is on its way two KJ turns after its handler ended; one more is a margin.
_SETTLING_BEATS = 3
_FLUSH_POLL_S = 0.005

Handler = Callable[[Any, Any], Coroutine[Any, Any, None]]


@asynccontextmanager
async def open_pycapnp_engine(
    service: Any,  # noqa: ANN401 - services are anyone's classes
    log: Log,
    *,
    debug: bool,
    stamp: Stamp,
) -> AsyncIterator[Engine]:
    """Run the KJ loop for the worker's life and serve `service` on it."""
    async with capnp.kj_loop():
        engine = _PycapnpEngine(service, log, debug=debug)
        engine.stamp = stamp
        yield engine


class _Beat(message.MessageStream.Server):  # type: ignore[misc]
    """The capability behind the heartbeat: any interface will do, none of it leaves the process."""

    async def read_context(self, context: Any) -> None:  # noqa: ANN401 - pycapnp
        pass


class _PycapnpEngine:
    def __init__(self, service: Any, log: Log, *, debug: bool) -> None:  # noqa: ANN401
        if debug and hasattr(service, "note"):
            service.note = log.debug
        self.log = log
        self.stamp = no_stamp()
        self.draining = False
        self._adapter_type = _adapter_type(service)
        self._connections: set[_Connection] = set()
        self._beat = message.MessageStream._new_client(_Beat())  # noqa: SLF001 - pycapnp's way

    @property
    def unfinished(self) -> int:
        return sum(connection.unfinished for connection in self._connections)

    def protocol(self, on_end: OnEnd, connection: int = 0) -> asyncio.BaseProtocol:
        return _Connection(self, on_end, connection).protocol()

    async def heartbeat(self) -> None:
        # A call within the process, but through KJ's queue: it stalls when KJ's loop is dead
        # (https://github.com/capnproto/pycapnp/issues/396), which an asyncio timer would not show.
        await self._beat.read()

    async def drain(self) -> None:
        # Let calls whose bytes are already here reach their handlers before new ones are refused.
        await self.settle()
        self.draining = True
        await asyncio.gather(*(connection.finish() for connection in tuple(self._connections)))

    async def settle(self) -> None:
        """Return once KJ has done what was queued, such as writing a reply."""
        for _ in range(_SETTLING_BEATS):
            await self.heartbeat()

    def add(self, connection: "_Connection") -> Any:  # noqa: ANN401 - pycapnp
        """Keep `connection` and return its bootstrap capability."""
        self._connections.add(connection)
        return self._adapter_type(connection)

    def remove(self, connection: "_Connection") -> None:
        self._connections.discard(connection)


class _Connection:
    """One connection: its RPC system, its calls in flight, its end."""

    def __init__(self, engine: _PycapnpEngine, on_end: OnEnd, number: int = 0) -> None:
        self._engine = engine
        self._number, self._calls = number, 0
        self._on_end = on_end
        self._gate: Gate | None = gated(self._made, self._lost)
        self._rpc: Any = None
        self._in_flight = 0
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._over = asyncio.Event()

    @property
    def unfinished(self) -> int:
        """At least 1: a connection that still exists in a drain has something left to send."""
        return max(self._in_flight, 1)

    def protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol, as long as the connection is not over."""
        assert self._gate is not None
        return self._gate

    @property
    def _transport(self) -> asyncio.Transport | None:
        return None if self._gate is None else self._gate.transport

    def _made(self, stream: Any) -> None:  # noqa: ANN401 - pycapnp
        bootstrap = self._engine.add(self)
        self._rpc = capnp.TwoPartyServer(
            stream, bootstrap=bootstrap, traversal_limit_in_words=MAX_FRAME_WORDS
        )

    def _lost(self, error: Exception | None, eof: bool) -> None:  # noqa: FBT001 - an OnLost
        self._engine.remove(self)
        self._over.set()
        # No drain waits for the calls of a peer that is gone.
        self._idle.set()
        # Breaks the cycle of connection and gate, so that their buffers go now, not with the GC.
        self._gate = None
        # Later, because KJ may be the caller: its stream must not vanish under its feet.
        asyncio.get_running_loop().call_soon(self._dispose)
        self._on_end(end_reason(error, eof=eof, closed_by_us=self._closing))

    def _dispose(self) -> None:
        self._rpc.close()
        self._rpc = None

    async def answer_stamped(self, method: BoundMethod, context: Any) -> None:  # noqa: ANN401
        """Run one call, with the connection's stamp while it does not wait."""
        self._calls += 1
        work = self.answer(method, context)
        await stamped(work, self._engine.stamp, self._number, self._calls)

    async def answer(self, method: BoundMethod, context: Any) -> None:  # noqa: ANN401 - pycapnp
        """Run one call; whatever goes wrong, the peer gets one short line."""
        if self._engine.draining:
            raise peer_error("the server is shutting down: this call was not started") from None
        self._in_flight += 1
        self._idle.clear()
        try:
            results: Any = method.call(context.params)
            if method.is_async:
                results = await results
            _fill(context, results)
        except Exception as error:  # noqa: BLE001 - the boundary: peers see no exception of ours
            raise peer_error(explain(method.name, error, self._engine.log)) from None
        finally:
            # Also when the call is cancelled by a Finish or a disconnect.
            self._in_flight -= 1
            if self._in_flight == 0:
                self._idle.set()

    async def finish(self) -> None:
        """Deliver the replies of the calls in flight, then close."""
        await self._idle.wait()
        await self._flushed()
        self._closing = True
        if self._transport is not None:
            self._transport.close()
        await self._over.wait()

    async def _flushed(self) -> None:
        # KJ keeps replies to itself while the transport's buffer is full, so both must be empty.
        while not self._over.is_set():
            await self._engine.settle()
            if self._transport is None or not self._transport.get_write_buffer_size():
                return
            await asyncio.sleep(_FLUSH_POLL_S)


def end_reason(error: Exception | None, *, eof: bool, closed_by_us: bool) -> str | None:
    """Return why a connection ended badly, in a few words, or None when it ended as it should."""
    if error is not None:
        return error.strerror or "broken" if isinstance(error, OSError) else "broken"
    # Without an EOF it was KJ that closed: it does so after telling the peer of a protocol error.
    return None if eof or closed_by_us else "protocol error"


def _fill(context: Any, results: Results) -> None:  # noqa: ANN401 - pycapnp
    """Write the result fields.

    Raises:
        TypeError: They do not fit the schema, which is the service's fault.
    """
    try:
        for field, value in (results or {}).items():
            setattr(context.results, field, value)
    except (capnp.KjException, AttributeError) as error:
        raise TypeError(f"the service returned {results!r:.200}") from error


def _adapter_type(service: Any) -> Any:  # noqa: ANN401 - pycapnp and anyone's class
    """Return the pycapnp server class whose instances serve one connection each."""

    def init(self: Any, connection: _Connection) -> None:  # noqa: ANN401 - pycapnp
        self.connection = connection

    handlers = {f"{method.name}_context": _handler(method) for method in bind_methods(service)}
    return type("Adapter", (service.interface.Server,), {"__init__": init, **handlers})


def _handler(method: BoundMethod) -> Handler:
    def handle(self: Any, context: Any) -> Coroutine[Any, Any, None]:  # noqa: ANN401 - pycapnp
        answer: Coroutine[Any, Any, None] = self.connection.answer_stamped(method, context)
        return answer

    return handle

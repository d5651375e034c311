"""Keeps pycapnp alive on uvloop while KJ is not reading yet.

When bytes arrive before KJ starts its first read, pycapnp pauses the transport from inside
`get_buffer`. On uvloop that stops libuv from within its own allocation callback, and libuv then
calls a null pointer (https://github.com/libuv/libuv/issues/2399): SIGSEGV.

So a `Gate` stands between the transport and pycapnp's protocol, and pycapnp sees a `_Shim` as its
transport. Pauses and resumes asked for inside `get_buffer` are put off until `buffer_updated`.
At KJ's first real read, pycapnp gets the real transport and `_Open` takes over: it holds pycapnp's
own bound methods, so the bytes of a call pass through no code of ours.

Two rules follow from libuv: never call `set_protocol` or `close` inside `get_buffer`, and never
return True from `eof_received` (pycapnp's next read would use a null pointer).

This uses the private `AsyncIoStream._connect` of pycapnp 2.2; `connect` checks that it exists.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import capnp

# Called once with the transport's error (None for none) and whether the peer sent EOF.
OnLost = Callable[[Exception | None, bool], None]

if not hasattr(capnp.AsyncIoStream, "_connect"):
    raise ImportError(
        f"pycapnp {capnp.__version__} has no AsyncIoStream._connect: use the 2.2 series",
    )


def _ignore(_error: Exception | None, _eof: bool) -> None:  # noqa: FBT001 - an OnLost
    pass


def gated(on_stream: Callable[[Any], None], on_lost: OnLost = _ignore) -> "Gate":
    """Return the protocol for one connection of either side; needs a running KJ loop.

    `on_stream` gets the pycapnp stream as soon as the connection is made.
    """
    return Gate(capnp.AsyncIoStream._connect(on_stream), on_lost)  # noqa: SLF001 - see above


class _Shim:
    """The transport pycapnp sees until KJ reads; everything else is the real one's."""

    def __init__(self, real: asyncio.Transport, gate: "Gate") -> None:
        self._real = real
        self._gate: Gate | None = gate
        self.in_get_buffer = False
        self.deferred: Callable[[], None] | None = None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of any transport
        return getattr(self._real, name)

    def pause_reading(self) -> None:
        if self.in_get_buffer:
            self.deferred = self._real.pause_reading
        else:
            self._real.pause_reading()

    def resume_reading(self) -> None:
        if self.in_get_buffer:
            self.deferred = self.resume_reading
        elif self._gate is not None:
            self._gate.step_aside(self._real)

    def run_deferred(self) -> None:
        deferred, self.deferred = self.deferred, None
        if deferred is not None:
            deferred()

    def forget(self) -> None:
        """Let go of the gate: in a cycle, pycapnp's 64 KiB of early bytes would wait for the GC."""
        self._gate = self.deferred = None


class Gate(asyncio.BufferedProtocol):
    """The protocol of a connection until KJ's first read."""

    def __init__(self, inner: Any, on_lost: OnLost) -> None:  # noqa: ANN401 - pycapnp's protocol
        self._inner = inner
        self._on_lost = on_lost
        self._eof = False
        self._shim: _Shim
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Show pycapnp the shim in place of the transport."""
        # Not asserted: uvloop's transports do not derive from asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        self._shim = _Shim(self.transport, self)
        self._inner.connection_made(self._shim)

    def get_buffer(self, sizehint: int) -> Any:  # noqa: ANN401 - a buffer of pycapnp's
        """Give pycapnp's overflow buffer, putting off what it asks of the transport."""
        self._shim.in_get_buffer = True
        try:
            return self._inner.get_buffer(sizehint)
        finally:
            self._shim.in_get_buffer = False

    def buffer_updated(self, nbytes: int) -> None:
        """Pass the bytes on; now the transport may be paused."""
        self._inner.buffer_updated(nbytes)
        self._shim.run_deferred()

    def eof_received(self) -> None:
        """Pass the EOF on; asyncio then closes the transport."""
        self._eof = True
        self._shim.deferred = None
        self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the end on and report it."""
        self._inner.connection_lost(exc)
        self._on_lost(exc, self._eof)
        self._shim.forget()

    def pause_writing(self) -> None:
        """Pass on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        self._inner.resume_writing()

    def step_aside(self, real: asyncio.Transport) -> None:
        """Connect pycapnp with its transport: every pause comes from `buffer_updated` now."""
        self._inner.transport = real
        real.set_protocol(_Open(self._inner, self._on_lost))
        real.resume_reading()
        self._shim.forget()


class _Open(asyncio.BufferedProtocol):
    """The protocol from KJ's first read on: pycapnp's, except that the end is reported."""

    def __init__(self, inner: Any, on_lost: OnLost) -> None:  # noqa: ANN401 - pycapnp's protocol
        self._inner = inner
        self._on_lost = on_lost
        self._eof = False
        # Both loops look these up on the instance; uvloop keeps them.
        self.get_buffer = inner.get_buffer  # type: ignore[method-assign]
        self.buffer_updated = inner.buffer_updated  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]

    def eof_received(self) -> None:
        self._eof = True
        self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)
        self._on_lost(exc, self._eof)

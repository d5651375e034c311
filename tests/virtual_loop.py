"""An event loop whose clock only moves when told to, and a transport without a socket."""

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

from capnp_rig.client import AsyncReverseClient
from capnp_rig.client.asyncio_client import _Protocol
from capnp_rig.client.reverse import MESSAGE_STREAM
from capnp_rig.objects.streams import STREAM_WINDOW_BYTES
from capnp_rig.wire.rpc.interfaces import Interface


class _InstantSelector(selectors.DefaultSelector):  # type: ignore[valid-type, misc]
    """Never waits: where the loop would sleep, its clock jumps instead."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[Any]:
        ready: list[Any] = super().select(0)
        if not ready and timeout:
            self.loop.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs what is ready at once, and timers in order, without waiting for them."""

    def __init__(self) -> None:
        selector = _InstantSelector()
        selector.loop = self
        self.now_s = 0.0
        super().__init__(selector)
        self.faults: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.faults.append(context))

    def time(self) -> float:
        return self.now_s

    def turn(self) -> None:
        """Run what is ready now."""
        self.call_soon(self.stop)
        self.run_forever()

    def settle(self) -> None:
        """Run until nothing is ready; the clock stands still."""
        self.turn()
        while self._ready:  # type: ignore[attr-defined]
            self.turn()

    def advance(self, seconds: float, *, settles: bool = True) -> None:
        """Let the clock go on, and run what becomes due; what follows from it if it `settles`."""
        self.call_at(self.now_s + seconds, self.stop)
        self.run_forever()
        if settles:
            self.settle()

    def timers(self) -> list[asyncio.TimerHandle]:
        """Return what is still to come."""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        return [timer for timer in scheduled if not timer.cancelled()]


class _NoSocket:
    """What a protocol looks at when its transport fails."""

    def __init__(self) -> None:
        self.rest = b""

    def fileno(self) -> int:
        return -1

    def recv(self, size: int) -> bytes:
        data, self.rest = self.rest[:size], self.rest[size:]
        if not data:
            raise BlockingIOError
        return data


class FakeTransport(asyncio.Transport):
    """Hands on what is written, unless `is_stalled`: then it keeps that and pauses its writer."""

    def __init__(self, loop: VirtualLoop, send: Callable[[bytes], object]) -> None:
        super().__init__()
        self.is_stalled = False
        self.is_lost = False
        # What the protocol asked for: "paused" and "resumed", in turn.
        self.reading: list[str] = []
        self.socket = _NoSocket()
        self.protocol: _Protocol
        self._loop = loop
        self._send = send
        self._unsent = bytearray()
        self._is_closing = False

    def write(self, data: Any) -> None:
        assert not self._is_closing
        if self.is_stalled:
            self._unsent += data
            self.protocol.pause_writing()
        else:
            self._send(bytes(data))

    def writelines(self, buffers: Any) -> None:
        self.write(b"".join(buffers))

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def resume(self) -> None:
        self.is_stalled = False
        if self._unsent:
            data, self._unsent = bytes(self._unsent), bytearray()
            self._send(data)
            self.protocol.resume_writing()
        if self._is_closing:
            self._lose_soon(None)

    def pause_reading(self) -> None:
        self.reading.append("paused")

    def resume_reading(self) -> None:
        self.reading.append("resumed")

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            if not self._unsent:
                self._lose_soon(None)

    def abort(self) -> None:
        self.fail(None)

    def fail(self, error: Exception | None) -> None:
        """End as a transport does whose socket has failed."""
        self._is_closing = True
        self._unsent.clear()
        self._lose_soon(error)

    def _lose_soon(self, error: Exception | None) -> None:
        if not self.is_lost:
            self.is_lost = True
            self._loop.call_soon(self.protocol.connection_lost, error)


def connect_fake(
    loop: VirtualLoop,
    send: Callable[[bytes], object],
    *,
    interface: Interface = MESSAGE_STREAM,
    timeout_s: float = 15.0,
) -> tuple[AsyncReverseClient, FakeTransport]:
    """Return a client on a fake transport, which gives `send` what the client sends."""
    transport = FakeTransport(loop, send)

    async def connect() -> AsyncReverseClient:
        sock: Any = transport.socket
        transport.protocol = _Protocol(interface, sock, timeout_s, STREAM_WINDOW_BYTES)
        transport.protocol.connection_made(transport)
        return AsyncReverseClient(transport.protocol)

    return loop.run_until_complete(connect()), transport

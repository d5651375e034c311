"""A network between clients and a server: a seeded TCP proxy with toxiproxy's faults.

`proxy` runs it in a thread of its own; `async with Proxy(…)` in the loop of the test. Its toxics
are assigned while it runs, from any thread: `network.upstream = [Latency(0.2)]` acts on what goes
to the server, of the connections that stand, too.
"""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from random import Random
from typing import Literal, Self, cast

from toxics import Bandwidth, Do, Toxic, Way

# All bytes wait until it is taken away, as in a partition that heals.
HELD = Bandwidth(0)

# So much a way takes of what cannot go on; then its sender has to wait.
_MOST_WAITING_BYTES = 1 << 18
_RESET = struct.pack("ii", 1, 0)

Direction = Literal["upstream", "downstream"]


class Proxy:
    """Forwards every connection to `target`; `seed` draws whatever its toxics leave to chance.

    `accepted_s` holds when each of the connections so far was made.
    """

    def __init__(self, target: tuple[str, int], seed: int = 0) -> None:
        self.accepted_s: list[float] = []
        self._target = target
        self._seed = seed
        self._toxics: dict[Direction, Sequence[Toxic]] = {"upstream": (), "downstream": ()}
        self._ends: set[_End] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        # It keeps the port while nobody listens there.
        self._reserved = _bound(0)
        self.port: int = self._reserved.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._listener: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop
        self._thread_id: int

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        while self._ends:  # They go in the next turns of the loop.
            await asyncio.sleep(0)
        self._reserved.close()

    @property
    def upstream(self) -> Sequence[Toxic]:
        """What acts on the bytes to the server."""
        return self._toxics["upstream"]

    @upstream.setter
    def upstream(self, toxics: Sequence[Toxic]) -> None:
        self._change("upstream", toxics)

    @property
    def downstream(self) -> Sequence[Toxic]:
        """What acts on the bytes to the clients."""
        return self._toxics["downstream"]

    @downstream.setter
    def downstream(self, toxics: Sequence[Toxic]) -> None:
        self._change("downstream", toxics)

    def poison(self, *toxics: Toxic) -> None:
        """Let these act in both directions, and no others."""
        self.upstream = self.downstream = toxics

    def heal(self) -> None:
        """Let all bytes pass."""
        self.poison()

    @property
    def connections(self) -> int:
        """How many stand."""
        return sum(end.direction == "upstream" for end in tuple(self._ends))

    def down(self) -> None:
        """Refuse connections and reset those that stand, until `up`."""
        self._run(self._stop)

    def up(self) -> None:
        """Listen again, at the same port."""
        self._run(self._listen)

    def _run(self, function: Callable[[], None]) -> None:
        """Run a function in the proxy's loop, and return when it has run."""
        if threading.get_ident() == self._thread_id:
            return function()

        async def run() -> None:
            function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def _change(self, direction: Direction, toxics: Sequence[Toxic]) -> None:
        self._toxics[direction] = tuple(toxics)
        self._run(self._pump_all)

    def _pump_all(self) -> None:
        for end in tuple(self._ends):
            end.pump()

    def _listen(self) -> None:
        self._listener = _bound(self.port)
        self._listener.listen(1024)
        self._loop.add_reader(self._listener, self._accept)

    def _stop(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for end in tuple(self._ends):
            end.reset()

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        number = len(self.accepted_s)
        self.accepted_s.append(time.monotonic())
        near = _End(self._toxics, "upstream", Random(f"{self._seed} {number} up"), self._ends)
        far = _End(self._toxics, "downstream", Random(f"{self._seed} {number} down"), self._ends)
        near.other, far.other = far, near
        # From here on: it may be reset before its transport is there.
        self._ends.add(near)
        task = self._loop.create_task(self._connect(sock, near, far))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, sock: socket.socket, near: "_End", far: "_End") -> None:
        await self._loop.connect_accepted_socket(lambda: near, sock)
        try:
            await self._loop.create_connection(lambda: far, *self._target)
        except OSError:
            near.reset()
        else:
            # Both: toxics that count from the start begin now.
            near.pump()
            far.pump()


class _End(asyncio.Protocol):
    """One socket of a connection; what is read there goes its `Way` to the other one."""

    other: "_End"

    def __init__(
        self,
        toxics: dict[Direction, Sequence[Toxic]],
        direction: Direction,
        random: Random,
        ends: "set[_End]",
    ) -> None:
        self.direction = direction
        self.transport: asyncio.Transport | None = None
        self._toxics = toxics
        self._ends = ends
        self._way = Way(random)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._is_full = False
        self._has_ended = False

    # --- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._ends.add(self)
        if self._has_ended:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._way.receive(data, self._loop.time())
        self.pump()

    def eof_received(self) -> bool:
        self._way.receive_end(self._loop.time())
        self.pump()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._ends.discard(self)
        if exc is not None:
            self._way.receive_end(self._loop.time(), is_reset=True)
            self.pump()

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self.other.pump()

    # --- what goes on

    def pump(self) -> None:
        """Do what is due, and come back when more is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while not self._has_ended and self.other.transport is not None:
            toxics = self._toxics[self.direction]
            if self.other._is_full:
                toxics = (*toxics, HELD)
            step = self._way.next(toxics, self._loop.time())
            if step.do is Do.WAIT:
                if step.until_s < float("inf"):
                    self._timer = self._loop.call_at(step.until_s, self.pump)
                break
            self._do(step.do, step.data)
        self._read_on()

    def _do(self, do: Do, data: bytes) -> None:
        assert self.other.transport is not None
        if do is Do.RESET:
            self.reset()
        elif do is Do.CLOSE:
            self._close()
        elif not self.other.transport.is_closing():
            if do is Do.SEND:
                self.other.transport.write(data)
                return
            # That peer may have reset it, which has not been told yet.
            with suppress(OSError):
                self.other.transport.write_eof()
            self._has_ended = True
            if self.other._has_ended:
                self._close()
        else:
            self._has_ended = True

    def _read_on(self) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if self._way.waiting_bytes > _MOST_WAITING_BYTES:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _close(self) -> None:
        for end in (self, self.other):
            end._has_ended = True
            if end.transport is not None:
                end.transport.close()

    def reset(self) -> None:
        """End the connection with an RST to both peers."""
        for end in (self, self.other):
            end._has_ended = True
            if end.transport is not None:
                sock = end.transport.get_extra_info("socket")
                if sock.fileno() >= 0:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.transport.abort()


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    # So that two of them may have the port, of which one listens.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.setblocking(False)
    return sock


@contextmanager
def proxy(host: str, port: int | None, *toxics: Toxic, seed: int = 0) -> Iterator[Proxy]:
    """Run a proxy in a thread of its own; `toxics` act in both directions to begin with."""
    assert port is not None
    network = Proxy((host, port), seed)
    with closing(asyncio.new_event_loop()) as loop:
        thread = threading.Thread(target=loop.run_forever, name="proxy")
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(network.__aenter__(), loop).result(10)
            network.poison(*toxics)
            yield network
        finally:
            asyncio.run_coroutine_threadsafe(network.__aexit__(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            assert not thread.is_alive()

"""A small asyncio peer over `wire.rpc.connection.Connection`, to talk to pycapnp with."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from capnp_rig.wire.encoding.pointers import detached
from capnp_rig.wire.rpc.capabilities import Capability
from capnp_rig.wire.rpc.connection import (
    Answered,
    Called,
    Cancelled,
    Connection,
    Ended,
    Event,
    Failed,
    Released,
)
from capnp_rig.wire.rpc.interfaces import Interface, compile_interface
from capnp_rig.wire.rpc.messages import RemoteError


class CallError(Exception):
    """What the other side answered."""


class Service:
    """An object that can be called: its methods get a peer and the view of the params.

    They return a mapping of results, or a callable that answers in another way.
    """

    interface: Any = None


class Peer:
    """One end: calls by name, services of ours, and what was released of them."""

    def __init__(self, sock: socket.socket, bootstrap: Any = None) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.connection = Connection(None, bootstrap)
        self.futures: dict[int, tuple[asyncio.Future[Any], Any]] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.released: list[Any] = []
        self.ended: Ended | None = None
        self.reader = asyncio.create_task(self.read())

    def flush(self) -> None:
        """Take what is ready, and send; nobody waits for a full socket here."""
        while self.connection.has_events:
            self.take(self.connection.receive_data(b""))
        view = memoryview(self.connection.data_to_send())
        while view:
            view = view[self.sock.send(view) :]

    async def read(self) -> None:
        loop = asyncio.get_running_loop()
        self.flush()
        while data := await loop.sock_recv(self.sock, 1 << 16):
            self.take(self.connection.receive_data(data))
            self.flush()
        self.take(self.connection.receive_eof())

    def take(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Answered(question_id=question_id, content=content):
                    future, codec = self.futures.pop(question_id)
                    if not future.cancelled():
                        future.set_result(codec.open(content))
                case Failed(question_id, error):
                    future, _ = self.futures.pop(question_id)
                    if not future.cancelled():
                        future.set_exception(CallError(error.reason))
                case Called():
                    task = asyncio.create_task(self.serve(event))
                    self.tasks[event.question_id] = task
                case Cancelled(question_id):
                    self.tasks[question_id].cancel()
                case Released(target):
                    self.released.append(target)
                case Ended():
                    self.ended = event

    async def serve(self, event: Called) -> None:
        target, number = event.target, event.question_id
        interface = compile_interface(target.interface)
        (method,) = (
            method
            for method in interface.methods.values()
            if (method.interface_id, method.method_id) == (event.interface_id, event.method_id)
        )
        params = None if event.params is None else detached(event.params)
        try:
            results = await getattr(target, method.name)(self, method.params.open(params))
        except (ValueError, CallError) as error:
            self.connection.send_exception(number, RemoteError(str(error)))
        except asyncio.CancelledError:
            self.connection.send_exception(number, RemoteError("cancelled"))
        else:
            if callable(results):
                results(number)
            else:
                body, capabilities = method.results.pack_with_capabilities(results)
                self.connection.send_results(number, body, capabilities)
        del self.tasks[number]
        self.flush()

    def bootstrap(self, interface: Any) -> "Ref":
        return Ref(self, self.connection.bootstrap(), compile_interface(interface))

    def close(self) -> None:
        self.reader.cancel()
        self.sock.close()


class Ref:
    """A capability with its interface."""

    def __init__(self, peer: Peer, capability: Any, interface: Interface) -> None:
        self.peer = peer
        self.capability = capability
        self.interface = interface

    def call(self, name: str, values: Mapping[str, Any] | None = None) -> "Promised":
        method = self.interface.methods[name]
        body, capabilities = method.params.pack_with_capabilities(values or {})
        given = [each.capability if isinstance(each, Ref) else each for each in capabilities]
        number = self.peer.connection.call(
            self.capability, method.interface_id, method.method_id, body, given
        )
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.peer.futures[number] = future, method.results
        return Promised(self.peer, number, future, method.results)

    def release(self) -> None:
        self.capability.release()


class Promised:
    """A call that was made: to be awaited, or to be called on before."""

    def __init__(self, peer: Peer, number: int, future: asyncio.Future[Any], codec: Any) -> None:
        self.peer, self.number, self.future, self.codec = peer, number, future, codec

    def __await__(self) -> Any:
        self.peer.flush()
        return self.future.__await__()

    def field(self, name: str, interface: Any) -> Ref:
        """Return what a field of the results will be."""
        (slot,) = (field.slot for field in self.codec.fields if field.name == name)
        capability = self.peer.connection.pipeline(self.number, (slot,))
        return Ref(self.peer, capability, compile_interface(interface))


def ref(peer: Peer, capability: Capability | None, interface: Any) -> Ref:
    """Return a capability that a view has."""
    assert capability is not None
    return Ref(peer, capability, compile_interface(interface))


def run(work: Callable[[], Awaitable[None]], deadline_s: float = 20.0) -> None:
    """Run `work` in a KJ loop, within a deadline."""
    import capnp

    async def body() -> None:
        async with capnp.kj_loop():
            await asyncio.wait_for(work(), deadline_s)

    asyncio.run(body())

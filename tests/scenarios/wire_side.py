"""`wire.Connection` as client and as server, with no more around it than names.

As a command it serves `scenarios.service:Lobby`, like `pycapnp_side`.
"""

import asyncio
import inspect
import socket
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

from level_1_peer import CallError, Peer, Ref, taken
from scenarios.play import Failure, reason_in
from scenarios.service import SCHEMA, Lobby, ServiceError
from scenarios.serving import serve

from capnp_rig.wire.rpc.capabilities import CapabilityTable
from capnp_rig.wire.rpc.connection import Answered, Called, Event, Released
from capnp_rig.wire.rpc.interfaces import Interface, compile_interface
from capnp_rig.wire.rpc.messages import RemoteError

# The id of `StreamResult` in stream.capnp.
_STREAM_RESULT = 0x995F9A3377C0B16E

_interfaces: dict[int, Interface] = {}


class _Module:
    """What the schema of an interface belongs to."""

    def __init__(self, schema: Any) -> None:
        self.schema = schema


def _interface(schema: Any) -> Interface:
    number = schema.node.id
    if number not in _interfaces:
        _interfaces[number] = compile_interface(_Module(schema))
    return _interfaces[number]


class Capability(Ref):
    """A capability with the schema of its interface, called as services call."""

    def __init__(self, peer: Peer, capability: Any, schema: Any) -> None:
        super().__init__(peer, capability, _interface(schema))
        self.schema = schema

    def pipeline(self, name: str, values: Mapping[str, Any]) -> "Pipeline":
        """Call a method, for its results or for what they will have."""
        promised = super().call(name, values)
        self.peer.flush()
        return Pipeline(promised, self.schema.methods_inherited[name].result_type)

    async def call(self, name: str, values: Mapping[str, Any]) -> Any:  # type: ignore[override]
        return await self.pipeline(name, values)

    async def stream(self, name: str, values: Mapping[str, Any]) -> None:
        """Call, and go on at once: there is no window here."""
        self.pipeline(name, values)

    def cast(self, interface: Any) -> "Capability":
        return Capability(self.peer, self.capability.copy(), interface.schema)

    def close(self) -> None:
        self.release()
        self.peer.flush()


class Pipeline:
    """A call that was made."""

    def __init__(self, promised: Any, schema: Any) -> None:
        self._promised = promised
        self._schema = schema

    def __getattr__(self, name: str) -> Capability:
        schema = self._schema.fields[name].schema
        found = self._promised.field(name, _interface(schema))
        return Capability(found.peer, found.capability, schema)

    def __await__(self) -> Any:
        return self._results().__await__()

    async def _results(self) -> Any:
        try:
            return await self._promised
        except CallError as error:
            raise Failure(reason_in(str(error))) from error


class Table(CapabilityTable):
    """The capabilities of a message, as callers want them."""

    peer: "ScenarioPeer"

    def field(self, index: int, interface: Any) -> Any:
        found = self[index]
        return None if found is None else Capability(self.peer, found.copy(), interface)


class ScenarioPeer(Peer):
    """A peer whose objects get the params only, and are closed."""

    def __init__(self, sock: socket.socket, bootstrap: Any = None) -> None:
        super().__init__(sock, bootstrap)
        self._streams: WeakKeyDictionary[Any, asyncio.Task[Any]] = WeakKeyDictionary()

    def take(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Called(params=content) | Answered(content=content) if content is not None:
                    table = Table(getattr(content[0], "capabilities", ()))
                    table.peer = self
                    content[0].capabilities = table
                case Released(target) if hasattr(target, "close"):
                    target.close()
        super().take(events)

    async def invoke(self, target: Any, name: str, params: Any) -> Any:
        try:
            results = await self._invoke_in_order(target, name, params)
        except Exception as error:
            raise CallError(str(error)) from error
        return {key: self._open(value) for key, value in (results or {}).items()}

    async def _invoke_in_order(self, target: Any, name: str, params: Any) -> Any:
        """Let nothing overtake a streaming call, and nothing be done after one that failed."""
        before = self._streams.get(target)
        method = target.interface.schema.methods_inherited[name]
        if method.result_type.node.id != _STREAM_RESULT:
            if before is not None:
                await asyncio.shield(before)
            return await _results_of(target, name, params)
        self._streams[target] = asyncio.create_task(_after(before, target, name, params))
        return await self._streams[target]

    def _open(self, value: Any) -> Any:
        return self._promise(value) if inspect.iscoroutine(value) else value

    def _promise(self, work: Any) -> Any:
        """Return a promise of ours for an object that is still to be made."""
        promise = self.connection.promise()

        async def resolve() -> None:
            try:
                (target,) = taken([await work])
                promise.resolve(target)
            except ServiceError as error:
                promise.reject(RemoteError(str(error)))
            promise.release()
            self.flush()

        self.tasks[-1 - len(self.tasks)] = asyncio.create_task(resolve())
        return promise.copy()


async def _after(before: Awaitable[Any] | None, target: Any, name: str, params: Any) -> Any:
    if before is not None:
        await before
    return await _results_of(target, name, params)


async def _results_of(target: Any, name: str, params: Any) -> Any:
    results = getattr(target, name)(params)
    return await results if inspect.isawaitable(results) else results


@asynccontextmanager
async def client(port: int) -> AsyncIterator[Capability]:
    """Connect; the bootstrap interface is a lobby."""
    peer = ScenarioPeer(socket.create_connection(("127.0.0.1", port)))
    try:
        yield Capability(peer, peer.connection.bootstrap(), SCHEMA.Lobby.schema)
    finally:
        peer.close()


async def _connected(accepted: socket.socket) -> None:
    await ScenarioPeer(accepted, Lobby()).reader


if __name__ == "__main__":
    asyncio.run(serve(_connected))

"""pycapnp as client and as server: C++ does the calls, here is how names become its calls."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any
from weakref import WeakValueDictionary

import capnp
from pycapnp_peer import connected
from scenarios.service import SCHEMA

# One server for each object, so that it is closed with the last reference to any of its clients.
_servers: WeakValueDictionary[int, Any] = WeakValueDictionary()


class Capability:
    """A client of pycapnp."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._streamed: list[Promised] = []

    def pipeline(self, name: str, values: Mapping[str, Any]) -> "Promised":
        """Call a method, for its results or for what they will have."""
        # A param that is called `name` cannot be a keyword of pycapnp's calls.
        request = self.client._request(name)
        for key, value in written(values).items():
            setattr(request, key, value)
        return Promised(request.send())

    async def call(self, name: str, values: Mapping[str, Any]) -> Any:
        return await self.pipeline(name, values)

    async def stream(self, name: str, values: Mapping[str, Any]) -> None:
        """Call, and go on at once: pycapnp has no window."""
        # One that is dropped would be given up.
        self._streamed.append(self.pipeline(name, values))

    def cast(self, interface: Any) -> "Capability":
        return Capability(self.client.cast_as(interface))

    def close(self) -> None:
        self.client = None
        self._streamed.clear()


class Promised:
    """A call that was made."""

    def __init__(self, promise: Any) -> None:
        self._promise = promise

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._promise, name)
        return Capability(found) if _is_client(found) else Promised(found)

    def __await__(self) -> Any:
        return self._results().__await__()

    async def _results(self) -> "View":
        return View(await self._promise)


class View:
    """A struct that came; what is null in it is None."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def __getattr__(self, name: str) -> Any:
        field = self._reader.schema.fields.get(name)
        if field is not None and str(field.proto.which()) == "slot":
            kind = str(field.proto.slot.type.which())
            if kind == "interface" and not self._reader._has(name):
                return None
        found = getattr(self._reader, name)
        return found if name == "which" else read(found)


def read(value: Any) -> Any:
    """Return what stands for a value of pycapnp's."""
    if _is_client(value):
        return Capability(value)
    match type(value).__name__:
        case "_DynamicStructReader":
            return View(value)
        case "_DynamicListReader":
            return [read(each) for each in value]
    return value


def written(value: Any) -> Any:
    """Return a value as pycapnp takes it."""
    if isinstance(value, Mapping):
        return {key: written(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [written(each) for each in value]
    if isinstance(value, Capability):
        return value.client
    if isinstance(value, Server) or not hasattr(value, "interface"):
        return value
    return Server.of(value)


def _is_client(value: Any) -> bool:
    return isinstance(value, capnp.lib.capnp._DynamicCapabilityClient)


class Server:
    """A service object for pycapnp."""

    def __init__(self, target: Any) -> None:
        self.target = target

    @classmethod
    def of(cls, target: Any) -> Any:
        server = _servers.get(id(target))
        if server is None:
            server = _servers[id(target)] = _server_class(target.interface)(target)
        return server

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.target, name.removesuffix("_context"))

        async def serve(context: Any) -> None:
            results = method(View(context.params))
            if asyncio.iscoroutine(results):
                results = await results
            for key, value in written(results or {}).items():
                setattr(context.results, key, value)

        return serve

    def __del__(self) -> None:
        if hasattr(self.target, "close"):
            self.target.close()


@cache
def _server_class(interface: Any) -> type:
    return type("_Server", (Server, interface.Server), {})


@asynccontextmanager
async def client(port: int) -> AsyncIterator[Capability]:
    """Connect, within a KJ loop."""
    async with connected(port, interface=SCHEMA.Lobby) as lobby:
        yield Capability(lobby)

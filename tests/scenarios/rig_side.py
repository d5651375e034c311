"""The rig's own clients, as the scenarios call."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from scenarios.service import SCHEMA

from capnp_rig.client import AsyncClient, Client


@asynccontextmanager
async def async_client(port: int) -> AsyncIterator[Any]:
    """Connect; its capabilities are called as they are."""
    async with await AsyncClient.connect(f"127.0.0.1:{port}", interface=SCHEMA.Lobby) as client:
        yield client.bootstrap()


@asynccontextmanager
async def blocking_client(port: int) -> AsyncIterator["Blocking"]:
    """Connect; calls block, though they seem to be awaited."""
    with Client.connect(f"127.0.0.1:{port}", interface=SCHEMA.Lobby) as client:
        yield Blocking(client.bootstrap())


class Blocking:
    """What a blocking client has: a capability, results, or results to come."""

    is_blocking = True

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __getattr__(self, name: str) -> Any:
        return wrapped(getattr(self.thing, name))

    def pipeline(self, name: str, values: Mapping[str, Any]) -> "Blocking":
        return Blocking(self.thing.pipeline(name, unwrapped(values)))

    def cast(self, interface: Any) -> "Blocking":
        return Blocking(self.thing.cast(interface))

    def close(self) -> None:
        self.thing.close()

    async def call(self, name: str, values: Mapping[str, Any]) -> Any:
        return wrapped(self.thing.call(name, unwrapped(values)))

    def __await__(self) -> Any:
        return self._wait().__await__()

    async def _wait(self) -> Any:
        return wrapped(self.thing.wait())


def wrapped(value: Any) -> Any:
    """Return what may have capabilities for calls that are awaited; other values as they are."""
    if value is None or isinstance(value, (str, bytes, memoryview, int, float)):
        return value
    return [wrapped(each) for each in value] if isinstance(value, Sequence) else Blocking(value)


def unwrapped(value: Any) -> Any:
    """Return params as the client takes them."""
    if isinstance(value, Mapping):
        return {key: unwrapped(each) for key, each in value.items()}
    if isinstance(value, list):
        return [unwrapped(each) for each in value]
    return value.thing if isinstance(value, Blocking) else value

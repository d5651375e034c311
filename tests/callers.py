"""Blocking and asyncio clients with the same verbs, so that a test is written once for all of them.

What is asyncio runs in a loop of its own in a thread of its own, so that both kinds may be used by
any number of threads, and go on with what they do in the background between two calls.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Protocol

import pytest
import uvloop

from capnp_rig.client import AsyncChannel, AsyncClient, Channel, Client
from capnp_rig.schema import message

# No test waits so long for anything.
_FAR_TOO_LONG_S = 60.0


class Caller(Protocol):
    """Something to call methods of."""

    def call(self, method: str, params: Any = None, *, timeout_s: float | None = None) -> Any: ...


class _OnLoop:
    """An asyncio client, called from elsewhere."""

    def __init__(self, client: Any, run: Callable[[Awaitable[Any]], Any]) -> None:
        self.client = client
        self.run = run

    @property
    def endpoints(self) -> Any:
        return self.client.endpoints

    def call(self, method: str, params: Any = None, *, timeout_s: float | None = None) -> Any:
        return self.run(self.client.call(method, params, timeout_s=timeout_s))


def reverse(caller: Caller, text: str, timeout_s: float | None = 10.0) -> str:
    """Return what the server makes of a text; it is to be the text in reverse."""
    results = caller.call("read", {"request": {"content": text}}, timeout_s=timeout_s)
    return bytes(results.chunk).decode()


@contextmanager
def running_loop(factory: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[Any]:
    """Run a loop in a thread; yield what runs a coroutine there and returns its result."""
    with closing(factory()) as loop:
        thread = threading.Thread(target=loop.run_forever, name="loop")
        thread.start()

        def run(coroutine: Any) -> Any:
            future = asyncio.run_coroutine_threadsafe(coroutine, loop)
            return future.result(_FAR_TOO_LONG_S)

        try:
            yield run
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            assert not thread.is_alive()


@contextmanager
def blocking(address: str, **options: Any) -> Iterator[Caller]:
    with Client.connect(address, **_with_interface(options)) as client:
        yield client


@contextmanager
def on_asyncio(address: str, **options: Any) -> Iterator[Caller]:
    yield from _on_loop(asyncio.new_event_loop, address, options)


@contextmanager
def on_uvloop(address: str, **options: Any) -> Iterator[Caller]:
    yield from _on_loop(uvloop.new_event_loop, address, options)


def _on_loop(factory: Any, address: str, options: dict[str, Any]) -> Iterator[Caller]:
    with running_loop(factory) as run:
        client = run(AsyncClient.connect(address, **_with_interface(options)))
        try:
            yield _OnLoop(client, run)
        finally:
            run(client.close())


@contextmanager
def blocking_channel(endpoints: Any, **options: Any) -> Iterator[Caller]:
    with Channel(endpoints, interface=message.MessageStream, **options) as channel:
        yield channel


@contextmanager
def asyncio_channel(endpoints: Any, **options: Any) -> Iterator[Caller]:
    yield from _channel_on_loop(asyncio.new_event_loop, endpoints, options)


@contextmanager
def uvloop_channel(endpoints: Any, **options: Any) -> Iterator[Caller]:
    yield from _channel_on_loop(uvloop.new_event_loop, endpoints, options)


def _channel_on_loop(factory: Any, endpoints: Any, options: dict[str, Any]) -> Iterator[Caller]:
    with running_loop(factory) as run:
        channel = AsyncChannel(endpoints, interface=message.MessageStream, **options)
        run(channel.__aenter__())
        try:
            yield _OnLoop(channel, run)
        finally:
            run(channel.close())


def _with_interface(options: dict[str, Any]) -> dict[str, Any]:
    return {"interface": message.MessageStream, "connect_timeout_s": 5, **options}


Connected = Callable[..., Any]
# For a parameter `client`: what connects to an address, as a context manager.
each_client = pytest.mark.parametrize(
    "client", [blocking, pytest.param(on_asyncio, marks=pytest.mark.nightly), on_uvloop]
)
# Where it takes its time, and both loops wait alike.
both_clients = pytest.mark.parametrize("client", [blocking, on_asyncio])
# For a parameter `channel`, likewise.
each_channel = pytest.mark.parametrize(
    "channel",
    [blocking_channel, asyncio_channel, pytest.param(uvloop_channel, marks=pytest.mark.nightly)],
)
both_channels = pytest.mark.parametrize("channel", [blocking_channel, asyncio_channel])

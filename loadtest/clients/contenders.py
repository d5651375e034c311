"""The clients that are compared: each opens itself towards some servers, and calls their service.

A call takes a text, and returns it reversed, in UTF-8. It has `DEADLINE_S` for everything.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import cycle
from typing import Any

from capnp_rig.client.asyncio_client import AsyncClient
from capnp_rig.client.channels.asyncio_channel import AsyncChannel
from capnp_rig.client.policies import Hedge, Policy, RoundRobin, default_stack
from capnp_rig.loadtest.clients.client_figures import JUDGED
from capnp_rig.loadtest.clients.fault_plan import DEADLINE_S
from capnp_rig.schema import message

ATTEMPTS = 3

Call = Callable[[str], Awaitable[bytes]]
Contender = Callable[[Sequence[str]], AbstractAsyncContextManager[Call]]


class _BareClients:
    """A client per server, as somebody writes it who has no channel.

    Calls go to the servers by turns. One whose client is no longer open connects anew, and calls
    to the same server wait for it; where that fails, so does the call. Nothing is tried again.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self.clients: dict[str, AsyncClient] = {}
        self._turns = cycle(addresses)
        self._locks = {address: asyncio.Lock() for address in addresses}

    async def call(self, text: str) -> bytes:
        client = await self._client(next(self._turns))
        results = await client.call("read", _params(text), timeout_s=DEADLINE_S)
        return bytes(results.chunk)

    async def _client(self, address: str) -> AsyncClient:
        async with self._locks[address]:
            client = self.clients.get(address)
            if client is None or not client.is_open:
                client = self.clients[address] = await AsyncClient.connect(
                    address, interface=message.MessageStream, connect_timeout_s=DEADLINE_S
                )
            return client


def _params(text: str) -> dict[str, dict[str, str]]:
    return {"request": {"content": text}}


@asynccontextmanager
async def _bare(addresses: Sequence[str]) -> AsyncIterator[Call]:
    bare = _BareClients(addresses)
    try:
        yield bare.call
    finally:
        for client in bare.clients.values():
            await client.close()


def _channel(policies: Callable[[], Sequence[Policy]]) -> Contender:
    """Return a channel with some policies, fresh ones for each."""

    @asynccontextmanager
    async def opened(addresses: Sequence[str]) -> AsyncIterator[Call]:
        async with AsyncChannel(
            addresses, interface=message.MessageStream, idempotent={"read"}, policies=policies()
        ) as channel:

            async def call(text: str) -> bytes:
                results = await channel.call("read", _params(text), timeout_s=DEADLINE_S)
                return bytes(results.chunk)

            yield call

    return opened


# As the default stack has them, for whom a lost connection is UNAVAILABLE.
_GRPC_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": ATTEMPTS,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}


@asynccontextmanager
async def _grpc_aio(addresses: Sequence[str]) -> AsyncIterator[Call]:
    # It ships no type information.
    import grpc  # type: ignore[import-untyped, unused-ignore]

    from capnp_rig.schema.reverse_proto import READ, SERVICE, Chunk, MessageContent

    options = [
        ("grpc.service_config", json.dumps(_GRPC_CONFIG)),
        ("grpc.enable_http_proxy", 0),
        # Those of our channel: by default it waits a second, and up to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 800),
    ]
    async with grpc.aio.insecure_channel(f"ipv4:{','.join(addresses)}", options=options) as channel:
        read = channel.unary_unary(
            f"/{SERVICE}/{READ}",
            request_serializer=MessageContent.SerializeToString,
            response_deserializer=Chunk.FromString,
        )

        async def call(text: str) -> bytes:
            reply: Any = await read(MessageContent(content=text), timeout=DEADLINE_S)
            chunk: bytes = reply.chunk
            return chunk

        yield call


GRPC = "grpc.aio"
CONTENDERS: Mapping[str, Contender] = {
    "bare": _bare,
    "round-robin": _channel(lambda: [RoundRobin()]),
    JUDGED: _channel(default_stack),
    "hedge": _channel(lambda: [*default_stack(), Hedge()]),
    GRPC: _grpc_aio,
}

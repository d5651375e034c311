"""Clients of the tutorial's service, `MessageStream`: they send a text and get it reversed."""

from typing import Any

from capnp_rig.client.asyncio_client import AsyncClient
from capnp_rig.client.blocking_client import Client
from capnp_rig.objects.errors import ProtocolError
from capnp_rig.schema import message
from capnp_rig.wire.errors import MalformedMessage
from capnp_rig.wire.rpc.interfaces import compile_interface

MESSAGE_STREAM = compile_interface(message.MessageStream)


class ReverseClient(Client):
    """A `Client` of `MessageStream`."""

    interface = MESSAGE_STREAM

    def read(self, text: str, *, timeout_s: float | None = None) -> bytes:
        """Call ``MessageStream.read``: return the text reversed, as UTF-8.

        Raises:
            EncodeError: The text holds a lone surrogate, or is over the message limit.
            ClientError: As `Client.call`.
        """
        return _chunk(self.call("read", _params(text), timeout_s=timeout_s))

    def reverse(self, text: str, *, timeout_s: float | None = None) -> str:
        """Return `text` reversed.

        Raises:
            ProtocolError: The answer is not UTF-8.
            ClientError: As `Client.call`.
        """
        return _text(self.read(text, timeout_s=timeout_s))


class AsyncReverseClient(AsyncClient):
    """An `AsyncClient` of `MessageStream`."""

    interface = MESSAGE_STREAM

    async def read(self, text: str, *, timeout_s: float | None = None) -> bytes:
        """Call ``MessageStream.read``, as `ReverseClient.read`."""
        return _chunk(await self.call("read", _params(text), timeout_s=timeout_s))

    async def reverse(self, text: str, *, timeout_s: float | None = None) -> str:
        """Return `text` reversed, as `ReverseClient.reverse`."""
        return _text(await self.read(text, timeout_s=timeout_s))


def _params(text: str) -> dict[str, Any]:
    return {"request": {"content": text}}


def _chunk(results: Any) -> bytes:
    try:
        return bytes(results.chunk)
    except MalformedMessage as error:
        raise ProtocolError(str(error)) from error


def _text(chunk: bytes) -> str:
    try:
        return chunk.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"the answer is not UTF-8: {error.reason}") from error

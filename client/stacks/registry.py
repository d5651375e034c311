"""Blocking clients of the stacks that stand beside capnp: one connection, one call at a time.

Each takes a text and returns the server's answer as bytes: the reversed text, or from the echo the
text itself. ``server/stacks`` describes the wire formats.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from capnp_rig.objects.timeouts import CALL_TIMEOUT_S, CONNECT_TIMEOUT_S, check_timeout
from capnp_rig.rigcli.address import Address

if TYPE_CHECKING:
    from capnp_rig.client.tls import Tls

STACKS = ("capnp", "echo", "json", "http", "grpc", "selectors")


class LibraryMissingError(Exception):
    """A stack needs a library that is not installed; the message says how to get it."""


class TextClient(Protocol):
    """A connection to a server that answers texts."""

    def read(self, text: str) -> bytes:
        """Return the server's answer to `text`, in UTF-8.

        Raises:
            EncodeError: The text holds a lone surrogate.
            ClientError: There is no such answer.
        """

    def close(self) -> None:
        """Close the connection."""


class StackClient(TextClient, Protocol):
    """A connection to the server of one stack, made and used in one process.

    After `Disconnected` it is of no further use, nor after a call that was overdue or
    interrupted: where calls have no numbers, its late answer would be the next call's.
    """

    def ping(self) -> None:
        """Make the smallest call there is.

        Raises:
            ClientError: It was not answered as it should.
        """


def connect_stack(
    stack: str,
    address: Address,
    *,
    timeout_s: float = CALL_TIMEOUT_S,
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
    http2: bool = False,
    tls: "Tls | None" = None,
) -> StackClient:
    """Connect to the server of a stack other than capnp; `timeout_s` is for each call.

    Raises:
        UsageError: A timeout is not 0 to a year.
        ConnectError: Nobody answers there, or TLS is refused.
        LibraryMissingError: The stack needs a library that is not installed.
    """
    check_timeout(timeout_s)
    try:
        if stack == "grpc":
            # Its core writes to stderr by itself, of what is told here as an error.
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")
            from capnp_rig.client.stacks.grpc_client import GrpcClient

            # It makes its connections itself.
            return GrpcClient(
                address, timeout_s=timeout_s, connect_timeout_s=connect_timeout_s, tls=tls
            )
        kind = _client_type(stack, http2=http2)
    except ModuleNotFoundError as error:
        raise LibraryMissingError(
            f"--stack {stack} needs {error.name}: pip install 'capnp-rig[stacks]'"
        ) from error
    from capnp_rig.client.connecting import connect_socket, secured

    security = secured(tls, ["h2" if http2 else "http/1.1"] if stack == "http" else ())
    return kind(connect_socket(address, connect_timeout_s, security), address, timeout_s)


def _client_type(stack: str, *, http2: bool) -> Callable[[Any, Address, float], StackClient]:
    """Return what makes a client of a stack from its connected socket."""
    if http2:
        from capnp_rig.client.stacks.http2_client import Http2Client

        return Http2Client
    if stack == "http":
        from capnp_rig.client.stacks.http1_client import HttpClient

        return HttpClient
    from capnp_rig.client.stacks import byte_clients

    if stack == "echo":
        return byte_clients.EchoClient
    return byte_clients.JsonClient if stack == "json" else byte_clients.FrameClient

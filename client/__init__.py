"""Call a Cap'n Proto server: `Client` blocks, `AsyncClient` is for asyncio.

>>> from capnp_rig import Client, load_schema
>>> Adder = load_schema("adder.capnp").Adder  # doctest: +SKIP
>>> with Client.connect("127.0.0.1:5000", interface=Adder) as client:  # doctest: +SKIP
...     client.call("add", {"left": 2, "right": 3}).sum
5

`ReverseClient` and `AsyncReverseClient` are those of the tutorial's service.

>>> with ReverseClient.connect("127.0.0.1:5000") as client:  # doctest: +SKIP
...     client.reverse("Hello")
'olleH'
"""

import importlib

# As type checkers know it, without the 5 ms that the import of typing takes.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capnp_rig.client.asyncio_client import AsyncClient
    from capnp_rig.client.blocking_client import Client, PendingCall
    from capnp_rig.client.errors import (
        ClientError,
        ConnectError,
        DeadlineExceeded,
        Disconnected,
        Overloaded,
        ProtocolError,
        RemoteError,
        UsageError,
        UsedAfterFork,
    )
    from capnp_rig.client.reverse import AsyncReverseClient, ReverseClient
    from capnp_rig.wire.errors import EncodeError, NotAnInterface

# Imported when they are asked for: until `client.__main__` runs, Ctrl-C would show half an import.
_MODULES = {
    "AsyncClient": "capnp_rig.client.asyncio_client",
    "AsyncReverseClient": "capnp_rig.client.reverse",
    "Client": "capnp_rig.client.blocking_client",
    "EncodeError": "capnp_rig.wire.errors",
    "NotAnInterface": "capnp_rig.wire.errors",
    "PendingCall": "capnp_rig.client.blocking_client",
    "ReverseClient": "capnp_rig.client.reverse",
}

__all__ = [
    "AsyncClient",
    "AsyncReverseClient",
    "Client",
    "ClientError",
    "ConnectError",
    "DeadlineExceeded",
    "Disconnected",
    "EncodeError",
    "NotAnInterface",
    "Overloaded",
    "PendingCall",
    "ProtocolError",
    "RemoteError",
    "ReverseClient",
    "UsageError",
    "UsedAfterFork",
]


def __getattr__(name: str) -> "Any":
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_MODULES.get(name, "capnp_rig.client.errors"))
    return globals().setdefault(name, getattr(module, name))

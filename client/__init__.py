"""Call a Cap'n Proto server: `Client` blocks, `AsyncClient` is for asyncio.

>>> from client import Client
>>> with Client.connect("127.0.0.1:5000") as client:  # doctest: +SKIP
...     client.reverse("Hello")
'olleH'
"""

import importlib

# As type checkers know it, without the 5 ms that the import of typing takes.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from client.aio import AsyncClient
    from client.blocking import Client, PendingCall
    from client.errors import (
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
    from wire.errors import EncodeError

# Imported when they are asked for: until `client.__main__` runs, Ctrl-C would show half an import.
_MODULES = {
    "AsyncClient": "client.aio",
    "Client": "client.blocking",
    "EncodeError": "wire.errors",
    "PendingCall": "client.blocking",
}

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "ConnectError",
    "DeadlineExceeded",
    "Disconnected",
    "EncodeError",
    "Overloaded",
    "PendingCall",
    "ProtocolError",
    "RemoteError",
    "UsageError",
    "UsedAfterFork",
]


def __getattr__(name: str) -> "Any":  # noqa: ANN401 - whatever it is
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_MODULES.get(name, "client.errors"))
    return globals().setdefault(name, getattr(module, name))

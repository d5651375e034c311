"""Call a Cap'n Proto server: `Client` blocks, `AsyncClient` is for asyncio.

>>> from client import Client
>>> with Client.connect("127.0.0.1:5000") as client:  # doctest: +SKIP
...     client.reverse("Hello")
'olleH'
"""

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

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

from capnp_rig._lazy import lazy_names

# As type checkers know it, without the 5 ms that the import of typing takes.
TYPE_CHECKING = False
if TYPE_CHECKING:
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

__getattr__ = lazy_names(
    __name__,
    {
        "capnp_rig.client.asyncio_client": ("AsyncClient",),
        "capnp_rig.client.blocking_client": ("Client", "PendingCall"),
        "capnp_rig.client.errors": (
            "ClientError",
            "ConnectError",
            "DeadlineExceeded",
            "Disconnected",
            "Overloaded",
            "ProtocolError",
            "RemoteError",
            "UsageError",
            "UsedAfterFork",
        ),
        "capnp_rig.client.reverse": ("AsyncReverseClient", "ReverseClient"),
        "capnp_rig.wire.errors": ("EncodeError", "NotAnInterface"),
    },
)

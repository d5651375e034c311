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
    from capnp_rig.client.asyncio_client import AsyncClient as AsyncClient
    from capnp_rig.client.blocking_client import Capability as Capability
    from capnp_rig.client.blocking_client import Client as Client
    from capnp_rig.client.blocking_client import PendingCall as PendingCall
    from capnp_rig.client.channels.asyncio_channel import AsyncChannel as AsyncChannel
    from capnp_rig.client.channels.blocking_channel import Channel as Channel
    from capnp_rig.client.reverse import AsyncReverseClient as AsyncReverseClient
    from capnp_rig.client.reverse import ReverseClient as ReverseClient
    from capnp_rig.client.tls import Tls as Tls
    from capnp_rig.objects.caller import AsyncCapability as AsyncCapability
    from capnp_rig.objects.errors import ClientError as ClientError
    from capnp_rig.objects.errors import ConnectError as ConnectError
    from capnp_rig.objects.errors import DeadlineExceeded as DeadlineExceeded
    from capnp_rig.objects.errors import Disconnected as Disconnected
    from capnp_rig.objects.errors import Overloaded as Overloaded
    from capnp_rig.objects.errors import ProtocolError as ProtocolError
    from capnp_rig.objects.errors import RemoteError as RemoteError
    from capnp_rig.objects.errors import ResultsTooLarge as ResultsTooLarge
    from capnp_rig.objects.errors import UsageError as UsageError
    from capnp_rig.objects.errors import UsedAfterFork as UsedAfterFork
    from capnp_rig.wire.errors import EncodeError as EncodeError
    from capnp_rig.wire.errors import NotAnInterface as NotAnInterface
    from capnp_rig.wire.errors import UnusableCapability as UnusableCapability

__getattr__ = lazy_names(
    __name__,
    {
        "capnp_rig.client.asyncio_client": "AsyncClient",
        "capnp_rig.client.blocking_client": "Capability Client PendingCall",
        "capnp_rig.client.channels.asyncio_channel": "AsyncChannel",
        "capnp_rig.client.channels.blocking_channel": "Channel",
        "capnp_rig.objects.caller": "AsyncCapability",
        "capnp_rig.objects.errors": (
            "ClientError ConnectError DeadlineExceeded Disconnected Overloaded ProtocolError "
            "RemoteError ResultsTooLarge UsageError UsedAfterFork"
        ),
        "capnp_rig.client.reverse": "AsyncReverseClient ReverseClient",
        "capnp_rig.client.tls": "Tls",
        "capnp_rig.wire.errors": "EncodeError NotAnInterface UnusableCapability",
    },
)

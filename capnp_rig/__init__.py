"""A Cap'n Proto RPC server for Python, its client, and the rig that load-tests it.

This module is the public API: what a project imports that calls or serves an interface of its own.

- `load_schema` opens a ``.capnp`` file; its attributes are the interfaces and structs in it.
- `Client` and `AsyncClient` call an interface, `ReverseClient` and `AsyncReverseClient` the
  tutorial's; a call ends in its results or in a `ClientError`.
- `Channel` and `AsyncChannel` do so over many connections to several servers: pools, retries,
  balancing, by the policies in `client.policies`.
- `Tls` says what a client needs to connect over TLS.
- `Capability` and `AsyncCapability` are objects at the other side, as results and params have
  them. An object with an `interface` and its methods, given in params or results, is served.
- A service is a class of such objects, see `objects.binding`. It raises `ServiceError` to send a
  text to the peer, and is served with ``server run --service``. `call_context` tells its methods
  who calls; `simulated_call` does so in its tests.
- `read_result` reads the folder that a run of the load rig left.

The packages stand at the top of the source tree; this folder links to them, so that they have
one import name between them.

Examples:
    >>> from capnp_rig import Client, load_schema
    >>> Adder = load_schema("adder.capnp").Adder  # doctest: +SKIP
    >>> with Client.connect("127.0.0.1:5000", interface=Adder) as client:  # doctest: +SKIP
    ...     client.call("add", {"left": 2, "right": 3}).sum
    5
"""

from capnp_rig._lazy import lazy_names

# As type checkers know it, without the 5 ms that the import of typing takes.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from capnp_rig.client import AsyncCapability as AsyncCapability
    from capnp_rig.client import AsyncChannel as AsyncChannel
    from capnp_rig.client import AsyncClient as AsyncClient
    from capnp_rig.client import AsyncReverseClient as AsyncReverseClient
    from capnp_rig.client import Capability as Capability
    from capnp_rig.client import Channel as Channel
    from capnp_rig.client import Client as Client
    from capnp_rig.client import ClientError as ClientError
    from capnp_rig.client import ConnectError as ConnectError
    from capnp_rig.client import DeadlineExceeded as DeadlineExceeded
    from capnp_rig.client import Disconnected as Disconnected
    from capnp_rig.client import Overloaded as Overloaded
    from capnp_rig.client import PendingCall as PendingCall
    from capnp_rig.client import ProtocolError as ProtocolError
    from capnp_rig.client import RemoteError as RemoteError
    from capnp_rig.client import ResultsTooLarge as ResultsTooLarge
    from capnp_rig.client import ReverseClient as ReverseClient
    from capnp_rig.client import Tls as Tls
    from capnp_rig.client import UnusableCapability as UnusableCapability
    from capnp_rig.client import UsageError as UsageError
    from capnp_rig.client import UsedAfterFork as UsedAfterFork
    from capnp_rig.client.tracing import trace_calls as trace_calls
    from capnp_rig.client.tracing import trace_no_calls as trace_no_calls
    from capnp_rig.loadtest import Figure as Figure
    from capnp_rig.loadtest import Result as Result
    from capnp_rig.loadtest import ResultError as ResultError
    from capnp_rig.loadtest import read_result as read_result
    from capnp_rig.objects.call_context import CallContext as CallContext
    from capnp_rig.objects.call_context import CallLog as CallLog
    from capnp_rig.objects.call_context import call_context as call_context
    from capnp_rig.objects.call_peer import CallPeer as CallPeer
    from capnp_rig.objects.call_peer import PeerCertificate as PeerCertificate
    from capnp_rig.objects.simulated_calls import simulated_call as simulated_call
    from capnp_rig.rigcli.address import AddressError as AddressError
    from capnp_rig.schema import SchemaError as SchemaError
    from capnp_rig.schema import load_schema as load_schema
    from capnp_rig.server import ServiceError as ServiceError
    from capnp_rig.wire import EncodeError as EncodeError
    from capnp_rig.wire import InactiveMember as InactiveMember
    from capnp_rig.wire import MalformedMessage as MalformedMessage
    from capnp_rig.wire import NotAnInterface as NotAnInterface
    from capnp_rig.wire import ViewExpired as ViewExpired

__getattr__ = lazy_names(
    __name__,
    {
        "capnp_rig.client": (
            "AsyncCapability AsyncChannel AsyncClient AsyncReverseClient Capability Channel Client "
            "ClientError ConnectError DeadlineExceeded Disconnected Overloaded PendingCall "
            "ProtocolError RemoteError ResultsTooLarge ReverseClient Tls UnusableCapability "
            "UsageError UsedAfterFork"
        ),
        "capnp_rig.client.tracing": "trace_calls trace_no_calls",
        "capnp_rig.loadtest": "Figure Result ResultError read_result",
        "capnp_rig.objects.call_context": "CallContext CallLog call_context",
        "capnp_rig.objects.call_peer": "CallPeer PeerCertificate",
        "capnp_rig.objects.simulated_calls": "simulated_call",
        "capnp_rig.rigcli.address": "AddressError",
        "capnp_rig.schema": "SchemaError load_schema",
        "capnp_rig.server": "ServiceError",
        "capnp_rig.wire": (
            "EncodeError InactiveMember MalformedMessage NotAnInterface ViewExpired"
        ),
    },
)

"""Cap'n Proto RPC Level 1 on plain bytes: no sockets, no clocks, no processes.

Feed received bytes to a `Connection`: it returns typed events, and `data_to_send` has the bytes to
send. `ClientConnection` and `ServerConnection` are for those who only call, or only serve, the
bootstrap interface. `compile_struct` and `compile_interface` return what reads and writes the
structs of a schema. `wire.encoding` has the frames and the encoding, `wire.rpc` the messages and
the connections.
"""

from capnp_rig._lazy import lazy_names

# As type checkers know it, without the 5 ms that the import of typing takes.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from capnp_rig.wire.encoding.any_pointers import AnyValue as AnyValue
    from capnp_rig.wire.encoding.frames import FrameDecoder as FrameDecoder
    from capnp_rig.wire.encoding.frames import FrameLimits as FrameLimits
    from capnp_rig.wire.encoding.structs import StructCodec as StructCodec
    from capnp_rig.wire.encoding.structs import StructView as StructView
    from capnp_rig.wire.encoding.structs import compile_struct as compile_struct
    from capnp_rig.wire.errors import Disconnected as Disconnected
    from capnp_rig.wire.errors import EncodeError as EncodeError
    from capnp_rig.wire.errors import FrameTooLarge as FrameTooLarge
    from capnp_rig.wire.errors import InactiveMember as InactiveMember
    from capnp_rig.wire.errors import LocalProtocolError as LocalProtocolError
    from capnp_rig.wire.errors import MalformedMessage as MalformedMessage
    from capnp_rig.wire.errors import NotAFrame as NotAFrame
    from capnp_rig.wire.errors import NotAnInterface as NotAnInterface
    from capnp_rig.wire.errors import RemoteProtocolError as RemoteProtocolError
    from capnp_rig.wire.errors import TableFull as TableFull
    from capnp_rig.wire.errors import UnusableCapability as UnusableCapability
    from capnp_rig.wire.errors import ViewExpired as ViewExpired
    from capnp_rig.wire.errors import WireError as WireError
    from capnp_rig.wire.rpc.capabilities import Capability as Capability
    from capnp_rig.wire.rpc.capabilities import CapabilityTable as CapabilityTable
    from capnp_rig.wire.rpc.capabilities import OpenPromise as OpenPromise
    from capnp_rig.wire.rpc.client_connection import ClientConnection as ClientConnection
    from capnp_rig.wire.rpc.connection import Answered as Answered
    from capnp_rig.wire.rpc.connection import Answers as Answers
    from capnp_rig.wire.rpc.connection import BootstrapFailed as BootstrapFailed
    from capnp_rig.wire.rpc.connection import Called as Called
    from capnp_rig.wire.rpc.connection import Cancelled as Cancelled
    from capnp_rig.wire.rpc.connection import Connection as Connection
    from capnp_rig.wire.rpc.connection import Ended as Ended
    from capnp_rig.wire.rpc.connection import Failed as Failed
    from capnp_rig.wire.rpc.connection import Limits as Limits
    from capnp_rig.wire.rpc.connection import Released as Released
    from capnp_rig.wire.rpc.connection import Unreadable as Unreadable
    from capnp_rig.wire.rpc.inline_methods import ResultsWith as ResultsWith
    from capnp_rig.wire.rpc.interfaces import Interface as Interface
    from capnp_rig.wire.rpc.interfaces import Method as Method
    from capnp_rig.wire.rpc.interfaces import compile_interface as compile_interface
    from capnp_rig.wire.rpc.messages import ExceptionType as ExceptionType
    from capnp_rig.wire.rpc.messages import RemoteError as RemoteError
    from capnp_rig.wire.rpc.server_connection import ServerConnection as ServerConnection

__getattr__ = lazy_names(
    __name__,
    {
        "capnp_rig.wire.encoding.any_pointers": "AnyValue",
        "capnp_rig.wire.encoding.frames": "FrameDecoder FrameLimits",
        "capnp_rig.wire.encoding.structs": "StructCodec StructView compile_struct",
        "capnp_rig.wire.errors": (
            "Disconnected EncodeError FrameTooLarge InactiveMember LocalProtocolError "
            "MalformedMessage NotAFrame NotAnInterface RemoteProtocolError TableFull "
            "UnusableCapability ViewExpired WireError"
        ),
        "capnp_rig.wire.rpc.capabilities": "Capability CapabilityTable OpenPromise",
        "capnp_rig.wire.rpc.client_connection": "ClientConnection",
        "capnp_rig.wire.rpc.connection": (
            "Answered Answers BootstrapFailed Called Cancelled Connection Ended Failed Limits "
            "Released Unreadable"
        ),
        "capnp_rig.wire.rpc.inline_methods": "ResultsWith",
        "capnp_rig.wire.rpc.interfaces": "Interface Method compile_interface",
        "capnp_rig.wire.rpc.messages": "ExceptionType RemoteError",
        "capnp_rig.wire.rpc.server_connection": "ServerConnection",
    },
)

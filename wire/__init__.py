"""Cap'n Proto RPC Level 0 on plain bytes: no sockets, no clocks, no processes.

Feed received bytes to a `ClientConnection` or a `ServerConnection`: it returns typed events, and
`data_to_send` has the bytes to send. `compile_struct` and `compile_interface` return what reads
and writes the structs of a schema. `wire.encoding` has the frames and the encoding, `wire.rpc` the
messages and the connections.
"""

from capnp_rig._lazy import lazy_names

# As type checkers know it, without the 5 ms that the import of typing takes.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from capnp_rig.wire.encoding.frames import FrameDecoder, FrameLimits
    from capnp_rig.wire.encoding.structs import StructCodec, StructView, compile_struct
    from capnp_rig.wire.errors import (
        EncodeError,
        FrameTooLarge,
        InactiveMember,
        LocalProtocolError,
        MalformedMessage,
        NotAFrame,
        NotAnInterface,
        RemoteProtocolError,
        ViewExpired,
        WireError,
    )
    from capnp_rig.wire.rpc.client_connection import ClientConnection
    from capnp_rig.wire.rpc.connection import (
        Answered,
        Answers,
        BootstrapFailed,
        Called,
        Cancelled,
        Ended,
        Failed,
        Limits,
        Unreadable,
    )
    from capnp_rig.wire.rpc.interfaces import Interface, Method, compile_interface
    from capnp_rig.wire.rpc.messages import ExceptionType, RemoteError
    from capnp_rig.wire.rpc.server_connection import ServerConnection

__all__ = [
    "Answered",
    "Answers",
    "BootstrapFailed",
    "Called",
    "Cancelled",
    "ClientConnection",
    "EncodeError",
    "Ended",
    "ExceptionType",
    "Failed",
    "FrameDecoder",
    "FrameLimits",
    "FrameTooLarge",
    "InactiveMember",
    "Interface",
    "Limits",
    "LocalProtocolError",
    "MalformedMessage",
    "Method",
    "NotAFrame",
    "NotAnInterface",
    "RemoteError",
    "RemoteProtocolError",
    "ServerConnection",
    "StructCodec",
    "StructView",
    "Unreadable",
    "ViewExpired",
    "WireError",
    "compile_interface",
    "compile_struct",
]

__getattr__ = lazy_names(
    __name__,
    {
        "capnp_rig.wire.encoding.frames": ("FrameDecoder", "FrameLimits"),
        "capnp_rig.wire.encoding.structs": ("StructCodec", "StructView", "compile_struct"),
        "capnp_rig.wire.errors": (
            "EncodeError",
            "FrameTooLarge",
            "InactiveMember",
            "LocalProtocolError",
            "MalformedMessage",
            "NotAFrame",
            "NotAnInterface",
            "RemoteProtocolError",
            "ViewExpired",
            "WireError",
        ),
        "capnp_rig.wire.rpc.client_connection": ("ClientConnection",),
        "capnp_rig.wire.rpc.connection": (
            "Answered",
            "Answers",
            "BootstrapFailed",
            "Called",
            "Cancelled",
            "Ended",
            "Failed",
            "Limits",
            "Unreadable",
        ),
        "capnp_rig.wire.rpc.interfaces": ("Interface", "Method", "compile_interface"),
        "capnp_rig.wire.rpc.messages": ("ExceptionType", "RemoteError"),
        "capnp_rig.wire.rpc.server_connection": ("ServerConnection",),
    },
)

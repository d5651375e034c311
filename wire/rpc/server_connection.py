"""A connection that serves one object, and asks for none."""

from capnp_rig.wire.rpc.connection import Connection, Limits

# What `Called` names as its target.
MAIN = object()


class ServerConnection(Connection):
    """The callee's end: exports one bootstrap capability and answers the calls to it."""

    __slots__ = ()

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(limits, MAIN)

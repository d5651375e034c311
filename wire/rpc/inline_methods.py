"""Methods that are answered on the spot, without an event."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.pointers import StructTuple
from capnp_rig.wire.rpc.messages import RemoteError


class ResultsWith:
    """Results with capabilities: `Capability` objects, which are borrowed, or objects to host."""

    __slots__ = ("capabilities", "results")

    def __init__(self, results: EncodedTuple, capabilities: Sequence[Any]) -> None:
        self.results = results
        self.capabilities = capabilities


# A method by interface id and method id: gets the params, returns the results or an error.
# It must not raise.
InlineMethod = Callable[[StructTuple | None], EncodedTuple | ResultsWith | RemoteError]
InlineMethods = Mapping[tuple[int, int], InlineMethod]
NO_METHODS: InlineMethods = {}

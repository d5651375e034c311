"""The tutorial's `read`, as the benchmarks of `wire` and of its peers call and serve it."""

from capnp_rig.schema import message
from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.pointers import StructTuple
from capnp_rig.wire.rpc.interfaces import compile_interface

TEXT = "hello, this is 32 bytes of text!"
READ = compile_interface(message.MessageStream).methods["read"]


def params_of(text: str) -> EncodedTuple:
    """Return the params that ask for the reversal of a text."""
    return READ.params.pack({"request": {"content": text}})


def results_of(text: str) -> EncodedTuple:
    """Return the results that answer with a text."""
    return READ.results.pack({"chunk": text.encode()})


def reverse(params: StructTuple | None) -> EncodedTuple:
    """Serve it inline."""
    content: str = READ.params.open(params).request.content
    return results_of(content[::-1])


INLINE = {(READ.interface_id, READ.method_id): reverse}

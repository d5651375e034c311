"""Spans of server methods, and the traces that clients announce for them (`schema/tracing.capnp`).

A client announces the trace of a call in a call of its own right before it. The bootstrap object
answers that on the spot, and `wire` notes it for the next Call message of the connection, so it
cannot reach another call, however many are in flight, refused, cancelled, or wait for a promise.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.trace import SpanKind, Tracer

from capnp_rig.objects.binding import BoundMethod
from capnp_rig.objects.call_context import INLINE, CallContext, current_call
from capnp_rig.objects.tracing import parent_of, rpc_attributes, span_of_call
from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT, EncodedTuple
from capnp_rig.wire.encoding.pointers import StructTuple, nothing
from capnp_rig.wire.errors import MalformedMessage
from capnp_rig.wire.rpc.inline_methods import InlineMethods
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.messages import RemoteError

NEXT = compile_interface(load_schema("tracing.capnp").Traced).methods["next"]
_BAD_HEADERS = RemoteError("bad parameters: traceparent and tracestate cannot be read")


class Traces:
    """Makes the spans of one worker with `tracer`."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        # What the bootstrap object has beside its own methods.
        self.announcing: InlineMethods = {(NEXT.interface_id, NEXT.method_id): _take_announcement}

    def traced(self, bound: BoundMethod) -> BoundMethod:
        """Return a method each of whose calls is a span."""
        call = bound.call
        attributes = rpc_attributes(bound.method)
        traced: Any
        if bound.is_async:

            async def traced_async(params: Any) -> Any:
                with self._span(attributes):
                    return await call(params)

            traced = traced_async
        else:

            def traced_plain(params: Any) -> Any:
                with self._span(attributes):
                    return call(params)

            traced = traced_plain
        # By which `method_stamps` knows it.
        traced.__qualname__ = bound.label
        return BoundMethod(bound.method, traced, bound.is_async)

    @contextmanager
    def _span(self, attributes: dict[str, Any]) -> Iterator[None]:
        call = current_call()
        assert call is not None
        attributes = {**attributes, "capnp_rig.call_id": call.call_id, **_client(call)}
        parent = parent_of(call.trace_note)
        with span_of_call(self._tracer, SpanKind.SERVER, attributes, parent) as span:
            own = span.get_span_context()
            if own.is_valid:
                call.trace_id = f"{own.trace_id:032x}"
            yield


def _client(call: CallContext) -> dict[str, Any]:
    peer = call.peer
    if peer.host is None:
        return {"client.address": peer.address}
    return {"client.address": peer.host, "client.port": peer.port or 0}


def _take_announcement(content: StructTuple | None) -> EncodedTuple | RemoteError:
    """Take note of the trace of the next call; `Traced.next`."""
    params: Any = NEXT.params.view(nothing() if content is None else content)
    try:
        note = params.traceparent, params.tracestate
    except (MalformedMessage, UnicodeDecodeError):
        return _BAD_HEADERS
    if INLINE.connection is not None:
        INLINE.connection.note_trace(note)
    return EMPTY_STRUCT

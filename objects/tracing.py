"""What both sides know of traces: OpenTelemetry's names, and how a trace is announced to a server.

It needs OpenTelemetry, so only what traces imports it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from capnp_rig.wire.rpc.interfaces import Method

# The names of OpenTelemetry's semantic conventions for RPC.
SYSTEM, SERVICE, METHOD = "rpc.system", "rpc.service", "rpc.method"
ERROR_TYPE = "error.type"
SCOPE = "capnp_rig"

_PROPAGATOR = TraceContextTextMapPropagator()
# What is longer is no traceparent; a tracestate may be dropped from this length on (W3C).
_MAX_PARENT_CHARS, _MAX_STATE_CHARS = 64, 512


def rpc_attributes(method: Method) -> dict[str, Any]:
    """Return what each span of a call has."""
    return {SYSTEM: "capnp", SERVICE: method.interface_name, METHOD: method.name}


def headers() -> Mapping[str, str]:
    """Return the headers of the span that is current; none without one."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier


def parent_of(note: tuple[str, str] | None) -> Context:
    """Return the context that a caller announced, and an empty one without any."""
    parent, state = note or ("", "")
    if not parent or len(parent) > _MAX_PARENT_CHARS:
        return Context()
    carrier = {"traceparent": parent}
    if 0 < len(state) <= _MAX_STATE_CHARS:
        carrier["tracestate"] = state
    return _PROPAGATOR.extract(carrier, Context())


@contextmanager
def span_of_call(
    tracer: Tracer,
    kind: SpanKind,
    attributes: dict[str, Any],
    parent: Context | None = None,
) -> Iterator[Any]:
    """Run a call within a span, which says how it ended; `parent` None is the current context."""
    with tracer.start_as_current_span(
        f"{attributes[SERVICE]}/{attributes[METHOD]}",
        context=parent,
        kind=kind,
        attributes=attributes,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except BaseException as error:
            if span.is_recording():
                span.set_attribute(ERROR_TYPE, type(error).__qualname__)
                span.set_status(Status(StatusCode.ERROR))
            raise

"""OpenTelemetry spans of calls and of a channel's attempts, and their traces for servers.

Nothing of this is there before `trace_calls`, which puts it around methods of the clients: so calls
that are not traced pay nothing. It needs OpenTelemetry.

`Session.begin` sends every call, of whatever kind. There the trace is announced
(`schema/tracing.capnp`): in a message right before that of the call, in the same write.
"""

import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any

from capnp_rig.client.asyncio_client import _Protocol
from capnp_rig.client.blocking_client import Client
from capnp_rig.client.channels.asyncio_channel import AsyncChannel
from capnp_rig.client.channels.blocking_channel import Channel
from capnp_rig.objects.session import PreparedCall, Session
from capnp_rig.schema import load_schema
from capnp_rig.wire.errors import EncodeError, LocalProtocolError
from capnp_rig.wire.rpc.capabilities import Capability as Reference
from capnp_rig.wire.rpc.client_connection import ClientConnection
from capnp_rig.wire.rpc.interfaces import Interface, compile_interface

try:
    from opentelemetry.trace import SpanKind, TracerProvider, get_tracer
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "traces need OpenTelemetry: pip install 'capnp-rig[traces]'", name=error.name
    ) from error

from capnp_rig.objects.tracing import SCOPE, headers, rpc_attributes, span_of_call

_NEXT = compile_interface(load_schema("tracing.capnp").Traced).methods["next"]
_Method = Callable[..., Any]
_Span = Callable[..., AbstractContextManager[Any]]
# What is as it was before `trace_calls`: owner, name, function.
_replaced: list[tuple[type, str, _Method]] = []


def trace_calls(tracer_provider: TracerProvider | None = None) -> None:
    """Make an OpenTelemetry span of each call of each client and channel in this process.

    A call is a span; through a channel each of its attempts is one, within that of the call.
    Whatever is called within a span, ours or your own, is announced to a server that traces, too.
    The spans go to `tracer_provider`, OpenTelemetry's global one if it is None. May be called
    again, with another provider.

    Raises:
        ModuleNotFoundError: OpenTelemetry is not installed.
    """
    trace_no_calls()
    tracer = get_tracer(SCOPE, tracer_provider=tracer_provider)

    def span(interface: Interface | None, name: str, kind: SpanKind, **more: Any) -> Any:
        method = None if interface is None else interface.methods.get(name)
        if method is None:
            # The call itself says what is wrong.
            return nullcontext()
        return span_of_call(tracer, kind, {**rpc_attributes(method), **more})

    _replace(Session, "begin", _announced)
    _replace(_Protocol, "call", lambda call: _traced_protocol_call(call, span))
    _replace(_Protocol, "attempt", lambda attempt: _traced_attempt(attempt, span))
    _replace(Client, "perform", lambda perform: _traced_perform(perform, span))
    _replace(AsyncChannel, "call", lambda call: _traced_async_channel(call, span))
    _replace(Channel, "call", lambda call: _traced_channel(call, span))


def trace_no_calls() -> None:
    """Make no spans any more."""
    while _replaced:
        owner, name, method = _replaced.pop()
        setattr(owner, name, method)


def _replace(owner: type, name: str, change: Callable[[_Method], _Method]) -> None:
    method = vars(owner)[name]
    _replaced.append((owner, name, method))
    setattr(owner, name, wraps(method)(change(method)))


def _announced(begin: _Method) -> _Method:
    def announced(session: Session, call: PreparedCall, target: Reference | None = None) -> int:
        trace = headers() if session.takes_traces else {}
        is_announced = bool(trace) and _announce(session, trace)
        try:
            question_id: int = begin(session, call, target)
        except BaseException:
            if is_announced:
                # Or the next call would be taken for this one.
                _announce(session, {})
            raise
        return question_id

    return announced


def _announce(session: Session, trace: Any) -> bool:
    """Send an announcement, whose answer nobody waits for; return whether it was."""
    wire = session.wire
    if not isinstance(wire, ClientConnection) or session.has_ended:
        return False
    try:
        question_id = wire.call(_NEXT.interface_id, _NEXT.method_id, _NEXT.params.pack(trace))
    except (EncodeError, LocalProtocolError):
        return False
    if session.trace_probe is None:
        session.trace_probe = question_id
    return True


def _traced_protocol_call(call: _Method, span: _Span) -> _Method:
    async def traced(protocol: Any, target: Any, name: str, params: Any, timeout_s: Any) -> Any:
        interface = (target or protocol._main).interface
        where = _endpoint(protocol._socket)
        with span(interface, name, SpanKind.CLIENT, **where):
            return await call(protocol, target, name, params, timeout_s)

    return traced


def _traced_attempt(attempt: _Method, span: _Span) -> _Method:
    async def traced(protocol: Any, method: Any, params: Any, deadline_s: float) -> Any:
        where = _endpoint(protocol._socket)
        with span(protocol._main.interface, method.name, SpanKind.CLIENT, **where):
            return await attempt(protocol, method, params, deadline_s)

    return traced


def _traced_perform(perform: _Method, span: _Span) -> _Method:
    def traced(client: Any, target: Any, method: str, params: Any, timeout_s: Any) -> Any:
        interface = client._interface if target is None else target.interface
        with span(interface, method, SpanKind.CLIENT, **_endpoint(client._socket)):
            return perform(client, target, method, params, timeout_s)

    return traced


def _traced_async_channel(call: _Method, span: _Span) -> _Method:
    async def traced(
        channel: Any, method: str, params: Any = None, *, timeout_s: float | None = None
    ) -> Any:
        with span(channel._methods.interface, method, SpanKind.INTERNAL):
            return await call(channel, method, params, timeout_s=timeout_s)

    return traced


def _traced_channel(call: _Method, span: _Span) -> _Method:
    def traced(
        channel: Any, method: str, params: Any = None, *, timeout_s: float | None = None
    ) -> Any:
        with span(channel._methods.interface, method, SpanKind.INTERNAL):
            return call(channel, method, params, timeout_s=timeout_s)

    return traced


def _endpoint(sock: socket.socket) -> dict[str, Any]:
    """Return where a connection leads, by OpenTelemetry's names."""
    try:
        name = sock.getpeername()
    except OSError:
        return {}
    if isinstance(name, tuple):
        return {"server.address": name[0], "server.port": name[1]}
    return {"server.address": f"unix:{name}"}

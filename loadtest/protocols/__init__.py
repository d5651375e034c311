"""The generators' side of every stack that ``server run --stack`` serves.

One exchange per protocol, without I/O: the engine, the Locust users and the tests drive them all
through `exchange.AnyExchange`. Every reply is compared with what it must be; what of the replies of
capnp nobody can compare is said by `unchecked_of`.

    capnp       `capnp_exchange`            any schema; pipelines, answered in any order
                `capnp_pipeline`            the same, each call behind a chain of its own
    echo        `byte_stacks`               in order; nothing is reversed: a floor
    json        `json_stack`                in order
    http1       `http1_stack`               in order, one call in flight by custom
    http2       `http2_exchange`, with      streams, answered in any order
    grpc        `http2_dialects`            the same
    selectors   `byte_stacks`               in order

Those beside capnp have one job, on a text or on bytes (`payloads`). To add one: write its
exchange, and name it in `_RIVALS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import Any

from capnp_rig.loadtest.protocols.capnp_exchange import Exchange
from capnp_rig.loadtest.protocols.capnp_pipeline import PipelinedExchange
from capnp_rig.loadtest.protocols.exchange import Answered, AnyExchange, Failed
from capnp_rig.loadtest.protocols.payloads import (
    Base64Body,
    EchoBody,
    Form,
    Payloads,
    RawBody,
    json_text,
    read_payloads,
)
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode, text_of
from capnp_rig.loadtest.stats.tally import FirstReply
from capnp_rig.loadtest.workload import (
    BINARY,
    TEXT,
    Workload,
    WorkloadConfig,
    WorkloadError,
    load_workload,
)
from capnp_rig.wire.encoding.frames import MESSAGE_BYTES

CAPNP, ECHO, JSON = "capnp", "echo", "json"
HTTP1, HTTP2, GRPC, SELECTORS = "http1", "http2", "grpc", "selectors"
STACKS = (CAPNP, ECHO, JSON, HTTP1, HTTP2, GRPC, SELECTORS)
# What a config says of the capnp stack alone.
_OF_CAPNP = ("schema", "import_path", "interface", "method", "params", "expect", "via", "pipeline")


@dataclass(frozen=True, slots=True)
class Rival:
    """How a stack beside capnp is served, and what its calls are.

    `server_stack` is that of ``server run``. `labels` and `forms` go by kind of payload, `needs`
    are the modules that it takes and what they are installed by.
    """

    server_stack: str
    labels: dict[str, str]
    forms: dict[str, Form]
    needs: tuple[tuple[str, str], ...] = ()


_RAW: dict[str, Form] = {TEXT: RawBody, BINARY: RawBody}
_IN_JSON: dict[str, Form] = {TEXT: json_text, BINARY: Base64Body}
_REVERSE = {TEXT: "POST /reverse", BINARY: "POST /reverse-bytes"}
_RIVALS = {
    ECHO: Rival("echo", {TEXT: "echo", BINARY: "echo"}, {TEXT: EchoBody, BINARY: EchoBody}),
    JSON: Rival("json", {TEXT: "read", BINARY: "reverse_bytes"}, _IN_JSON),
    HTTP1: Rival("http", _REVERSE, _IN_JSON),
    HTTP2: Rival("http", _REVERSE, _IN_JSON, (("hpack", "hpack"),)),
    GRPC: Rival(
        "grpc",
        {
            TEXT: "/capnp_rig.MessageStream/Read",
            BINARY: "/capnp_rig.MessageStream/ReverseBytes",
        },
        _RAW,
        (("hpack", "hpack"),),
    ),
    SELECTORS: Rival("selectors", {TEXT: "text frame", BINARY: "binary frame"}, _RAW),
}


def server_options(stack: str, payload_kind: str) -> list[str]:
    """Return the options of ``server run`` that serve this kind of payload on a stack."""
    if stack != CAPNP:
        return ["--stack", _RIVALS[stack].server_stack]
    return (
        ["--service", "capnp_rig.server.services.binary:Binary"] if payload_kind == BINARY else []
    )


def alpn_of(stack: str) -> list[str]:
    """Return what a generator for a stack offers over TLS by ALPN."""
    return {HTTP1: ["http/1.1"], HTTP2: ["h2"], GRPC: ["h2"]}.get(stack, [])


def missing_library(stack: str) -> str | None:
    """Return the name of a library that generating for `stack` needs and this Python lacks."""
    needs = _RIVALS[stack].needs if stack in _RIVALS else ()
    return next((name for module, name in needs if find_spec(module) is None), None)


@dataclass(frozen=True, slots=True)
class StackWorkload:
    """The calls of one process of a run to a stack beside capnp."""

    label: str
    payloads: Payloads
    make: Callable[..., AnyExchange] = field(repr=False)


AnyWorkload = Workload | StackWorkload


def load_any_workload(
    stack: str, config: WorkloadConfig, *, authority: str = "", first: int = 0, step: int = 1
) -> AnyWorkload:
    """Return the workload that `config` asks for on a stack, checked in full.

    `authority` is what HTTP calls the server; `first` and `step` are as for `load_workload`.

    Raises:
        WorkloadError: The config has a mistake, or does not go with the stack.
    """
    if stack == CAPNP:
        return load_workload(config, first=first, step=step)
    for name in _OF_CAPNP:
        given = getattr(config, name)
        if given is not None and given is not False:
            raise WorkloadError(f"{name} is for the stack capnp: leave it out for {stack}")
    if config.max_message_bytes != MESSAGE_BYTES:
        raise WorkloadError(f"--max-message is for the stack capnp: leave it out for {stack}")
    missing = missing_library(stack)
    if missing is not None:
        raise WorkloadError(f"the stack {stack} needs {missing}: pip install 'capnp-rig[stacks]'")
    rival, kind = _RIVALS[stack], config.payload_kind
    payloads = read_payloads(config, rival.forms[kind])
    label = rival.labels[kind]
    return StackWorkload(label, payloads, _maker(stack, kind, label, authority or "localhost"))


def unchecked_of(workload: AnyWorkload, *, checks_content: bool) -> tuple[Reason, ...]:
    """Return what of the replies nobody compares."""
    if isinstance(workload, StackWorkload):
        return ()
    return workload.unchecked if checks_content else (Reason(ReasonCode.CHECK_ID),)


def firsts_of(workload: AnyWorkload) -> Mapping[str, FirstReply]:
    """Return the first replies that others are compared with; filled while calls are answered."""
    return {} if isinstance(workload, StackWorkload) else workload.firsts


def checks_content(stack: str, workload: AnyWorkload, check: str | None) -> bool:
    """Return whether content is compared where ``--check`` is ``content``, ``id`` or None.

    Raises:
        WorkloadError: What was asked for explicitly cannot be done.
    """
    if check == "id" and stack != CAPNP:
        raise WorkloadError("--check id is for --stack capnp: the others compare all bytes")
    is_compared = isinstance(workload, StackWorkload) or workload.is_compared
    if check == "content" and not is_compared:
        reasons = text_of(unchecked_of(workload, checks_content=True))
        raise WorkloadError(f"--check content has nothing to compare: {reasons}")
    return check != "id"


def _maker(stack: str, kind: str, label: str, authority: str) -> Callable[..., AnyExchange]:
    """Return what makes the exchanges of a stack; only its own module is imported."""
    is_binary = kind == BINARY
    if stack in {ECHO, SELECTORS}:
        from capnp_rig.loadtest.protocols import byte_stacks as plain

        framed = plain.BinaryFrameExchange if is_binary else plain.FrameExchange
        return plain.EchoExchange if stack == ECHO else framed
    if stack == JSON:
        from capnp_rig.loadtest.protocols import json_stack

        return json_stack.BinaryJsonExchange if is_binary else json_stack.JsonExchange
    from capnp_rig.loadtest.protocols import http1_stack

    body = http1_stack.BINARY_BODY if is_binary else http1_stack.TEXT_BODY
    if stack == HTTP1:
        return partial(http1_stack.Http1Exchange, body=body, authority=authority)
    from capnp_rig.loadtest.protocols.http2_dialects import GrpcDialect, HttpDialect
    from capnp_rig.loadtest.protocols.http2_exchange import Http2Exchange

    dialect: Any = GrpcDialect(label, authority) if stack == GRPC else HttpDialect(body, authority)
    return partial(Http2Exchange, dialect=dialect)


def make_exchange(
    workload: AnyWorkload,
    user: int,
    in_flight: int,
    *,
    answered: Answered,
    failed: Failed,
    checks_content: bool = True,
) -> AnyExchange:
    """Return the calls of a new connection; see `loadtest.protocols.capnp_exchange.Exchange`.

    Without `checks_content` the capnp stack compares less; of the others all is compared anyway.
    """
    if isinstance(workload, StackWorkload):
        return workload.make(workload.payloads, user, in_flight, answered=answered, failed=failed)
    exchange = PipelinedExchange if workload.chain.is_pipelined else Exchange
    return exchange(
        workload,
        user,
        in_flight,
        answered=answered,
        failed=failed,
        checks_content=checks_content,
    )

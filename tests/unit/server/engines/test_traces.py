"""Spans of client, attempts and server: one trace, whatever happens to the calls."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from capnp_rig import (
    AsyncClient,
    RemoteError,
    ServiceError,
    call_context,
    load_schema,
    trace_calls,
    trace_no_calls,
)
from capnp_rig.client.asyncio_client import _Protocol
from capnp_rig.client.connecting import adopt
from capnp_rig.server.config import ConnectionLimits
from capnp_rig.server.control.call_stamp import unwatched
from capnp_rig.server.engines.call_site import WorkerPlace
from capnp_rig.server.engines.pycapnp_engine import open_pycapnp_engine
from capnp_rig.server.engines.traces import Traces
from capnp_rig.server.engines.wire_engine import open_wire_engine
from capnp_rig.server.logs.log import Log
from capnp_rig.wire.errors import EncodeError
from capnp_rig.wire.rpc.interfaces import compile_interface


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Trace the calls of this process; return where the spans of both sides go."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    exporter.provider = provider  # type: ignore[attr-defined]
    trace_calls(provider)
    yield exporter
    trace_no_calls()


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("schema") / "traced.capnp"
    file.write_text(
        "@0xb7c1a1d7f4c5e003;\n"
        "interface Main { plain @0 (text :Text) -> (trace :Text);\n"
        "  later @1 (text :Text) -> (trace :Text); open @2 () -> (inner :Inner);\n"
        "  openLater @3 () -> (inner :Inner);\n"
        "  interface Inner { plain @0 () -> (trace :Text); } }\n"
    )
    return load_schema(file).Main


def trace_of_call() -> dict[str, str]:
    return {"trace": call_context().trace_id or ""}


def make_service(schema: Any, gates: dict[str, asyncio.Event] | None = None) -> Any:
    class Inner:
        interface = schema.Inner

        def plain(self, _params: Any) -> Any:
            return trace_of_call()

    class Main:
        interface = schema

        def plain(self, params: Any) -> Any:
            match params.text:
                case "service":
                    raise ServiceError("no")
                case "bug":
                    raise ValueError("why")
            return trace_of_call()

        async def later(self, params: Any) -> Any:
            if gates and params.text in gates:
                await gates[params.text].wait()
            return trace_of_call()

        def open(self, _params: Any) -> Any:
            return {"inner": Inner()}

        async def openLater(self, _params: Any) -> Any:
            if gates:
                await gates["open"].wait()
            return {"inner": Inner()}

    return Main()


def run(
    service: Any,
    body: Callable[[AsyncClient], Awaitable[None]],
    spans: Any,
    *,
    engine: str = "wire",
    is_traced: bool = True,
    lines: list[str] | None = None,
) -> None:
    opened = open_wire_engine if engine == "wire" else open_pycapnp_engine

    async def work() -> None:
        place = WorkerPlace()
        if is_traced:
            place.traces = Traces(spans.provider.get_tracer("server"))
        log = Log(lambda *line: None if lines is None else lines.append(line[1]), "info", lambda: 0)
        async with AsyncExitStack() as stack:
            running = await stack.enter_async_context(
                opened(service, log, unwatched(), ConnectionLimits(), place)
            )
            theirs, ours = socket.socketpair()
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: running.protocol(lambda _: None, 1), theirs
            )
            protocol = _Protocol(compile_interface(service.interface), ours, 10, 65_536)
            await adopt(ours, protocol)
            async with AsyncClient(protocol) as client:
                await body(client)

    asyncio.run(asyncio.wait_for(work(), 20))


def by_kind(spans: InMemorySpanExporter, kind: SpanKind) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.kind is kind]


def trace_id(span: ReadableSpan) -> str:
    return f"{span.context.trace_id:032x}"


def pairs(spans: InMemorySpanExporter) -> list[tuple[str, bool]]:
    """Return the names of the server's spans, and whether each is a child of a client's."""
    ids = {span.context.span_id for span in by_kind(spans, SpanKind.CLIENT)}
    return [
        (span.name, span.parent is not None and span.parent.span_id in ids)
        for span in by_kind(spans, SpanKind.SERVER)
    ]


def test_a_call_is_a_span_on_both_sides_of_one_trace(schema: Any, spans: Any) -> None:
    async def body(client: AsyncClient) -> None:
        for name in ("plain", "later"):
            told = (await client.call(name)).trace
            assert told == trace_id(by_kind(spans, SpanKind.CLIENT)[-1])

    run(make_service(schema), body, spans)
    assert pairs(spans) == [("Main/plain", True), ("Main/later", True)]
    server = by_kind(spans, SpanKind.SERVER)[0].attributes
    assert server is not None
    assert {key: server[key] for key in ("rpc.system", "rpc.service", "rpc.method")} == {
        "rpc.system": "capnp",
        "rpc.service": "Main",
        "rpc.method": "plain",
    }
    assert server["capnp_rig.call_id"] == "0-1-1"


def test_calls_in_flight_at_once_keep_their_traces(schema: Any, spans: Any) -> None:
    gates: dict[str, asyncio.Event] = {}

    async def body(client: AsyncClient) -> None:
        gates["wait"] = asyncio.Event()
        names = ["later" if number % 3 else "plain" for number in range(30)]
        calls = [asyncio.ensure_future(client.call(name, {"text": "wait"})) for name in names]
        await client.call("plain")
        # One of those that wait is given up.
        calls[1].cancel()
        gates["wait"].set()
        await asyncio.gather(*calls, return_exceptions=True)
        told = sorted(call.result().trace for call in calls if not call.cancelled())
        known = sorted(trace_id(span) for span in by_kind(spans, SpanKind.CLIENT))
        assert len(set(told)) == 29
        assert set(told) <= set(known)

    run(make_service(schema, gates), body, spans)
    assert all(is_child for _, is_child in pairs(spans))


def test_a_call_that_waits_for_a_promise_keeps_its_trace_and_takes_no_others(
    schema: Any, spans: Any
) -> None:
    gates: dict[str, asyncio.Event] = {}

    async def body(client: AsyncClient) -> None:
        gates["open"] = asyncio.Event()
        provider = spans.provider.get_tracer("test")
        with provider.start_as_current_span("outer") as outer:
            pipeline = client.pipeline("openLater")
            inner = asyncio.ensure_future(pipeline.inner.call("plain"))
            await asyncio.sleep(0)
        others = [(await client.call("plain")).trace for _ in range(3)]
        gates["open"].set()
        assert (await inner).trace == f"{outer.get_span_context().trace_id:032x}"
        assert (await inner).trace not in others
        assert len(set(others)) == 3

    run(make_service(schema, gates), body, spans)


def test_what_cannot_be_sent_leaves_no_trace_to_the_next_call(schema: Any, spans: Any) -> None:
    async def body(client: AsyncClient) -> None:
        with pytest.raises(EncodeError):
            await client.call("plain", {"text": "x" * 5_000_000})
        trace_no_calls()
        known = {trace_id(span) for span in by_kind(spans, SpanKind.CLIENT)}
        assert (await client.call("plain")).trace not in known

    run(make_service(schema), body, spans)


def test_a_call_without_a_trace_after_one_with_it_has_none(schema: Any, spans: Any) -> None:
    async def body(client: AsyncClient) -> None:
        first = (await client.call("plain")).trace
        trace_no_calls()
        others = {(await client.call(name)).trace for name in ("plain", "later")}
        assert len(others) == 2
        assert first not in others

    run(make_service(schema), body, spans)
    assert pairs(spans) == [("Main/plain", True), ("Main/plain", False), ("Main/later", False)]


@pytest.mark.parametrize("engine", ["wire", "pycapnp"])
def test_a_server_that_does_not_know_traces_is_told_of_none_after_the_first(
    schema: Any, spans: Any, engine: str
) -> None:
    async def body(client: AsyncClient) -> None:
        assert client.edge.session.takes_traces
        for _ in range(3):
            assert not (await client.call("plain")).trace
        assert not client.edge.session.takes_traces

    run(make_service(schema), body, spans, engine=engine, is_traced=False)
    assert len(by_kind(spans, SpanKind.CLIENT)) == 3
    assert not pairs(spans)


def test_pycapnp_makes_spans_of_its_own(schema: Any, spans: Any) -> None:
    async def body(client: AsyncClient) -> None:
        for name in ("plain", "later"):
            assert (await client.call(name)).trace

    run(make_service(schema), body, spans, engine="pycapnp")
    assert pairs(spans) == [("Main/plain", False), ("Main/later", False)]


def test_errors_are_in_the_span_and_the_trace_is_in_the_log(schema: Any, spans: Any) -> None:
    lines: list[str] = []

    async def body(client: AsyncClient) -> None:
        for text in ("service", "bug"):
            with pytest.raises(RemoteError):
                await client.call("plain", {"text": text})

    run(make_service(schema), body, spans, lines=lines)
    kinds = [span.attributes["error.type"] for span in by_kind(spans, SpanKind.SERVER)]  # type: ignore[index]
    assert kinds == ["ServiceError", "ValueError"]
    assert {
        span.attributes["error.type"]  # type: ignore[index]
        for span in by_kind(spans, SpanKind.CLIENT)
    } == {"RemoteError"}
    bug = trace_id(by_kind(spans, SpanKind.SERVER)[1])
    assert lines == [f"internal error [id 0-1-2] in plain, trace {bug}"]


def test_headers_that_are_none_begin_a_trace_anew(schema: Any, spans: Any) -> None:
    tracing = load_schema("tracing.capnp").Traced

    async def body(client: AsyncClient) -> None:
        trace_no_calls()
        traced = client.bootstrap(tracing)
        for text in ("", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 100_000):
            await traced.call("next", {"traceparent": text, "tracestate": text})
            assert len((await client.call("plain")).trace) == 32
        await traced.call("next", {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
        assert (await client.call("plain")).trace == "a" * 32
        assert (await client.call("plain")).trace != "a" * 32

    run(make_service(schema), body, spans)

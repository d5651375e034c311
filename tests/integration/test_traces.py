"""Traces through a real server: its spans are exported, as children of those of its clients."""

import asyncio
import json
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from running_server import Running, command, running_server

from capnp_rig import AsyncChannel, Channel, Client, trace_calls, trace_no_calls
from capnp_rig.schema import message

PARAMS = {"request": {"content": "olleh"}}
INTERFACE = message.MessageStream
NO_JAEGER = (
    "server: --traces has no exporter 'jaeger': pip install the package that has jaeger, or set "
    "OTEL_TRACES_EXPORTER=console\n"
)


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace_calls(provider)
    yield exporter
    trace_no_calls()


def exported(server: Running) -> list[dict[str, Any]]:
    """Stop the server, and return the spans that it has printed."""
    server.process.terminate()
    assert server.process.wait(20) == 0
    text = "\n".join(server.out.join())
    return [json.loads(span) for span in re.findall(r"^\{.*?^\}$", text, re.MULTILINE | re.DOTALL)]


def address_of(server: Running) -> str:
    return f"{server.host}:{server.port}"


def id_of(span: ReadableSpan) -> str:
    context = span.context
    assert context is not None
    return f"0x{context.span_id:016x}"


@pytest.mark.parametrize("engine", ["wire", "pycapnp"])
def test_every_span_leaves_before_the_worker_does(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "tutorial")

    async def call_by_channel(address: str) -> None:
        async with AsyncChannel(address, interface=INTERFACE) as channel:
            await channel.call("read", PARAMS)

    with running_server("--traces", "--workers", "1", "--engine", engine) as server:
        address = address_of(server)
        with Client.connect(address, interface=INTERFACE) as client:
            client.call("read", PARAMS)
        with Channel(address, interface=INTERFACE) as blocking:
            blocking.call("read", PARAMS)
        asyncio.run(call_by_channel(address))
        theirs = exported(server)
    ours = spans.get_finished_spans()
    kinds = [(span.kind, span.parent is not None) for span in ours]
    bare, attempt, whole = (
        *((SpanKind.CLIENT, False), (SpanKind.CLIENT, True)),
        (SpanKind.INTERNAL, False),
    )
    # Of a channel, the call's span ends after that of its attempt.
    assert kinds == [bare, attempt, whole, attempt, whole]
    assert [span["name"] for span in theirs] == ["MessageStream/read"] * 3
    assert theirs[0]["resource"]["attributes"]["service.name"] == "tutorial"
    calls = [span for span in ours if span.kind is SpanKind.CLIENT]
    for span in calls:
        assert span.attributes is not None
        assert (span.attributes["server.address"], span.attributes["server.port"]) == (
            *("127.0.0.1", server.port),
        )
    parents = [span["parent_id"] for span in theirs]
    assert parents == ([id_of(span) for span in calls] if engine == "wire" else [None] * 3)


@pytest.mark.parametrize(
    ("options", "exporter", "said"),
    [
        (
            [],
            "jaeger",
            NO_JAEGER,
        ),
        (
            ["--stack", "json"],
            "console",
            "server: --traces does not go with --stack json (see server run --help)\n",
        ),
    ],
)
def test_what_is_missing_is_told_at_once(options: list[str], exporter: str, said: str) -> None:
    done = subprocess.run(
        [*command("run", "127.0.0.1:0"), "--traces", *options],
        env={**os.environ, "OTEL_TRACES_EXPORTER": exporter},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in {1, 2}
    assert done.stderr == said

"""Which exporters are asked for, and what is said where they are missing."""

import threading
import time

import pytest

from capnp_rig.server import trace_provider
from capnp_rig.server.trace_provider import TraceProvider, missing_for_traces


def test_without_opentelemetry_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_provider, "_has", lambda _: False)
    assert missing_for_traces() == ("--traces needs OpenTelemetry: pip install 'capnp-rig[traces]'")


@pytest.mark.parametrize(
    ("exporter", "protocol", "package"),
    [
        ("otlp", "grpc", "opentelemetry-exporter-otlp-proto-grpc"),
        ("otlp", "http/protobuf", "opentelemetry-exporter-otlp-proto-http"),
        ("console,otlp", None, "opentelemetry-exporter-otlp-proto-http"),
        (None, None, "opentelemetry-exporter-otlp-proto-http"),
    ],
)
def test_a_missing_exporter_is_named_by_its_package(
    monkeypatch: pytest.MonkeyPatch, exporter: str | None, protocol: str | None, package: str
) -> None:
    for name, value in (
        ("OTEL_TRACES_EXPORTER", exporter),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
    ):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    find = trace_provider._find
    monkeypatch.setattr(
        trace_provider, "_find", lambda name: None if name.startswith("otlp") else find(name)
    )
    reason = missing_for_traces()
    assert reason is not None
    assert f"pip install {package}, or set OTEL_TRACES_EXPORTER=console" in reason


@pytest.mark.parametrize("exporters", ["console", "none", " console , none "])
def test_what_the_sdk_has_is_there(monkeypatch: pytest.MonkeyPatch, exporters: str) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", exporters)
    assert missing_for_traces() is None


def test_an_exporter_that_hangs_does_not_hold_up_the_worker() -> None:
    ends = threading.Event()

    class Hanging:
        def force_flush(self, _limit_ms: int) -> None:
            ends.wait(60)

    provider = object.__new__(TraceProvider)
    provider._provider = Hanging()
    began_s = time.monotonic()
    provider.flush(0.01)
    assert time.monotonic() - began_s < 30
    ends.set()

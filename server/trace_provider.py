"""Where the spans of a worker go: as OpenTelemetry's environment variables say.

`OTEL_TRACES_EXPORTER` names the exporters, `otlp` if it is not set; sampler, resource, limits and
the exporters' own settings are read by OpenTelemetry itself. A service that has set a tracer
provider when it was imported keeps it. Only `TraceProvider` imports OpenTelemetry.
"""

import os
import threading
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any

_GROUP = "opentelemetry_traces_exporter"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PACKAGES = {
    "otlp_proto_grpc": "opentelemetry-exporter-otlp-proto-grpc",
    "otlp_proto_http": "opentelemetry-exporter-otlp-proto-http",
}


def missing_for_traces() -> str | None:
    """Return why there can be no traces, and what to do, in one line; None if there can."""
    if not _has("opentelemetry.sdk"):
        return "--traces needs OpenTelemetry: pip install 'capnp-rig[traces]'"
    for name in _exporter_names():
        if _find(name) is None:
            return (
                f"--traces has no exporter {name!r}: pip install "
                f"{_PACKAGES.get(name, f'the package that has {name}')}, or set "
                "OTEL_TRACES_EXPORTER=console"
            )
    return None


class TraceProvider:
    """The tracer provider of one worker, made after its start: nothing forks its threads."""

    def __init__(self) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from capnp_rig.objects.tracing import SCOPE
        from capnp_rig.server.engines.traces import Traces

        self._provider: Any = trace.get_tracer_provider()
        if isinstance(self._provider, trace.ProxyTracerProvider):
            # `flush` is bounded; OpenTelemetry's own at the exit is not.
            self._provider = TracerProvider(shutdown_on_exit=False)
            for name in _exporter_names():
                exporter = _find(name)
                assert exporter is not None
                self._provider.add_span_processor(BatchSpanProcessor(exporter.load()()))
            trace.set_tracer_provider(self._provider)
        self.traces = Traces(self._provider.get_tracer(SCOPE))

    def flush(self, limit_s: float) -> None:
        """Send the spans that have ended, or give up after `limit_s`."""
        flush = getattr(self._provider, "force_flush", None)
        if flush is not None:
            # An exporter may wait for longer than it is told.
            thread = threading.Thread(target=flush, args=[int(limit_s * 1000)], daemon=True)
            thread.start()
            thread.join(limit_s)


def _exporter_names() -> Iterator[str]:
    for name in os.environ.get("OTEL_TRACES_EXPORTER", "otlp").split(","):
        if name.strip() == "otlp":
            yield _otlp()
        elif name.strip() not in {"", "none"}:
            yield name.strip()


def _otlp() -> str:
    """Return which of the two OTLP exporters is meant: the one that is there if none is."""
    protocol = next((os.environ[name] for name in _PROTOCOLS if os.environ.get(name)), None)
    if protocol is not None:
        return "otlp_proto_http" if protocol.startswith("http") else "otlp_proto_grpc"
    return next((name for name in _PACKAGES if _find(name) is not None), "otlp_proto_http")


def _find(name: str) -> EntryPoint | None:
    return next(iter(entry_points(group=_GROUP, name=name)), None)


def _has(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        # Of a package in which it would be.
        return False

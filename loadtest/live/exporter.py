"""Serves the live figures of a load to a Prometheus server, by ``prometheus_client``."""

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any, Self

from capnp_rig.loadtest.live.figures import BOUNDS_NS, LiveFigures
from capnp_rig.rigcli import os_error_text
from capnp_rig.rigcli.address import Address

_INSTALL = "--metrics needs prometheus-client: pip install 'capnp-rig[metrics]'"


class ExporterError(Exception):
    """The figures cannot be served; the message says why."""


class Exporter:
    """Serves what `read` returns at `address`, from entering to leaving.

    `labels` stand at every metric, such as the name of the run.

    Raises:
        ExporterError: The address cannot be listened on, or a library is missing; on entering.
    """

    def __init__(
        self,
        address: Address,
        read: Callable[[], LiveFigures],
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self._address = address
        self._read = read
        self._labels = dict(labels or {})
        self._server: Any = None
        self.url = ""

    def __enter__(self) -> Self:
        try:
            from prometheus_client import CollectorRegistry, start_http_server
        except ImportError as error:
            raise ExporterError(_INSTALL) from error
        host, port = self._address.host, self._address.port
        if host is None or port is None:
            raise ExporterError("--metrics takes host:port, no Unix socket")
        registry = CollectorRegistry()
        registry.register(self)
        try:
            self._server, _ = start_http_server(port, host, registry)
        except OSError as error:
            raise ExporterError(
                f"cannot serve metrics on {self._address}: {os_error_text(error)}"
            ) from error
        self.url = f"http://{Address(host=host, port=self._server.server_port)}/metrics"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def describe(self) -> Iterator[Any]:
        """Say nothing beforehand: `collect` would be asked for it."""
        return iter(())

    def collect(self) -> Iterator[Any]:
        """Yield the metrics, as ``prometheus_client`` asks for them."""
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        figures, names, values = self._read(), list(self._labels), list(self._labels.values())
        calls = CounterMetricFamily(
            "loadtest_calls", "Calls that were answered as they should be.", labels=names
        )
        calls.add_metric(values, figures.answered)
        yield calls
        failures = CounterMetricFamily(
            "loadtest_failures",
            "Calls that failed, wrong answers and failed connects among them, by kind.",
            labels=[*names, "kind"],
        )
        for kind, count in sorted(figures.failures.items()):
            failures.add_metric([*values, kind], count)
        yield failures
        connects = CounterMetricFamily(
            "loadtest_connects", "Connections made, for the first time or again.", labels=names
        )
        connects.add_metric(values, figures.connects + figures.reconnects)
        yield connects
        latency = HistogramMetricFamily(
            "loadtest_latency_seconds",
            "Times of answered calls: from when they were due in an open loop, else when sent.",
            labels=names,
        )
        ends = [*(f"{bound / 1e9:g}" for bound in BOUNDS_NS), "+Inf"]
        buckets = list(zip(ends, accumulate(figures.buckets), strict=True))
        latency.add_metric(values, buckets, figures.sum_ns / 1e9)
        yield latency
        for name, text, value in (
            ("loadtest_in_flight", "Calls that wait for their answer.", figures.in_flight),
            ("loadtest_connections", "Connections that stand.", figures.connections),
            ("loadtest_users", "Locust users.", figures.users),
        ):
            if value is not None:
                gauge = GaugeMetricFamily(name, text, labels=names)
                gauge.add_metric(values, value)
                yield gauge

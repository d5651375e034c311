"""The metrics of a server, as ``prometheus_client`` writes them.

Names follow https://prometheus.io/docs/practices/naming/: base units, and ``_total`` for what only
grows. Counters go on when a worker is replaced. Only this module imports the library.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder

from capnp_rig.server.control.counts import Times, WorkerCounts, bucket_end_s
from capnp_rig.server.metrics.state import ServerState, WorkerUse

# From 1 µs to 69 s; what took less is in the first bucket, what took longer in the last alone.
_FIRST, _LAST = 10, 36
_ENDS = (*(f"{bucket_end_s(bucket):.9g}" for bucket in range(_FIRST, _LAST + 1)), "+Inf")


class Exposition:
    """Writes one state; any thread may."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def page(self, accept: str) -> tuple[bytes, str]:
        """Return the page and its media type, in the format that a request accepts.

        Who asks for a version that is none gets the text format.
        """
        try:
            encode, media_type = choose_encoder(accept)
        # The library compares whatever was sent with its versions.
        except (TypeError, ValueError):
            encode, media_type = choose_encoder("")
        return encode(self._registry), media_type

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, as the library asks for them."""
        state = self._state
        info = GaugeMetricFamily("capnp_rig_info", "What serves.", labels=list(state.info))
        info.add_metric(list(state.info.values()), 1)
        yield info
        yield _gauge("capnp_rig_uptime_seconds", "Since it started.", state.uptime_s)
        yield _gauge("capnp_rig_ready", "1 if calls are taken, else 0.", int(state.is_ready))
        yield _labelled(
            *(GaugeMetricFamily, "capnp_rig_workers", "Workers by phase.", "phase"), state.phases
        )
        yield _counter(
            "capnp_rig_connections_accepted", "Connections that were accepted.", state.accepted
        )
        yield _labelled(
            CounterMetricFamily,
            "capnp_rig_connections_refused",
            "Connections that were refused, by limit.",
            "limit",
            state.refused,
        )
        yield _labelled(
            *(CounterMetricFamily, "capnp_rig_worker_ends", "Workers that ended, by how.", "how"),
            state.ends,
        )
        yield from _worker_metrics(state.workers)
        if state.counts is not None:
            yield from _call_metrics(state.counts)


def _call_metrics(counts: WorkerCounts) -> Iterator[Metric]:
    calls = CounterMetricFamily(
        "capnp_rig_calls", "Calls of methods that have ended.", labels=["method", "outcome"]
    )
    seconds = HistogramMetricFamily(
        "capnp_rig_call_seconds",
        "How long methods took to their answer, failed calls among them.",
        labels=["method"],
    )
    for name, method in sorted(counts.methods.items()):
        answered = method.times.count - method.failed
        outcomes = {"ok": answered, "failed": method.failed}
        outcomes |= {"cancelled": method.cancelled, "refused": method.refused}
        for outcome, count in outcomes.items():
            calls.add_metric([name, outcome], count)
        _add_times(seconds, [name], method.times)
    yield calls
    yield seconds
    yield _labelled(
        CounterMetricFamily,
        "capnp_rig_limit_hits",
        "Calls that a limit refused, and connections that it ended.",
        "limit",
        counts.limits,
    )
    yield _counter("capnp_rig_received_bytes", "Bytes from peers.", counts.bytes_in)
    yield _counter("capnp_rig_sent_bytes", "Bytes to peers.", counts.bytes_out)
    lag = HistogramMetricFamily(
        "capnp_rig_loop_lag_seconds", "How late the event loops of workers were for a timer."
    )
    _add_times(lag, [], counts.lag)
    yield lag


def _worker_metrics(workers: Iterable[WorkerUse]) -> Iterator[Metric]:
    gauges: Mapping[str, tuple[str, Callable[[WorkerUse], float | None]]] = {
        "connections": ("Connections that are open.", lambda use: use.connections),
        "calls_in_flight": ("Async calls in flight.", lambda use: use.running),
        "resident_memory_bytes": ("Resident memory.", lambda use: use.rss_bytes),
    }
    counters: Mapping[str, tuple[str, Callable[[WorkerUse], float | None]]] = {
        "cpu_seconds": ("CPU time, user and system.", lambda use: use.cpu_s),
        "gc_collections": (
            "Garbage collections.",
            lambda use: None if use.gc is None else use.gc.count,
        ),
        "gc_pause_seconds": (
            "Time that garbage collections stopped the worker.",
            lambda use: None if use.gc is None else use.gc.pause_ns / 1e9,
        ),
    }
    for kind, metrics in ((GaugeMetricFamily, gauges), (CounterMetricFamily, counters)):
        for name, (text, value) in metrics.items():
            family = kind(f"capnp_rig_worker_{name}", text, labels=["worker", "pid"])
            for use in workers:
                if (number := value(use)) is not None:
                    family.add_metric([str(use.worker), str(use.pid)], number)
            yield family


def _add_times(family: Any, labels: list[str], times: Times) -> None:
    below, above = times.buckets[: _FIRST + 1], times.buckets[_LAST + 1 :]
    counts = [sum(below), *times.buckets[_FIRST + 1 : _LAST + 1], sum(above)]
    buckets = list(zip(_ENDS, accumulate(counts), strict=True))
    family.add_metric(labels, buckets, times.sum_ns / 1e9)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _labelled(kind: Any, name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = kind(name, text, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    metric: Metric = family
    return metric

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as open_metrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from capnp_rig.rigcli.gc_page import GcUse
from capnp_rig.server.control.counts import BUCKETS, MethodCounts, Times, WorkerCounts
from capnp_rig.server.metrics.exposition import Exposition
from capnp_rig.server.metrics.state import ServerState, WorkerUse

# Of 13 and of 14 bits, and one of a day.
BUCKET_COUNTS = (*[0] * 13, 2, 1, *[0] * (BUCKETS - 16), 1)
STATE = ServerState(
    info={"version": "1", "stack": "capnp"},
    uptime_s=5.0,
    is_ready=True,
    counts=WorkerCounts(
        {"A.b": MethodCounts(Times(BUCKET_COUNTS, 3_000_000_000), 1, 5, 6)},
        {"idle": 7},
        10,
        20,
        Times((1, *[0] * (BUCKETS - 1)), 4096),
    ),
    workers=[
        WorkerUse(0, 11, 3, 2, 4096, 1.5, GcUse(2, 5_000_000, 1)),
        WorkerUse(1, 12, None, None),
    ],
    phases={"serving": 2, "leaving": 0},
    accepted=9,
    refused={"peer": 1},
    ends={"was killed by SIGKILL": 1},
)
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def _samples(page: bytes) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def _value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"capnp_rig_{name}", tuple(sorted(labels.items()))]


def test_a_state_is_written_as_prometheus_reads_it() -> None:
    page, media_type = Exposition(STATE).page("")
    assert media_type.startswith("text/plain; version=0.0.4")
    samples = _samples(page)
    assert _value(samples, "info", version="1", stack="capnp") == 1
    assert _value(samples, "ready") == 1
    assert _value(samples, "uptime_seconds") == 5
    assert _value(samples, "workers", phase="serving") == 2
    assert _value(samples, "connections_accepted_total") == 9
    assert _value(samples, "connections_refused_total", limit="peer") == 1
    assert _value(samples, "worker_ends_total", how="was killed by SIGKILL") == 1
    outcomes = {"ok": 3, "failed": 1, "cancelled": 5, "refused": 6}
    for outcome, count in outcomes.items():
        assert _value(samples, "calls_total", method="A.b", outcome=outcome) == count
    ends = {"1.024e-06": 0, "8.192e-06": 2, "1.6384e-05": 3, "68.7194767": 3, "+Inf": 4}
    for end, count in ends.items():
        assert _value(samples, "call_seconds_bucket", method="A.b", le=end) == count
    assert _value(samples, "call_seconds_count", method="A.b") == 4
    assert _value(samples, "call_seconds_sum", method="A.b") == 3
    assert _value(samples, "limit_hits_total", limit="idle") == 7
    assert _value(samples, "received_bytes_total") == 10
    assert _value(samples, "sent_bytes_total") == 20
    assert _value(samples, "loop_lag_seconds_count") == 1
    first = {"worker": "0", "pid": "11"}
    assert _value(samples, "worker_connections", **first) == 3
    assert _value(samples, "worker_cpu_seconds_total", **first) == 1.5
    assert _value(samples, "worker_gc_pause_seconds_total", **first) == 0.005
    # What is not known is not there.
    assert not any(("pid", "12") in labels for _, labels in samples)


def test_open_metrics_are_written_if_they_are_asked_for() -> None:
    page, media_type = Exposition(STATE).page("application/openmetrics-text; version=1.0.0")
    assert media_type.startswith("application/openmetrics-text")
    assert {"capnp_rig_calls"} <= {each.name for each in open_metrics_families(page.decode())}


@pytest.mark.parametrize("version", ["abc", "1.x", "", "9.9"])
def test_a_version_that_is_none_is_no_fault(version: str) -> None:
    page, _ = Exposition(STATE).page(f"application/openmetrics-text;version={version}")
    assert b"capnp_rig_calls" in page


def test_a_stack_without_calls_has_none() -> None:
    page, _ = Exposition(ServerState(workers=[WorkerUse(0, 1, 0, None)])).page("")
    assert b"capnp_rig_worker_connections{" in page
    assert b"capnp_rig_calls" not in page

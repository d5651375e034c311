import os
from contextlib import closing

import pytest

from capnp_rig.server.control.call_stamp import StampPage, open_stamp
from capnp_rig.server.control.counts import (
    BUCKETS,
    LIMITS,
    MethodCounts,
    Times,
    WorkerCounts,
    bucket_end_s,
)
from capnp_rig.server.engines.call_counts import CallCounts
from capnp_rig.server.engines.engine import Traffic
from capnp_rig.server.engines.method_stamps import MethodStamps


def _times(*at: int, sum_ns: int = 0) -> Times:
    buckets = [0] * BUCKETS
    for bucket in at:
        buckets[bucket] += 1
    return Times(tuple(buckets), sum_ns)


@pytest.mark.parametrize(("bucket", "end_s"), [(0, 1e-09), (13, 8.192e-06), (30, 1.073741824)])
def test_buckets_are_powers_of_two(bucket: int, end_s: float) -> None:
    assert bucket_end_s(bucket) == end_s


def test_what_a_worker_counts_is_read_from_its_page() -> None:
    with closing(StampPage()) as page, open_stamp(os.dup(page.fd)) as stamp:
        counts = CallCounts(MethodStamps(stamp))
        first, second = counts.of("Reverse.read"), counts.of("Session.wait")
        for took_s in (0.0, 8.191e-06, 8.192e-06, 1.0):
            counts.answered(first, took_s, has_failed=took_s == 1.0)
        counts.refused("in-flight", "Session.wait")
        counts.refused("idle")
        counts.lagged(0.001)
        counts.lagged(-1.0)
        assert counts.of("Session.wait") is second
        counts.publish(stamp, Traffic(10, 20, overloads=5))
        read = page.counts()
    assert read.methods == {
        "Reverse.read": MethodCounts(_times(0, 13, 14, 30, sum_ns=1_000_016_383), failed=1),
        "Session.wait": MethodCounts(_times(), refused=1),
    }
    assert read.limits == dict.fromkeys(LIMITS, 0) | {"in-flight": 6, "idle": 1}
    assert (read.bytes_in, read.bytes_out) == (10, 20)
    assert read.lag == _times(0, 20, sum_ns=1_000_000)


def test_methods_whose_cut_names_are_the_same_are_counted_together() -> None:
    end = "method_of_a_long_name_" * 4
    with closing(StampPage()) as page, open_stamp(os.dup(page.fd)) as stamp:
        counts = CallCounts(MethodStamps(stamp))
        for label, calls in ((f"Accounts.{end}", 7), (f"Sessions.{end}", 3)):
            for _ in range(calls):
                counts.refused("in-flight", label)
        counts.publish(stamp, Traffic())
        (read,) = page.counts().methods.values()
    assert read.refused == 10


def test_a_page_that_nobody_wrote_has_nothing() -> None:
    with closing(StampPage()) as page:
        read = page.counts()
    assert read.methods == {}
    assert (sum(read.limits.values()), read.bytes_in, read.lag.count) == (0, 0, 0)


def test_workers_add_up() -> None:
    one = WorkerCounts({"a": MethodCounts(_times(3), 1, 2, 3)}, {"idle": 1}, 5, 6, _times(1))
    other = WorkerCounts({"b": MethodCounts(failed=1)}, {"idle": 2, "age": 1}, 1, 1, _times(1, 2))
    both = one + other + one
    assert both.methods == {
        "a": MethodCounts(_times(3, 3), 2, 4, 6),
        "b": MethodCounts(failed=1),
    }
    assert both.limits == {"idle": 4, "age": 1}
    assert (both.bytes_in, both.bytes_out, both.lag) == (11, 13, _times(1, 1, 1, 2))
    assert WorkerCounts() + one == one

import json

from capnp_rig.loadtest.stats.endpoint_tally import EndpointTally
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.tally import EndpointChange, Report, Tally, Window, add
from capnp_rig.objects.errors import ConnectError, Disconnected

READ = "MessageStream.read"
SECOND = 10**9


def test_what_happens_at_an_endpoint_counts_in_the_run_and_there() -> None:
    tally = Tally(open_ns=0)
    one, other = EndpointTally(tally, "a:1"), EndpointTally(tally, "b:2")
    one.connected(0, 1_000, again=False)
    one.recorder(READ).record(0, 0, 5_000)
    other.recorder(READ).record(0, 0, 7_000)
    other.recorder(READ).record(SECOND, SECOND, SECOND + 9_000)
    other.failed(READ, SECOND, SECOND + 1, Disconnected("gone"))
    other.disconnected(SECOND + 1)
    other.unfinished(2)
    report = tally.take(final=True)
    total, parts = report.total, report.total.endpoints
    assert total.times.service == Histogram.of([5_000, 7_000, 9_000])
    assert parts["a:1"].times.service == Histogram.of([5_000])
    assert parts["b:2"].times.service == Histogram.of([7_000, 9_000])
    assert (parts["a:1"].connects.count, parts["b:2"].connects.count) == (1, 0)
    assert total.failures == {"Disconnected: gone": 1}
    assert parts["b:2"].failures == {"Disconnected: gone": 1, "unfinished": 2}
    assert (total.ended, parts["a:1"].ended, parts["b:2"].ended) == (1, 0, 1)
    assert report.unfinished == 2
    assert report.windows[1].endpoints["b:2"].answered == 1


def test_both_count_seconds_from_the_same_opening() -> None:
    tally = Tally()
    endpoint = EndpointTally(tally, "a:1")
    tally.open(10 * SECOND)
    record = endpoint.recorder(READ).record
    record(9 * SECOND, 9 * SECOND, 9 * SECOND + 5)
    record(12 * SECOND, 12 * SECOND, 12 * SECOND + 5)
    windows = tally.take().windows
    for second, calls in ((-1, 1), (2, 1)):
        assert windows[second].answered == windows[second].endpoints["a:1"].answered == calls


def test_a_single_endpoint_has_no_part_of_its_own() -> None:
    tally = Tally(open_ns=0)
    endpoint = EndpointTally(tally)
    recorder = endpoint.recorder(READ)
    assert recorder.record == tally.timer(READ).record
    recorder.record(0, 0, 5_000)
    endpoint.changed(1, is_lost=True)
    report = tally.take()
    assert (report.total.endpoints, report.changes) == ({}, ())


def test_an_endpoint_without_calls_is_told_of() -> None:
    tally = Tally(open_ns=0)
    EndpointTally(tally, "a:1")
    assert tally.take().total.endpoints == {"a:1": Window()}


def test_changes_are_told_once_and_in_order() -> None:
    tally = Tally(open_ns=SECOND)
    one, other = EndpointTally(tally, "a:1"), EndpointTally(tally, "b:2")
    one.changed(2 * SECOND, is_lost=False)
    one.changed(3 * SECOND, is_lost=True)
    one.changed(4 * SECOND, is_lost=True)
    other.changed(SECOND // 2, is_lost=True)
    first = tally.take()
    one.changed(6 * SECOND, is_lost=True)
    one.changed(7 * SECOND, is_lost=False)
    second = tally.take()
    assert first.changes == (EndpointChange("b:2", -0.5, True), EndpointChange("a:1", 2.0, True))
    assert second.changes == (EndpointChange("a:1", 6.0, False),)
    assert add(first, second).changes == (*first.changes, *second.changes)


def test_a_report_with_endpoints_reads_as_it_was_written() -> None:
    tally = Tally(open_ns=0)
    endpoint = EndpointTally(tally, "a:1")
    endpoint.failed("connect", 0, 5, ConnectError("refused"))
    endpoint.disconnected(6)
    endpoint.changed(5, is_lost=True)
    report = tally.take()
    read = Report.from_json(json.loads(json.dumps(report.to_json())))
    assert read.total == report.total
    assert read.changes == report.changes

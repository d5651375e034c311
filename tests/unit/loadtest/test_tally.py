import json

from client.errors import Disconnected, RemoteError
from loadtest.histogram import Histogram
from loadtest.load_file import load_document, problems, read_collector
from loadtest.tally import Collector, Report, Tally

_METHOD = "MessageStream.read"


def _report(times_ns: list[int], *, final: bool = True, start_ns: int = 10**9) -> Report:
    tally = Tally()
    for number, time_ns in enumerate(times_ns):
        tally.answered(_METHOD, start_ns + number * 10_000, start_ns + number * 10_000 + time_ns)
    return tally.take(cpu_ns=1_000, final=final)


def test_workers_add_up_to_what_one_process_would_have_seen() -> None:
    collector = Collector()
    collector.receive("a", _report([5_000, 6_000], final=False))
    collector.receive("a", _report([7_000]))
    collector.receive("b", _report([8_000]))
    assert collector.total.calls == 4
    assert collector.total.service[_METHOD] == Histogram.of([5_000, 6_000, 7_000, 8_000])
    assert collector.total.cpu_ns == 3_000
    assert not collector.missing


def test_a_worker_without_its_last_report_is_a_problem() -> None:
    collector = Collector()
    collector.receive("a", _report([5_000]))
    collector.receive("b", _report([5_000], final=False))
    assert collector.missing == ["b"]
    assert problems(collector) == ["1 worker(s) did not send their last report"]


def test_no_answered_call_is_a_problem() -> None:
    assert problems(Collector()) == ["no call was answered"]


def test_a_report_is_given_away_once() -> None:
    tally = Tally()
    tally.answered(_METHOD, 0, 5_000)
    tally.failed(_METHOD, 0, 5_000, Disconnected("gone"))
    tally.unfinished(3)
    first, second = tally.take(), tally.take()
    assert (first.calls, dict(first.failures), first.unfinished) == (
        1,
        {"Disconnected: gone": 1},
        3,
    )
    assert (second.calls, dict(second.failures), second.unfinished) == (0, {}, 0)


def test_failed_calls_are_timed_apart() -> None:
    tally = Tally()
    tally.failed(_METHOD, 0, 5_000, Disconnected("gone"))
    report = tally.take()
    assert report.calls == 0
    assert report.failed[_METHOD] == Histogram.of([5_000])


def test_reasons_with_numbers_do_not_fill_the_table() -> None:
    tally = Tally()
    for number in range(1_000):
        error = RemoteError(f"internal error {number}\nTraceback of {number}")
        short = tally.failed(_METHOD, 0, 1, error)
        assert "\n" not in str(short)
        assert isinstance(short, RemoteError)
    failures = tally.take().failures
    assert len(failures) == 17
    assert failures["RemoteError: (other reasons)"] == 1_000 - 16


def test_the_rate_counts_the_longest_window() -> None:
    collector = Collector()
    collector.receive("a", _report([10_000] * 100))
    collector.receive("b", _report([10_000] * 50))
    assert collector.longest_ns == 1_000_000
    assert collector.rate_hz == 150_000


def test_a_run_survives_its_file() -> None:
    collector = Collector()
    collector.receive("a", _report([5_000, 6_000]))
    document = json.loads(json.dumps(load_document(collector, {"users": 1})))
    assert read_collector(document).total == collector.total
    assert document["loop"] == "closed"

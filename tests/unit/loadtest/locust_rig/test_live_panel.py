import json

import pytest

from capnp_rig.loadtest.engine.server_usage import WatchedProcess
from capnp_rig.loadtest.locust_rig.live_panel import (
    EARLY,
    PROCESS_COLUMNS,
    TIMES_COLUMNS,
    panel,
    process_data,
    times_data,
)
from capnp_rig.loadtest.locust_rig.live_run import LiveRun, ProcessReport, ResourceUse
from capnp_rig.loadtest.locust_rig.resource_sampler import NOT_HERE, ServerReading, ServerSampler
from capnp_rig.loadtest.stats.failures import FailedCall
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.process_use import Usage
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode
from capnp_rig.loadtest.stats.tally import EndpointChange, Report, Times, Window


def live(host: str = "here", failure: str = "Overloaded: full") -> LiveRun:
    run = LiveRun()
    window = Window({"read": Times(Histogram.of([100_000] * 500))}, failures={failure: 2})
    example = FailedCall(failure, failure, request="<u>", expected="1", came="2")
    unchecked = (Reason(ReasonCode.CHECK_ID),)
    report = Report({0: window}, cpu_ns=500_000_000, examples=(example,), unchecked=unchecked)
    used = (ResourceUse(0.0, 1.0, 10_000_000), ResourceUse(1.0, 1.5, 20_000_000))
    run.receive("a", 0, ProcessReport(report, 2.0, 2.0, 7, host, 1, used), now_s=10)
    return run


def watch(*usages: Usage) -> ServerSampler:
    # A short last interval, as at the end of a run, tells little.
    readings = [ServerReading(0.0, usages, None)]
    for at_s, used_s in ((1.0, 0.5), (1.1, 0.5)):
        later = tuple(Usage(one.name, one.pid, one.cpu_s + used_s, 99_000_000) for one in usages)
        readings.append(ServerReading(at_s, later, None))
    found = ServerSampler("h:1", readings)
    found._parts = [WatchedProcess(one.name, None) for one in usages]  # type: ignore[arg-type]
    return found


def test_a_panel_is_plain_values() -> None:
    shown = panel(live(), watch(Usage("worker 0", 5, 3.0, 1)), 13.0, None, is_running=True)
    assert json.loads(json.dumps(shown)) == shown
    assert (shown["calls"], shown["errors"], shown["age_s"]) == (500, 2, 3)
    assert (shown["calls_per_s"], shown["rate_now_hz"]) == (250, 250)
    assert shown["failures"] == [{"kind": "Overloaded: full", "count": 2}]
    assert shown["verdict"] == "failed"
    assert shown["reasons"][-1] == "content not checked: --check id"
    assert shown["server"]["processes"] == [
        {"name": "worker 0", "pid": 5, "cpu": 0.5 / 1.1, "rss_bytes": 99_000_000}
    ]
    assert shown["generators"][0]["cpu"] == 0.25


@pytest.mark.parametrize(
    ("seconds", "is_running", "verdict"),
    [(0.0, True, EARLY), (9.0, True, EARLY), (9.0, False, "void"), (11.0, True, "void")],
)
def test_nothing_is_red_in_the_first_seconds(
    seconds: float, is_running: bool, verdict: str
) -> None:
    # It has just begun: all CPU time so far went into starting.
    run = LiveRun()
    window = Window({"read": Times(Histogram.of([100_000] * 5))})
    report = Report({0: window}, cpu_ns=round(seconds * 0.99e9))
    run.receive("a", 0, ProcessReport(report, seconds, seconds), now_s=10)
    shown = panel(run, watch(), 13.0, None, is_running=is_running)
    assert shown["verdict"] == verdict
    assert bool(shown["reasons"]) is (verdict == "void")


def test_a_run_without_any_call_yet_is_early() -> None:
    assert panel(LiveRun(), watch(), 0.1, None, is_running=True)["verdict"] == EARLY


def test_a_failure_is_red_at_once() -> None:
    assert panel(live(), watch(), 13.0, None, is_running=True)["verdict"] == "failed"


def test_the_pages_tables_are_html_with_every_text_escaped() -> None:
    run = live(host="<i>", failure="<b>no</b>")
    shown = panel(run, watch(Usage("worker 0", 5, 3.0, 1)), 13.0, None, is_running=True)
    tables = shown["tables"]
    assert [*tables] == ["times", "endpoints", "server", "generators", "failures", "examples"]
    assert ">45 %</td>" in tables["server"]
    assert ">99.0 MB</td>" in tables["server"]
    assert ">&lt;i&gt;</td>" in tables["generators"]
    assert ">&lt;b&gt;no&lt;/b&gt;</td>" in tables["failures"]
    assert ">&lt;u&gt;</td>" in tables["examples"]
    assert ">service</td>" in tables["times"]
    assert panel(run, watch(), 13.0, None, is_running=True)["tables"]["server"] == "none"


def _over_two_servers() -> LiveRun:
    """Return a run of 3.5 s whose second server is lost from 1.25 s on."""
    run = LiveRun()
    answered = Window({"read": Times(Histogram.of([100_000] * 40))})
    windows = {
        second: Window(answered.calls, endpoints={"a:1": answered, "<b>:2": other})
        for second, other in enumerate([answered, Window(ended=1), Window(), Window()])
    }
    changes = (EndpointChange("<b>:2", 1.25, is_lost=True),)
    run.receive("a", 0, ProcessReport(Report(windows, changes=changes), 3.5, 3.5), now_s=10)
    return run


def test_the_page_shows_what_each_endpoint_answered_and_when_it_was_lost() -> None:
    shown = panel(_over_two_servers(), watch(), 13.0, None, is_running=True)
    assert json.loads(json.dumps(shown)) == shown
    # The second that is under way would look like a loss.
    assert shown["timeline"] == {
        "first": 0,
        "rates": {"a:1": [40, 40, 40], "<b>:2": [40, 0, 0]},
        "outages": [{"endpoint": "<b>:2", "from_s": 1.25, "until_s": None}],
    }
    first, second = shown["endpoints"]
    assert (first["endpoint"], first["calls"], first["outages"]) == ("a:1", 160, [])
    assert first["calls_per_s"] == pytest.approx(160 / 3.5)
    assert (second["outages"], second["outage_s"]) == ([[1.25, None]], 2.25)
    assert ">&lt;b&gt;:2</td>" in shown["tables"]["endpoints"]


def test_the_timeline_has_the_last_seconds_of_all_processes() -> None:
    run = _over_two_servers()
    window = Window(endpoints={"a:1": Window({"read": Times(Histogram.of([100_000] * 2))})})
    run.receive("b", 1, ProcessReport(Report({1: window}), 2.9, 2.9), now_s=10)
    # Nobody knows yet of all that happened after second 2 of the second process.
    assert run.endpoint_rates(1) == (1, {"a:1": [42], "<b>:2": [0]})


def test_a_run_of_one_server_has_no_timeline() -> None:
    shown = panel(live(), watch(), 13.0, None, is_running=True)
    assert (shown["timeline"]["rates"], shown["tables"]["endpoints"]) == ({}, "")


def test_locusts_tabs_show_the_same() -> None:
    shown = panel(live(), watch(Usage("worker 0", 5, 3.0, 1)), 13.0, None, is_running=True)
    row = times_data(shown)[0]
    assert list(row) == [key for key, _ in TIMES_COLUMNS]
    assert [row["clock"], row["count"], row["p99.99"]] == ["service", "500", "100"]
    server, generator = process_data(shown)
    assert list(server) == [key for key, _ in PROCESS_COLUMNS]
    assert list(server.values()) == ["server: worker 0", 5, "45", "99.0", ""]
    assert list(generator.values()) == [
        *("locust 0", 7, "25", "20.0"),
        "pinned to CPU 1, as of 3 s ago",
    ]


def test_a_server_that_is_not_here_says_so() -> None:
    shown = panel(live(), watch(), 13.0, None, is_running=True)
    assert shown["server"]["missing"] == NOT_HERE
    assert process_data(shown)[0]["note"] == NOT_HERE


def test_before_the_first_run_there_are_no_rows() -> None:
    assert times_data({}) == process_data({}) == []

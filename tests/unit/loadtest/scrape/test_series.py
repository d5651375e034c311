import pytest

from capnp_rig.loadtest.scrape.series import (
    MOST_SERIES,
    Scraped,
    ScrapeError,
    family_of,
    labels_of,
    rates,
    read_metrics,
)

PAGE = """\
# HELP http_requests_total The total number of HTTP requests.
# TYPE http_requests_total counter
http_requests_total{method="post",code="200"} 1027 1395066363000
http_requests_total{method="po\\"st",code="400"}    3 1395066363000
# A comment, then one without a type.
metric_without_timestamp_and_labels 12.47
something_weird{problem="division by zero"} +Inf -3982045
# TYPE rpc_duration_seconds summary
rpc_duration_seconds{quantile="0.5"} 4773
rpc_duration_seconds_sum 1.7560473e+07
rpc_duration_seconds_count 2693
# TYPE wait histogram
wait_bucket{le="0.05"} 24054
wait_bucket{le="+Inf"} 144320
wait_sum 53423
wait_count 144320
# TYPE depth gauge
depth{shard="a"} -2
depth{shard="b"} NaN
"""


def test_values_are_read_by_series_and_what_counts_up_is_told() -> None:
    metrics = read_metrics(PAGE)
    counters = {
        'http_requests_total{code="200",method="post"}': 1027.0,
        'http_requests_total{code="400",method="po\\"st"}': 3.0,
        "rpc_duration_seconds_sum": 17_560_473.0,
        "rpc_duration_seconds_count": 2693.0,
        "wait_sum": 53_423.0,
        "wait_count": 144_320.0,
    }
    gauges = {"metric_without_timestamp_and_labels": 12.47, 'depth{shard="a"}': -2.0}
    assert metrics.values == counters | gauges
    assert metrics.counters == counters.keys()
    assert metrics.left_out == 0


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("<html><body>Not found</body></html>", "it is no page of Prometheus metrics: "),
        ("{}", "it is no page of Prometheus metrics: "),
        ("", "it has no metrics"),
        ("# TYPE a gauge\na NaN\n", "it has no metrics"),
    ],
)
def test_what_is_no_page_of_metrics_is_refused(text: str, what: str) -> None:
    with pytest.raises(ScrapeError, match=f"^{what}"):
        read_metrics(text)


def test_no_more_series_are_kept_than_a_run_can_bear() -> None:
    metrics = read_metrics("".join(f"depth_{number} 1\n" for number in range(MOST_SERIES + 3)))
    assert (len(metrics.values), metrics.left_out) == (MOST_SERIES, 3)


def test_the_rate_of_a_counter_that_begins_anew_counts_from_zero() -> None:
    assert rates([(0.0, 10.0), (2.0, 14.0), (3.0, 5.0), (3.0, 6.0)]) == [(2.0, 2.0), (3.0, 5.0)]
    assert rates([(0.0, 10.0)]) == []


def test_a_series_has_a_family_and_labels() -> None:
    assert (family_of('a{b="c{}"}'), labels_of('a{b="c{}"}')) == ("a", 'b="c{}"')
    assert (family_of("a"), labels_of("a")) == ("a", "")


def test_what_is_missing_is_told() -> None:
    assert Scraped("http://a/", ((0.0, {}),)).note == ""
    note = Scraped("http://a/", ((0.0, {}),), failed=2, error="no answer", left_out=7).note
    assert note == (
        "http://a/: 2 of 3 readings failed, the last one: no answer; "
        f"7 series beyond {MOST_SERIES} are left out"
    )

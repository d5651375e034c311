"""Locust's own tables below a millisecond.

Locust counts times below 100 ms in buckets of whole milliseconds, and its tables print integers.
`mend_tables` replaces, in master and workers alike, what rounds: the buckets (documented as
replaceable, Locust's PR #3373), the two rows of the console tables, the percentiles of the CSV
files, and minimum and maximum of the web UI, its downloads and the HTML report.

What stays rounded is inside Locust's JavaScript: median and average are shown to 0.01 ms there,
in table, chart and HTML report. All percentiles of Locust's come from buckets of three digits;
the rig's own histograms (`loadtest.results.times_table`) are finer, and have nothing of this.
"""

from typing import Any

from locust import stats
from locust.stats import StatsCSV, StatsEntry

from capnp_rig.loadtest.locust_rig.milliseconds import bucket_ms, shown_ms


def _stats_row(entry: Any, current: bool = True) -> str:
    """Return a row of the table of requests, as `StatsEntry.to_string` does."""
    failed = f"{entry.num_failures}({entry.fail_ratio * 100:.2f}%)"
    times = [
        entry.avg_response_time,
        entry.min_response_time or 0,
        entry.max_response_time,
        entry.median_response_time,
    ]
    average, low, high, median = map(shown_ms, times)
    rates = (
        (entry.current_rps, entry.current_fail_per_sec)
        if current
        else (entry.total_rps, entry.total_fail_per_sec)
    )
    method = f"{entry.method} " if entry.method else ""
    width = stats.STATS_NAME_WIDTH - stats.STATS_TYPE_WIDTH + 4
    return (
        f"{method:<{stats.STATS_TYPE_WIDTH}} {entry.name:<{width}} {entry.num_requests:7d} "
        f"{failed:>12} |{average:>7} {low:>7} {high:>7}{median:>7} | "
        f"{rates[0] or 0:7.2f} {rates[1] or 0:11.2f}"
    )


def _percentile_row(entry: Any) -> str:
    """Return a row of the table of percentiles, as `StatsEntry.percentile` does."""
    shares = stats.PERCENTILES_TO_REPORT
    first, *others = [shown_ms(entry.get_response_time_percentile(share)) for share in shares]
    name = f"{entry.method or '':<{stats.STATS_TYPE_WIDTH}} {entry.name:<{stats.STATS_NAME_WIDTH}}"
    return f"{name} {first:>8} {' '.join(f'{time:>6}' for time in others)} {entry.num_requests:6d}"


def _csv_percentiles(writer: Any, entry: Any, use_current: bool = False) -> list[Any]:
    """Return the percentiles of a CSV row, as `StatsCSV._percentile_fields` does, but in full."""
    if not entry.num_requests:
        return list(writer.percentiles_na)
    is_current = use_current and entry.use_response_times_cache
    read = (
        entry.get_current_response_time_percentile
        if is_current
        else entry.get_response_time_percentile
    )
    return [read(share) or 0 for share in writer.percentiles_to_report]


_rounded_dict: Any = StatsEntry.to_dict


def _to_dict(entry: Any, escape_string_values: bool = False) -> dict[str, Any]:
    """Return what the web UI and the HTML report show, with minimum and maximum to the µs."""
    return {
        **_rounded_dict(entry, escape_string_values),
        "min_response_time": round(entry.min_response_time or 0, 3),
        "max_response_time": round(entry.max_response_time, 3),
    }


def mend_tables() -> None:
    """Replace what rounds; at import, since master and workers must agree on the buckets."""
    # Locust declares whole milliseconds for most of these.
    untyped: Any = stats
    untyped.bucket_response_time = bucket_ms
    entry: Any = StatsEntry
    entry.to_string = _stats_row
    entry.percentile = _percentile_row
    entry.to_dict = _to_dict
    csv: Any = StatsCSV
    csv._percentile_fields = _csv_percentiles

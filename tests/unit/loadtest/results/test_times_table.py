from capnp_rig.loadtest.results.times_table import CSV_COLUMNS, csv_cells, times_rows
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.tally import Times, Window

US = 1000


def times(*values_us: float) -> Histogram:
    return Histogram.of([round(value * US) for value in values_us])


OPEN = Window(
    {
        "A read": Times(times(90), times(100), times(10)),
        "B read": Times(times(1500, 2500), times(1500, 2500), times(0, 0), failed=times(7)),
    },
    connects=times(300),
)


def test_each_label_has_a_row_per_clock_and_all_together_too() -> None:
    rows = times_rows(OPEN, 2.0)
    assert [(row.label, row.clock, row.count) for row in rows] == [
        ("A read", "response", 1),
        ("A read", "service", 1),
        ("A read", "lateness", 1),
        ("B read", "response", 2),
        ("B read", "service", 2),
        ("B read", "lateness", 2),
        ("B read", "failed", 1),
        ("all", "response", 3),
        ("all", "service", 3),
        ("all", "lateness", 3),
        ("all", "failed", 1),
        ("connections", "connect", 1),
    ]
    assert rows[3].per_s == 1
    assert rows[3].max_us == 2500


def test_a_closed_loop_has_service_times_only() -> None:
    window = Window({"read": Times(times(0.4, 12.34, 5678))}, reconnects=times(20))
    rows = times_rows(window, 1.0)
    assert [(row.label, row.clock, row.count) for row in rows] == [
        ("read", "service", 3),
        ("connections", "reconnect", 1),
    ]
    assert rows[0].max_us == 5678


def test_a_csv_row_has_every_digit() -> None:
    row = times_rows(Window({"read": Times(times(12.345))}), 3.0)[0]
    assert dict(zip(CSV_COLUMNS, csv_cells(row), strict=True)) == {
        "label": "read",
        "clock": "service",
        "count": 1,
        "per_s": 0.333,
        **dict.fromkeys(("p50_us", "p90_us", "p99_us", "p99.9_us", "p99.99_us"), 12.345),
        "max_us": 12.345,
    }


def test_a_run_without_calls_has_no_rows() -> None:
    assert times_rows(Window(), 0.0) == []

"""What the live panel shows of a run, in plain values for its page and Locust's tabs (no I/O)."""

from typing import Any

from capnp_rig.loadtest.locust_rig.live_run import LiveRun
from capnp_rig.loadtest.locust_rig.resource_sampler import NOT_HERE, ServerSampler
from capnp_rig.loadtest.report.cells import number_cell, row
from capnp_rig.loadtest.report.document import Cell, Table
from capnp_rig.loadtest.report.run_tables import times_table
from capnp_rig.loadtest.report.units import NOTHING
from capnp_rig.loadtest.report.web import Html, grid_html
from capnp_rig.loadtest.results.times_table import PERCENTILES, shown_us, times_rows
from capnp_rig.loadtest.stats.run_summary import Summary


def panel(
    live: LiveRun, server: ServerSampler, now_s: float, summary: Summary | None, *, is_running: bool
) -> dict[str, Any]:
    """Return the panel of a run; `summary` is its last word, None while there is none."""
    total = live.total
    judged = summary or live.so_far(server.cpu_s)
    return {
        "is_running": is_running,
        "loop": "open" if live.is_open_loop else "closed",
        "seconds": live.seconds,
        # The figures are as old as the oldest report in them.
        "age_s": max((now_s - each.heard_s for each in live.generators.values()), default=0.0),
        "calls": judged.calls,
        "errors": judged.errors,
        "calls_per_s": judged.calls_per_s,
        "rate_now_hz": sum(each.rate_now_hz for each in live.generators.values()),
        "percentiles": list(_PERCENTS),
        "times": [row.to_json() for row in times_rows(total, live.seconds)],
        "failures": [
            {"kind": kind, "count": count} for kind, count in sorted(judged.failures.items())
        ],
        "tables": _tables(live, server, judged, now_s),
        "server": _server(server),
        "generators": _generators(live, now_s),
        "verdict": judged.verdict,
        "reasons": [reason.text for reason in judged.reasons],
    }


def _tables(live: LiveRun, server: ServerSampler, judged: Summary, now_s: float) -> dict[str, Html]:
    """Return the tables of the live page as HTML, by where they stand in it."""
    processes = [
        row(
            process["name"],
            f"{process['pid']}",
            _percent(process["cpu"]),
            _megabytes(process["rss_bytes"]),
        )
        for process in _server(server)["processes"]
    ]
    generators = [
        row(
            process["name"],
            _percent(process["cpu"]),
            _megabytes(process["rss_bytes"]),
            number_cell(process["calls_per_s"]),
            None if process["pinned"] is None else f"CPU {process['pinned']}",
            f"{process['pid']}",
            process["host"],
            f"{process['age_s']:.0f} s ago",
        )
        for process in _generators(live, now_s)
    ]
    failures = [row(kind, count) for kind, count in sorted(judged.failures.items())]
    use = ("CPU", "memory")
    headings = ("process", *use, "calls/s", "pinned to", "pid", "on", "reported")
    tables = (
        Table("server", "", ("process", "pid", *use), processes),
        Table("generators", "", headings, generators),
        Table("failures", "", ("kind", "count"), failures),
    )
    return {
        "times": grid_html(times_table(times_rows(live.total, live.seconds))),
        **{each.key: grid_html(each) if each.rows else Html("none") for each in tables},
    }


def _percent(share: float | None) -> Cell:
    return Cell(NOTHING if share is None else f"{100 * share:.0f} %", share)


def _megabytes(size_bytes: int | None) -> Cell:
    return Cell(NOTHING if size_bytes is None else f"{size_bytes / 1e6:.1f} MB", size_bytes)


def _server(server: ServerSampler) -> dict[str, Any]:
    shares = server.shares()
    return {
        "missing": None if server.is_here else NOT_HERE,
        "age_s": server.age_s,
        "processes": [
            {
                "name": process.name,
                "pid": process.pid,
                "cpu": shares.get(process.pid),
                "rss_bytes": process.rss_bytes,
            }
            for process in server.readings[-1].usages
        ],
    }


def _generators(live: LiveRun, now_s: float) -> list[dict[str, Any]]:
    return [
        {
            "name": f"locust {each.number}",
            "host": each.host,
            "pid": each.pid,
            "pinned": each.cpu,
            "cpu": each.busy_now,
            "rss_bytes": each.use[-1].rss_bytes if each.use else None,
            "calls_per_s": each.rate_now_hz,
            "age_s": now_s - each.heard_s,
        }
        for each in sorted(live.generators.values(), key=lambda each: each.number)
    ]


# --- Locust's tabs ---------------------------------------------------------------------------

_PERCENTS = tuple(f"p{percent:g}" for percent in PERCENTILES)
TIMES_COLUMNS = (
    ("label", "Label"),
    ("clock", "Time in µs"),
    ("count", "Count"),
    ("rate", "per s"),
    *((percent, percent) for percent in _PERCENTS),
    ("highest", "max"),
)
PROCESS_COLUMNS = (
    # Not "name": Locust would sort by that.
    ("process", "Process"),
    ("pid", "pid"),
    ("cpu", "CPU %"),
    ("memory", "Memory in MB"),
    ("note", ""),
)


def times_data(shown: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of Locust's tab of times."""
    return [
        {
            "label": row["label"],
            "clock": row["clock"],
            "count": f"{row['count']:,}",
            "rate": f"{row['per_s']:,.0f}",
            **dict(zip(_PERCENTS, map(shown_us, row["percentiles_us"]), strict=True)),
            "highest": shown_us(row["max_us"]),
        }
        for row in shown.get("times", [])
    ]


def process_data(shown: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of Locust's tab of processes, the server's first."""
    if not shown:
        return []
    server = shown["server"]
    rows = [
        _process_row(f"server: {process['name']}", process, "") for process in server["processes"]
    ]
    if server["missing"]:
        rows.append(
            {"process": "server", "pid": "", "cpu": "", "memory": "", "note": server["missing"]}
        )
    for process in shown["generators"]:
        pinned = "" if process["pinned"] is None else f"pinned to CPU {process['pinned']}, "
        rows.append(
            _process_row(process["name"], process, f"{pinned}as of {process['age_s']:.0f} s ago")
        )
    return rows


def _process_row(name: str, process: dict[str, Any], note: str) -> dict[str, Any]:
    return {
        "process": name,
        "pid": process["pid"],
        "cpu": "-" if process["cpu"] is None else f"{100 * process['cpu']:.0f}",
        "memory": "-" if process["rss_bytes"] is None else f"{process['rss_bytes'] / 1e6:.1f}",
        "note": note,
    }

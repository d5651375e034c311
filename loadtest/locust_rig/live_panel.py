"""What the live panel shows of a run, in plain values for its page and Locust's tabs (no I/O)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from capnp_rig.loadtest.locust_rig.live_run import LiveRun
from capnp_rig.loadtest.locust_rig.resource_sampler import NOT_HERE, ServerSampler
from capnp_rig.loadtest.report.cells import number_cell, row
from capnp_rig.loadtest.report.document import Cell, Table
from capnp_rig.loadtest.report.run_tables import endpoint_tables, times_table
from capnp_rig.loadtest.report.units import NOTHING
from capnp_rig.loadtest.report.web import Html, grid_html
from capnp_rig.loadtest.results.times_table import PERCENTILES, shown_us, times_rows
from capnp_rig.loadtest.stats.failures import FailedCall
from capnp_rig.loadtest.stats.run_summary import Summary

# Whoever starts is busy, late and without calls: before this, only a failure is worth a word.
_EARLY_S = 10.0
EARLY = "too early to tell"
_TIMELINE_S = 120


def panel(
    live: LiveRun, server: ServerSampler, now_s: float, summary: Summary | None, *, is_running: bool
) -> dict[str, Any]:
    """Return the panel of a run; `summary` is its last word, None while there is none."""
    judged = summary or live.so_far(
        server.cpu_s, server.surroundings(live.windows), server.endpoint_cpu_s
    )
    is_early = is_running and live.seconds < _EARLY_S and not judged.errors
    times = times_rows(live.total, live.seconds)
    failures = [{"kind": kind, "count": judged.failures[kind]} for kind in sorted(judged.failures)]
    server_now, generators = _server(server), _generators(live, now_s)
    return {
        "is_running": is_running,
        "loop": "open" if live.is_open_loop else "closed",
        "seconds": live.seconds,
        # The figures are as old as the oldest report in them.
        "age_s": max((each["age_s"] for each in generators), default=0.0),
        "calls": judged.calls,
        "errors": judged.errors,
        "calls_per_s": judged.calls_per_s,
        "rate_now_hz": sum(each["calls_per_s"] for each in generators),
        "percentiles": list(_PERCENTS),
        "times": [row.to_json() for row in times],
        "failures": failures,
        "endpoints": [each.to_json() for each in judged.endpoints],
        "timeline": _timeline(live),
        "tables": {
            "times": grid_html(times_table(times)),
            "endpoints": _endpoint_grids(judged),
            "server": _grid([_server_cells(each) for each in server_now["processes"]]),
            "generators": _grid([_generator_cells(each) for each in generators]),
            "failures": _grid(failures),
            "examples": _grid([_example_cells(each) for each in judged.examples]),
        },
        "server": server_now,
        "generators": generators,
        "verdict": EARLY if is_early else judged.verdict,
        "reasons": [
            reason.text for reason in (*judged.reasons * (not is_early), *judged.unchecked)
        ],
    }


def _endpoint_grids(summary: Summary) -> Html:
    """Return the tables of several endpoints, nothing where there is one."""
    tables = endpoint_tables(summary) if summary.endpoints else ()
    return Html("".join(map(grid_html, tables)))


def _timeline(live: LiveRun) -> dict[str, Any]:
    """Return the calls/s of each of several endpoints lately, and when it was lost."""
    first, rates = live.endpoint_rates(_TIMELINE_S)
    outages = [
        asdict(each) for each in live.outages if each.until_s is None or each.until_s > first
    ]
    return {"first": first, "rates": rates, "outages": outages}


def _grid(rows: Sequence[Mapping[str, Any]]) -> Html:
    """Return a table of the live page: cells by their headings."""
    if not rows:
        return Html("none")
    return grid_html(Table("", "", [*rows[0]], [row(*cells.values()) for cells in rows]))


def _server_cells(process: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "process": process["name"],
        "pid": f"{process['pid']}",
        "CPU": _percent(process["cpu"]),
        "memory": _megabytes(process["rss_bytes"]),
    }


def _generator_cells(process: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "process": process["name"],
        "CPU": _percent(process["cpu"]),
        "memory": _megabytes(process["rss_bytes"]),
        "calls/s": number_cell(process["calls_per_s"]),
        "pinned to": None if process["pinned"] is None else f"CPU {process['pinned']}",
        "pid": f"{process['pid']}",
        "on": process["host"],
        "reported": f"{process['age_s']:.0f} s ago",
    }


def _example_cells(example: FailedCall) -> dict[str, Any]:
    return {
        "failure": example.text,
        "request": example.request,
        "expected": example.expected,
        "came": example.came,
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
    rows = [_process_row(process, f"server: {process['name']}") for process in server["processes"]]
    if server["missing"]:
        rows.append(
            {"process": "server", "pid": "", "cpu": "", "memory": "", "note": server["missing"]}
        )
    for process in shown["generators"]:
        pinned = "" if process["pinned"] is None else f"pinned to CPU {process['pinned']}, "
        note = f"{pinned}as of {process['age_s']:.0f} s ago"
        rows.append(_process_row(process, process["name"], note))
    return rows


def _process_row(process: dict[str, Any], name: str, note: str = "") -> dict[str, Any]:
    return {
        "process": name,
        "pid": process["pid"],
        "cpu": _percent(process["cpu"]).text.removesuffix(" %"),
        "memory": _megabytes(process["rss_bytes"]).text.removesuffix(" MB"),
        "note": note,
    }

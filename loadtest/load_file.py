"""The file of one load run: everything its figures are made from, and why it may not count."""

from collections.abc import Mapping
from typing import Any

from loadtest.histogram import Histogram, merge
from loadtest.tally import Collector, Report

FORMAT = "capnp-rig load"
VERSION = 1


class LoadFileError(ValueError):
    """A file is no load run that this version reads."""


def load_document(collector: Collector, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the run as plain values, ready for JSON."""
    return {
        "format": FORMAT,
        "version": VERSION,
        # Users wait for their replies: a slow server is asked less, so these are service times.
        "loop": "closed",
        "options": dict(options),
        "problems": problems(collector),
        "rate_hz": collector.rate_hz,
        "window_s": collector.longest_ns / 1e9,
        "generator_busy": collector.busy,
        "total": collector.total.to_json(),
        "processes": {name: report.to_json() for name, report in collector.processes.items()},
    }


def problems(collector: Collector) -> list[str]:
    """Return why the run does not count; failed calls are counted, and no such reason."""
    found = []
    if not collector.total.calls:
        found.append("no call was answered")
    if collector.missing:
        found.append(f"{len(collector.missing)} worker(s) did not send their last report")
    return found


def read_collector(document: Mapping[str, Any]) -> Collector:
    """Return the reports of the processes in a load document.

    Raises:
        LoadFileError: It has another format or major version.
    """
    if document.get("format") != FORMAT or document.get("version") != VERSION:
        raise LoadFileError(f"not a {FORMAT!r} of version {VERSION}")
    collector = Collector()
    for name, report in document["processes"].items():
        collector.receive(name, Report.from_json(report))
    return collector


def service_times(report: Report) -> Histogram:
    """Return the times of all answered calls in one histogram."""
    return merge(report.service.values())

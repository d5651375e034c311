"""Locust's master and workers as several machines have them: each started by itself."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from running_locust import Finished, finish, free_port, locust, read_requests, read_results
from running_server import running_server

from capnp_rig.loadtest.stats.histogram import merge
from capnp_rig.loadtest.stats.run_summary import PERCENTILES


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_server("--workers", "1", "--log-level", "warning") as running:
        yield f"{running.host}:{running.port}"


def _run_cluster(
    server: str, folder: Path, *options: str, workers: tuple[tuple[str, ...], ...]
) -> Finished:
    port = str(free_port())
    master = ("--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port)
    outputs = ("--results", str(folder / "results"), "--json-file", str(folder / "locust"))
    load = ("--headless", "--only-summary", "-u", "4", "-r", "4", "-t", "4s")
    expect = ("--expect-workers", str(len(workers)))
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                locust("--worker", "--master-host", "127.0.0.1", "--master-port", port, *worker)
            )
            for worker in workers
        ]
        process = stack.enter_context(
            locust("-H", server, *master, *load, *expect, *outputs, *options)
        )
        done = finish(process)
        for worker in started:
            assert finish(worker).status == 0
    return done


def test_master_and_workers_are_the_sum_of_their_parts(server: str, tmp_path: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    pins = (cpus[0], cpus[-1])
    workers = tuple(("--pin", str(cpu)) for cpu in pins)
    done = _run_cluster(server, tmp_path, "--rate", "800", workers=workers)
    assert done.status == 0, done.output
    found = read_results(tmp_path / "results")
    assert len(found.reports) == 2
    assert all(report.final and report.calls > 100 for report in found.reports)
    # As many calls as Locust has counted, and every call in all three clocks.
    parts = [report.total.times for report in found.reports]
    counts = [part.service.count for part in parts]
    assert sum(counts) == read_requests(tmp_path / "locust")
    assert sum(report.scheduled or 0 for report in found.reports) >= sum(counts)
    summary = found.document["summary"]
    assert summary["calls"] == sum(counts)
    for clock in ("response", "service", "lateness"):
        times = [getattr(part, clock) for part in parts]
        assert [one.count for one in times] == counts
        whole = merge(times)
        for percent in PERCENTILES:
            found_us = summary[f"{clock}_us"][f"p{percent:g}"]
            assert round(found_us * 1000) == whole.percentile_ns(percent)
        assert round(summary[f"{clock}_us"]["max"] * 1000) == max(one.max_ns for one in times)
    # Either worker may have come first.
    assert sorted(each["cpu"] for each in found.document["generators"]) == sorted(pins)
    assert sorted(each["process"] for each in found.document["generators"]) == [0, 1]


@pytest.mark.nightly
def test_a_pin_that_fails_is_reported(server: str, tmp_path: Path) -> None:
    done = _run_cluster(server, tmp_path, "--pin", "4095", workers=((), ("--pin", "auto")))
    assert done.status == 0, done.output
    generators = read_results(tmp_path / "results").document["generators"]
    assert sorted(each["cpu"] is None for each in generators) == [False, True]

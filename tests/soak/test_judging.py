"""The soak's own eyes: each kind of leak, planted, is seen, and what breathes is not."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from soak.census import Census
from soak.drive import compare, differences, growth, leaves, rising, slope

from capnp_rig.server.engines import wire_engine
from capnp_rig.wire.rpc.server_connection import ServerConnection

QUIET: Mapping[str, Any] = {
    "tasks": 1,
    "running": 0,
    "threads": 3,
    "files": 20,
    "own": {"wire.A": 1, "wire.A.count": 7},
    "objects": {"builtins.dict": 1000},
    "rss_bytes": 50_000_000,
}


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({"tasks": 2}, "tasks: 1 before, 2 after"),
        ({"running": 1}, "running: 0 before, 1 after"),
        ({"threads": 4}, "threads: 3 before, 4 after"),
        ({"files": 23}, "open files: 20 before, 23 after"),
        ({"own": {"wire.A": 1, "wire.A.count": 8}}, "wire.A.count: 7 before, 8 after"),
        ({"own": {"wire.A": 1}}, "wire.A.count: 7 before, 0 after"),
        (
            {"own": {**QUIET["own"], "len(wire.A.table)": 3}},
            "len(wire.A.table): 0 before, 3 after",
        ),
        (
            {"own": {**QUIET["own"], "len(wire.rpc.layouts:_shared)": 4097}},
            "len(wire.rpc.layouts:_shared): 4097, over its bound, 4096",
        ),
        ({"objects": {"builtins.dict": 1201}}, "objects of builtins.dict: 1000 before, 1201 after"),
        ({"rss_bytes": 56_000_000}, "RSS: 50.0 MB before, 56.0 MB after"),
    ],
)
def test_what_has_grown_is_named(now: Mapping[str, Any], words: str) -> None:
    assert compare({"worker": QUIET}, {"worker": {**QUIET, **now}}) == [f"worker: {words}"]


@pytest.mark.parametrize(
    "now",
    [
        {},
        {"files": 22},
        {"own": {**QUIET["own"], "len(wire.rpc.layouts:_shared)": 4096}},
        {"objects": {"builtins.dict": 1200}},
        {"rss_bytes": 55_000_000},
        {
            "own": {**QUIET["own"], "len(wire.rpc.layouts:_shared)": 1000},
            "objects": {"_struct.Struct": 1200, "wire.rpc.layouts.Layout": 1000},
            "rss_bytes": 59_000_000,
        },
    ],
)
def test_what_only_breathes_is_no_difference(now: Mapping[str, Any]) -> None:
    after = {**QUIET, **now}
    assert differences(QUIET, after) == []
    assert growth(QUIET, after) is None


def test_a_census_sees_counters_tables_and_instances_of_ours() -> None:
    before = Census.take()
    kept = [ServerConnection()]
    kept[0]._in_flight = 5
    kept[0]._answers[1] = kept[0]._answers[2] = None  # type: ignore[assignment]
    after = Census.take()
    name = "wire.rpc.server_connection.ServerConnection"
    grown = {
        key: after.own[key] - before.own.get(key, 0)
        for key in (name, f"{name}._in_flight", f"len({name}._answers)")
    }
    assert grown == {name: 1, f"{name}._in_flight": 5, f"len({name}._answers)": 2}


def test_a_census_sees_the_tables_of_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_engine, "table", {1: 2, 3: 4}, raising=False)
    monkeypatch.setattr(wire_engine, "count", 9, raising=False)
    own = Census.take().own
    assert own["len(server.engines.wire_engine:table)"] == 2
    assert own["server.engines.wire_engine:count"] == 9


def test_the_slope_is_that_of_most_points() -> None:
    points = [(float(x), 2.0 * x + 1) for x in range(9)]
    points[4] = (4.0, 1000.0)
    assert slope(points) == 2.0


def test_memory_that_rises_over_the_second_half_is_a_leak() -> None:
    steps = [(float(x), 50e6 + max(x - 50, 0) * 1e5) for x in range(100)]
    assert rising(steps) == "RSS rises by 4.9 MB over the second half (50 samples)"
    warm = [(float(x), 50e6 + min(x, 50) * 1e5) for x in range(100)]
    assert rising(warm) is None
    # Too few to tell.
    assert rising(steps[60:80]) is None


def test_one_fault_of_a_group_of_tasks_is_told_once() -> None:
    async def fails(number: int) -> None:
        raise ValueError(number)

    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fails(1))
            tasks.create_task(fails(2))

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(group())
    assert [str(leaf) for leaf in leaves(caught.value)] == ["1", "2"]

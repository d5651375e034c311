from collections.abc import Sequence

import pytest

from capnp_rig.loadtest.stats.process_use import (
    ProcessUse,
    Usage,
    add_up,
    gc_between,
    used_by_each,
    workers_of,
)
from capnp_rig.rigcli.gc_page import GcUse


def _usage(pid: int, cpu_s: float, gc: GcUse | None = None) -> Usage:
    return Usage("supervisor" if pid == 1 else f"worker {pid - 2}", pid, cpu_s, 1000, gc)


_BEFORE = [_usage(1, 1.0), _usage(2, 5.0, GcUse(3, 30, 20)), _usage(3, 7.0, GcUse(0, 0, 0))]
_AFTER = [_usage(1, 1.5), _usage(2, 8.0, GcUse(5, 90, 40)), _usage(3, 8.0, GcUse(0, 0, 0))]


def test_calls_go_to_the_process_that_has_the_connection() -> None:
    owners = {40001: 2, 40002: 3, 40003: 2, 40004: 3}
    found = used_by_each(_BEFORE, _AFTER, owners, [{40001: 10, 40003: 5}, {40002: 3}])
    assert found == [
        ProcessUse("supervisor", 1, 0.5, 0, None),
        ProcessUse("worker 0", 2, 3.0, 15, GcUse(2, 60, 40)),
        ProcessUse("worker 1", 3, 1.0, 3, GcUse(0, 0, 0)),
    ]
    assert [one.name for one in workers_of(found)] == ["worker 0", "worker 1"]
    assert [one.cpu_us_per_call for one in workers_of(found)] == [3e6 / 15, 1e6 / 3]


@pytest.mark.parametrize(
    ("owners", "by_port"),
    [
        ({}, [{40001: 10}]),
        ({40001: 2}, [{40001: 10, 40002: 1}]),
        ({40001: 99}, [{40001: 10}]),
        # As over a Unix socket.
        ({}, [{}, {}]),
    ],
)
def test_calls_that_cannot_be_placed_are_none(
    owners: dict[int, int], by_port: Sequence[dict[int, int]]
) -> None:
    found = used_by_each(_BEFORE, _AFTER, owners, by_port)
    assert [(one.name, one.calls, one.cpu_us_per_call) for one in found] == [
        ("supervisor", None, None),
        ("worker 0", None, None),
        ("worker 1", None, None),
    ]


@pytest.mark.parametrize(("before", "after"), [([], []), (_BEFORE, _AFTER[:2]), ([], _AFTER)])
def test_processes_that_come_or_go_leave_nothing(
    before: Sequence[Usage], after: Sequence[Usage]
) -> None:
    assert used_by_each(before, after, {}, []) == []


def test_repeats_add_up_by_name() -> None:
    first = [ProcessUse("worker 0", 2, 1.0, 10, GcUse(1, 7, 7)), ProcessUse("worker 1", 3, 2.0)]
    second = [ProcessUse("worker 0", 8, 0.5, 30, GcUse(2, 5, 3)), ProcessUse("worker 1", 9, 1.0, 4)]
    assert add_up([first, second]) == [
        ProcessUse("worker 0", 2, 1.5, 40, GcUse(3, 12, 7)),
        ProcessUse("worker 1", 3, 3.0, None, None),
    ]
    assert add_up([first, second[:1]]) == []
    assert add_up([]) == []


def test_who_does_not_tell_has_no_collections() -> None:
    assert gc_between(None, GcUse(1, 2, 2)) is None
    assert gc_between(GcUse(1, 2, 2), None) is None
    assert gc_between(GcUse(1, 2, 2), GcUse(1, 2, 2)) == GcUse(0, 0, 0)

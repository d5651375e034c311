import pytest

from capnp_rig.loadtest.stats.endpoint_summary import (
    EndpointsOfRepeat,
    Outage,
    endpoint_summaries,
    outages_of,
    united,
)
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.tally import EndpointChange, Times, Window


def test_an_outage_lasts_from_the_loss_to_the_return() -> None:
    changes = [
        EndpointChange("a", 1.0, True),
        EndpointChange("b", 2.0, True),
        EndpointChange("a", 3.0, False),
        EndpointChange("a", 5.0, True),
    ]
    assert outages_of(changes) == (
        Outage("a", 1.0, 3.0),
        Outage("b", 2.0, None),
        Outage("a", 5.0, None),
    )


@pytest.mark.parametrize(
    ("seen", "whole"),
    [
        # Two processes lose the same server a little apart.
        ([(1.0, 3.0), (1.2, 3.4)], [(1.0, 3.4)]),
        ([(1.0, 3.0), (4.0, 5.0)], [(1.0, 3.0), (4.0, 5.0)]),
        ([(1.0, None), (1.5, 2.0)], [(1.0, None)]),
        ([(1.0, 2.0), (1.5, None)], [(1.0, None)]),
        # In the warm-up, across the opening, across the end, after it.
        ([(-2.0, -1.0)], []),
        ([(-2.0, 1.0)], [(0.0, 1.0)]),
        ([(8.0, 12.0)], [(8.0, None)]),
        ([(10.5, 11.0)], []),
    ],
)
def test_several_processes_see_one_outage_of_the_window(
    seen: list[tuple[float, float | None]], whole: list[tuple[float, float | None]]
) -> None:
    outages = [Outage("a", *each) for each in seen]
    assert united(outages, 10.0) == tuple(Outage("a", *each) for each in whole)


def test_outages_of_different_servers_stay_apart() -> None:
    outages = [Outage("b", 1.0, 3.0), Outage("a", 2.0, 4.0)]
    assert united(outages, 10.0) == (Outage("a", 2.0, 4.0), Outage("b", 1.0, 3.0))


def _window(times_ns: list[int], connects: int, ended: int = 0) -> Window:
    return Window(
        {"read": Times(service=Histogram.of(times_ns))},
        connects=Histogram.of([1_000] * connects),
        ended=ended,
    )


def test_an_endpoint_is_summed_up_over_processes_and_repeats() -> None:
    total = Window(endpoints={"a": _window([5_000] * 30, 6), "b": _window([7_000] * 10, 6, 4)})
    lost = [EndpointChange("b", 2.0, True)]
    repeats = [
        EndpointsOfRepeat(10.0, [lost, []], {"a": 0.5, "b": 0.25}),
        EndpointsOfRepeat(10.0, [[], [*lost, EndpointChange("b", 3.0, False)]], {"a": 1.0}),
    ]
    first, second = endpoint_summaries(total, repeats, is_open_loop=False)
    assert (first.calls, first.calls_per_s, first.connections) == (30, 1.5, 3.0)
    assert (first.server_cpu_us_per_call, first.outages, first.lost_s) == (50_000.0, (), 0.0)
    # In one repeat it is not known what its processes used.
    assert second.server_cpu_us_per_call is None
    assert (second.connections, second.lost_s) == (1.0, 9.0)
    assert second.outages == (Outage("b", 2.0, None), Outage("b", 2.0, 3.0))
    assert second.to_json() == {
        "endpoint": "b",
        "calls": 10,
        "calls_per_s": 0.5,
        "errors": 0,
        "errors_by_kind": {},
        "times_us": dict.fromkeys(["mean", "p50", "p90", "p99", "p99.9", "max"], 7.0),
        "connections": 1.0,
        "connections_ended": 4,
        "reconnects": 0,
        "outages": [[2.0, None], [2.0, 3.0]],
        "outage_s": 9.0,
        "server_cpu_us_per_call": None,
    }


def test_a_run_of_one_server_has_no_endpoints() -> None:
    assert endpoint_summaries(_window([5_000], 1), [], is_open_loop=False) == ()

from collections.abc import Mapping
from dataclasses import replace

from capnp_rig.loadtest.ab.blocks import Blocks, ServerTimes, Turn
from capnp_rig.loadtest.ab.servers_figures import figures
from capnp_rig.loadtest.stats.figure import Figure
from capnp_rig.loadtest.stats.histogram import Histogram

CPU_US = {"rust": 8.0, "rust again": 8.0, "ours": 10.0, "go": 16.0}


def blocks(
    count: int = 6, *, busy: Mapping[str, float] | None = None, knows_cpu: bool = True
) -> Blocks:
    """Return blocks of servers whose calls take 10 times their CPU, and the rate that is left."""
    turns = [
        Turn(
            *(block, 0, 0, role, round(1e6 / cost), 1.0),
            busy=(busy or {}).get(role, 0.5),
            generator_wait_s=0.0,
            server_cpu_s=round(1e6 / cost) * cost / 1e6 if knows_cpu or role != "go" else None,
            server_wait_s=0.0,
        )
        for block in range(count)
        for role, cost in CPU_US.items()
    ]
    times = [
        ServerTimes(block, role, some, some)
        for block in range(count)
        for role, cost in CPU_US.items()
        for some in [Histogram.of([round(cost * 10_000)] * 20_000)]
    ]
    return Blocks(tuple(turns), tuple(times))


def named(listed: list[Figure]) -> dict[str, Figure]:
    """Return figures by name, all of them different."""
    by_name = {figure.name: figure for figure in listed}
    assert len(by_name) == len(listed)
    return by_name


def of(some: Blocks) -> dict[str, Figure]:
    return named(figures(["rust", "ours", "go"], "64 x 1", some))


def test_each_server_has_its_values_and_its_ratios_to_the_first() -> None:
    found = of(blocks())
    values = {name: round(figure.value or 0, 2) for name, figure in found.items()}
    assert values["64 x 1: ours server CPU per call"] == 10
    assert values["64 x 1: go calls/s"] == 62_500
    assert 79 < values["64 x 1: rust service.p99.9"] < 81
    assert values["64 x 1: go over rust, server CPU per call"] == 0.5
    assert values["64 x 1: ours over rust, calls/s"] == 0.8
    assert values["64 x 1: A/A, calls/s"] == 1
    assert found["64 x 1: go over rust, calls/s"].verdict == "slower"
    assert found["64 x 1: go over rust, calls/s"].labels["floor"] == 0
    assert not any(figure.is_void for figure in found.values())
    assert not any("rust again" in name for name in found)


def test_a_generator_that_was_the_limit_bounds_that_rate_from_below() -> None:
    found = of(blocks(busy={"rust": 0.99, "rust again": 0.99}))
    assert found["64 x 1: rust calls/s"].verdict == "at least"
    assert found["64 x 1: ours calls/s"].verdict == "ok"
    # The first could have done more, and then they would be further behind.
    assert found["64 x 1: ours over rust, calls/s"].verdict == "void"
    assert found["64 x 1: ours over rust, server CPU per call"].verdict == "slower"


def test_a_server_whose_processes_came_and_went_has_no_cpu_figure() -> None:
    found = of(blocks(knows_cpu=False))
    assert found["64 x 1: go server CPU per call"].value is None
    assert "64 x 1: go over rust, server CPU per call" not in found
    assert found["64 x 1: ours over rust, server CPU per call"].verdict == "slower"


def test_a_server_whose_calls_failed_has_no_figures() -> None:
    some = blocks()
    times = [
        replace(each, failures={"WrongReply: x": 2} if each.role == "go" else {})
        for each in some.times
    ]
    found = of(replace(some, times=tuple(times)))
    of_go = [figure for name, figure in found.items() if "go" in name]
    assert {(figure.kind, figure.value, figure.is_void, figure.reason) for figure in of_go} == {
        ("value", None, True, "12 calls failed")
    }
    assert not any(figure.is_void for figure in found.values() if figure not in of_go)
    assert found["64 x 1: ours over rust, calls/s"].verdict == "slower"


def test_few_rounds_tell_nothing() -> None:
    found = of(blocks(3))
    assert found["64 x 1: ours over rust, calls/s"].verdict == "void"
    assert found["64 x 1: ours calls/s"].low is None


def test_a_server_alone_has_values_only() -> None:
    found = named(figures(["rust"], "64 x 1", blocks()))
    assert found["64 x 1: rust calls/s"].value == 125_000
    assert not any(figure.kind == "ratio" for figure in found.values())

from dataclasses import replace

from sample_surroundings import CALM, DISTURBED

from capnp_rig.loadtest.bench.server import LOADS, Load, Round, figures, in_memory_figures
from capnp_rig.loadtest.stats.figure import FigureKind
from capnp_rig.loadtest.stats.histogram import Histogram

CPU_US = {"baseline": 20.0, "candidate": 8.0, "again": 20.2}


def rounds(count: int, *, busy: float = 0.5) -> list[Round]:
    """Return rounds in which the candidate answers 3 times as many calls, at 0.4 of the CPU."""
    calls = {"baseline": 1000, "candidate": 3000, "again": 1010}
    histogram = Histogram.of([5_000] * 200).to_json()
    return [
        Round(
            number=number,
            order=0,
            role=role,
            connections=connections,
            in_flight=in_flight,
            result=Load(calls=calls[role], seconds=0.5, busy=busy, histogram=histogram),
            cpu_s=calls[role] * CPU_US[role] / 1e6,
        )
        for number in range(count)
        for connections, in_flight in LOADS
        for role in calls
    ]


def test_figures_are_those_of_the_rounds() -> None:
    found = {figure.name: figure for figure in figures(rounds(8))}
    assert found["64 x 1: wire calls/s"].value == 6000
    assert found["8 x 16: pycapnp calls/s"].value == 2000
    ratio = found["64 x 1: wire over pycapnp, calls/s"]
    assert ratio.value is not None
    assert round(ratio.value, 6) == 3
    assert (ratio.verdict, ratio.n) == ("faster", 8)
    cpu = found["8 x 16: wire over pycapnp, server CPU per call"]
    assert cpu.value is not None
    assert round(cpu.value, 6) == 2.5
    assert found["64 x 1: A/A, calls/s"].verdict == "floor"
    assert round(found["64 x 1: wire server CPU per call"].value or 0, 6) == 8
    assert found["64 x 1: wire service time p99"].value == 5.0


def test_a_load_that_was_disturbed_has_no_figures() -> None:
    calm = [replace(each, surroundings=CALM) for each in rounds(8)]
    disturbed = [
        replace(
            each, surroundings=DISTURBED if (each.connections, each.in_flight) == LOADS[0] else CALM
        )
        for each in rounds(8)
    ]
    assert not any(figure.is_void for figure in figures(calm))
    voids = {figure.name.partition(":")[0] for figure in figures(disturbed) if figure.is_void}
    assert voids == {"{} x {}".format(*LOADS[0])}
    assert all("loop (pid 99)" in each.reason for each in figures(disturbed) if each.is_void)


def test_every_figure_has_labels_of_a_known_kind() -> None:
    found = figures(rounds(8)) + in_memory_figures([{"served call": 1.0}] * 6)
    assert {figure.kind for figure in found} == {
        *(FigureKind.VALUE, FigureKind.RATIO, FigureKind.FLOOR, FigureKind.IN_MEMORY)
    }
    assert all(figure.labels for figure in found)


def test_a_ratio_of_few_rounds_is_void() -> None:
    found = {figure.name: figure for figure in figures(rounds(3))}
    assert found["64 x 1: wire over pycapnp, calls/s"].verdict == "void"


def test_a_busy_generator_makes_the_rate_a_lower_bound() -> None:
    found = {figure.name: figure for figure in figures(rounds(6, busy=0.95))}
    assert found["8 x 16: wire calls/s"].verdict == "at least"
    assert found["8 x 16: wire server CPU per call"].verdict == "ok"


def test_in_memory_figures_are_medians_in_microseconds() -> None:
    (figure,) = in_memory_figures([{"case": 1000.0}, {"case": 3000.0}, {"case": 2000.0}])
    assert (figure.name, figure.value, figure.unit) == ("in memory: case", 2.0, "µs")

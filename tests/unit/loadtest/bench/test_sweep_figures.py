from dataclasses import replace

import pytest
from sample_surroundings import CALM, DISTURBED

from capnp_rig.loadtest.bench.sweep_figures import (
    CPU,
    LITTLE,
    P50,
    P99,
    RATE,
    Knee,
    SweepStep,
    figures,
    knee_of,
)
from capnp_rig.loadtest.report.flight_curve import flight_notes, flight_table
from capnp_rig.loadtest.stats.histogram import Histogram

ROUNDS = 6


def step(number: int, in_flight: int, **more: object) -> SweepStep:
    """Return a step on 4 connections: 12,000 calls in 1.5 s, each as long as Little's law says."""
    mean_ns = 4 * in_flight * 1_500_000_000 // 12_000
    plain = SweepStep(
        *(number, 0, 4, in_flight),
        calls=12_000,
        seconds=1.5,
        busy=0.5,
        server_cpu_s=0.6,
        steal=0.0,
        failures={},
        service=Histogram.of([mean_ns] * 12_000).to_json(),
    )
    return replace(plain, **more)  # type: ignore[arg-type]


def steps(in_flight: int, **more: object) -> list[SweepStep]:
    return [step(number, in_flight, **more) for number in range(ROUNDS)]


def test_each_number_in_flight_has_every_figure_with_an_interval() -> None:
    shuffled = [*steps(8), *steps(1)][::-1]
    found = figures(shuffled)
    assert [(one.name, one.verdict, one.n) for one in found] == [
        (f"4 x {in_flight}: {what}", "ok", ROUNDS)
        for in_flight in (1, 8)
        for what in (RATE, P50, P99, CPU, LITTLE)
    ]
    values = {(one.labels["calls_in_flight"], one.labels["what"]): one.value for one in found}
    assert values[4, RATE] == values[32, RATE] == 8000.0
    assert values[4, CPU] == pytest.approx(50.0)
    assert values[4, P50] == pytest.approx(500, rel=0.01)
    assert values[32, P99] == pytest.approx(4000, rel=0.01)
    assert (values[4, LITTLE], values[32, LITTLE]) == (pytest.approx(4.0), pytest.approx(32.0))
    assert all(one.low is not None and one.high is not None for one in found)


def test_five_rounds_have_no_interval() -> None:
    found = figures(steps(1)[:5])
    assert {(one.low, one.high, one.n) for one in found} == {(None, None, 5)}
    notes = [note.text for note in flight_notes(found)]
    assert notes[-1] == "Under six rounds there are no intervals."


@pytest.mark.parametrize(
    ("more", "what", "verdict", "reason"),
    [
        ({"busy": 0.95}, RATE, "at least", "the generator was 95% busy: the rate is a lower bound"),
        ({"busy": 0.95}, P99, "ok", ""),
        ({"failures": {"gone": 2}}, CPU, "void", "12 calls failed"),
        ({"steal": 0.05}, RATE, "void", "5.0% of the CPU time was stolen by other machines"),
        ({"surroundings": CALM}, RATE, "ok", ""),
        (
            {"surroundings": DISTURBED},
            *(RATE, "void"),
            (
                "server worker 0 waited 20.0% of the time for a CPU, over 5%: "
                "loop (pid 99) used 90% of one"
            ),
        ),
        ({"server_cpu_s": 0.1}, CPU, "void", "under 1 s of server CPU"),
        (
            {"server_cpu_s": None},
            *(CPU, "void", "not readable: the server is elsewhere, or a worker came or went"),
        ),
        (
            {"service": Histogram.of([900_000] * 10).to_json()},
            *(P99, "void", "under 100 calls beyond it: that takes about 1 s at this rate"),
        ),
        (
            {"service": Histogram.of([900_000] * 12_000).to_json()},
            *(LITTLE, "void", "over 5% from the 4 that were asked for"),
        ),
    ],
)
def test_the_rig_judges_each_figure(
    more: dict[str, object], what: str, verdict: str, reason: str
) -> None:
    found = {one.labels["what"]: one for one in figures(steps(1, **more))}
    assert (found[what].verdict, found[what].reason) == (verdict, reason)


def test_steps_without_an_answer_are_void() -> None:
    empty = Histogram().to_json()
    found = figures(steps(1, calls=0, service=empty, server_cpu_s=2.0))
    assert {one.verdict for one in found} == {"void"}
    assert [one.value for one in found] == [0.0, None, None, None, None]
    assert knee_of(found) is None
    (row,) = flight_table(found).rows
    # Of five figures, each reason once.
    assert row.void.startswith("no call was answered")
    assert row.void.count("no call was answered") == 1


def _rates(by_flight: dict[int, int], **more: object) -> list[SweepStep]:
    return [
        one for flight, calls in by_flight.items() for one in steps(flight, calls=calls, **more)
    ]


@pytest.mark.parametrize(
    ("calls", "knee"),
    [
        ({1: 3000, 2: 6000, 4: 8900, 8: 9000}, Knee(6000.0, 32, 16, is_least=False, is_last=False)),
        ({1: 3000, 2: 6000, 4: 9000}, Knee(6000.0, 16, 16, is_least=False, is_last=True)),
        ({1: 9000, 2: 8000}, Knee(6000.0, 4, 4, is_least=False, is_last=False)),
        ({3: 9000}, Knee(6000.0, 12, 12, is_least=False, is_last=False)),
    ],
)
def test_the_knee_is_where_more_in_flight_brings_no_more(calls: dict[int, int], knee: Knee) -> None:
    assert knee_of(figures(_rates(calls))) == knee


def test_a_generator_that_is_the_limit_makes_a_lower_bound() -> None:
    found = figures(_rates({1: 3000, 2: 9000}, busy=0.99))
    assert next(flight_notes(found)).text == (
        "The rate goes up to at least 6,000 calls/s, with 8 calls in flight, "
        "the most that were tried."
    )
    assert flight_table(found).rows[-1].cells[2].text.startswith("≥6,000")

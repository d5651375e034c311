import pytest

from loadtest.load_figures import load_figures
from loadtest.results import Figure
from loadtest.tally import Collector, Report, Tally


def _collector(*, calls: int = 20_000, busy: float = 0.5, final: bool = True) -> Collector:
    tally = Tally()
    for number in range(calls):
        tally.answered("m", number * 10_000, number * 10_000 + 10_000)
    collector = Collector()
    collector.receive("a", tally.take(cpu_ns=int(busy * calls * 10_000), final=final))
    return collector


def _by_name(figures: list[Figure]) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures}


def test_a_good_run() -> None:
    found = _by_name(load_figures(_collector(), 2.0))
    rate = found["answered calls, closed loop"]
    assert (rate.value, rate.verdict) == (100_000, "ok")
    assert found["service time p50"].value == pytest.approx(10, rel=0.01)
    assert found["server CPU per call"].value == 100
    assert found["service time p99"].verdict == "ok"
    assert found["service time p99.9"].verdict == "void"


@pytest.mark.parametrize(
    ("collector", "cpu_s", "name", "verdict", "reason"),
    [
        (_collector(busy=0.95), 2.0, "answered calls, closed loop", "at least", "95% busy"),
        (_collector(), None, "server CPU per call", "void", "came or went"),
        (_collector(), 0.5, "server CPU per call", "void", "under 1 s"),
        (_collector(final=False), 2.0, "service time p50", "void", "last report"),
        (_collector(calls=0), 2.0, "answered calls, closed loop", "void", "no call"),
    ],
)
def test_a_doubtful_figure_says_why(
    collector: Collector, cpu_s: float | None, name: str, verdict: str, reason: str
) -> None:
    figure = _by_name(load_figures(collector, cpu_s))[name]
    assert figure.verdict == verdict
    assert reason in figure.reason


def test_failures_are_counted() -> None:
    collector = _collector()
    collector.receive("a", Report(failures={"Disconnected: gone": 2}))
    failures = _by_name(load_figures(collector, 2.0))["failures"]
    assert (failures.value, failures.verdict) == (2, "void")

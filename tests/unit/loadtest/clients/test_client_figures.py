from collections.abc import Iterable
from typing import Any

import pytest
from sample_clients import client_sample

from capnp_rig.loadtest.clients.client_figures import (
    ATTEMPTS,
    FAULTS,
    GOOD,
    HEALTHY,
    P99_RATIO,
    ClientSample,
    client_statuses,
    figures,
    timeline,
)
from capnp_rig.loadtest.stats.exit_status import ExitStatus, exit_status
from capnp_rig.loadtest.stats.figure import Figure
from capnp_rig.loadtest.stats.pair_statistics import Verdict

MS = 1_000_000


def by_name(samples: Iterable[ClientSample]) -> dict[tuple[str, str], Figure]:
    return {
        (figure.labels["phase"], figure.labels["figure"]): figure for figure in figures([*samples])
    }


def test_the_figures_of_a_good_stack() -> None:
    known = by_name([client_sample(failed=5, executions=11_000)])
    assert known[FAULTS, GOOD].value == 0.9995
    assert known[FAULTS, GOOD].labels["failures"] == {"Disconnected": 5}
    assert known[FAULTS, ATTEMPTS].value == 1.1
    assert known[HEALTHY, ATTEMPTS].value == 1.0
    assert known[HEALTHY, "p50"].value == pytest.approx(5, rel=0.01)
    assert known[FAULTS, "p99"].value == pytest.approx(6, rel=0.01)
    assert known[FAULTS, P99_RATIO].value == pytest.approx(1.2, rel=0.02)
    # Ten calls lie beyond it.
    assert known[FAULTS, "p99.9"].verdict is Verdict.VOID
    assert known[FAULTS, P99_RATIO].verdict is Verdict.OK
    assert list(client_statuses(known.values())) == []


@pytest.mark.parametrize(
    ("missed", "reason", "facts"),
    [
        (GOOD, "at least 0.999 was asked for", {"failed": 11}),
        (ATTEMPTS, "at most 1.2 was asked for", {"executions": 12_001}),
        (P99_RATIO, "at most 3 was asked for", {"slow_ms": 15.5}),
    ],
)
def test_what_misses_a_criterion_has_failed(
    missed: str, reason: str, facts: dict[str, Any]
) -> None:
    known = by_name([client_sample(**facts)])
    failed = {name for name, figure in known.items() if figure.verdict is Verdict.FAILED}
    assert failed == {(FAULTS, missed)}
    assert known[FAULTS, missed].reason == reason
    assert exit_status(*client_statuses(known.values())) is ExitStatus.FAILED
    # Nobody asks it of the others.
    others = by_name([client_sample("bare", **facts)])
    assert Verdict.FAILED not in {figure.verdict for figure in others.values()}


def test_a_failed_call_counts_as_one_of_a_second() -> None:
    known = by_name([client_sample("bare", failed=150)])
    assert known[FAULTS, "p99"].value == pytest.approx(1000, rel=0.01)


def test_calls_that_leave_late_void_the_times_that_they_are_over_a_tenth_of() -> None:
    known = by_name([client_sample(failed=20, late_ms=1.0, slow_ms=15.5)])
    verdicts = {name: figure.verdict for (phase, name), figure in known.items() if phase == FAULTS}
    assert verdicts == {
        GOOD: Verdict.FAILED,
        ATTEMPTS: Verdict.OK,
        "p50": Verdict.VOID,
        "p99": Verdict.OK,
        "p99.9": Verdict.VOID,
        # That of the healthy servers is 5 ms.
        P99_RATIO: Verdict.VOID,
    }
    assert list(client_statuses(known.values())) == [ExitStatus.FAILED, ExitStatus.VOID]
    assert list(client_statuses(by_name([client_sample("bare", late_ms=1.0)]).values())) == []


def test_rounds_are_added_up() -> None:
    known = by_name([client_sample(failed=10), client_sample(executions=12_000)])
    assert known[FAULTS, GOOD].value == 0.9995
    assert (known[FAULTS, ATTEMPTS].value, known[FAULTS, ATTEMPTS].n) == (1.1, 20_000)
    seconds = list(timeline([client_sample(failed=10), client_sample()]))
    assert [(each["second"], each[GOOD]) for each in seconds] == [(0, 1.0), (1, 0.9995)]
    assert seconds[0]["p99_ns"] == pytest.approx(5 * MS, rel=0.01)

from typing import Any

from sample_surroundings import CALM, DISTURBED

from capnp_rig.loadtest.bench.locust import Round, figures, sides
from capnp_rig.loadtest.results import Figure

REQUESTS = {"baseline": 10_000, "candidate": 60_000, "again": 10_200}
CPU_S = {"baseline": 1.0, "candidate": 0.9, "again": 1.0}


def made(
    count: int,
    *,
    busy: dict[str, float] | None = None,
    surroundings: dict[str, Any] | None = None,
) -> dict[str, Figure]:
    """Return the figures of rounds of 1 s in which the candidate makes 6 times as many calls."""
    rounds = [
        Round(
            number=number,
            order=0,
            role=role,
            seconds=1.0,
            requests=REQUESTS[role],
            failures=0,
            cpu_s=CPU_S[role],
            server_cpu_s=(busy or {}).get(role, 0.5),
            surroundings=surroundings,
        )
        for number in range(count)
        for role in REQUESTS
    ]
    return {figure.name: figure for figure in figures(rounds, 16)}


def test_a_disturbed_bench_has_no_figures() -> None:
    assert not any(figure.is_void for figure in made(8, surroundings=CALM).values())
    assert all(figure.is_void for figure in made(8, surroundings=DISTURBED).values())


RATE_RATIO = "16 x 1: ReverseUser over FastHttpUser, calls/s"
CPU_RATIO = "16 x 1: ReverseUser over FastHttpUser, generator CPU per call"


def test_figures_are_those_of_the_rounds() -> None:
    found = made(8)
    assert found["16 x 1: ReverseUser calls/s"].value == 60_000
    assert found["16 x 1: FastHttpUser calls/s"].value == 10_000
    assert found["16 x 1: FastHttpUser generator CPU per call"].value == 100
    assert found["16 x 1: ReverseUser generator CPU per call"].value == 15
    assert found["16 x 1: ReverseUser server busy"].value == 0.5
    assert found["16 x 1: A/A, calls/s"].verdict == "floor"
    ratio = found[RATE_RATIO]
    assert (round(ratio.value or 0, 6), ratio.verdict, ratio.n) == (6, "faster", 8)
    assert round(found[CPU_RATIO].value or 0, 3) == 6.667
    load = {"load": "16 x 1", "what": "calls/s"}
    assert found["16 x 1: ReverseUser calls/s"].labels == {
        "kind": "value",
        "subject": "ReverseUser",
        **load,
    }
    assert ratio.labels.items() >= {"kind": "ratio", "subject": "ReverseUser", **load}.items()


def test_either_pair_of_users_is_compared() -> None:
    pairs = [
        {role: side.name for role, side in sides(calls=calls).items()} for calls in (False, True)
    ]
    assert pairs == [
        {"candidate": "ReverseUser", "baseline": "FastHttpUser"},
        {"candidate": "CapnpUser.call", "baseline": "ReverseUser"},
    ]


def test_few_rounds_make_no_ratio() -> None:
    assert made(5)[RATE_RATIO].verdict == "void"


def test_a_rival_that_its_server_held_back_proves_nothing() -> None:
    for role in ("baseline", "again"):
        found = made(6, busy={role: 0.95})
        assert (found[RATE_RATIO].verdict, found[RATE_RATIO].reason) == (
            "void",
            "the server was 95% busy",
        )
        # What a call costs the generator does not depend on the server.
        assert found[CPU_RATIO].verdict == "faster"


def test_a_candidate_that_its_server_held_back_is_at_least_as_fast() -> None:
    found = made(6, busy={"candidate": 0.97})
    assert found["16 x 1: ReverseUser calls/s"].verdict == "at least"
    assert (found[RATE_RATIO].verdict, found[RATE_RATIO].reason) == (
        "faster",
        "a lower bound; the server was 97% busy",
    )

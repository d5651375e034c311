import pytest

from loadtest.bench_plan import (
    AGAIN,
    Sample,
    figures,
    groups,
    order,
    sample_from_json,
    sample_to_json,
)
from loadtest.pair_statistics import Verdict


def _samples(processes: int, slower: dict[str, float]) -> list[Sample]:
    found = []
    for process in range(processes):
        for position, case in enumerate(order(process)):
            time_s = 1e-6 * slower.get(case.codec, 1) * (1 + process / 10)
            # The second timing of a baseline differs a little, now this way, now that.
            drift = 1 + 0.01 * (-1) ** process if case.subject.endswith(AGAIN) else 1
            found.append(Sample(process, position, case, (time_s * drift,) * 3, 1))
    return found


@pytest.mark.parametrize("process", [0, 1, 2, 7])
def test_every_process_runs_every_case_once(process: int) -> None:
    cases = [case for group in groups() for case in group]
    assert len(set(cases)) == len(cases)
    assert sorted(order(process), key=repr) == sorted(cases, key=repr)


def test_half_the_processes_go_ab_and_half_ba() -> None:
    assert order(0) == order(1)[::-1]
    assert order(0) != order(2)


def test_members_of_a_group_are_adjacent() -> None:
    for group in groups():
        places = sorted(order(5).index(case) for case in group)
        assert places == list(range(places[0], places[0] + len(group)))


def test_a_slower_candidate_is_called_slower_against_both_baselines() -> None:
    found = figures(_samples(6, {"pycapnp": 1.5, "wire": 0.5}))
    ratios = [figure for figure in found if figure.name.startswith("ratio: ")]
    for figure in ratios:
        slow = "pycapnp" in figure.name
        assert figure.verdict == (Verdict.SLOWER if slow else Verdict.FASTER)
        assert figure.value == pytest.approx(1 / 1.5 if slow else 2)
    # Four contracts at two sizes, two baselines; encode only for codecs with an object.
    assert len(ratios) == 2 * 2 * (3 * 2 + 1)


def test_ratios_never_mix_contracts_or_sizes() -> None:
    for figure in figures(_samples(6, {})):
        if figure.name.startswith("ratio: "):
            assert figure.name.removeprefix("ratio: ").startswith(f"{figure.contract}, ")


def test_too_few_processes_void_every_ratio() -> None:
    for figure in figures(_samples(5, {})):
        if figure.name.startswith("ratio: "):
            assert (figure.verdict, figure.low) == (Verdict.VOID, None)


def test_samples_survive_json() -> None:
    sample = _samples(1, {})[0]
    assert sample_from_json(sample_to_json(sample)) == sample

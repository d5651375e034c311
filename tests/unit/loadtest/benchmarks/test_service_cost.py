import asyncio
import inspect
import json
from array import array
from types import SimpleNamespace
from typing import Any

import pytest

from capnp_rig.loadtest.benchmarks.cost_service import Costs
from capnp_rig.loadtest.benchmarks.service_cost import (
    CASES,
    LARGE,
    SMALL,
    WORKERS,
    Case,
    Turn,
    costs_us,
    tables,
)
from capnp_rig.loadtest.report.document import Table

DEFAULTS = {"number": 0, "text": "", "total": 0.0}


def answer(case: Case) -> dict[str, Any]:
    """Return the results of the case's method, which gets its params as the engine gives them."""
    params = SimpleNamespace(**json.loads(case.params))
    params.values = memoryview(array("f", getattr(params, "values", []))).toreadonly()
    results = getattr(Costs(), case.method)(params)
    if inspect.iscoroutine(results):
        results = asyncio.run(asyncio.wait_for(results, 5))
    return DEFAULTS | (results or {})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.method)
def test_every_method_answers_what_the_benchmark_expects(case: Case) -> None:
    assert json.loads(case.expect).items() <= answer(case).items()


def test_every_method_of_the_schema_is_measured() -> None:
    measured = {case.method for case in CASES}
    assert measured == set(Costs.interface.schema.method_names)


def test_methods_that_are_compared_get_the_same_params() -> None:
    for group in (SMALL, LARGE, WORKERS):
        assert len({case.params for case in group}) == 1


def turns(us: float, *, slow: Case, slow_us: float) -> list[Turn]:
    """Return two unlike turns of each case that together cost so many µs per call."""
    costs = dict.fromkeys(CASES, us) | {slow: slow_us}
    return [
        Turn(case, calls, cost * calls / 1e6 * share)
        for case, cost in costs.items()
        for calls, share in ((1000, 0.5), (3000, 3.5 / 3))
    ]


def cells(table: Table, row: int) -> list[str]:
    return [cell.text for cell in table.rows[row].cells]


def test_a_method_costs_what_its_turns_used_together() -> None:
    costs = costs_us([turns(5, slow=SMALL[1], slow_us=7), turns(6, slow=SMALL[1], slow_us=9)])
    assert costs[SMALL[0]] == pytest.approx([5, 6])
    assert costs[SMALL[1]] == pytest.approx([7, 9])


def test_a_body_is_compared_with_a_method_that_reads_nothing_in_the_same_round() -> None:
    # The rounds differ by far more than the methods.
    rounds = [turns(us, slow=LARGE[2], slow_us=us + 2) for us in (5, 50, 10, 20, 30, 40)]
    small, large, _ = tables(costs_us(rounds))
    assert cells(large, 0) == [LARGE[0].shown, "25 (6.79 to 46.4)", ""]
    assert cells(large, 1) == [LARGE[1].shown, "25 (6.79 to 46.4)", "0 (0 to 0)"]
    assert cells(large, 2) == [LARGE[2].shown, "27 (8.79 to 48.4)", "2 (2 to 2)"]
    assert cells(small, 1)[2:] == ["0 (0 to 0)"]


def test_two_workers_are_told_as_a_ratio() -> None:
    rounds = [turns(us, slow=WORKERS[2], slow_us=us * 1.04) for us in (5, 50, 10, 20, 30, 40)]
    *_, workers = tables(costs_us(rounds))
    assert cells(workers, 1)[2:] == ["1 (1 to 1)"]
    assert cells(workers, 2)[2:] == ["1.04 (1.04 to 1.04)"]


def test_few_rounds_have_no_interval() -> None:
    *_, workers = tables(costs_us([turns(5, slow=SMALL[0], slow_us=5)]))
    assert cells(workers, 2) == ["two workers", "5", "1"]

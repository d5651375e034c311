"""``python -m capnp_rig.loadtest.benchmarks.service_cost``, as briefly as it goes."""

import pytest
from click.testing import CliRunner

from capnp_rig.loadtest.benchmarks import service_cost
from capnp_rig.loadtest.benchmarks.service_cost import CASES, Case, main

pytestmark = [pytest.mark.timeout(120), pytest.mark.nightly]


def test_every_case_is_measured() -> None:
    done = CliRunner().invoke(main, ["--rounds", "1", "--turn", "0.01"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    for case in CASES:
        assert any(f"│ {case.shown} " in line for line in lines)


def test_a_wrong_reply_among_right_ones_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Case("", "number", '{"number": 7}\n{"number": 8}', '{"number": 7}\n{"number": 7}')
    monkeypatch.setattr(service_cost, "CASES", (*CASES, wrong))
    done = CliRunner().invoke(main, ["--rounds", "1", "--turn", "0.01"])
    assert done.exit_code == 1
    assert "wrong reply" in done.output

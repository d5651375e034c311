"""Calls that a deadline ends, against our server (faults.md, F-1)."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from callers import Connected, each_client
from deadline import eventually
from fault_services import PROBE
from running_server import Running, running_server

from capnp_rig.client import DeadlineExceeded

TESTS = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module", params=["wire", "pycapnp"])
def probe(request: pytest.FixtureRequest) -> Iterator[Running]:
    with running_server(
        "--workers", "1", "--engine", request.param, "--service", "fault_services:Probe", cwd=TESTS
    ) as running:
        yield running


# More than may be in flight on a connection, and fewer than it takes to be closed for cancelling.
CALLS = 300


@each_client
def test_f1_a_call_that_ends_at_its_deadline_frees_its_slot(
    probe: Running, client: Connected
) -> None:
    with client(f"{probe.host}:{probe.port}", interface=PROBE) as caller:

        def ended() -> list[int]:
            ledger = caller.call("ledger", {})
            return [ledger.started - before.started, ledger.ended - before.ended]

        before = caller.call("ledger", {})
        for _ in range(CALLS):
            with pytest.raises(DeadlineExceeded):
                caller.call("wait", {}, timeout_s=0.001)
        eventually(lambda: len(set(ended())) == 1)
        # A call that is cancelled as soon as it came is not started.
        assert 0 < ended()[0] <= CALLS

"""``loadtest bench-clients``: clients of real servers that are slowed, reset and killed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from running_rig import run_rig

from capnp_rig.loadtest.cli.bench import bench_clients
from capnp_rig.loadtest.clients.bench_clients import BenchClientsConfig, run
from capnp_rig.loadtest.clients.client_figures import (
    ATTEMPTS,
    FAULTS,
    GOOD,
    HEALTHY,
    JUDGED,
    ClientSample,
    figures,
)
from capnp_rig.loadtest.engine.progress import Progress
from capnp_rig.loadtest.results.load_samples import read_result
from capnp_rig.loadtest.stats.figure import Figure


def by_place(samples: Sequence[ClientSample]) -> Mapping[tuple[str, str, str], Figure]:
    return {
        (each.labels["contender"], each.labels["phase"], each.labels["figure"]): each
        for each in figures(samples)
    }


# Six servers for two clients take seconds to start.
@pytest.mark.parametrize(
    "contenders", [(JUDGED,), pytest.param((JUDGED, "bare"), marks=pytest.mark.nightly)]
)
def test_a_short_run_leaves_a_whole_result(contenders: tuple[str, ...], tmp_path: Path) -> None:
    told: list[Progress] = []
    config = BenchClientsConfig(
        contenders, rounds=1, rate_hz=300, healthy_s=1, faults_s=1, results=tmp_path
    )
    result = run(config, told.append)
    assert [each.done for each in told] == [*range(1 + len(contenders))]
    stored = read_result(result.written.folder)
    assert stored.samples is not None
    samples = [ClientSample(**each) for each in stored.samples]
    assert [each.contender for each in samples] == [*contenders]
    assert [figure.to_json() for figure in figures(samples)] == stored.document["figures"]
    # The same calls are due for all.
    due = [[second["due"] for second in each.per_second] for each in samples]
    assert len(due[0]) == 2
    assert due == [due[0]] * len(due)
    known = by_place(samples)
    assert known[JUDGED, FAULTS, GOOD].value == 1
    # What the servers counted.
    assert 1 <= (known[JUDGED, FAULTS, ATTEMPTS].value or 0) < 1.2
    if "bare" in contenders:
        assert known["bare", HEALTHY, GOOD].value == 1
        # Calls to the server that is dead are lost to a client that does not try again, and no
        # server has counted them.
        failed = known["bare", FAULTS, GOOD].labels["failures"]["ConnectError"]
        assert 0 < failed <= due[0][1]
        assert (known["bare", FAULTS, ATTEMPTS].value or 0) < 1


@pytest.mark.nightly
def test_every_client_gets_through(tmp_path: Path) -> None:
    asked = ("--rounds", "1", "--healthy", "1", "--faults", "2", "--rate", "200")
    done = run_rig("bench-clients", *asked, "--allow-void", "--results", str(tmp_path))
    # Whether the criteria are kept in so short a time, nobody knows.
    assert done.returncode in {0, 1}, done.stderr
    (folder,) = tmp_path.iterdir()
    assert (folder / "report.html").exists()
    clients = ["bare", "round-robin", "default", "hedge", "grpc.aio"]
    rows = [line for line in done.stdout.splitlines() if line.startswith("│")]
    assert [row.split()[1] for row in rows if row.split()[1] in clients] == clients


def test_an_unknown_client_is_named() -> None:
    done = CliRunner().invoke(bench_clients, ["--clients", "bare,nobody"])
    assert done.exit_code == 2
    known = "bare, round-robin, default, hedge, grpc.aio"
    assert f"no client 'nobody': there are {known}" in done.output

"""``loadtest bench-clients``: clients of real servers that are slowed, reset and killed."""

from pathlib import Path

from running_rig import run_rig

from capnp_rig.loadtest.clients.client_figures import (
    FAULTS,
    GOOD,
    HEALTHY,
    ClientSample,
    figures,
)
from capnp_rig.loadtest.results.load_samples import read_result


def test_a_short_run_leaves_a_whole_result(tmp_path: Path) -> None:
    asked = ("--rounds", "1", "--healthy", "1", "--faults", "2", "--rate", "200")
    done = run_rig("bench-clients", *asked, "--clients", "bare", "--results", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    assert (folder / "report.html").exists()
    result = read_result(folder)
    assert result.samples is not None
    samples = [ClientSample(**each) for each in result.samples]
    assert [figure.to_json() for figure in figures(samples)] == result.document["figures"]
    (bare,) = samples
    assert [each["second"] for each in bare.per_second] == [0, 1, 2]
    assert 400 < sum(each["due"] for each in bare.per_second) < 800
    known = {(each.labels["phase"], each.labels["figure"]): each for each in figures(samples)}
    assert known[HEALTHY, GOOD].value == 1
    # Calls to the server that is dead, and some that were in flight when the other one was reset.
    failures = known[FAULTS, GOOD].labels["failures"]
    assert set(failures) >= {"ConnectError", "Disconnected"}

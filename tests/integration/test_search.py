"""``loadtest search`` against a server that keeps, or cannot keep, an objective."""

import json
from pathlib import Path

from running_rig import run_rig
from running_server import Running, running_server

QUICK = ("--warmup", "0s", "--connections", "4", "--no-pin", "--json")


def _address(server: Running) -> str:
    return f"127.0.0.1:{server.port}"


def test_an_objective_that_always_holds_is_verified_at_the_highest_rate(tmp_path: Path) -> None:
    with running_server("--workers", "1") as server:
        done = run_rig(
            *("search", _address(server), "--slo", "p99<5s", *QUICK),
            # 459 calls, none of them late, prove p99.
            *("--probe", "400ms", "--start", "1500", "--highest", "3000"),
            *("--results", str(tmp_path)),
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["rate_hz"], found["failing_hz"], found["limit"]) == (3000.0, None, "search")
    assert [point["rate_hz"] for point in found["curve"]] == [1500.0, 3000.0]
    assert [point["probes"] for point in found["curve"]] == [3, 8]
    assert all(point["held"] == point["probes"] for point in found["curve"])
    (folder,) = tmp_path.iterdir()
    document = json.loads((folder / "run.json").read_text())
    assert document["kind"] == "search"
    assert [probe["outcome"] for probe in document["probes"]] == ["held"] * 11
    assert document["figures"][0]["value"] == 3000.0


def test_an_objective_that_nothing_keeps_is_verified_at_no_rate(tmp_path: Path) -> None:
    with running_server("--workers", "1") as server:
        done = run_rig(
            *("search", _address(server), "--slo", "p50<1us and errors<1%", *QUICK),
            *("--start", "200", "--results", str(tmp_path), "--probe", "100ms"),
        )
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["rate_hz"] is None
    # Lower rates have too few calls in a probe to prove even p50.
    assert 80 <= found["failing_hz"] <= 200


def test_a_probe_that_proves_nothing_is_refused() -> None:
    done = run_rig(
        *("search", "127.0.0.1:1", "--slo", "p99.9<1ms", "--probe", "1s", "--highest", "5000")
    )
    assert done.returncode == 2
    assert "too few calls: p99.9<1ms takes 5,524 calls/s or a longer --probe" in done.stderr


def test_a_mistake_is_one_line() -> None:
    for slo in ("fast", "p99>1ms", "errors<1%"):
        done = run_rig("search", "127.0.0.1:1", "--slo", slo)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)

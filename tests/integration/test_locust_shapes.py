"""The shapes that can be picked: ``-f loadtest/capnp_user.py,loadtest/shapes/steps.py``."""

import re
from pathlib import Path

import pytest
from running_locust import LOCUSTFILE, ROOT, Finished, free_port, read_results, run_locust
from running_server import running_server

HEADLESS = ("--headless", "--only-summary")


def _run(shape: str, *options: str, within_s: float = 80) -> Finished:
    files = f"{LOCUSTFILE},{ROOT / 'loadtest' / 'shapes' / shape}.py"
    return run_locust(*options, *HEADLESS, locustfile=files, within_s=within_s)


def _targets(done: Finished) -> list[int]:
    return [int(users) for users in re.findall(r"Shape test updating to (\d+) users", done.output)]


@pytest.mark.parametrize(
    ("shape", "options", "targets"),
    [
        ("steps", ("--step-users", "2", "--step-time", "1", "--steps", "3"), [2, 4, 6]),
        (
            "spike",
            ("--spike-base", "1", "--spike-users", "5", "--spike-at", "1", "--spike-for", "2"),
            [1, 5, 1],
        ),
        # -t ends a shape early.
        pytest.param(
            *("steps", ("--step-users", "1", "--step-time", "1", "-t", "2s"), [1, 2]),
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_a_shape_follows_its_plan(
    tmp_path: Path, shape: str, options: tuple[str, ...], targets: list[int]
) -> None:
    with running_server("--workers", "1", "--log-level", "warning") as running:
        address = f"{running.host}:{running.port}"
        done = _run(shape, "-H", address, *options, "--results", str(tmp_path))
    assert done.status == 0, done.output
    assert _targets(done) == targets
    document = read_results(tmp_path).document
    assert document["shape"] == f"{shape.title()}Shape"
    assert document["summary"]["errors"] == 0
    assert not any("drifted" in reason for reason in document["summary"]["reasons"])


@pytest.mark.nightly
def test_a_ramp_finds_the_limit(tmp_path: Path) -> None:
    # The third connection is refused.
    limited = ("--workers", "1", "--max-connections", "2", "--log-level", "warning")
    with running_server(*limited) as running:
        ramp = ("--ramp-rate", "0.4", "--ramp-time", "3", "--ramp-fail-if", "errors>0")
        address = f"{running.host}:{running.port}"
        done = _run("ramp", "-H", address, *ramp, "--results", str(tmp_path))
    # A limit that was found is a success, though calls failed.
    assert done.status == 0, done.output
    ramp_found = read_results(tmp_path).document["ramp"]
    assert [(step["users"], step["held"]) for step in ramp_found["steps"]] == [
        (1, True),
        (2, True),
        (3, False),
    ]
    assert (ramp_found["highest_users"], ramp_found["failed_users"]) == (2, 3)
    assert ramp_found["steps"][1]["calls_per_s"] > 100
    assert "Ramp: the highest step that held: 2 users, " in done.output
    assert "; at 3 users: errors>0: " in done.output


@pytest.mark.nightly
def test_a_ramp_over_workers_judges_on_the_master(tmp_path: Path) -> None:
    port = str(free_port())
    ports = ("--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port)
    with running_server("--workers", "1", "--log-level", "warning") as running:
        ramp = ("--ramp-rate", "1", "--ramp-time", "3", "--ramp-max", "4")
        limits = ("--ramp-fail-if", "p50>10s", "--processes", "2")
        address = f"{running.host}:{running.port}"
        done = _run("ramp", "-H", address, *ramp, *limits, *ports, "--results", str(tmp_path))
    assert done.status == 0, done.output
    ramp_found = read_results(tmp_path).document["ramp"]
    assert [(step["users"], step["held"]) for step in ramp_found["steps"]] == [
        (3, True),
        (4, True),
    ]
    assert all(step["calls"] > 100 for step in ramp_found["steps"])
    assert "all held, up to 4 users" in done.output
    assert "no limit was found" in done.output


def test_a_ramp_whose_first_step_fails_finds_nothing(tmp_path: Path) -> None:
    with running_server("--workers", "1", "--log-level", "warning") as running:
        ramp = ("--ramp-time", "3", "--ramp-fail-if", "p50>1us")
        address = f"{running.host}:{running.port}"
        done = _run("ramp", "-H", address, *ramp, "--results", str(tmp_path))
    assert done.status == 1, done.output
    assert read_results(tmp_path).document["ramp"]["highest_users"] is None
    assert "Ramp: even 3 users failed: p50>1us: " in done.output


@pytest.mark.parametrize(
    ("shape", "options", "line"),
    [
        ("ramp", ("--ramp-time", "1"), "argument --ramp-time: 1 is not at least 3s"),
        ("steps", ("--steps", "0"), "argument --steps: 0 is less than 1"),
        (
            "ramp",
            ("--ramp-fail-if", "slow"),
            (
                "argument --ramp-fail-if: bad condition 'slow': expected for example p99>2ms, "
                "service.max>1s, errors>0.1% or calls/s<20000"
            ),
        ),
    ],
)
def test_a_mistake_is_one_line(shape: str, options: tuple[str, ...], line: str) -> None:
    done = _run(shape, "-H", "h:1", *options)
    assert (done.status, done.output.splitlines()) == (2, [f"__main__.py: error: {line}"])


def test_options_beside_locusts_own_can_be_seen() -> None:
    done = run_locust("--rig-help", locustfile=f"{LOCUSTFILE},{ROOT}/loadtest/shapes/ramp.py")
    assert done.status == 0
    shown = set(re.findall(r"^  (--[a-z-]+)", done.output, re.MULTILINE))
    assert {"--rate", "--fail-if", "--results", "--pin", "--ramp-fail-if"} <= shown
    assert "--headless" not in shown
    assert "as p99>2ms, errors>0.1%, calls/s<20000" in " ".join(done.output.split())

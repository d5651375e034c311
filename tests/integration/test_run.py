"""``loadtest run`` against servers whose behaviour is known."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fake_server import answering, fake_server
from running_server import environment, running_server

from schema import message
from wire.connection import Called
from wire.encoding import EncodedStruct
from wire.interfaces import compile_interface

READ = compile_interface(message.MessageStream).methods["read"]
STALL_S = 0.3


def loadtest_run(address: str, folder: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "loadtest", "run", address, "--json"),
            *("--results", str(folder), "--no-pin", *options),
        ],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=50,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


def reversed_text(called: Called) -> bytes:
    text: str = READ.params.open(called.params).request.content
    return text[::-1].encode()


@pytest.mark.parametrize("engine", ["wire", "pycapnp"])
@pytest.mark.parametrize("options", [[], ["--rate", "2000"], ["--processes", "2"]])
def test_a_good_server_answers_every_call(tmp_path: Path, engine: str, options: list[str]) -> None:
    load = ["--connections", "4", "--in-flight", "4", "--duration", "500ms"]
    with running_server("--workers", "1", "--engine", engine) as server:
        address = f"127.0.0.1:{server.port}"
        status, summary, _ = loadtest_run(address, tmp_path, *load, *options)
    assert status == 0
    assert summary["errors"] == 0
    assert summary["calls"] > 100
    assert summary["server_cpu_us_per_call"] > 0
    if "--rate" in options:
        assert 700 < summary["calls"] < 1300
    (folder,) = tmp_path.iterdir()
    assert json.loads((folder / "run.json").read_text())["summary"] == summary


def test_g3_one_wrong_byte_is_caught_and_fails_the_run(tmp_path: Path) -> None:
    count = 0

    def lie(called: Called) -> EncodedStruct:
        nonlocal count
        count += 1
        chunk = reversed_text(called)
        if count == 200:
            chunk = chunk[:5] + b"#" + chunk[6:]
        return READ.results.write({"chunk": chunk})

    with fake_server(answering(lie)) as address:
        status, summary, said = loadtest_run(
            address, tmp_path, "--connections", "1", "--duration", "500ms"
        )
    assert status == 1
    assert summary["errors_by_kind"] == {"wrong reply": 1}
    assert summary["verdict"] == "void"
    assert "1 calls failed" in said


def test_g1_a_stall_shows_in_the_open_loop_and_not_in_service_time_alone(tmp_path: Path) -> None:
    started = time.monotonic()
    stalled = False

    def stall(called: Called) -> EncodedStruct:
        nonlocal stalled
        if not stalled and time.monotonic() - started > 1.5:
            stalled = True
            time.sleep(STALL_S)
        return READ.results.write({"chunk": reversed_text(called)})

    with fake_server(answering(stall)) as address:
        started = time.monotonic()
        _, summary, _ = loadtest_run(
            *(address, tmp_path, "--connections", "1", "--in-flight", "1"),
            *("--rate", "200", "--arrivals", "fixed", "--duration", "3s"),
        )
    # About 60 of 600 calls were due while nothing was answered: a tenth waited, on average half
    # of the stall. In service time it is one call of 600.
    assert summary["response_us"]["p99"] > STALL_S * 0.5e6
    assert summary["service_us"]["p99"] < STALL_S * 0.5e6
    assert summary["service_us"]["max"] > STALL_S * 0.9e6


def test_a_threshold_that_is_passed_fails_the_run(tmp_path: Path) -> None:
    load = ["--connections", "1", "--duration", "300ms"]
    with running_server("--workers", "1") as server:
        address = f"127.0.0.1:{server.port}"
        status, _, said = loadtest_run(
            *(address, tmp_path, *load, "--fail-if", "p50>1us", "--fail-if", "errors>0.1%")
        )
        fine, _, _ = loadtest_run(address, tmp_path, *load, "--fail-if", "calls/s<1")
    assert (status, fine) == (1, 0)
    assert said.count("failed: ") == said.count("failed: p50>1us: ") == 1


def test_nobody_there_is_one_line(tmp_path: Path) -> None:
    status, summary, said = loadtest_run("127.0.0.1:1", tmp_path, "--duration", "1s")
    assert (status, summary) == (1, {})
    assert said.startswith("loadtest: cannot load the server: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--rate", "fast"], "bad rate 'fast': expected calls per second, or closed"),
        (["--rate", "0"], "bad rate '0': expected calls per second, or closed"),
        (
            ["--fail-if", "p99>2"],
            "bad condition 'p99>2': a time needs us, ms or s",
        ),
        (["--duration", "5h"], "bad duration '5h': expected 500ms, 30s or 2m, at least 100ms"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, options: list[str], reason: str) -> None:
    status, _, said = loadtest_run("127.0.0.1:1", tmp_path, *options)
    assert (status, said) == (2, f"loadtest: {reason} (see loadtest run --help)\n")

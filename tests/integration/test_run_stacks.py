"""``loadtest run --stack NAME`` against ``server run --stack``, on texts and on bytes."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from running_rig import command, environment
from running_server import Running, running_server
from running_stack import served_by

from capnp_rig.loadtest.protocols import STACKS, missing_library, server_options
from capnp_rig.loadtest.workload import PAYLOAD_KINDS

pytest.importorskip("psutil")


# Bytes differ from text in the codec alone.
_MARKS: dict[str, list[pytest.MarkDecorator]] = {"text": [], "binary": [pytest.mark.nightly]}


@contextmanager
def serving(stack: str, kind: str) -> Iterator[str]:
    if stack != "capnp":
        served_by(stack)
    if (library := missing_library(stack)) is not None:
        pytest.skip(f"needs the extra stacks: {library}")
    with running_server("--workers", "1", *server_options(stack, kind)) as server:
        yield address_of(server)
        assert not server.err.find("Traceback")


def address_of(server: Running) -> str:
    return f"127.0.0.1:{server.port}"


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((stack, kind), id=f"{stack}-{kind}", marks=_MARKS[kind])
        for stack in STACKS
        for kind in PAYLOAD_KINDS
    ],
)
def served(request: pytest.FixtureRequest) -> Iterator[tuple[str, str, str]]:
    """Start the server of a stack; yield its address, the stack, and the kind of payload."""
    stack, kind = request.param
    with serving(stack, kind) as address:
        yield address, stack, kind


def loadtest_run(
    address: str, stack: str, folder: Path, *options: str
) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        command(
            *("run", address, "--stack", stack, "--json", "--results", str(folder), "--no-pin"),
            *("--allow-void", *options),
        ),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=80,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


@pytest.mark.parametrize(("payload", "calls"), [("32", 300), ("1MiB", 12)])
def test_every_call_is_answered_rightly(
    served: tuple[str, str, str], tmp_path: Path, payload: str, calls: int
) -> None:
    address, stack, kind = served
    status, summary, said = loadtest_run(
        *(address, stack, tmp_path, "--payload-kind", kind, "--payload", payload),
        *("--connections", "3", "--in-flight", "2", "--calls", str(calls)),
    )
    assert status == 0, said
    assert (summary["calls"], summary["errors_by_kind"]) == (calls, {})


def test_calls_are_due_on_a_schedule(served: tuple[str, str, str], tmp_path: Path) -> None:
    address, stack, kind = served
    status, summary, said = loadtest_run(
        *(address, stack, tmp_path, "--payload-kind", kind, "--rate", "300"),
        *("--connections", "4", "--duration", "500ms", "--arrivals", "fixed"),
    )
    assert status == 0, said
    assert 148 <= summary["offered"] <= 151
    assert summary["calls"] > 10
    assert summary["server_cpu_us_per_call"] > 0
    (folder,) = tmp_path.iterdir()
    document = json.loads((folder / "run.json").read_text())
    assert document["config"]["stack"] == stack
    assert document["config"]["workload"]["payload_kind"] == kind


@pytest.mark.parametrize("stack", ["json", "http1", "http2", "grpc", "selectors"])
def test_the_server_of_another_stack_gives_no_answers(tmp_path: Path, stack: str) -> None:
    if missing_library(stack) is not None:
        pytest.skip("needs the extra stacks")
    with serving("echo", "text") as address:
        status, summary, said = loadtest_run(
            address, stack, tmp_path, "--connections", "1", "--calls", "1", "--timeout", "2s"
        )
    # Where the server speaks first, it was not even reached.
    if stack in {"http2", "grpc"}:
        assert (status, summary) == (1, {})
        assert "cannot load the server: the server speaks no HTTP/2" in said
        return
    assert (status, summary["calls"]) == (1, 0)
    assert summary["errors"] >= 1


@pytest.mark.parametrize(
    "stack",
    ["json", *(pytest.param(each, marks=pytest.mark.nightly) for each in ("grpc", "http1"))],
)
def test_a_server_that_is_stopped_is_told_of(tmp_path: Path, stack: str) -> None:
    served_by(stack)
    options = ("--workers", "1", "--log-level", "debug", *server_options(stack, "text"))
    with running_server(*options) as server:
        process = subprocess.Popen(
            command(
                *("run", address_of(server), "--stack", stack, "--json", "--duration", "5s"),
                *("--connections", "2", "--results", str(tmp_path), "--no-pin", "--warmup", "0s"),
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        try:
            # The drain reads on for 3 s from a client that goes on; the run is longer than that.
            server.out.wait_for("Received content", count=20, within_s=40)
            server.signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait(5)
    assert process.returncode == 1, err
    kinds = {kind.partition(":")[0] for kind in json.loads(out)["errors_by_kind"]}
    assert kinds <= {"Disconnected", "ConnectError", "unfinished"}
    assert "Disconnected" in kinds


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--stack", "rest"], "rest"),
        (["--stack", "json", "--schema", "x.capnp"], "schema is for the stack capnp"),
        (["--stack", "json", "--check", "id"], "--check id is for --stack capnp"),
        (["--stack", "json", "--payload-kind", "binary", "--text", "x"], "text and corpus"),
        (["--payload-kind", "binary", "--method", "read"], "does not go with a binary payload"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, options: list[str], said: str) -> None:
    done = subprocess.run(
        command("run", "127.0.0.1:1", "--results", str(tmp_path), *options),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=40,
        check=False,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert said in done.stderr

"""The Locust user of every stack, each against its server."""

import csv
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from fake_server import fake_server
from running_locust import ROOT, run_locust
from running_server import running_server
from running_stack import served_by

from capnp_rig.loadtest.protocols import STACKS, missing_library, server_options

LOCUSTFILE = ROOT / "loadtest" / "stack_user.py"
# How the server calls a stack, where that is another name.
SERVED_AS = {"http1": "http", "http2": "http"}

# To a user they differ in the exchange alone, which `loadtest run` drives as well.
_LIKE_OTHERS = {"echo", "selectors", "grpc"}


def load_with(
    address: str, folder: Path, stack: str, *args: str, enough: int = 20
) -> tuple[int, dict[str, Any], set[str], list[dict[str, Any]], str]:
    """Return exit status, summary, labels, Locust's own entries, and what was printed."""
    done = run_locust(
        *("-H", address, "--headless", "--only-summary", "-u", "2", "-r", "2"),
        *("--results", str(folder / "results"), "--json-file", str(folder / "locust"), *args),
        *("--stack", stack),
        locustfile=LOCUSTFILE,
        enough=enough,
    )
    assert "Traceback" not in done.output, done.output
    (run,) = (folder / "results").iterdir()
    summary = json.loads((run / "run.json").read_text())["summary"]
    with (run / "times.csv").open(encoding="utf-8") as stream:
        labels = {row["label"] for row in csv.DictReader(stream)}
    entries = json.loads((folder / "locust.json").read_text())
    return done.status, summary, labels, entries, done.output


@pytest.mark.parametrize("kind", ["text", pytest.param("binary", marks=pytest.mark.nightly)])
@pytest.mark.parametrize(
    "stack",
    [
        pytest.param(stack, marks=[pytest.mark.nightly] if stack in _LIKE_OTHERS else [])
        for stack in STACKS
    ],
)
def test_a_user_makes_calls_that_are_all_right(tmp_path: Path, stack: str, kind: str) -> None:
    served_by(SERVED_AS.get(stack, stack))
    if missing_library(stack) is not None:
        pytest.skip("needs the extra stacks")
    more: tuple[str, ...] = () if stack == "http1" else ("--in-flight", "2")
    if kind == "binary":
        more = (*more, "--rate", "100", "--payload-bytes", "3000")
    with running_server("--workers", "1", *server_options(stack, kind)) as server:
        status, summary, labels, entries, output = load_with(
            f"127.0.0.1:{server.port}", tmp_path, stack, "--payload-kind", kind, *more
        )
    assert status == 0, output
    assert summary["calls"] > 0
    assert {kind for kind in summary["errors_by_kind"] if kind != "unfinished"} == set()
    # One class alone: what it is made of is no user.
    assert {label.partition(" ")[0] for label in labels} - {"connections"} == {"StackUser"}
    (entry,) = entries
    assert entry["method"] == stack
    # All that were answered, the ramp-up among them.
    assert entry["num_requests"] >= summary["calls"]
    assert entry["num_failures"] == 0
    assert entry["total_content_length"] >= 32 * entry["num_requests"]


def hang_up(_connection: socket.socket) -> None:
    """Do nothing: the connection is closed."""


@pytest.mark.parametrize("stack", ["json", "http1", "grpc"])
def test_a_server_that_hangs_up_is_counted_and_not_hammered(tmp_path: Path, stack: str) -> None:
    with fake_server(hang_up) as address:
        status, summary, _, _, output = load_with(address, tmp_path, stack, enough=4)
    assert status == 1, output
    kinds = {kind.partition(":")[0] for kind in summary["errors_by_kind"]}
    assert kinds <= {"Disconnected", "unfinished"}
    assert 2 <= summary["errors"] < 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--schema", "schema/message.capnp"], "schema is for the stack capnp"),
        (["--payload-kind", "binary", "--text", "x"], "leave them out of a binary payload"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(options: list[str], message: str) -> None:
    done = run_locust(
        *("-H", "127.0.0.1:1", "--headless", "-t", "1s", "--stack", "json", *options),
        locustfile=LOCUSTFILE,
    )
    (line,) = done.output.splitlines()
    assert (done.status, line.startswith("__main__.py: error: ")) == (2, True)
    assert message in line

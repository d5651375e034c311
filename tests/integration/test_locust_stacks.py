"""The Locust users of the stacks beside capnp, each against its server."""

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

from capnp_rig.loadtest.protocols import missing_library, server_options

# File, user class, stack.
USERS = [
    ("echo_user.py", "EchoUser", "echo"),
    ("json_user.py", "JsonUser", "json"),
    ("http_user.py", "HttpUser", "http1"),
    ("http2_user.py", "Http2User", "http2"),
    ("grpc_user.py", "GrpcUser", "grpc"),
    ("selectors_user.py", "SelectorsUser", "selectors"),
]


def load_with(
    address: str, folder: Path, file: str, *args: str, enough: int = 20
) -> tuple[int, dict[str, Any], set[str], list[dict[str, Any]], str]:
    """Return exit status, summary, labels, Locust's own entries, and what was printed."""
    done = run_locust(
        *("-H", address, "--headless", "--only-summary", "-u", "2", "-r", "2"),
        *("--results", str(folder / "results"), "--json-file", str(folder / "locust"), *args),
        locustfile=ROOT / "loadtest" / file,
        enough=enough,
    )
    assert "Traceback" not in done.output, done.output
    (run,) = (folder / "results").iterdir()
    summary = json.loads((run / "run.json").read_text())["summary"]
    with (run / "times.csv").open(encoding="utf-8") as stream:
        labels = {row["label"] for row in csv.DictReader(stream)}
    entries = json.loads((folder / "locust.json").read_text())
    return done.status, summary, labels, entries, done.output


@pytest.mark.parametrize("kind", ["text", "binary"])
@pytest.mark.parametrize(("file", "user", "stack"), USERS)
def test_a_user_makes_calls_that_are_all_right(
    tmp_path: Path, file: str, user: str, stack: str, kind: str
) -> None:
    served_by({"http1": "http"}.get(stack, stack))
    if missing_library(stack) is not None:
        pytest.skip("needs the extra stacks")
    more = () if stack == "http1" else ("--in-flight", "2")
    if kind == "binary":
        more = (*more, "--rate", "100", "--payload-bytes", "3000")
    with running_server("--workers", "1", *server_options(stack, kind)) as server:
        status, summary, labels, entries, output = load_with(
            f"127.0.0.1:{server.port}", tmp_path, file, "--payload-kind", kind, *more
        )
    assert status == 0, output
    assert summary["calls"] > 0
    assert {kind for kind in summary["errors_by_kind"] if kind != "unfinished"} == set()
    # One class alone: what it is made of is no user.
    assert {label.partition(" ")[0] for label in labels} - {"connections"} == {user}
    (entry,) = entries
    assert entry["method"] == stack
    # All that were answered, the ramp-up among them.
    assert entry["num_requests"] >= summary["calls"]
    assert entry["num_failures"] == 0
    assert entry["total_content_length"] >= 32 * entry["num_requests"]


def hang_up(_connection: socket.socket) -> None:
    """Do nothing: the connection is closed."""


@pytest.mark.parametrize("file", ["json_user.py", "http_user.py", "grpc_user.py"])
def test_a_server_that_hangs_up_is_counted_and_not_hammered(tmp_path: Path, file: str) -> None:
    with fake_server(hang_up) as address:
        status, summary, _, _, output = load_with(address, tmp_path, file, enough=4)
    assert status == 1, output
    kinds = {kind.partition(":")[0] for kind in summary["errors_by_kind"]}
    assert kinds <= {"Disconnected", "unfinished"}
    assert 2 <= summary["errors"] < 60


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--schema", "schema/message.capnp"], "schema is for the stack capnp"),
        (["--payload-kind", "binary", "--text", "x"], "text does not go with a binary payload"),
    ],
)
def test_what_does_not_go_together_is_told(options: list[str], said: str) -> None:
    done = run_locust(
        *("-H", "127.0.0.1:1", "--headless", "-t", "1s", *options),
        locustfile=ROOT / "loadtest" / "json_user.py",
    )
    assert done.status != 0
    assert said in done.output


def test_the_http_user_has_one_call_in_flight() -> None:
    done = run_locust(
        *("-H", "127.0.0.1:1", "--headless", "-t", "1s", "--in-flight", "2"),
        locustfile=ROOT / "loadtest" / "http_user.py",
    )
    assert done.status != 0
    assert "leave out --in-flight" in done.output

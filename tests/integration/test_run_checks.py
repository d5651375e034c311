"""What ``loadtest run`` compares, with faults of known size in a service of another schema."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running_rig import run_rig
from running_server import ROOT, running_server

METHOD = ("--schema", "data/workload.capnp", "--interface", "Geometry", "--method", "move")
NOT_FIRST = (
    "WrongReply: wrong reply: not the first one to these params; "
    "one that varies needs --expect or --check id"
)
WRONG = [
    f'{NOT_FIRST}\n- request: {{"by": 0, "far": 0, "name": "wrong"',
    '- expected: {"point": {"x": 3, "z": 4}}\n- came: {"point": {"x": 4, "z": 4}}\n',
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running_server(
        *("--workers", "1", "--service", "load_services:Moving"), cwd=ROOT / "tests"
    ) as server:
        yield f"127.0.0.1:{server.port}"


def load(address: str, folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    where = ("--results", str(folder), "--no-pin", "--connections", "3")
    return run_rig("run", address, *METHOD, *where, *options, cwd=ROOT / "tests")


def run_of(folder: Path) -> tuple[dict[str, Any], str]:
    """Return the only ``run.json`` in a folder, and its page."""
    (made,) = folder.iterdir()
    return json.loads((made / "run.json").read_text()), (made / "report.html").read_text()


def test_a_wrong_reply_in_a_hundred_is_counted_and_shown(address: str, tmp_path: Path) -> None:
    done = load(address, tmp_path, "--calls", "1000", "--params", '{"name": "wrong"}')
    assert done.returncode == 1
    assert re.search(rf"{re.escape(NOT_FIRST)} +│ +10 │", done.stdout), done.stdout
    assert [done.stdout.count(text) for text in WRONG] == [3, 3]
    document, page = run_of(tmp_path)
    assert document["summary"]["errors_by_kind"] == {NOT_FIRST: 10}
    assert [each["came"] for each in document["summary"]["failed_calls"]] == [
        '{"point": {"x": 4, "z": 4}}'
    ] * 3
    assert (document["checked"]["content"], document["config"]["checks_content"]) == (True, True)
    assert page.count("came: {&quot;point&quot;: {&quot;x&quot;: 4, &quot;z&quot;: 4}}") == 3


@pytest.mark.nightly
def test_a_method_that_varies_is_wrong_unless_nobody_compares(address: str, tmp_path: Path) -> None:
    vary = ("--calls", "60", "--params", '{"name": "vary"}', "--json", "--allow-void")
    done = load(address, tmp_path / "one", *vary, "--processes", "2")
    found = json.loads(done.stdout)
    # The first reply of each process is right there, and that of one is not that of the other.
    other = "WrongReply: wrong reply: not the first one of another process or repeat"
    assert (done.returncode, found["errors_by_kind"]) == (1, {NOT_FIRST: 58, other: 1})
    done = load(address, tmp_path / "two", *vary, "--check", "id")
    assert (done.returncode, json.loads(done.stdout)["checked"]["content"]) == (0, False)
    document, page = run_of(tmp_path / "two")
    assert document["config"]["checks_content"] is False
    assert document["checked"]["unchecked"] == ["content not checked: --check id"]
    assert "; content not checked: --check id (closed loop" in page


def test_a_check_that_has_nothing_to_compare_is_refused(address: str, tmp_path: Path) -> None:
    templates = ("--calls", "60", "--params", '{"name": "{{i}}"}')
    done = load(address, tmp_path, *templates, "--allow-void")
    said = "content not checked: no --expect for params with templates"
    assert done.returncode == 0
    assert re.search(rf"verdict +│ \w+; {said} +│", done.stdout), done.stdout
    assert run_of(tmp_path)[0]["config"]["checks_content"] is False
    done = load(address, tmp_path, *templates, "--check", "content")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert f"--check content has nothing to compare: {said}" in done.stderr


@pytest.mark.nightly
def test_failures_with_ids_of_their_own_are_one_kind(address: str, tmp_path: Path) -> None:
    done = load(address, tmp_path, "--calls", "100", "--params", '{"name": "fail"}')
    assert done.returncode == 1
    assert re.search(r"failed: RemoteError: internal error +│ +100 │", done.stdout), done.stdout
    # As it was, not as a style of Rich.
    assert re.search(
        r"^RemoteError: internal error \[id [0-9]+-[0-9]+-[0-9]+\]\n- request:",
        done.stdout,
        re.MULTILINE,
    )
    (example,) = run_of(tmp_path)[0]["summary"]["failed_calls"]
    assert re.fullmatch(r"internal error \[id [0-9]+-[0-9]+-[0-9]+\]", example["came"])


def test_a_first_look_prints_the_reply_and_measures_nothing(address: str, tmp_path: Path) -> None:
    done = load(address, tmp_path, "--calls", "1", "--show")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"point": {"x": 3, "z": 4}}
    done = load(address, tmp_path, "--show", "--expect", '{"point": {"x": 5}}', "--check", "id")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"point": {"x": 3, "z": 4}})
    done = load(address, tmp_path, "--show", "--params", '{"name": "fail"}')
    assert (done.returncode, done.stdout) == (1, "")
    assert "failed: RemoteError: internal error [" in done.stderr
    assert not list(tmp_path.iterdir())

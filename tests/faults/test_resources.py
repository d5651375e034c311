"""What a worker lives on: memory, clocks, libraries (faults.md, A15, A18, H7)."""

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import capnp
import psutil
import pytest
from fault_services import PROBE
from raw_peer import call_builder, encoded, raw_peer
from running_server import ROOT, Running, running_server

TESTS = ROOT / "tests"
MIB = 1 << 20
PROBE_ID: int = PROBE.schema.node.id
METHODS = list(PROBE.schema.methods)
# Of the modules that serve, call, or measure; the log stamps its lines.
MODULES = [
    path
    for package in ("server", "wire", "client", "loadtest/engine")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path != ROOT / "server/logs/log.py"
]
WALL_CLOCKS = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow")}


@pytest.fixture(scope="module", params=["wire", "pycapnp"])
def probe(request: pytest.FixtureRequest) -> Iterator[Running]:
    args = ["--service", "fault_services:Probe", "--workers", "1", "--engine", request.param]
    with running_server(*args, cwd=TESTS) as running:
        yield running


def large_call(question_id: int, size: int, method: str) -> bytes:
    build = call_builder(question_id, interface_id=PROBE_ID, method_id=METHODS.index(method))
    build.call.params.content.as_struct(PROBE.schema.methods[method].param_type).size = size
    return encoded(build)


def test_a15_a_call_without_memory_fails_and_its_worker_serves_on(probe: Running) -> None:
    (pid,) = probe.workers()
    worker = psutil.Process(pid)
    limit = worker.memory_info().vms + 256 * MIB
    worker.rlimit(psutil.RLIMIT_AS, (limit, limit))
    with raw_peer(probe) as peer:
        for number, method in enumerate(["large", "largeLater"] * 3, 1):
            peer.send(large_call(number, 1 << 31, method))
            reply = peer.answer_to(number)
            assert (reply.kind, reply.type) == ("exception", "failed")
            assert "internal error" in reply.text
        peer.send(large_call(9, 5, "large"))
        assert peer.answer_to(9).kind == "results"
    assert probe.workers() == [pid]


def wall_clocks(path: Path) -> list[str]:
    return [
        f"{path.name}:{node.lineno}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in WALL_CLOCKS
    ]


def test_a18_no_module_reads_the_wall_clock() -> None:
    assert [found for path in MODULES for found in wall_clocks(path)] == []


def test_a18_a_wall_clock_would_be_found(tmp_path: Path) -> None:
    file = tmp_path / "late.py"
    file.write_text("import time\nstart = time.monotonic()\nend = time.time()\n")
    assert wall_clocks(file) == ["late.py:3"]


def test_h7_the_core_is_the_one_whose_faults_are_known() -> None:
    """A wheel with 1.5.0 has the fix of D5: then the guards against it may go."""
    assert capnp.version.LIBCAPNP_VERSION == 1_004_000


def test_h7_what_a_server_needs_is_pinned_by_hash() -> None:
    locked = pinned("requirements.lock")
    tested = pinned("constraints.txt")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["metrics"], *extras["traces"]]
    assert {canonical(re.split("[>=<]", each)[0]) for each in wanted} <= locked.keys()
    assert {name: tested[name].version for name in locked} == {
        name: each.version for name, each in locked.items()
    }
    assert all(each.hashes for each in locked.values())


@dataclass(frozen=True)
class Pinned:
    version: str
    hashes: tuple[str, ...]


def pinned(file: str) -> dict[str, Pinned]:
    """Return the packages that a file of pip's names, each with one version."""
    text = (ROOT / file).read_text("utf-8").replace("\\\n", " ")
    lines = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    found = {}
    for requirement, *hashes in lines:
        name, version = requirement.split("==")
        assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", each) for each in hashes)
        found[canonical(name)] = Pinned(version, tuple(hashes))
    return found


def canonical(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()

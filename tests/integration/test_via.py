"""``--via`` and ``--pipeline`` against pycapnp's own server, which counts its objects."""

import json
import subprocess
from collections.abc import Iterator
from csv import DictReader
from pathlib import Path
from typing import Any

import pytest
from running_locust import run_locust
from running_peer import running_peer
from running_rig import ROOT, run_rig

from capnp_rig.client import Client
from capnp_rig.schema import load_schema

FILE = str(ROOT / "tests" / "data" / "chains.capnp")
FILES = load_schema(FILE).Files
LOGIN = 'login({"user": "ada"}).session'
READ = ("--schema", FILE, "--method", "read", "--params", '{"number": 5}')


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running_peer("session_server.py") as address:
        yield address


def load(address: str, folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    where = ("--results", str(folder), "--no-pin", "--connections", "3", "--allow-void")
    return run_rig("run", address, *READ, *where, *options)


def counted(address: str) -> tuple[int, int]:
    """Return how many sessions the server holds, and how many there have been."""
    with Client.connect(address, interface=FILES) as client:
        live = client.call("live", {})
        return live.sessions, live.logins


def only_result(folder: Path) -> tuple[dict[str, Any], str]:
    (made,) = folder.iterdir()
    return json.loads((made / "run.json").read_text()), (made / "report.html").read_text()


def test_a_chain_is_walked_once_per_connection_with_times_of_its_own(
    address: str, tmp_path: Path
) -> None:
    before = counted(address)
    options = ("--calls", "600", "--expect", '{"text": "ada 5"}')
    done = load(address, tmp_path, "--via", LOGIN, *options)
    assert done.returncode == 0, done.stderr
    # Each login makes two sessions.
    assert counted(address) == (0, before[1] + 6)
    document, page = only_result(tmp_path)
    summary = document["summary"]
    assert (summary["calls"], summary["walks"]["count"]) == (600, 3)
    assert 0 < summary["walks"]["p50"] <= summary["walks"]["max"]
    assert "│ via " in done.stdout
    assert ">via<" in page
    assert document["config"]["workload"]["via"] == LOGIN


def test_a_pipelined_chain_leaves_nothing_behind(address: str, tmp_path: Path) -> None:
    before = counted(address)
    options = ("--calls", "3000", "--in-flight", "4", "--expect", '{"text": "ada 5"}', "--json")
    done = load(address, tmp_path, "--via", LOGIN, "--pipeline", *options)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["calls"], told["errors"], told["walks"]) == (3000, 0, None)
    assert counted(address) == (0, before[1] + 6000)


@pytest.mark.parametrize(
    ("via", "status", "said"),
    [
        ('login({"user": "nobody"}).session', 1, "via login: ValueError: wrong password"),
        ('login({"user": "ada"}).sesion', 2, "via: column 24: no field 'sesion' in the results of"),
    ],
)
def test_a_chain_that_leads_nowhere_is_a_line_and_a_status(
    address: str, tmp_path: Path, via: str, status: int, said: str
) -> None:
    done = load(address, tmp_path, "--via", via, "--calls", "10")
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_calls_whose_chain_fails_are_counted(address: str, tmp_path: Path) -> None:
    via = 'login({"user": "nobody"}).session'
    done = load(address, tmp_path, "--via", via, "--pipeline", "--calls", "10", "--json")
    kinds = {"RemoteError: via login: ValueError: wrong password": 10}
    assert (done.returncode, json.loads(done.stdout)["errors_by_kind"]) == (1, kinds)


VISITOR = """
from locust import constant, task
from capnp_rig import load_schema
from capnp_rig.loadtest import CapnpUser
from capnp_rig.loadtest.capnp_user import ReverseUser

Files = load_schema({file!r}).Files


class Visitor(CapnpUser):
    interface = Files
    wait_time = constant(0)
    fixed_count = 2

    @task
    def visit(self):
        results = self.call("login", {{"user": "eve"}})
        with results.session as session:
            for number in range(10):
                text = session.call("read", {{"number": number}}).text
                self.expect(text == f"eve {{number}}")
            found = session.call("root", {{}}).folder.call("find", {{"name": "x"}})
            folder = found.any.as_capability().cast(Files.Folder)
            self.expect(folder.call("size", {{}}).bytes == 7)
            session.call("logout", {{}})


class Reader(ReverseUser):
    fixed_count = 2
"""


def test_scenarios_call_what_they_are_given_and_users_walk_a_chain(
    address: str, tmp_path: Path
) -> None:
    file = tmp_path / "visitor.py"
    file.write_text(VISITOR.format(file=FILE))
    options = ("--via", LOGIN, *READ, "--headless", "-u", "4", "-r", "4", "-t", "1s")
    results = ("--results", str(tmp_path / "results"))
    done = run_locust("-H", address, *options, *results, locustfile=file)
    assert done.status == 0, done.output
    document, _ = only_result(tmp_path / "results")
    (made,) = (tmp_path / "results").iterdir()
    with (made / "times.csv").open() as rows:
        counts = {(row["label"], row["clock"]): int(row["count"]) for row in DictReader(rows)}
    logins = counts["Visitor Files.login", "service"]
    assert counts["Visitor Files.Session.read", "service"] >= 10 * (logins - 2) > 0
    assert counts["Visitor Files.Folder.size", "service"] >= logins - 2
    assert counts["Reader Files.Session.read", "service"] > 0
    assert counts["connections", "via"] == 2
    assert document["summary"]["walks"]["count"] == 2
    assert counted(address)[0] == 0


@pytest.mark.nightly
def test_an_untyped_capability_and_a_promise_are_called(address: str, tmp_path: Path) -> None:
    chain = f"{LOGIN}.root().folder.find().any as Files.Folder.find().cap as Files.Folder"
    for number, options in enumerate(
        [
            ("--via", chain, "--method", "size", "--params", "{}"),
            ("--via", chain, "--method", "size", "--params", "{}", "--pipeline"),
            ("--via", 'login({"user": "late"}).session'),
            ("--via", 'login({"user": "late"}).session', "--pipeline"),
        ]
    ):
        done = load(address, tmp_path / str(number), "--calls", "30", "--json", *options)
        assert done.returncode == 0, done.stderr + done.stdout
    assert counted(address)[0] == 0


@pytest.mark.nightly
def test_a_sweep_tells_how_long_the_chain_took(address: str, tmp_path: Path) -> None:
    where = ("--results", str(tmp_path), "--no-pin", "--connections", "2", "--via", LOGIN)
    steps = ("--in-flight", "1,2", "--rounds", "1", "--duration", "100ms")
    done = run_rig("sweep", address, *READ, *where, *steps)
    assert "The calls of --via led to what was called in p50 " in done.stdout
    assert "(4 connections)" in done.stdout
    document, page = only_result(tmp_path)
    assert document["walks"]["count"] == 4
    assert "The calls of --via led to what was called in p50 " in page


@pytest.mark.nightly
def test_the_tables_are_at_their_start_after_a_hundred_thousand_pipelined_calls(
    address: str, tmp_path: Path
) -> None:
    options = ("--calls", "100000", "--in-flight", "16", "--expect", '{"text": "ada 5"}', "--json")
    done = run_rig(
        *("run", address, *READ, "--via", LOGIN, "--pipeline", *options),
        *("--results", str(tmp_path), "--no-pin", "--connections", "3", "--allow-void"),
        within_s=300,
    )
    assert done.returncode == 0, done.stderr
    assert counted(address)[0] == 0

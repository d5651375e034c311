"""The Locust users: closed and open loop, reconnects, any schema, and Locust's own numbers."""

import csv
import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fake_server import answering, fake_server, until_closed
from lying_server import hanging_up, lying_server
from running_locust import LOCUSTFILE, ROOT, Finished, free_port, read_requests, run_locust
from running_server import running_server

from capnp_rig.client.reverse import MESSAGE_STREAM
from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.encoded import EncodedStruct
from capnp_rig.wire.rpc.connection import Called
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.server_connection import ServerConnection

READ = MESSAGE_STREAM.methods["read"]
LABEL = "ReverseUser MessageStream.read"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_server("--workers", "1", "--log-level", "warning") as running:
        yield f"{running.host}:{running.port}"


@dataclass(frozen=True)
class Load:
    """A Locust run that has ended, and what it wrote."""

    done: Finished
    document: dict[str, Any]
    times: dict[tuple[str, str], dict[str, float]]
    entries: dict[str, dict[str, Any]]

    @property
    def failures(self) -> dict[str, int]:
        """Failures by kind, without calls that the end of the run cut off."""
        kinds: dict[str, int] = self.document["summary"]["errors_by_kind"]
        return {kind: count for kind, count in kinds.items() if kind != "unfinished"}

    @property
    def generators(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.document["generators"]
        return found

    @property
    def scheduled(self) -> int:
        return sum(each["scheduled"] for each in self.generators)

    @property
    def scheduled_hz(self) -> float:
        return sum(each["scheduled"] / each["seconds"] for each in self.generators)

    def follows(self, rate_hz: float) -> bool:
        """Tell whether that was the rate, which is less while users start."""
        return 0.65 * rate_hz < self.scheduled_hz < 1.15 * rate_hz

    @property
    def unanswered(self) -> int:
        return sum(each["unfinished"] + each["unsent"] for each in self.generators)

    def count(self, label: str = LABEL, clock: str = "service") -> int:
        return int(self.times.get((label, clock), {"count": 0})["count"])

    def assert_equal_counts(self) -> None:
        """Locust's statistics and the rig's have the same calls, failed ones among them."""
        summary = self.document["summary"]
        requests = sum(entry["num_requests"] for entry in self.entries.values())
        failures = sum(entry["num_failures"] for entry in self.entries.values())
        assert (requests - failures, failures) == (summary["calls"], sum(self.failures.values()))
        for entry in self.entries.values():
            assert sum(entry["response_times"].values()) == entry["num_requests"]
            assert sum(entry["num_reqs_per_sec"].values()) == entry["num_requests"]


def load_with(
    address: str,
    folder: Path,
    *args: str,
    users: int = 2,
    # The run ends when so many requests were made, or after so many seconds.
    enough: int | None = 250,
    seconds: int | None = None,
    locustfile: Path = LOCUSTFILE,
) -> Load:
    done = run_locust(
        *("-H", address, "--headless", "--only-summary"),
        *(() if seconds is None else ("-t", f"{seconds}s")),
        *("-u", str(users), "-r", str(users), "--results", str(folder / "results")),
        *("--json-file", str(folder / "locust"), *args),
        locustfile=locustfile,
        enough=enough if seconds is None else None,
    )
    assert (folder / "results").is_dir(), done.output
    (run,) = (folder / "results").iterdir()
    with (run / "times.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    times = {
        (row["label"], row["clock"]): {
            key: float(value) for key, value in row.items() if key not in {"label", "clock"}
        }
        for row in rows
        if row["count"]
    }
    entries = json.loads((folder / "locust.json").read_text())
    load = Load(
        done,
        json.loads((run / "run.json").read_text()),
        times,
        {entry["name"]: entry for entry in entries},
    )
    assert "Traceback" not in done.output, done.output
    load.assert_equal_counts()
    return load


PROCESSES = ("--processes", "2", "--master-bind-host", "127.0.0.1")


def two_processes() -> tuple[str, ...]:
    port = str(free_port())
    return (*PROCESSES, "--master-bind-port", port, "--master-port", port)


# --- closed loop -------------------------------------------------------------------------------


@pytest.mark.parametrize("in_flight", [1, 8])
def test_a_closed_loop_counts_every_call(server: str, tmp_path: Path, in_flight: int) -> None:
    load = load_with(
        *(server, tmp_path, "--in-flight", str(in_flight), "--payload-bytes", "64"),
        *("--stop-timeout", "5"),
    )
    assert load.done.status == 0, load.done.output
    assert load.failures == {}
    assert load.unanswered == 0
    assert load.count() == load.document["summary"]["calls"] > 200
    # There are no other clocks: a call is due when it is sent.
    assert (LABEL, "lateness") not in load.times
    entry = load.entries["MessageStream.read"]
    # Framing included.
    assert 64 < entry["total_content_length"] / entry["num_requests"] < 160
    assert load.times["connections", "connect"]["count"] == 2


def test_calls_that_the_end_cuts_off_are_unfinished(tmp_path: Path) -> None:
    with fake_server(answering(_never_after(10))) as address:
        load = load_with(address, tmp_path, "--in-flight", "4", enough=10)
    assert load.count() == 10
    assert load.failures == {}
    # Of two users: what the server has answered makes room for more.
    assert load.unanswered == 8


def _never_after(count: int) -> Callable[[Called], EncodedStruct | None]:
    lock, left = threading.Lock(), [count]

    def reply(call: Called) -> EncodedStruct | None:
        with lock:
            left[0] -= 1
            return None if left[0] < 0 else _reversed(call)

    return reply


def _reversed(call: Called) -> EncodedStruct:
    content: str = READ.params.open(call.params).request.content
    return READ.results.write({"chunk": content[::-1].encode()})


def test_a_wrong_byte_is_caught_whichever_reply_has_it(tmp_path: Path) -> None:
    with lying_server(wrong_every=997) as liar:
        load = load_with(
            liar.address, tmp_path, "--in-flight", "4", "--stop-timeout", "5", enough=1100
        )
        lies, answers = liar.lies, liar.answers
    assert load.done.status == 1
    assert load.failures == {"WrongReply: wrong reply": lies}
    assert lies > 0
    assert load.count() == answers - lies
    assert "Wrong reply" in load.done.output


SLOW_TO_IMPORT = """
import time
from capnp_rig.loadtest.capnp_user import ReverseUser

until_s = time.monotonic() + 3
while time.monotonic() < until_s:
    pass
"""


def test_the_time_of_a_run_begins_after_the_imports(server: str, tmp_path: Path) -> None:
    file = own_locustfile(tmp_path, SLOW_TO_IMPORT)
    done = run_locust(
        *("-H", server, "--headless", "--only-summary", "-t", "2s", "-u", "2", "-r", "2"),
        *("--json-file", str(tmp_path / "locust")),
        locustfile=file,
    )
    assert done.status == 0, done.output
    assert read_requests(tmp_path / "locust") > 0


# --- open loop ---------------------------------------------------------------------------------


@pytest.mark.parametrize("arrivals", ["fixed", "poisson"])
def test_an_open_loop_keeps_its_rate(server: str, tmp_path: Path, arrivals: str) -> None:
    load = load_with(
        *(server, tmp_path, "--rate", "400", "--arrivals", arrivals, "--in-flight", "4"),
        *("--stop-timeout", "5"),
        seconds=3,
    )
    assert load.done.status == 0, load.done.output
    # Four standard deviations of a Poisson count, and a moment for the start.
    assert load.follows(400)
    assert load.count() + load.unanswered == load.scheduled
    clocks = {clock: load.count(clock=clock) for clock in ("service", "response", "lateness")}
    assert set(clocks.values()) == {load.count()}
    # Locust shows what a caller would have seen.
    entry = load.entries["MessageStream.read"]
    response_us = load.times[LABEL, "response"]["max_us"]
    assert entry["max_response_time"] * 1000 == pytest.approx(response_us, rel=1e-6)


def test_the_rate_is_that_of_all_processes(server: str, tmp_path: Path) -> None:
    load = load_with(
        *(server, tmp_path, *two_processes(), "--rate", "400", "--stop-timeout", "5"),
        users=3,
        enough=900,
    )
    assert load.done.status == 0, load.done.output
    assert load.follows(400)
    # By their users, two and one.
    few, many = sorted(each["scheduled"] for each in load.generators)
    assert many / few == pytest.approx(2, rel=0.3)
    assert "heartbeat" not in load.done.output


@pytest.mark.nightly
def test_the_rate_grows_with_the_users(server: str, tmp_path: Path) -> None:
    load = load_with(
        *(server, tmp_path, "--rate", "400", "--arrivals", "fixed", "-r", "1"), users=4, seconds=5
    )
    (generator,) = load.generators
    # A quarter of the rate in each of the first seconds, and so on: 100, 200, 300, then 400 a
    # second. Without the ramp it would be 400 in each.
    expected = 100 + 200 + 300 + 400 * (generator["seconds"] - 3)
    assert load.scheduled == pytest.approx(expected, abs=150)


def test_times_count_from_when_calls_were_due(tmp_path: Path) -> None:
    """A server that stops for half a second delays all calls that are due meanwhile."""
    calls = 0

    def reply(call: Called) -> EncodedStruct:
        nonlocal calls
        calls += 1
        if calls == 200:
            time.sleep(0.5)
        return _reversed(call)

    with fake_server(answering(reply)) as address:
        load = load_with(
            *(address, tmp_path, "--rate", "200", "--arrivals", "fixed", "--stop-timeout", "5"),
            users=1,
            enough=500,
        )
    times = {clock: load.times[LABEL, clock] for clock in ("service", "response", "lateness")}
    # One call took that long; a fifth of all were due meanwhile, and found no room.
    assert times["service"]["max_us"] > 400_000
    assert times["service"]["p99_us"] < 100_000
    assert times["response"]["p99_us"] > 400_000
    assert times["lateness"]["p99_us"] > 300_000
    (generator,) = load.generators
    assert 60 < generator["held"] < generator["scheduled"]


def test_calls_due_to_a_dead_server_are_never_sent(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    load = load_with(address, tmp_path, "--rate", "1000", enough=3)
    assert load.done.status == 1
    assert load.count() == 0
    assert load.unanswered == load.scheduled > 200
    assert {kind.partition(":")[0] for kind in load.failures} == {"ConnectError"}


# --- lost connections --------------------------------------------------------------------------


def _answering_before_hanging_up(count: int) -> Callable[[socket.socket], None]:
    def behave(connection: socket.socket) -> None:
        server, left = ServerConnection(), count
        while left and (data := connection.recv(65536)):
            for event in server.receive_data(data):
                if isinstance(event, Called) and left:
                    left -= 1
                    server.send_results(event.question_id, _reversed(event))
            connection.sendall(server.data_to_send())

    return behave


@pytest.mark.parametrize(("loop", "least"), [((), 14), (("--rate", "200"), 6)])
def test_reconnects_are_counted_and_timed_apart(
    tmp_path: Path, loop: tuple[str, ...], least: int
) -> None:
    with fake_server(_answering_before_hanging_up(20)) as address:
        load = load_with(address, tmp_path, *loop, seconds=3)
    assert load.done.status == 1
    reconnects = load.times["connections", "reconnect"]["count"]
    assert load.times["connections", "connect"]["count"] == 2
    # The shortest wait, 0.1 s, after each that has answered: a growing one would allow a dozen.
    assert least < reconnects <= 2 * 3 / 0.08
    assert load.document["summary"]["reconnects"] == reconnects
    assert {kind.partition(":")[0] for kind in load.failures} == {"Disconnected"}
    assert sum(load.failures.values()) == pytest.approx(reconnects, abs=2)
    assert load.count() == pytest.approx(20 * (reconnects + 2), abs=40)


def test_a_server_that_hangs_up_is_not_connected_to_in_a_busy_loop(tmp_path: Path) -> None:
    with hanging_up() as address:
        load = load_with(address, tmp_path, users=4, enough=8)
    assert load.done.status == 1
    assert {kind.partition(":")[0] for kind in load.failures} == {"Disconnected"}
    assert 4 <= sum(load.failures.values()) < 100
    assert set(load.entries) == {"connect"}
    # It never stood.
    assert ("connections", "connect") not in load.times


def test_an_overdue_call_fails_and_gets_a_new_connection(tmp_path: Path) -> None:
    with fake_server(answering(_never_after(30))) as address:
        load = load_with(address, tmp_path, "--call-timeout", "0.3", users=1, enough=33)
    assert load.count() == 30
    assert set(load.failures) == {"DeadlineExceeded: no answer within the deadline"}
    # 0.3 s each, and waits that grow.
    assert 2 <= sum(load.failures.values()) <= 7
    assert load.times["connections", "reconnect"]["count"] >= 1
    failed = load.times[LABEL, "failed"]
    assert 300_000 <= failed["p50_us"] < 1_500_000


def test_a_server_that_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    with fake_server(until_closed) as address:
        load = load_with(address, tmp_path, "--call-timeout", "0.2", users=1, enough=2)
    assert set(load.failures) == {"DeadlineExceeded: no answer within the deadline"}
    assert set(load.entries) == {"connect"}


# --- any schema --------------------------------------------------------------------------------

GEOMETRY = str(ROOT / "tests" / "data" / "workload.capnp")
MOVE = compile_interface(load_schema(GEOMETRY).Geometry).methods["move"]


@contextmanager
def moving(
    seen: list[tuple[int, str]], *, wrong_at: int | None = None, wrong_every: int = 0
) -> Iterator[str]:
    """Serve ``move``: notes the numbers and names it gets, answers the point moved."""
    lock = threading.Lock()

    def reply(call: Called) -> EncodedStruct:
        params = MOVE.params.open(call.params)
        with lock:
            seen.append((params.far, params.name))
            off = params.far == wrong_at or (wrong_every and len(seen) % wrong_every == 0)
        return MOVE.results.write({"point": {"x": params.point.x + params.by + off, "z": 0}})

    with fake_server(answering(reply)) as address:
        yield address


MOVES = ("--schema", GEOMETRY, "--interface", "Geometry", "--method", "move")
TEMPLATE = '{"point": {"x": 40}, "by": 2, "far": "{{i}}", "name": "n{{user}}"}'


def test_any_schema_with_templates_over_all_processes(tmp_path: Path) -> None:
    # Of an interface that inherits what it has from a file in a folder of the import path.
    schema = tmp_path / "moving.capnp"
    schema.write_text(
        '@0xb8a5a1cb73f3b201;\ninterface Moving extends(import "/workload.capnp".Geometry) {}\n'
    )
    method = ("--schema", str(schema), "-I", str(Path(GEOMETRY).parent), "--method", "move")
    seen: list[tuple[int, str]] = []
    with moving(seen) as address:
        load = load_with(
            *(address, tmp_path, *method, "--params", TEMPLATE, *two_processes()),
            *("--expect", '{"point": {"x": 42}}', "--stop-timeout", "5"),
            users=4,
        )
    assert load.done.status == 0, load.done.output
    assert load.count("ReverseUser Moving.move") == len(seen) > 200
    assert set(load.entries) == {"Moving.move"}
    # No number twice, whichever process made it, nor a user's.
    numbers = [number for number, _ in seen]
    assert len(set(numbers)) == len(numbers)
    assert {name for _, name in seen} == {"n0", "n1", "n2", "n3"}


def test_results_that_are_not_as_expected_fail(tmp_path: Path) -> None:
    seen: list[tuple[int, str]] = []
    with moving(seen, wrong_at=17) as address:
        load = load_with(
            *(address, tmp_path, *MOVES, "--params", TEMPLATE),
            *("--expect", '{"point": {"x": 42}}', "--stop-timeout", "5"),
            enough=50,
        )
    assert load.done.status == 1
    assert load.failures == {"WrongReply: wrong reply: field point.x": 1}
    (example,) = load.document["summary"]["failed_calls"]
    assert example["request"].startswith('{"point": {"x": 40, "z": 0}, "by": 2, "far": 17, "name"')
    assert (example["expected"], example["came"]) == (
        '{"point": {"x": 42}}',
        '{"point": {"x": 43, "z": 0}}',
    )
    assert load.done.output.count(f"\n- came: {example['came']}\n") == 1
    assert "; content not checked of point.z, which --expect lacks\n" in load.done.output


def test_replies_to_constant_params_must_equal_the_first_one(tmp_path: Path) -> None:
    seen: list[tuple[int, str]] = []
    with moving(seen, wrong_every=40) as address:
        load = load_with(
            *(address, tmp_path, *MOVES, "--params", '{"by": 2}', "--show", "--stop-timeout", "5"),
        )
    assert load.done.status == 1
    (kind,) = load.failures
    assert kind.startswith("WrongReply: wrong reply: not the first one to these params")
    assert load.failures[kind] == len(seen) // 40
    assert load.document["checked"]["content"] is True
    assert load.done.output.count('The first reply: {"point": {"x": 2, "z": 0}}\n') == 1
    assert load.done.output.count('\n- came: {"point": {"x": 3, "z": 0}}\n') == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--check", "content", *MOVES, "--params", TEMPLATE], "has nothing to compare"),
        (["--stack", "json", "--check", "id"], "--check id is for --stack capnp"),
        (["--stack", "json", "--show"], "--show is for the stack capnp"),
    ],
)
def test_a_check_that_cannot_be_is_one_line(options: list[str], said: str) -> None:
    file = ROOT / "loadtest" / ("stack_user.py" if "--stack" in options else "capnp_user.py")
    done = run_locust(*("-H", "h:1", "--headless", "-t", "1s", *options), locustfile=file)
    (line,) = done.output.splitlines()
    assert (done.status, said in line) == (2, True)


def test_a_mistake_in_the_params_is_one_line() -> None:
    done = run_locust(*("-H", "h:1", "--headless", "-t", "1s", *MOVES, "--params", '{"pont": 1}'))
    assert done.status == 2
    (line,) = done.output.splitlines()
    assert line.startswith("__main__.py: error: ")
    assert "pont" in line


# --- users of one's own ------------------------------------------------------------------------

OWN = """
from locust import constant, task
from capnp_rig.loadtest.capnp_user import CapnpUser

class OwnUser(CapnpUser):
    {attributes}

    @task
    def own(self):
        results = self.call("read", {{"request": {{"content": "abc"}}}})
        self.expect(bytes(results.chunk) == b"cba")
"""
OWN_LABEL = "OwnUser MessageStream.read"


def own_locustfile(folder: Path, text: str) -> Path:
    file = folder / "own_locustfile.py"
    file.write_text(text)
    return file


def test_a_class_of_ones_own_waits_between_its_tasks(server: str, tmp_path: Path) -> None:
    file = own_locustfile(tmp_path, OWN.format(attributes="wait_time = constant(0.1)"))
    load = load_with(server, tmp_path, locustfile=file, seconds=2)
    assert load.done.status == 0, load.done.output
    # Two users, ten calls a second each, in somewhat less than two seconds.
    assert 5 < load.count(OWN_LABEL) <= 42


def test_a_class_of_ones_own_in_an_open_loop(server: str, tmp_path: Path) -> None:
    file = own_locustfile(tmp_path, OWN.format(attributes="pass"))
    load = load_with(
        *(server, tmp_path, "--rate", "200", "--arrivals", "fixed", "--stop-timeout", "5"),
        users=5,
        seconds=4,
        locustfile=file,
    )
    assert load.done.status == 0, load.done.output
    assert load.follows(200)
    assert load.count(OWN_LABEL, "response") + load.unanswered == load.scheduled


def test_calls_of_ones_own_count_from_when_they_were_due(tmp_path: Path) -> None:
    def reply(call: Called) -> EncodedStruct:
        time.sleep(0.04)
        return _reversed(call)

    file = own_locustfile(tmp_path, OWN.format(attributes="pass"))
    with fake_server(answering(reply)) as address:
        # Twice as many as one user can make.
        load = load_with(address, tmp_path, "--rate", "50", users=1, seconds=2, locustfile=file)
    times = {clock: load.times[OWN_LABEL, clock] for clock in ("service", "response", "lateness")}
    assert 40_000 <= times["service"]["p50_us"] < 200_000
    assert times["response"]["max_us"] > 300_000
    assert times["lateness"]["max_us"] > 250_000


OWN_SCHEMA = """
from locust import task
from capnp_rig.loadtest.capnp_user import CapnpUser
from capnp_rig import load_schema

class OwnUser(CapnpUser):
    interface = load_schema({path!r}).Geometry

    @task
    def own(self):
        while self.running:
            results = self.call("move", {{"point": {{"x": 40}}, "by": 2, "far": 7, "name": "n"}})
            self.expect(results.point.x == 42)
"""


def test_a_class_of_ones_own_has_the_interface_that_a_schema_has(tmp_path: Path) -> None:
    seen: list[tuple[int, str]] = []
    file = own_locustfile(tmp_path, OWN_SCHEMA.format(path=GEOMETRY))
    with moving(seen) as address:
        load = load_with(address, tmp_path, locustfile=file)
    assert load.done.status == 0, load.done.output
    assert load.count("OwnUser Geometry.move") == len(seen) - load.unanswered >= 250
    assert set(load.entries) == {"Geometry.move"}
    assert set(seen) == {(7, "n")}
    assert load.document["checked"]["content"] is True
    load.assert_equal_counts()


def test_an_overdue_call_of_ones_own_fails_and_the_connection_stays(tmp_path: Path) -> None:
    file = own_locustfile(tmp_path, OWN.format(attributes="pass"))
    with fake_server(answering(_never_after(30))) as address:
        load = load_with(
            *(address, tmp_path, "--call-timeout", "0.3"), users=1, enough=32, locustfile=file
        )
    assert load.count(OWN_LABEL) == 30
    assert set(load.failures) == {"DeadlineExceeded: no answer within the deadline"}
    assert load.times["connections", "connect"]["count"] == 1
    assert ("connections", "reconnect") not in load.times
    failed = load.times[OWN_LABEL, "failed"]
    assert 300_000 <= failed["p50_us"] < 1_500_000


TWICE = """
from locust import task
from capnp_rig.loadtest.capnp_user import CapnpUser

class OwnUser(CapnpUser):
    @task
    def own(self):
        for text in ("abc", "def"):
            self.call("read", {"request": {"content": text}})
"""


def test_a_user_that_waits_for_its_turn_stops_at_once(tmp_path: Path) -> None:
    """Whether it waits for a call to be due when it is to stop, or asks for one after that."""

    called_s: list[float] = []

    def reply(call: Called) -> EncodedStruct:
        called_s.append(time.monotonic())
        time.sleep(0.2)
        return _reversed(call)

    file = own_locustfile(tmp_path, TWICE)
    with fake_server(answering(reply)) as address:
        load = load_with(
            *(address, tmp_path, "--rate", "40", "--stop-timeout", "20"),
            users=20,
            enough=20,
            locustfile=file,
        )
        ended_s = time.monotonic()
    assert load.done.status == 0, load.done.output
    assert load.count(OWN_LABEL) > 5
    # Not the 20 s that users may take to stop.
    assert ended_s - called_s[-1] < 15
    unchecked = "content not checked: OwnUser MessageStream.read has neither check nor expect"
    assert load.document["checked"] | {"unchecked_codes": []} == {
        "content": False,
        "unchecked": [unchecked],
        "unchecked_codes": [],
    }


WAITING = """
from locust import constant
from capnp_rig.loadtest.capnp_user import ReverseUser

class SlowUser(ReverseUser):
    wait_time = constant(0.1)
"""


def test_a_ready_user_with_a_wait_time_makes_rounds(server: str, tmp_path: Path) -> None:
    file = own_locustfile(tmp_path, WAITING)
    load = load_with(
        *(server, tmp_path, "SlowUser", "--in-flight", "3"),
        users=1,
        seconds=2,
        locustfile=file,
    )
    assert load.done.status == 0, load.done.output
    count = load.count("SlowUser MessageStream.read")
    assert count % 3 == 0
    assert 3 * 2 < count <= 3 * 21
    assert load.times["connections", "connect"]["count"] == 1
    assert ("connections", "reconnect") not in load.times


HEARD = """
import json
from locust import events
from capnp_rig.loadtest.capnp_user import ReverseUser

told = []

@events.request.add_listener
def hear(request_type, name, response_time, response_length, exception, start_time, **_):
    told.append([request_type, name, response_time, response_length, repr(exception), start_time])

@events.quitting.add_listener
def write(**_):
    with open({path!r}, "w") as stream:
        json.dump(told, stream)
"""


def test_who_listens_to_requests_hears_of_each(tmp_path: Path) -> None:
    file = own_locustfile(tmp_path, HEARD.format(path=str(tmp_path / "told.json")))
    before_s = time.time()
    with lying_server(wrong_every=100) as liar:
        load = load_with(liar.address, tmp_path, "--stop-timeout", "5", locustfile=file)
    told = json.loads((tmp_path / "told.json").read_text())
    assert len(told) == load.entries["MessageStream.read"]["num_requests"] > 200
    assert {(kind, name) for kind, name, *_ in told} == {("capnp", "MessageStream.read")}
    outcomes = Counter(exception for *_, exception, _ in told)
    assert outcomes == {
        "None": load.count(),
        "WrongReply('wrong reply')": sum(load.failures.values()),
    }
    assert all(before_s < start_s < time.time() for *_, start_s in told)
    assert all(length > 32 for _, _, _, length, exception, _ in told if exception == "None")


BUGGY = """
from capnp_rig.loadtest.locust_rig import user_group
from capnp_rig.loadtest.capnp_user import ReverseUser

workload = user_group.load_any_workload

def buggy(*args, **kwargs):
    made = workload(*args, **kwargs)

    class Buggy:
        def __getattr__(self, name):
            return getattr(made, name)

        def requests(self, user, in_flight):
            for _, request in zip(range(100), made.requests(user, in_flight)):
                yield request
            raise KeyError("a bug")

    return Buggy()

user_group.load_any_workload = buggy
"""


@pytest.mark.parametrize(
    ("processes", "loop"),
    [
        (False, ()),
        (True, ("--rate", "1000")),
        pytest.param(True, (), marks=pytest.mark.nightly),
        pytest.param(False, ("--rate", "1000"), marks=pytest.mark.nightly),
    ],
)
def test_a_bug_ends_the_run_and_says_so(
    server: str, tmp_path: Path, loop: tuple[str, ...], *, processes: bool
) -> None:
    file = own_locustfile(tmp_path, BUGGY)
    more = two_processes() if processes else ()
    # Long before its time is over, which is after the deadline of the test.
    done = run_locust(
        *("-H", server, "--headless", "--only-summary", "-t", "300s", "-u", "2", *loop, *more),
        locustfile=file,
    )
    assert done.status == 1, done.output
    assert "The run ends: RuntimeError" in done.output or "The run ends: KeyError" in done.output
    # Once per process, not once per call.
    assert done.output.count("Traceback") <= 4


# --- Locust's own numbers ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def fed() -> list[Any]:
    """What `stats_bridge_check` prints: the same calls, fired one by one and fed in bulk."""
    done = subprocess.run(
        [sys.executable, "-P", str(ROOT / "tests" / "stats_bridge_check.py")],
        env={},
        capture_output=True,
        check=True,
        timeout=60,
    )
    found: list[Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("how", [1, 2])
def test_fed_in_bulk_locust_has_the_same_numbers(fed: list[Any], how: int) -> None:
    one_by_one, in_bulk = fed[0], fed[how]
    assert one_by_one.keys() == in_bulk.keys()
    for name in ("Foo.bar", "Foo.baz", "Aggregated"):
        for key, value in one_by_one[name].items():
            found = in_bulk[name][key]
            assert found == (pytest.approx(value) if isinstance(value, float) else value), key
    assert len(one_by_one["errors"]) == 6
    for (key, error), (other_key, other) in zip(
        one_by_one["errors"], in_bulk["errors"], strict=True
    ):
        assert key == other_key
        # To the precision of a float of seconds since 1970.
        assert other == {
            **error,
            "first_seen": pytest.approx(error["first_seen"], abs=1e-6),
            "last_seen": pytest.approx(error["last_seen"], abs=1e-6),
        }


def test_an_event_says_what_it_is_about(fed: list[Any]) -> None:
    *told, requests = fed[3]
    # In the order in which they ended; the seven bytes are shared by the two that were answered.
    assert told == [
        ["Foo.bar", 1.5, 4, "None"],
        ["Foo.bar", 1.0, 0, "Disconnected('gone')"],
        ["Foo.bar", 3.5, 3, "None"],
    ]
    assert requests == 3

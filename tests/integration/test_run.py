"""``loadtest run`` against servers whose behaviour is known."""

import functools
import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pytest
from deadline import eventually
from fake_server import answering, fake_server
from load_services import DELAY_S, STALL_S
from running_rig import command, environment
from running_server import ROOT, Running, running_server

from capnp_rig.client import ReverseClient
from capnp_rig.loadtest.results.load_samples import read_load, read_result
from capnp_rig.loadtest.stats.run_summary import figures
from capnp_rig.schema import message
from capnp_rig.wire.encoding.encoded import EncodedStruct
from capnp_rig.wire.rpc.connection import Called
from capnp_rig.wire.rpc.interfaces import compile_interface

READ = compile_interface(message.MessageStream).methods["read"]
SHORT_STALL_S = 0.3


def run_command(address: str, folder: Path, *options: str) -> list[str]:
    # Short runs, beside other tests, are void.
    where = ("--json", "--results", str(folder), "--no-pin", "--allow-void")
    return command("run", address, *where, *options)


def loadtest_run(address: str, folder: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        run_command(address, folder, *options),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=80,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


@contextmanager
def serving(service: str) -> Iterator[Running]:
    options = ("--workers", "1", "--service", f"load_services:{service}")
    with running_server(*options, cwd=ROOT / "tests") as server:
        yield server


def address_of(server: Running) -> str:
    return f"127.0.0.1:{server.port}"


def reversed_text(called: Called) -> bytes:
    text: str = READ.params.open(called.params).request.content
    return text[::-1].encode()


@pytest.fixture(scope="module")
def server_of() -> Iterator[Callable[[str], str]]:
    """Return the address of a server with an engine; each is started once, when it is wanted."""
    with ExitStack() as stack:

        @functools.cache
        def start(engine: str) -> str:
            server = running_server("--workers", "1", "--engine", engine)
            return address_of(stack.enter_context(server))

        yield start


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        ("wire", []),
        ("pycapnp", []),
        pytest.param("pycapnp", ["--rate", "5000"], marks=pytest.mark.nightly),
        ("wire", ["--rate", "5000", "--processes", "2"]),
        ("wire", ["--check", "id"]),
        ("wire", ["--payload", "300KiB"]),
    ],
)
def test_a_good_server_answers_every_call(
    server_of: Callable[[str], str], tmp_path: Path, engine: str, options: list[str]
) -> None:
    load = ["--connections", "4", "--in-flight", "4", "--warmup", "100ms", "--duration", "400ms"]
    status, summary, said = loadtest_run(server_of(engine), tmp_path, *load, *options)
    assert status == 0, said
    assert summary["errors"] == 0
    assert summary["calls"] > 5
    assert summary["server_cpu_us_per_call"] > 0
    if "--rate" in options:
        # What is sent of it late in the window is the machine's, too.
        assert 1600 < summary["offered"] < 2400
    (folder,) = tmp_path.iterdir()
    stored = json.loads((folder / "run.json").read_text())
    assert stored["summary"].items() <= summary.items()


@pytest.mark.usefixtures("pictures")
def test_every_figure_can_be_rebuilt_from_the_raw_data(tmp_path: Path) -> None:
    load = ["--connections", "4", "--duration", "1500ms", "--rate", "3000", "--processes", "2"]
    with running_server("--workers", "2") as server:
        status, printed, said = loadtest_run(
            *(address_of(server), tmp_path, *load, "--repeats", "2"),
            *("--name", "mine", "--fail-if", "calls/s>1"),
        )
    assert status == 1, said
    (folder,) = tmp_path.iterdir()
    result = read_result(folder)
    assert result.samples is not None
    found = read_load(result.document, result.samples)
    assert json.loads(json.dumps(found.summary().to_json())).items() <= printed.items()
    assert printed["response_us"].keys() == {"mean", "p50", "p90", "p95", "p99", "p99.9", "max"}
    times = [printed["response_us"][name] for name in ("p50", "p90", "p95", "p99", "max")]
    assert times == sorted(times)
    assert printed["folder"] == str(folder)
    assert printed["name"] == result.document["name"] == "mine"
    assert printed["config"] == result.document["config"]
    assert printed["environment"] == result.document["environment"]
    assert printed["figures"] == result.document["figures"]
    assert len(printed["intervals"]) == len(printed["figures"])
    assert sum(repeat["calls"] for repeat in printed["repeats"]) == printed["calls"]
    assert [text[:9] for text in printed["violations"]] == ["calls/s>1"]
    rebuilt = [figure.to_json() for figure in figures(found.summary())]
    assert json.loads(json.dumps(rebuilt)) == result.document["figures"]
    # A time series of both sides, and the warm-up kept apart.
    assert {usage.role for usage in found.usage} == {"server", "generator"}
    assert {usage.name for usage in found.usage} >= {"supervisor", "worker 0", "worker 1"}
    assert {-1, 0, 1} <= found.windows(0).keys() <= {-1, 0, 1, 2}
    files = {file.name for file in folder.iterdir()}
    assert files >= {"run.json", "samples.jsonl.gz", "latency.hlog", "latency.hgrm", "report.html"}
    assert "<svg" in (folder / "report.html").read_text("utf-8")


@pytest.mark.parametrize("loop", [[], ["--rate", "2000"]])
def test_as_many_calls_as_asked_for(tmp_path: Path, loop: list[str]) -> None:
    load = ["--calls", "1003", "--connections", "5", "--in-flight", "3", "--processes", "2"]
    with serving("Counting") as server:
        status, summary, said = loadtest_run(address_of(server), tmp_path, *load, *loop)
        with ReverseClient.connect(address_of(server)) as client:
            counted = int(client.read("count")) - 1
    assert status == 0, said
    assert summary["calls"] == counted == 1003
    # Void, and says why: a hundred calls beyond p99 take 10,000.
    assert summary["verdict"] == "void"


def test_g3_one_wrong_byte_in_a_hundred_thousand_is_caught_and_fails_the_run(
    tmp_path: Path,
) -> None:
    with serving("LyingOnce") as server:
        status, summary, said = loadtest_run(
            *(address_of(server), tmp_path, "--calls", "100000"),
            *("--connections", "1", "--in-flight", "64"),
        )
    assert status == 1
    assert summary["errors_by_kind"] == {"WrongReply: wrong reply": 1}
    assert (summary["calls"], summary["verdict"]) == (99_999, "failed")
    assert "failed: 1 calls failed" in said


def test_g1_a_stall_shows_in_the_open_loop_and_not_in_service_time_alone(tmp_path: Path) -> None:
    calls = 0

    def stall(called: Called) -> EncodedStruct:
        nonlocal calls
        calls += 1
        # In the middle: the warm-up has a hundred, the measured window four hundred.
        if calls == 300:
            time.sleep(SHORT_STALL_S)
        return READ.results.write({"chunk": reversed_text(called)})

    with fake_server(answering(stall)) as address:
        _, summary, _ = loadtest_run(
            *(address, tmp_path, "--connections", "1", "--in-flight", "1", "--warmup", "500ms"),
            *("--rate", "200", "--arrivals", "fixed", "--duration", "2s"),
        )
    # About 60 of 400 calls were due while nothing was answered: a seventh waited, on average half
    # of the stall. In service time it is one call of 400.
    assert summary["response_us"]["p99"] > SHORT_STALL_S * 0.5e6
    assert summary["service_us"]["p99"] < SHORT_STALL_S * 0.5e6
    assert summary["service_us"]["max"] > SHORT_STALL_S * 0.9e6


@pytest.mark.parametrize(
    ("rate", "arrivals"),
    [
        ("10000000", "poisson"),
        *(
            pytest.param(rate, arrivals, marks=pytest.mark.nightly)
            for rate, arrivals in [("300000", "fixed"), ("400000", "poisson"), ("3000000", "fixed")]
        ),
    ],
)
def test_above_capacity_a_run_answers_what_it_can_and_ends_on_time(
    server_of: Callable[[str], str], tmp_path: Path, rate: str, arrivals: str
) -> None:
    address = server_of("wire")
    load = ("--connections", "8", "--warmup", "100ms", "--duration", "400ms")
    began_s = time.monotonic()
    _, closed, said = loadtest_run(address, tmp_path, *load)
    closed_s = time.monotonic() - began_s
    status, summary, said = loadtest_run(
        *(address, tmp_path, *load, "--rate", rate, "--arrivals", arrivals)
    )
    # It took 41 s to make up 3,000,000 calls that nobody could send.
    assert time.monotonic() - began_s < 3 * closed_s + 20
    assert (status, summary["errors"]) == (0, 0), said
    assert summary["verdict"] == "void"
    offered, sent = summary["offered"], summary["sent"]
    assert offered == pytest.approx(0.4 * float(rate), rel=0.01)
    assert summary["calls"] == sent < offered
    assert offered - sent <= summary["held_back"] <= offered
    # They are within a tenth of each other where nothing else runs.
    assert summary["calls"] > 0.1 * closed["calls"], said
    assert (closed["offered"], closed["held_back"]) == (None, 0)


@pytest.mark.nightly
def test_a_stall_of_a_tenth_of_the_time_is_the_p99_9_of_the_open_loop(tmp_path: Path) -> None:
    with serving("Stalling") as server:
        _, summary, _ = loadtest_run(
            *(address_of(server), tmp_path, "--connections", "8", "--rate", "1000"),
            *("--warmup", "500ms", "--duration", "5s"),
        )
    # A tenth of all calls were due while it stalled; one in a hundred waited 0.9 of that.
    assert summary["response_us"]["p99.9"] > STALL_S * 0.95e6
    assert summary["response_us"]["p99"] > STALL_S * 0.8e6
    # Those that were sent before it are eight, one a connection.
    assert summary["service_us"]["p99"] < STALL_S * 0.5e6


@pytest.mark.alone
def test_an_injected_delay_shows_as_what_it_is(tmp_path: Path) -> None:
    load = ("--connections", "1", "--calls", "800")
    # A virtual CPU that was idle for longer wakes up later: 300 µs were seen as 334.
    expected = pytest.approx(DELAY_S * 1e6, rel=0.25)
    differences: list[float] = []
    # Both delay, so that the generator waits, and wakes up, alike.
    with serving("Delaying") as delaying, serving("DelayingMore") as delaying_more:
        # Pairs, one after the other: what else the machine does changes slowly. More of them
        # while it is busy; a tool that was off by so much would be so with any number.
        while len(differences) < 12:
            p50_us = [
                loadtest_run(address_of(server), tmp_path, *load)[1]["service_us"]["p50"]
                for server in (delaying, delaying_more)
            ]
            differences.append(p50_us[1] - p50_us[0])
            if len(differences) >= 3 and median(differences) == expected:
                break
    assert median(differences) == expected


def test_any_schema_with_templates_and_expected_results(tmp_path: Path) -> None:
    # Of an interface that inherits what it has from a file in a folder of the import path.
    (tmp_path / "probing.capnp").write_text(
        '@0xb8a5a1cb73f3b200;\ninterface Probing extends(import "/probe.capnp".Probe) {}\n'
    )
    data = ROOT / "tests" / "data"
    schema = ("--schema", f"{tmp_path}/probing.capnp", f"-I{tmp_path}", "-I", str(data))
    params = tmp_path / "params.jsonl"
    params.write_text('{"kinds": {"text": "{{uuid}}"}}\n\n{"kinds": {"text": "ab", "data": ""}}\n')
    load = ("--connections", "2", "--calls", "200", *schema, "--method", "lengths")
    load += ("--params", f"@{params}")
    with running_server(
        *("--workers", "1", "--service", "fault_services:Probe"), cwd=ROOT / "tests"
    ) as server:
        results = tmp_path / "results"
        status, summary, said = loadtest_run(
            *(address_of(server), results, *load, "--expect", '{"text": 36}\n{"text": 2}')
        )
        assert (status, summary["calls"]) == (0, 200), said
        status, summary, _ = loadtest_run(
            *(address_of(server), results, *load, "--expect", '{"text": 36}\n{"text": 3}')
        )
    assert status == 1
    assert summary["errors_by_kind"] == {"WrongReply: wrong reply: field text": 100}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--schema", "no.capnp"], "no schema file at no.capnp"),
        (
            ["--schema", "records.capnp", "-I", "/no"],
            "no folder at /no, which the import path (-I)",
        ),
        (["--method", "write"], "write"),
        (["--params", '{"request": {"contents": "x"}}'], "contents"),
        (["--params", '{"request": '], "params line 1"),
        (["--params", "@no.json"], "cannot read no.json"),
        (["--rate", "fast"], "bad rate 'fast'"),
        (["--payload", "1GiB"], "bad payload '1GiB'"),
        (["--calls", "5", "--duration", "1s"], "give --duration or --calls, not both"),
        (["--fail-if", "slow"], "bad condition 'slow'"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, options: list[str], said: str) -> None:
    status, _, stderr = loadtest_run("127.0.0.1:1", tmp_path, *options)
    assert (status, len(stderr.splitlines())) == (2, 1)
    assert said in stderr


def test_no_server_is_one_line(tmp_path: Path) -> None:
    status, _, stderr = loadtest_run("127.0.0.1:1", tmp_path, "--duration", "100ms")
    assert (status, len(stderr.splitlines())) == (1, 1)
    assert "cannot load the server" in stderr


def test_a_threshold_that_is_passed_fails_the_run(
    server_of: Callable[[str], str], tmp_path: Path
) -> None:
    load = ["--connections", "1", "--warmup", "0s", "--duration", "300ms"]
    server = server_of("wire")
    status, _, said = loadtest_run(
        *(server, tmp_path, *load, "--fail-if", "p50>1us", "--fail-if", "errors>0.1%")
    )
    fine, _, _ = loadtest_run(server, tmp_path, *load, "--fail-if", "calls/s<1")
    assert (status, fine) == (1, 0)
    assert said.count("failed: ") == said.count("failed: p50>1us: ") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_g6_a_signal_ends_the_run_and_leaves_its_results(
    tmp_path: Path, number: signal.Signals
) -> None:
    with serving("Counting") as server:
        process = subprocess.Popen(
            run_command(address_of(server), tmp_path, "--duration", "60s", "--warmup", "0s"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        try:
            with ReverseClient.connect(address_of(server)) as client:
                eventually(lambda: int(client.read("count")) > 1000, within_s=50)
            process.send_signal(number)
            out, err = process.communicate(timeout=40)
        finally:
            process.kill()
            process.wait(5)
    assert process.returncode == 128 + number, err
    summary = json.loads(out)
    assert summary["calls"] > 0
    assert summary["errors"] == 0
    assert summary["reasons"][0].startswith("interrupted after ")
    (folder,) = tmp_path.iterdir()
    stored = json.loads((folder / "run.json").read_text())
    assert stored["summary"].items() <= summary.items()


def test_an_engine_that_is_killed_voids_the_run_and_not_the_others_calls(tmp_path: Path) -> None:
    with serving("Counting") as server:
        load = ("--duration", "2s", "--warmup", "0s", "--processes", "2")
        strict = [
            part
            for part in run_command(address_of(server), tmp_path, *load)
            if part != "--allow-void"
        ]
        process = subprocess.Popen(
            strict, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
        )
        try:
            with ReverseClient.connect(address_of(server)) as client:
                eventually(lambda: int(client.read("count")) > 500, within_s=50)
            engines = psutil.Process(process.pid).children()
            assert len(engines) == 2
            engines[1].kill()
            out, err = process.communicate(timeout=40)
        finally:
            process.kill()
            process.wait(5)
    assert process.returncode == 5, err
    summary = json.loads(out)
    cause = "lost in the run: engine 1 of 2: the engine was ended by SIGKILL"
    assert (summary["verdict"], summary["reasons"][0]) == ("void", cause)
    assert (summary["calls"] > 100, summary["errors"]) == (True, 0)
    (folder,) = tmp_path.iterdir()
    result = read_result(folder)
    assert result.load.summary().to_json()["reasons"] == summary["reasons"]
    assert {figure.verdict for figure in result.figures} == {"void"}


def test_a_place_that_cannot_be_written_is_told_before_the_load(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    # There is no server: that would be told next.
    status, _, said = loadtest_run("127.0.0.1:1", tmp_path / "file" / "results")
    assert (status, said) == (1, f"loadtest: {tmp_path}/file/results: Not a directory\n")
    # As on a full disk.
    limited = ["bash", "-c", 'ulimit -f 100; exec "$@"', "bash"]
    done = subprocess.run(
        [*limited, *run_command("127.0.0.1:1", tmp_path / "results")],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=30,
        check=False,
    )
    assert done.stderr == f"loadtest: {tmp_path}/results: File too large\n"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_run_whose_result_cannot_be_written_is_printed(tmp_path: Path) -> None:
    with serving("Counting") as server:
        process = subprocess.Popen(
            run_command(address_of(server), tmp_path / "results", "--duration", "3s"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        try:
            with ReverseClient.connect(address_of(server)) as client:
                # More than those that ask for it.
                eventually(lambda: int(client.read("count")) > 1000, within_s=50)
            (tmp_path / "results").write_text("a file by now")
            out, err = process.communicate(timeout=40)
        finally:
            process.kill()
            process.wait(5)
    assert process.returncode == 1
    assert json.loads(out)["calls"] > 0
    assert re.search(rf"^loadtest: {tmp_path}/results/\S+: Not a directory$", err, re.MULTILINE)
    assert "Traceback" not in err


def test_a_repeat_that_fails_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    connections = 0

    def serve_once(connection: socket.socket) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            answering(lambda called: READ.results.write({"chunk": reversed_text(called)}))(
                connection
            )

    with fake_server(serve_once) as address:
        status, summary, said = loadtest_run(
            address, tmp_path, "--connections", "1", "--calls", "50", "--repeats", "3"
        )
    assert (status, summary["calls"]) == (1, 50), said
    assert "repeat 2 of 3: cannot load the server: " in said.splitlines()[-1]
    (folder,) = tmp_path.iterdir()
    assert read_result(folder).load.summary().calls == 50


def test_each_worker_tells_its_calls_and_its_collections(tmp_path: Path) -> None:
    options = ("--workers", "2", "--service", "load_services:Collecting")
    with running_server(*options, cwd=ROOT / "tests") as server:
        load = ("--duration", "1.2s", "--connections", "3", "--in-flight", "4")
        status, summary, said = loadtest_run(address_of(server), tmp_path, *load)
    assert status == 0, said
    (folder,) = tmp_path.iterdir()
    result = read_result(folder)
    found = read_load(result.document, result.samples or ())
    supervisor, *workers = found.repeats[0].server
    assert (supervisor.name, supervisor.calls, supervisor.gc) == ("supervisor", 0, None)
    calls = [one.calls or 0 for one in workers]
    # The edges of the window are not quite the same everywhere.
    assert sum(calls) == pytest.approx(summary["calls"], rel=0.1)
    for one, answered in zip(workers, calls, strict=True):
        assert one.gc is not None
        assert one.gc.count == pytest.approx(answered / 50, rel=0.1, abs=3)
        assert one.gc.pause_ns > 0
    sampled = [usage for usage in found.usage if usage.name == "worker 0"]
    counts = [usage.gc.count for usage in sampled if usage.gc is not None]
    assert len(counts) == len(sampled) > 1
    assert counts[-1] > counts[0]
    assert all(usage.gc is not None for usage in found.usage if usage.role == "generator")


def test_connections_that_are_lost_are_made_anew_and_counted(tmp_path: Path) -> None:
    answers = 0

    def hang_up(called: Called) -> EncodedStruct | None:
        nonlocal answers
        answers += 1
        if answers % 50 == 0:
            raise ConnectionError
        return READ.results.write({"chunk": reversed_text(called)})

    with fake_server(answering(hang_up)) as address:
        status, summary, _ = loadtest_run(
            *(address, tmp_path, "--connections", "2", "--calls", "200"),
        )
    assert status == 1
    assert set(summary["errors_by_kind"]) == {
        "Disconnected: the connection was lost: the server closed it"
    }
    assert summary["reconnects"] >= 2
    assert summary["calls"] + summary["errors"] == 200


def test_a_call_past_its_deadline_is_counted(tmp_path: Path) -> None:
    def silent(_called: Called) -> EncodedStruct | None:
        return None

    with fake_server(answering(silent)) as address:
        status, summary, _ = loadtest_run(
            *(address, tmp_path, "--connections", "2", "--calls", "2", "--timeout", "300ms")
        )
    assert status == 1
    assert summary["errors_by_kind"] == {"DeadlineExceeded: no answer within the deadline": 2}


def test_a_run_serves_its_figures_and_draws_what_it_scrapes(tmp_path: Path) -> None:
    # An address of its own: nobody else takes the port meanwhile.
    with closing(socket.create_server(("127.0.0.77", 0))) as held:
        address = f"127.0.0.77:{held.getsockname()[1]}"
    with serving("Reverse") as server:
        # Its own figures stand for those of a server.
        options = ("--duration", "2500ms", "--metrics", address, "--scrape", address)
        status, told, error = loadtest_run(f"127.0.0.1:{server.port}", tmp_path, *options)
    assert status == 0, error
    assert f"Metrics at http://{address}/metrics" in error
    result = read_result(told["folder"])
    (scraped,) = result.load.repeats[0].scrapes
    counted = [values["loadtest_calls_total"] for _, values in scraped.readings]
    assert counted == sorted(counted)
    # The last reading is after the last call; the warm-up's calls are counted too.
    assert counted[-1] >= told["calls"] > 0
    assert counted[-1] == scraped.readings[-1][1]["loadtest_latency_seconds_count"]
    assert "loadtest_calls_total" in (Path(told["folder"]) / "report.html").read_text()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--scrape", "ftp://a"), "bad URL 'ftp://a'"),
        (("--metrics", "nowhere"), "bad address 'nowhere'"),
        (("--metrics", "unix:/run/x"), "--metrics takes host:port, no Unix socket"),
        (("--scrape", "127.0.0.1:1"), "cannot scrape http://127.0.0.1:1/metrics: Connection"),
    ],
)
def test_what_cannot_be_scraped_or_served_is_told_before_the_load(
    tmp_path: Path, options: tuple[str, ...], what: str
) -> None:
    status, _, error = loadtest_run("127.0.0.1:1", tmp_path, *options)
    assert status == (2 if "bad" in what else 1)
    assert what in error
    assert error.count("\n") == 1

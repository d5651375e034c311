import csv
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from deadline import eventually
from forked_locust import locust_in_forks
from lying_server import hanging_up, lying_server
from running_locust import (
    Finished,
    command,
    finish,
    free_port,
    locust,
    read_requests,
    read_results,
    run_locust,
)
from running_server import Running, running_server

from capnp_rig.loadtest.live.exporter import Exporter
from capnp_rig.loadtest.live.figures import LiveFigures
from capnp_rig.loadtest.report.units import number_text
from capnp_rig.loadtest.results.load_samples import read_load
from capnp_rig.loadtest.scrape.series import ScrapeError, read_metrics
from capnp_rig.rigcli.address import Address

HEADLESS = ("--headless", "--only-summary")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_server("--workers", "1", "--log-level", "warning") as running:
        yield _address(running)


def _address(running: Running) -> str:
    return f"{running.host}:{running.port}"


def _outputs(folder: Path) -> tuple[str, ...]:
    return ("--results", str(folder / "results"), "--json-file", str(folder / "locust"))


def _await_text(file: Path, text: str) -> None:
    """Wait until a run has written a text into one of its files."""
    eventually(lambda: file.exists() and text in file.read_text(), within_s=40, what=text)


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _assert_good(done: Finished, folder: Path, *, processes: int, status: int = 0) -> None:
    assert done.status == status, done.output
    found = read_results(folder / "results")
    assert found.total.failures == {}
    assert len(found.reports) == processes
    assert all(report.calls and report.final for report in found.reports)
    assert not any(report.unfinished for report in found.reports)
    # Both count the same calls; the rig's own histograms add up to them.
    assert found.total.answered == read_requests(folder / "locust") > 100
    # The samples say what the summary says.
    assert found.summary().calls == found.document["summary"]["calls"] == found.total.answered
    assert "Traceback" not in done.output


def test_g2_a_run_counts_its_calls_in_microseconds(server: str, tmp_path: Path) -> None:
    load = ("-u", "4", "-r", "4", *_outputs(tmp_path))
    done = run_locust("-H", server, *HEADLESS, *load, enough=150)
    _assert_good(done, tmp_path, processes=1)
    entries = json.loads((tmp_path / "locust.json").read_text())
    assert [entry["name"] for entry in entries] == ["MessageStream.read"]
    # Locust alone would have whole milliseconds here.
    assert any(not float(time_ms).is_integer() for time_ms in entries[0]["response_times"])


def test_several_calls_in_flight_finish_with_the_run(server: str, tmp_path: Path) -> None:
    load = ("-u", "2", "-r", "2", "--in-flight", "8")
    # Larger than one read: the replies come one by one.
    load += ("--payload-bytes", "30000")
    done = run_locust("-H", server, *HEADLESS, *load, *_outputs(tmp_path), enough=150)
    _assert_good(done, tmp_path, processes=1)


def test_forked_processes_add_up(server: str, tmp_path: Path) -> None:
    load = ("-u", "4", "-r", "4", "--processes", "2")
    bind = ("--master-bind-host", "127.0.0.1", "--master-port", str(free_port()))
    port = ("--master-bind-port", bind[-1])
    load = (*load, *bind, *port, *_outputs(tmp_path))
    done = run_locust("-H", server, *HEADLESS, *load, enough=150)
    _assert_good(done, tmp_path, processes=2)


def test_a_master_and_its_worker_add_up(server: str, tmp_path: Path) -> None:
    port = str(free_port())
    master = ("--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port)
    load = ("-u", "4", "-r", "4", "-t", "3s", "--expect-workers", "1", *_outputs(tmp_path))
    with locust("--worker", "--master-host", "127.0.0.1", "--master-port", port) as worker:
        done = run_locust("-H", server, *HEADLESS, *master, *load)
        assert finish(worker).status == 0
    _assert_good(done, tmp_path, processes=1)


def test_g3_one_wrong_byte_is_reported(tmp_path: Path) -> None:
    with lying_server(wrong_every=50) as liar:
        load = ("-u", "2", "-r", "2")
        done = run_locust("-H", liar.address, *HEADLESS, *load, *_outputs(tmp_path), enough=150)
        lies = liar.lies
    assert done.status == 1, done.output
    found = read_results(tmp_path / "results")
    assert found.total.failures == {"WrongReply: wrong reply": lies}
    assert "Wrong reply: ReverseUser MessageStream.read" in done.output
    assert len(done.output.splitlines()) < 60


def test_g5_a_killed_server_is_counted_by_kind(tmp_path: Path) -> None:
    with running_server("--workers", "1", "--log-level", "warning") as running:
        load = ("-u", "8", "-r", "8", "--csv", str(tmp_path / "l"), *_outputs(tmp_path))
        with locust("-H", _address(running), *HEADLESS, *load) as process:
            _await_text(tmp_path / "l_stats.csv", "MessageStream.read")
            running.process.kill()
            _await_text(tmp_path / "l_failures.csv", "ConnectError")
            process.terminate()
            done = finish(process)
    assert done.status == 143
    found = read_results(tmp_path / "results")
    kinds = {kind.partition(":")[0] for kind in found.total.failures}
    assert kinds <= {"Disconnected", "ConnectError"}
    assert "ConnectError" in kinds
    # Eight users, waits of 0.1 to 0.8 s: a busy loop would have made thousands.
    assert sum(found.total.failures.values()) < 200
    assert len(done.output.splitlines()) < 60


def test_g5_a_server_that_hangs_up_is_not_called_in_a_busy_loop(tmp_path: Path) -> None:
    with hanging_up() as address:
        load = ("-u", "4", "-r", "4")
        done = run_locust("-H", address, *HEADLESS, *load, *_outputs(tmp_path), enough=8)
    assert done.status == 1
    found = read_results(tmp_path / "results")
    kinds = {kind.partition(":")[0] for kind in found.total.failures}
    assert kinds == {"Disconnected"}
    assert 4 <= sum(found.total.failures.values()) < 100


def test_g5_a_wrong_port_ends_with_an_error(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    done = run_locust("-H", address, *HEADLESS, "-u", "2", *_outputs(tmp_path), enough=2)
    assert done.status == 1
    found = read_results(tmp_path / "results")
    assert "no call was answered rightly" in found.document["summary"]["reasons"]
    assert "The run does not count: no call was answered rightly" in done.output
    assert {kind.partition(":")[0] for kind in found.total.failures} == {"ConnectError"}
    assert "Traceback" not in done.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_g6_a_signal_leaves_the_results_so_far(
    server: str, tmp_path: Path, number: signal.Signals
) -> None:
    load = ("-u", "2", "-r", "2", "--csv", str(tmp_path / "l"), *_outputs(tmp_path))
    with locust("-H", server, *HEADLESS, *load) as process:
        _await_text(tmp_path / "l_stats.csv", "MessageStream.read")
        process.send_signal(number)
        done = finish(process)
    _assert_good(done, tmp_path, processes=1, status=128 + number)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_g6_a_signal_loses_no_worker(server: str, tmp_path: Path, *, is_terminal: bool) -> None:
    port = str(free_port())
    ports = ("--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port)
    load = ("-u", "4", "-r", "4", "--processes", "2", "--csv", str(tmp_path / "l"))
    with locust("-H", server, *HEADLESS, *load, *ports, *_outputs(tmp_path)) as process:
        # Workers report every 3 s; what they saw since then is what could be lost.
        _await_text(tmp_path / "l_stats.csv", "MessageStream.read")
        if is_terminal:
            # Ctrl-C reaches all processes.
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.terminate()
        done = finish(process)
    _assert_good(done, tmp_path, processes=2, status=130 if is_terminal else 143)


NO_HOST = "no server to load: give its address as -H host:port"
BAD_HOST = (
    "argument -H/--host: bad address 'http://localhost': "
    "expected host:port, [ipv6]:port or unix:/path"
)


MISTAKES: list[tuple[tuple[str, ...], str]] = [
    ((), NO_HOST),
    (("--processes", "2"), NO_HOST),
    (("-H", "http://localhost"), BAD_HOST),
    (("-H", "h:1", "--payload-bytes", "0"), "argument --payload-bytes: 0 is less than 1"),
    (
        ("-H", "h:1", "--rate", "-1"),
        "argument --rate: bad rate '-1': expected closed, or 0 < calls/s <= 10,000,000",
    ),
    (
        ("-H", "h:1", "--processes", "2", "--fail-if", "p99>2"),
        "argument --fail-if: bad condition 'p99>2': a time needs us, ms or s",
    ),
    (
        ("-H", "h:1", "--pin", "x"),
        "argument --pin: bad CPU 'x': expected auto, or numbers such as 1 or 2,3",
    ),
    (("-H", "h:1", "-t", "0s"), "argument -t/--run-time: 0s is no time to run"),
    (("-H", "h:1", "--in-flight", "4097"), "argument --in-flight: 4097 is more than 4096"),
    (("-H", "h:1", "--results", "/dev/null"), "argument --results: /dev/null is no folder"),
    (
        ("-H", "h:1", "--processes", "2", "--method", "shout"),
        "no method 'shout' in MessageStream: it has read",
    ),
    (
        ("-H", "h:1", "--params", "@none.json"),
        "cannot read none.json: No such file or directory",
    ),
]


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Finished]:
    """How Locust ends with each of the arguments that are mistakes."""
    runs = [args for args, _ in MISTAKES]
    done = locust_in_forks(
        [(*HEADLESS, "-t", "1s", *args) for args in runs], tmp_path_factory.mktemp("mistakes")
    )
    return dict(zip(runs, done, strict=True))


@pytest.mark.parametrize(("args", "line"), MISTAKES)
def test_a_mistake_is_one_line(
    mistakes: dict[tuple[str, ...], Finished], args: tuple[str, ...], line: str
) -> None:
    done = mistakes[args]
    # Locust names itself after the file that python started.
    expected = f"__main__.py: error: {line}"
    assert (done.status, done.output.splitlines()) == (2, [expected])


def test_a_unix_socket_and_a_text_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with running_server("--workers", "1", address=f"unix:{path}"):
        load = ("-u", "1", "--text", "grüße 🙂", *_outputs(tmp_path))
        done = run_locust("-H", f"unix:{path}", *HEADLESS, *load, enough=150)
    _assert_good(done, tmp_path, processes=1)


OWN_LOCUSTFILE = """
from locust import task
from capnp_rig.loadtest.capnp_user import CapnpUser
from capnp_rig.loadtest.stats.failures import WrongReply

class OwnUser(CapnpUser):
    number = 0

    @task
    def own(self):
        while self.running:
            self.number += 1
            results = self.call("read", {"request": {"content": f"{self.number}"}})
            self.expect(bytes(results.chunk) == str(self.number)[::-1].encode())
            if self.number == 5:
                self.expect(False, "five is not liked")
"""


def test_a_user_class_of_ones_own(server: str, tmp_path: Path) -> None:
    file = tmp_path / "own_locustfile.py"
    file.write_text(OWN_LOCUSTFILE)
    load = ("-u", "1", *_outputs(tmp_path))
    done = run_locust("-H", server, *HEADLESS, *load, locustfile=file, enough=150)
    assert done.status == 1
    found = read_results(tmp_path / "results")
    assert found.total.answered > 100
    assert found.total.failures == {"WrongReply: five is not liked": 1}


def test_locusts_own_tables_have_microseconds(server: str, tmp_path: Path) -> None:
    files = ("--csv", str(tmp_path / "l"), "--html", str(tmp_path / "l.html"))
    done = run_locust("-H", server, *HEADLESS, "-u", "2", "-r", "2", *files, enough=150)
    assert done.status == 0, done.output
    rows = _rows(tmp_path / "l_stats.csv")
    for name in ("50%", "90%", "Min Response Time"):
        assert 0 < float(rows[0][name]) < 1000
        assert not float(rows[0][name]).is_integer()
    lines = [line for line in done.output.splitlines() if line.startswith("capnp")]
    # Average, minimum, maximum and median; then the percentiles.
    shown = [*lines[-2].split("|")[1].split(), *lines[-1].split()[2:5]]
    assert len(shown) == 7
    assert all(0 < float(time_ms) < 10_000 for time_ms in shown), lines
    assert re.search(r'"min_response_time": 0\.0*[1-9]', (tmp_path / "l.html").read_text())


@pytest.mark.usefixtures("pictures")
def test_the_rigs_table_is_printed_and_written(server: str, tmp_path: Path) -> None:
    load = ("-u", "2", "-r", "2", *_outputs(tmp_path))
    done = run_locust("-H", server, *HEADLESS, *load, enough=150)
    found = read_results(tmp_path / "results")
    rows = _rows(found.folder / "times.csv")
    assert [(row["label"], row["clock"]) for row in rows] == [
        ("ReverseUser MessageStream.read", "service"),
        ("connections", "connect"),
    ]
    times = found.total.times.service
    assert int(rows[0]["count"]) == times.count
    assert float(rows[0]["p99.99_us"]) * 1000 == times.percentile_ns(99.99)
    printed = done.output.partition("times in µs")[2].splitlines()
    headings = next(line for line in printed if line.startswith("┃")).strip("┃").split("┃")
    cells = next(line for line in printed if line.startswith("│")).strip("│").split("│")
    shown = {heading.strip(): cell.strip() for heading, cell in zip(headings, cells, strict=True)}
    assert [*shown][-6:] == ["p50", "p90", "p99", "p99.9", "p99.99", "max"]
    assert shown["max"] == number_text(times.max_ns / 1000)
    assert f"Results written to {found.folder}" in done.output
    for name in ("report.html", "latency.hlog", "latency.hgrm"):
        assert (found.folder / name).stat().st_size > 100
    assert "<svg" in (found.folder / "report.html").read_text("utf-8")
    usage = [sample for sample in found.samples if sample["sample"] == "usage"]
    assert {sample["role"] for sample in usage} == {"server", "generator"}
    # All but the supervisor, which answers no calls, tell of their garbage collections.
    assert {sample["name"] for sample in usage if sample["gc"] is None} == {"supervisor"}


@pytest.mark.parametrize(
    ("conditions", "status", "said"),
    [
        pytest.param((), 1, "", marks=pytest.mark.nightly),
        # 2 % are wrong.
        (("errors>5%",), 0, ""),
        (("errors>5%", "errors>1%"), 1, "failed: errors>1%: "),
        pytest.param(
            ("response.p50>1us",), 1, "failed: response.p50>1us: ", marks=pytest.mark.nightly
        ),
    ],
)
def test_conditions_decide_the_exit_status(
    tmp_path: Path, conditions: tuple[str, ...], status: int, said: str
) -> None:
    options = [part for condition in conditions for part in ("--fail-if", condition)]
    with lying_server(wrong_every=50) as liar:
        load = ("-u", "2", "-r", "2", *_outputs(tmp_path), *options)
        done = run_locust("-H", liar.address, *HEADLESS, *load, enough=150)
    assert done.status == status, done.output
    assert said in done.output
    violations = read_results(tmp_path / "results").document["violations"]
    assert len(violations) == bool(said)


def test_conditions_are_judged_on_the_master(server: str) -> None:
    port = str(free_port())
    ports = ("--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port)
    load = ("-u", "2", "-r", "2", "--processes", "2", "--fail-if", "calls/s>1")
    done = run_locust("-H", server, *HEADLESS, *load, *ports, enough=150)
    assert done.status == 1, done.output
    assert "failed: calls/s>1: " in done.output


def test_above_capacity_a_run_is_void_and_says_what_was_never_sent(
    server: str, tmp_path: Path
) -> None:
    load = ("-u", "2", "-r", "2", "--rate", "10000000", "-t", "2s", *_outputs(tmp_path))
    strict = [part for part in command("-H", server, *HEADLESS, *load) if part != "--allow-void"]
    done = subprocess.run(strict, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 5, done.stderr
    summary = read_results(tmp_path / "results").document["summary"]
    # Less than two seconds: the rate grows with the users.
    assert 1e6 < summary["offered"] < 3e7
    assert 100 < summary["calls"] <= summary["sent"] < summary["held_back"]
    assert summary["errors"] == 0
    assert f"{summary['offered']:,} offered, {summary['sent']:,} sent" in done.stderr + done.stdout


def test_a_folder_that_cannot_be_written_is_one_line(server: str, tmp_path: Path) -> None:
    parent = tmp_path / "results"
    load = ("-u", "1", "--results", str(parent), "--csv", str(tmp_path / "l"))
    with locust("-H", server, *HEADLESS, *load) as process:
        # By then the options have been read. Root may write anywhere, but not into a file.
        _await_text(tmp_path / "l_stats.csv", "MessageStream.read")
        parent.write_text("a file by now")
        process.terminate()
        done = finish(process)
    assert done.status == 1
    assert re.search(rf"locust: cannot write {parent}/\S+: Not a directory", done.output)
    # The run is not lost: its table is printed.
    assert "times in µs" in done.output
    assert "Traceback" not in done.output


WATCHES_INPUT = """
import os
from capnp_rig.loadtest.capnp_user import ReverseUser
from locust import events

def tell(**_):
    print("descriptor 0 is", os.readlink("/proc/self/fd/0"), flush=True)

events.quitting.add_listener(tell)
"""


@pytest.mark.usefixtures("pictures")
def test_nothing_is_opened_in_place_of_a_closed_input(server: str, tmp_path: Path) -> None:
    file = tmp_path / "watching.py"
    file.write_text(WATCHES_INPUT)
    load = command("-H", server, *HEADLESS, "-u", "1", "-t", "1s", locustfile=file)
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *load],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "descriptor 0 is /dev/null" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_run_serves_its_figures_and_keeps_what_it_scrapes(server: str, tmp_path: Path) -> None:
    address, host = f"127.0.0.78:{free_port()}", Address(host="127.0.0.1", port=0)
    with Exporter(host, lambda: LiveFigures(users=9)) as scraped_one:
        load = ("-u", "4", "-r", "4", *HEADLESS, "-t", "3s", "-H", server, *_outputs(tmp_path))
        watch = ("--metrics", address, "--scrape", scraped_one.url)
        with locust(*load, *watch) as process:
            page = eventually(lambda: _page(address, users=4), within_s=40)
            done = finish(process)
    assert done.status == 0, done.output
    assert "loadtest_calls_total" in page
    found = read_results(tmp_path / "results")
    (scraped,) = read_load(found.document, found.samples).repeats[0].scrapes
    assert len(scraped.readings) > 1
    assert all(values["loadtest_users"] == 9 for _, values in scraped.readings)


def _page(address: str, *, users: int) -> str | None:
    """Return the metrics of a run with so many users that has made calls; None before that."""
    try:
        with urlopen(f"http://{address}/metrics", timeout=5) as answer:
            values = read_metrics(answer.read().decode()).values
    except (OSError, ScrapeError):
        return None
    is_there = values.get("loadtest_users") == users and values["loadtest_calls_total"] > 0
    return " ".join(values) if is_there else None


def test_an_endpoint_that_cannot_be_scraped_is_told_before_the_load(server: str) -> None:
    done = run_locust(*HEADLESS, "-H", server, "--scrape", "127.0.0.1:1")
    assert done.status == 1
    assert "error: cannot scrape http://127.0.0.1:1/metrics: " in done.output
    assert "Traceback" not in done.output

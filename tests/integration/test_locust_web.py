"""The rig in Locust's web UI: tabs, the live page, and what a form may say."""

import contextlib
import json
import signal
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import psutil
import pytest
from deadline import eventually
from running_browser import browser_page
from running_locust import finish, free_port, locust, read_results
from running_server import Running, running_server


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running_server("--workers", "2", "--log-level", "warning") as running:
        yield running


@dataclass(frozen=True)
class Ui:
    """A Locust with its web UI."""

    base: str
    process: Any

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.base + path, timeout=20) as answer:
            return str(answer.read().decode())

    def stats(self) -> dict[str, Any]:
        """Return what the live page is told."""
        return dict(json.loads(self.get("/rig/stats")))

    def counted_by_locust(self) -> int:
        return int(json.loads(self.get("/stats/requests"))["stats"][-1]["num_requests"])

    def post(self, **fields: object) -> dict[str, Any]:
        form = {"user_count": 2, "spawn_rate": 2, **fields}
        data = urllib.parse.urlencode(form).encode()
        with urllib.request.urlopen(f"{self.base}/swarm", data, timeout=20) as answer:
            return dict(json.load(answer))

    def run(self, **fields: object) -> None:
        """Start a run, and wait for its first figures."""
        answer = self.post(**fields)
        assert answer["success"], answer
        eventually(self._is_running, within_s=40)

    def _is_running(self) -> bool:
        shown = self.stats()
        return bool(shown.get("is_running") and shown["times"])

    def stop(self) -> None:
        urllib.request.urlopen(f"{self.base}/stop", b"", timeout=20).close()
        eventually(lambda: not self.stats()["is_running"], within_s=40)


@contextmanager
def web_ui(address: str, *options: str, **more: Any) -> Iterator[Ui]:
    port = str(free_port())
    where = ("--web-host", "127.0.0.1", "--web-port", port)
    with locust("-H", address, *where, *options, **more) as process:
        ui = Ui(f"http://127.0.0.1:{port}", process)

        def answers() -> bool:
            assert process.poll() is None, process.communicate()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(port))):
                return True
            return False

        eventually(answers, within_s=40)
        yield ui


def _address(server: Running) -> str:
    return f"{server.host}:{server.port}"


def test_the_live_page_shows_percentiles_and_processes(server: Running) -> None:
    with web_ui(_address(server), "--pin", "auto") as ui, browser_page() as page:
        ui.run(payload_bytes=64)
        page.open(f"{ui.base}/rig")
        page.wait_for("document.querySelectorAll('#times tr').length > 1")
        headings = page.evaluate(
            "[...document.querySelectorAll('#times th')].map(e => e.innerText)"
        )
        percentiles = ["p50", "p90", "p99", "p99.9", "p99.99"]
        assert headings == ["label", "clock", "count", "per s", "mean", *percentiles, "max"]
        label, clock, *service = page.evaluate(_CELLS.format("times"))[0]
        assert (label, clock) == ("ReverseUser MessageStream.read", "service")
        assert all(float(cell.replace(",", "")) > 0 for cell in service), service
        # CPU shares need a second reading.
        page.wait_for(
            "[...document.querySelectorAll('#server td')].every(e => e.innerText !== '-')"
        )
        processes = page.evaluate(_CELLS.format("server"))
        assert [row[0] for row in processes] == ["supervisor", "worker 0", "worker 1"]
        assert [row[1] for row in processes] == [str(server.pid), *map(str, server.workers())]
        assert all(row[2].endswith(" %") and row[3].endswith(" MB") for row in processes)
        generator = page.evaluate(_CELLS.format("generators"))
        assert [generator[0][0], generator[0][5]] == ["locust 0", str(ui.process.pid)]
        assert "live" in page.text
        assert "So far: " in page.text
        before = page.evaluate("document.querySelector('#tiles dd').innerText")
        page.wait_for(f"document.querySelector('#tiles dd').innerText !== '{before}'")
        ui.stop()
        page.wait_for("document.querySelector('#age').innerText.includes('ended')")
        # The last figures stay.
        assert page.evaluate(_CELLS.format("times"))[0][1] == "service"
        _assert_clean(page, ui)


_CELLS = (
    "[...document.querySelectorAll('#{} tr')].filter(row => row.querySelector('td'))"
    ".map(row => [...row.querySelectorAll('td')].map(cell => cell.innerText))"
)


def _assert_clean(page: Any, ui: Ui) -> None:
    assert page.console_errors == []
    assert page.requests
    assert all(url.startswith(ui.base + "/") for url in page.requests), page.requests


def test_a_telephone_shows_the_live_page_without_scrolling_sideways(server: Running) -> None:
    with web_ui(_address(server)) as ui, browser_page() as page:
        ui.run()
        page.resize(390, 844)
        page.open(f"{ui.base}/rig")
        page.wait_for("document.querySelectorAll('#times tr').length > 1")
        assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_locusts_page_has_the_rigs_tabs(server: Running) -> None:
    with web_ui(_address(server)) as ui, browser_page() as page:
        ui.run()
        for tab, wanted in (
            ("rig-times", ["service", "p99.99", "ReverseUser MessageStream.read"]),
            ("rig-processes", ["server: worker 1", "locust 0", "CPU %"]),
        ):
            page.open(f"{ui.base}/?tab={tab}")
            for text in wanted:
                page.wait_for(f"document.body.innerText.includes('{text}')")
        # The third place is in Locust's list of downloads.
        page.open(f"{ui.base}/?tab=reports")
        assert page.wait_for("document.querySelector('a[href=\"./rig\"]')?.innerText")
        _assert_clean(page, ui)


HOSTILE_LOCUSTFILE = """
from locust import task
from capnp_rig.loadtest.capnp_user import CapnpUser

class HostileUser(CapnpUser):
    @task
    def own(self):
        self.call("read", {"request": {"content": "x"}})
        self.expect(False, "<img src='http://rig.invalid/x' onerror='console.error(1)'>")
"""


def test_failures_are_shown_as_text(server: Running, tmp_path: Path) -> None:
    file = tmp_path / "hostile_locustfile.py"
    file.write_text(HOSTILE_LOCUSTFILE)
    with web_ui(_address(server), locustfile=file) as ui, browser_page() as page:
        ui.run()
        page.open(f"{ui.base}/rig")
        page.wait_for("document.querySelectorAll('#failures td').length > 1")
        assert page.evaluate(_CELLS.format("failures"))[0][0].startswith("WrongReply: <img src=")
        page.wait_for("document.querySelector('#verdict').className === 'failed'")
        _assert_clean(page, ui)


def test_a_server_elsewhere_has_no_processes_to_show() -> None:
    with web_ui("192.0.2.1:9") as ui:
        assert ui.post()["success"]
        shown = eventually(lambda: ui.stats().get("server"), within_s=40)
        assert shown["processes"] == []
        assert "on another machine" in shown["missing"]


def test_each_run_of_a_page_has_its_own_folder(server: Running, tmp_path: Path) -> None:
    with web_ui(_address(server), "--results", str(tmp_path)) as ui:
        ui.run(in_flight=2)
        ui.stop()
        first = ui.stats()
        assert first["calls"] > 100
        assert read_results(tmp_path).document["summary"]["calls"] == first["calls"]
        assert first["folder"] == str(next(tmp_path.iterdir()))
        ui.run(rate=500)
        assert ui.stats()["loop"] == "open"
        ui.stop()
        folders = sorted(tmp_path.iterdir())
        assert len(folders) == 2
        configs = [json.loads((one / "run.json").read_text())["config"] for one in folders]
        assert [(one["loop"], one["rate"]) for one in configs] == [("closed", None), ("open", 500)]
        # An empty field is the default.
        ui.run(rate="")
        assert ui.stats()["loop"] == "closed"
        ui.process.send_signal(signal.SIGTERM)
        assert finish(ui.process).status == 143
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"rate": "-5"},
            "--rate: bad rate '-5': expected closed, or 0 < calls/s <= 10,000,000",
        ),
        ({"in_flight": "0"}, "--in-flight: 0 is less than 1"),
        ({"run_time": "0s"}, "--run-time: 0s is no time to run"),
        (
            {"arrivals": "sometimes"},
            "--arrivals: unknown value 'sometimes'; expected one of poisson, fixed",
        ),
        ({"payload_bytes": "1e3"}, "--payload-bytes: invalid literal for int()"),
        # Who can open the page may not say which files are read and written.
        ({"results": "/tmp"}, "--results can only be given on the command line"),  # noqa: S108
        ({"corpus": "/etc/passwd"}, "--corpus can only be given on the command line"),
        ({"schema": "/etc/passwd"}, "--schema can only be given on the command line"),
        ({"params": "@/etc/passwd"}, "--params can only be given on the command line"),
    ],
)
def test_a_form_with_a_mistake_starts_nothing(ui: Ui, fields: dict[str, str], message: str) -> None:
    answer = ui.post(**fields)
    assert not answer["success"]
    assert answer["message"].startswith(message)
    assert "times" not in ui.stats()


@pytest.fixture(scope="module")
def ui(server: Running) -> Iterator[Ui]:
    with web_ui(_address(server)) as found:
        yield found


def test_the_form_has_what_it_may_say(ui: Ui) -> None:
    page = ui.get("/")
    for name in ("payload_bytes", "in_flight", "rate", "arrivals", "call_timeout", "text"):
        assert f'"{name}"' in page
    for name in ("results", "corpus", "schema", "params", "expect", "fail_if", "pin"):
        assert f'"{name}"' not in page


LOGIN_LOCUSTFILE = """
from flask import redirect
from flask_login import UserMixin, login_user
from locust import events
from capnp_rig.loadtest.capnp_user import ReverseUser

class Somebody(UserMixin):
    id = "somebody"

@events.init.add_listener
def add_login(environment, **_):
    ui = environment.web_ui
    ui.app.secret_key = "for this test"
    ui.login_manager.user_loader(lambda _: Somebody())

    @ui.app.route("/enter")
    def enter():
        login_user(Somebody())
        return redirect("/")
"""


def test_the_live_page_is_behind_the_login(server: Running, tmp_path: Path) -> None:
    file = tmp_path / "login_locustfile.py"
    file.write_text(LOGIN_LOCUSTFILE)
    with web_ui(_address(server), "--web-login", locustfile=file) as ui:
        for path in ("/rig", "/rig/stats", "/stats/requests"):
            answer = ui.get(path)
            assert "window.authArgs" in answer, answer
            assert "users" not in answer
        visitor = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        visitor.open(f"{ui.base}/enter", timeout=20).close()
        with visitor.open(f"{ui.base}/rig/stats", timeout=20) as answer:
            assert json.load(answer)["users"] == 0
        with visitor.open(f"{ui.base}/rig", timeout=20) as answer:
            assert b"<title>Rig: live</title>" in answer.read()


def test_a_page_below_a_path(server: Running) -> None:
    with web_ui(_address(server), "--web-base-path", "/load") as ui:
        assert "Rig: live" in ui.get("/load/rig")
        assert json.loads(ui.get("/load/rig/stats"))["state"] == "ready"


@pytest.mark.nightly
def test_a_master_counts_each_run_anew(server: Running, tmp_path: Path) -> None:
    options = ("--processes", "2", *_master_ports(), "--results", str(tmp_path))
    with web_ui(_address(server), *options) as ui:
        _await_workers(ui, 2)
        for number in range(2):
            ui.run()
            ui.stop()
            # The last reports of the workers come after the stop.
            eventually(lambda: ui.stats()["calls"] == ui.counted_by_locust())
            shown = ui.stats()
            assert shown["calls"] > 100
            assert not any("last report" in reason for reason in shown["reasons"]), number
            # Locust lets its workers rest as long as users may take to stop.
            _await_workers(ui, 2)
    assert len(list(tmp_path.iterdir())) == 2


def _master_ports() -> tuple[str, ...]:
    port = str(free_port())
    bind = ("--master-bind-host", "127.0.0.1", "--master-bind-port", port)
    return (*bind, "--master-port", port)


def _await_workers(ui: Ui, count: int) -> None:
    eventually(lambda: json.loads(ui.get("/worker-count"))["worker_count"] == count, within_s=40)


@pytest.mark.nightly
def test_the_master_says_how_old_its_figures_are(server: Running) -> None:
    options = ("--processes", "2", *_master_ports())
    with web_ui(_address(server), *options) as ui, browser_page() as page:
        workers = psutil.Process(ui.process.pid).children()
        _await_workers(ui, 2)
        ui.run()
        page.open(f"{ui.base}/rig")
        page.wait_for("document.querySelectorAll('#generators tr').length > 2", within_s=40)
        rows = page.evaluate(_CELLS.format("generators"))
        assert [row[0] for row in rows] == ["locust 0", "locust 1"]
        assert {row[5] for row in rows} == {str(worker.pid) for worker in workers}
        # Workers report every 3 s.
        page.wait_for("/as of [1-4] s ago/.test(document.querySelector('#age').innerText)")
        ui.stop()
        _assert_clean(page, ui)

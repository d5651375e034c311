"""A run as the collecting process sees it: the master, or the only process.

It takes the reports of all processes, and in the end judges the run, writes its folder, prints the
rig's table and decides the exit status, by the table of `stats.exit_status`. A run in which a
worker's last report is missing is void. Failed calls alone have the status that Locust gives them,
1 by default; with a --fail-if on errors they are no failure.
"""

import logging
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import locust.log
import psutil
from gevent.event import Event
from locust.env import Environment
from locust.runners import LocalRunner, MasterRunner

from capnp_rig.loadtest.engine.server_usage import WatchedProcess
from capnp_rig.loadtest.live.figures import LiveFigures
from capnp_rig.loadtest.locust_rig.live_panel import panel
from capnp_rig.loadtest.locust_rig.live_run import LiveRun, ProcessReport
from capnp_rig.loadtest.locust_rig.resource_sampler import ServerSampler, in_thread
from capnp_rig.loadtest.locust_rig.results import (
    RunOutcome,
    conclude,
    plain_options,
    write_folder,
)
from capnp_rig.loadtest.locust_rig.user_group import options_of
from capnp_rig.loadtest.report.run_tables import beside_verdict, open_loop_text
from capnp_rig.loadtest.results.writing import Origin
from capnp_rig.loadtest.scrape.scraper import Scraper
from capnp_rig.loadtest.scrape.series import Scraped, read_metrics
from capnp_rig.loadtest.stats.exit_status import ExitStatus, exit_status, load_statuses
from capnp_rig.loadtest.stats.reasons import text_of
from capnp_rig.loadtest.stats.thresholds import parse_threshold

# The messages that ask a worker for its last report, and for one now.
LAST_REPORT_MESSAGE, REPORT_MESSAGE = "capnp_rig_last_report", "capnp_rig_report"
# Beyond --stop-timeout; a worker that is still silent then is reported as lost.
_LAST_REPORT_TIMEOUT_S = 5.0
# Judging and writing a long run; whoever quits meanwhile waits for it.
_WRITE_TIMEOUT_S = 60.0
_POLL_S = 0.02
# In one process, whoever looks at the run makes it report, but not more often.
_FRESH_S = 0.9

_logger = logging.getLogger(__name__)
# As Locust prints its own tables.
_table_logger = logging.getLogger("locust.stats_logger")


class RunCollector:
    """The reports of one run, and what follows from them."""

    def __init__(
        self,
        environment: Environment,
        runner: LocalRunner | MasterRunner,
        facts: Mapping[str, Any],
        report_here: Callable[[bool], ProcessReport],
    ) -> None:
        """Find the server and start to watch it.

        `facts` are those of the machine, for the result. `report_here` returns what this process
        itself has to report; it gets whether that is the last time.
        """
        options = options_of(environment)
        hosts = [environment.host, *(each.host for each in environment.user_classes)]
        self.live = LiveRun(is_open_loop=options.rate is not None)
        # What shapes put into ``run.json``, each under a name of its own.
        self.notes: dict[str, Any] = {}
        # What a shape says that the exit status is, if the run counts and no --fail-if holds.
        self.exit_status: int | None = None
        self._environment = environment
        self._options = options
        self._runner = runner
        self._origin = Origin(datetime.now(UTC), facts, options.name)
        self._report_here = report_here
        self._server = ServerSampler(next((host for host in hosts if host), ""))
        if isinstance(runner, MasterRunner):
            self._server.master = WatchedProcess("locust master", psutil.Process())
        read = partial(in_thread, read_metrics)
        self._scrapers = [Scraper(url, read=read) for url in options.scrape]
        self._scrapes: list[Scraped] = []
        self._began_s = time.monotonic()
        for scraper in self._scrapers:
            scraper.start()
        self._server.start(every_second=bool(options.results or environment.web_ui))
        self._is_ending = False
        self._ended = Event()
        self._outcome: RunOutcome | None = None
        self._folder: Path | None = None
        self._lines: tuple[str, ...] = ()

    # --- reports ---------------------------------------------------------------------------

    def receive(self, client_id: str, plain: Mapping[str, Any]) -> None:
        """Take a worker's report."""
        if not self._ended.is_set():
            report = ProcessReport.from_json(plain)
            self.live.receive(client_id, self._number(client_id), report, time.monotonic())

    def _number(self, client_id: str) -> int:
        # Locust's master numbers its workers, untyped.
        runner: Any = self._runner
        return int(runner.get_worker_index(client_id))

    def _take_own(self, *, is_last: bool = False) -> None:
        """Take what this process itself has seen, where it is the only one."""
        assert isinstance(self._runner, LocalRunner)
        report = self._report_here(is_last)
        self.live.receive(self._runner.client_id, 0, report, time.monotonic())

    def fresh(self, timeout_s: float) -> LiveRun:
        """Return the run with what every process has seen up to now.

        A worker that does not answer within `timeout_s` is taken as it last reported.
        """
        if isinstance(self._runner, LocalRunner):
            self._take_own()
            return self.live
        asked_s = time.monotonic()
        clients = [client.id for client in self._runner.clients.all]
        for client_id in clients:
            self._runner.send_message(REPORT_MESSAGE, None, client_id)
        while time.monotonic() < asked_s + timeout_s:
            known = [self.live.generators.get(client_id) for client_id in clients]
            if all(each is not None and each.heard_s > asked_s for each in known):
                break
            gevent.sleep(_POLL_S)
        return self.live

    def panel(self) -> dict[str, Any]:
        """Return what the web page shows of the run."""
        is_running = not self._is_ending
        self._refresh()
        summary = None if self._outcome is None else self._outcome.summary
        shown = panel(self.live, self._server, time.monotonic(), summary, is_running=is_running)
        return shown | {"folder": None if self._folder is None else str(self._folder)}

    def figures(self) -> LiveFigures:
        """Return what was counted so far, for a Prometheus server."""
        self._refresh()
        figures = LiveFigures(users=None if self._is_ending else self._runner.user_count)
        figures.add(self.live.total, is_open_loop=self.live.is_open_loop)
        return figures

    def _refresh(self) -> None:
        """Take what this process has seen, where it is the only one, if that is long enough ago."""
        if self._is_ending or not isinstance(self._runner, LocalRunner):
            return
        generator = self.live.generators.get(self._runner.client_id)
        if generator is None or time.monotonic() - generator.heard_s > _FRESH_S:
            self._take_own()

    # --- the end -----------------------------------------------------------------------------

    def end(self) -> None:
        """Collect the last reports, judge the run and write its folder; once."""
        if self._is_ending:
            return
        self._is_ending = True
        try:
            if isinstance(self._runner, MasterRunner):
                self._await_last_reports(self._runner)
            else:
                self._take_own(is_last=True)
            self._conclude()
        finally:
            self._ended.set()

    def _await_last_reports(self, runner: MasterRunner) -> None:
        """Ask the workers for their last reports: Locust itself allows them half a second."""
        for client in list(runner.clients.all):
            self.live.expect(client.id, self._number(client.id), time.monotonic())
            runner.send_message(LAST_REPORT_MESSAGE, None, client.id)
        timeout_s = (self._environment.stop_timeout or 0) + _LAST_REPORT_TIMEOUT_S
        deadline_s = time.monotonic() + timeout_s
        while self.live.missing and time.monotonic() < deadline_s:
            gevent.sleep(_POLL_S)

    def _conclude(self) -> None:
        self._server.stop()
        self._scrapes = [scraper.stop(self._began_s) for scraper in self._scrapers]
        is_shaped = self._environment.shape_class is not None
        users = None if is_shaped or self.live.is_open_loop else self._options.num_users
        outcome = conclude(
            *(self.live, self._server, self._options.fail_if),
            is_shaped=is_shaped,
            in_flight=None if users is None else users * self._options.in_flight,
        )
        summary = outcome.summary
        verdict = f"{summary.verdict}: {text_of(summary.reasons)}" if summary.reasons else "valid"
        counts = [open_loop_text(summary)] if summary.is_open_loop else []
        lines = [*outcome.lines, *counts, beside_verdict(verdict, summary.unchecked)]
        lines += [each.note for each in self._scrapes if each.note]
        if self._options.results:
            lines += self._write(outcome)
        self._outcome, self._lines = outcome, tuple(lines)
        if self._environment.web_ui is not None:
            self.print_table()

    def _write(self, outcome: RunOutcome) -> list[str]:
        """Write the run's folder; return what there is to say about that."""
        shape = self._environment.shape_class
        loop = "open" if self.live.is_open_loop else "closed"
        config = {"loop": loop, **plain_options(self._options)}
        try:
            self._folder, notes = write_folder(
                Path(self._options.results),
                self._origin,
                self.live,
                self._server,
                outcome,
                config=config,
                scrapes=self._scrapes,
                shape=None if shape is None else type(shape).__name__,
                **self.notes,
            )
        except OSError as error:
            sys.stderr.write(f"locust: cannot write {error.filename}: {error.strerror}\n")
            self._environment.process_exit_code = 1
            return []
        return [*notes, f"Results written to {self._folder}"]

    def print_table(self) -> None:
        """Print the rig's own table, as Locust does its own; once."""
        lines, self._lines = self._lines, ()
        for line in ("", *lines) if lines else ():
            _table_logger.info(line)

    def decide_exit(self, signal: int | None = None) -> None:
        """Set the exit status that the module's docstring promises, once all is written.

        `signal` is the number of the one that ended the command, None for none.
        """
        self._ended.wait(_WRITE_TIMEOUT_S)
        environment, outcome = self._environment, self._outcome
        if outcome is None:
            environment.process_exit_code = environment.process_exit_code or 1
            return
        for problem in outcome.problems:
            _logger.error("The run does not count: %s", problem.text)
        for violation in outcome.violations:
            _logger.error("failed: %s", violation)
        # A bug, and a folder that could not be written, have set it to 1.
        if environment.process_exit_code is None:
            ended = None if signal is None else 128 + signal
            environment.process_exit_code = ended or self._status(outcome)

    def _status(self, outcome: RunOutcome) -> int | None:
        """Return the exit status of a run that came to its end; None leaves it to Locust."""
        options, runner = self._options, self._runner
        tolerant = any(parse_threshold(text).is_of_errors for text in options.fail_if)
        violated, shape = bool(outcome.violations), self.exit_status
        # What Locust counts as failed has the status that Locust gives it.
        tolerates = tolerant or bool(runner.errors)
        holding = {*load_statuses(outcome.summary, violated=violated, tolerates_errors=tolerates)}
        if shape is not None and outcome.summary.calls and not violated:
            # To find the limit a shape goes beyond it, where calls fail and figures are void.
            tolerant, holding = tolerant or not shape, {ExitStatus(shape)}
        if ExitStatus.FAILED in holding:
            return ExitStatus.FAILED
        # An error in the code of a user, or of ours, stays one; Locust also counts the failed calls
        # of users that are not the rig's.
        if runner.exceptions or locust.log.unhandled_greenlet_exception:
            return None
        if runner.errors and not tolerant:
            return None
        return exit_status(*holding, allow_void=options.allow_void)

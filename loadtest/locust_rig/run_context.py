"""What the rig keeps in a Locust process: one object, `context`, from the import to the exit.

Most of its methods are listeners of Locust's events; `listeners` registers them. Which of its parts
are there depends on the process: the master collects, a worker makes load, the only process does
both.
"""

import inspect
import logging
import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import gevent
from locust.env import Environment
from locust.runners import (
    STATE_CLEANUP,
    STATE_RUNNING,
    STATE_SPAWNING,
    LocalRunner,
    MasterRunner,
    WorkerRunner,
)

from capnp_rig.loadtest.live.exporter import Exporter, ExporterError
from capnp_rig.loadtest.live.figures import LiveRepeats
from capnp_rig.loadtest.locust_rig.live_run import ProcessReport
from capnp_rig.loadtest.locust_rig.process_recorder import ProcessRecorder
from capnp_rig.loadtest.locust_rig.run_collector import RunCollector
from capnp_rig.loadtest.locust_rig.user_group import UserGroup, options_of
from capnp_rig.loadtest.locust_rig.worker_shares import WorkerShares, share_here
from capnp_rig.loadtest.results import record
from capnp_rig.rigcli.address import parse_address
from capnp_rig.rigcli.quantities import in_flight_warning

_logger = logging.getLogger(__name__)
_REPORT_KEY = "capnp_rig"
_UNDER_WAY = {STATE_RUNNING, STATE_SPAWNING, STATE_CLEANUP}


class RunContext:
    """The rig's state in this process: of the current run, or of the last one."""

    def __init__(self) -> None:
        # The user classes that need a server's address.
        self.user_classes: list[Any] = []
        # Whether the command line was read, and Locust is about to run.
        self.is_prepared = False
        # Of a process that makes load.
        self.recorder = ProcessRecorder()
        self.users: UserGroup | None = None
        # Of the process that collects.
        self.collector: RunCollector | None = None
        # Of a master.
        self.shares = WorkerShares()
        # The --pin of this very command: at the start of a run the master's options take the place
        # of a worker's.
        self._pin: str | None = None
        # The last report of the run, to be sent once.
        self._last_report: ProcessReport | None = None
        # The number of the SIGINT or SIGTERM that ends the command, None without one.
        self.signal: int | None = None
        # Of the process that collects: its runs, one after the other, for a Prometheus server.
        self._repeats = LiveRepeats()
        # What the first run records of its surroundings.
        self._facts: Mapping[str, Any] = {}

    def prepare(self, environment: Environment) -> None:
        """Do what takes time before a run starts, so that it takes none of the run's."""
        options = options_of(environment)
        self.is_prepared = True
        self._pin = options.pin
        if isinstance(environment.runner, LocalRunner | MasterRunner):
            self._facts = _facts(options)
            warning = (
                in_flight_warning(options.in_flight) if not hasattr(options, "stack") else None
            )
            if warning is not None:
                _logger.warning(warning)
            if options.metrics is not None:
                self._export(options)

    def _export(self, options: Namespace) -> None:
        labels = {} if options.name is None else {"run": options.name}
        exporter = Exporter(parse_address(options.metrics), self._repeats.read, labels)
        try:
            # To the end of the process.
            exporter.__enter__()
        except ExporterError as error:
            sys.stderr.write(f"locust: {error}\n")
            sys.exit(1)
        _logger.info("Metrics at %s", exporter.url)

    def start_run(self, environment: Environment, **_: object) -> None:
        """Begin to collect, to count, and to take users, each where this process does."""
        runner, options = environment.runner, options_of(environment)
        if isinstance(runner, LocalRunner | MasterRunner):
            facts, self._facts = self._facts or _facts(options), {}
            collector = RunCollector(environment, runner, facts, self._report_here)
            self.collector = collector
            self._repeats.begin(lambda: [collector.figures()])
        if isinstance(runner, MasterRunner):
            self.shares.start(environment, runner)
        else:
            self._start_users(environment)
        shape: Any = environment.shape_class
        if shape is not None:
            # Its seconds are those of the tallies: Locust counts from before the server was found.
            shape.reset_time()

    def _start_users(self, environment: Environment) -> None:
        runner, options = environment.runner, options_of(environment)
        # A user on its own, in a debugger, has no runner, and no report.
        if isinstance(runner, LocalRunner | WorkerRunner):
            if self.recorder.is_running:
                # A run that a lost master never ended.
                self.recorder.take(is_last=True)
            pin, number = self._pin or options.pin, max(runner.worker_index, 0)
            self.recorder = ProcessRecorder(options, pin=pin, number=number)
        self.users = UserGroup(environment, share_here(environment, runner), self.recorder.tally)
        # Locust looks through the stack to log who ended a run, before it tells anybody. The first
        # look takes 21 ms, in which no call is sent and no reply read; the next ones 0.5.
        inspect.stack()

    def _report_here(self, is_last: bool) -> ProcessReport:
        return self.recorder.take(is_last=is_last)

    def stop_sending(self, **_: object) -> None:
        """Start no more calls: the users stop now."""
        self.recorder.stopping()
        if self.users is not None:
            self.users.stop_sending()

    def end_run(self, environment: Environment, **_: object) -> None:
        """Report for the last time, or judge the run: its users are gone."""
        runner = environment.runner
        if isinstance(runner, WorkerRunner):
            self._send_last_report(runner)
        elif self.collector is not None:
            self.collector.end()
        if self.users is not None:
            self.users.stop()

    def add_report(self, data: dict[str, Any], **_: object) -> None:
        """Add what is new in this worker to Locust's own report."""
        last, self._last_report = self._last_report, None
        # Between runs there is nothing to say, and the next run must not hear of this one's end.
        if last is not None or self.recorder.is_running:
            data[_REPORT_KEY] = (last or self.recorder.take()).to_json()
        self.update_locust()

    def update_locust(self, **_: object) -> None:
        """Bring Locust's statistics up to date."""
        if self.users is not None:
            self.users.update_locust()

    def receive_report(self, client_id: str, data: Mapping[str, Any], **_: object) -> None:
        """Take a worker's report out of Locust's."""
        if self.collector is not None and _REPORT_KEY in data:
            self.collector.receive(client_id, data[_REPORT_KEY])

    def _send_last_report(self, runner: WorkerRunner) -> None:
        self._last_report = self.recorder.take(is_last=True)
        runner._send_stats()

    def quit(self, environment: Environment, **_: object) -> None:
        """End what is under way, and decide the exit status where the reports are."""
        # Of two listeners to one signal, that which takes note of it may come second.
        gevent.sleep(0)
        runner = environment.runner
        if isinstance(runner, WorkerRunner):
            # Ctrl-C reaches the workers of a terminal too; the master will not ask them then.
            if self.recorder.is_running:
                self.stop_worker(environment)
        elif self.collector is not None and runner is not None:
            if runner.state in _UNDER_WAY:
                # A signal ends a run as its time limit would.
                if isinstance(runner, MasterRunner):
                    runner.stop(send_stop_to_client=False)
                else:
                    runner.stop()
            # Nothing is stopped that had not quite begun.
            self.collector.end()
            self.collector.decide_exit(self.signal)
        elif self.signal is not None:
            environment.process_exit_code = 128 + self.signal

    def stop_worker(self, environment: Environment, **_: object) -> None:
        """Stop the users of this worker and send what they have seen."""
        runner = environment.runner
        assert isinstance(runner, WorkerRunner)
        runner.stop()
        # Stopping has sent it, unless there was nothing to stop.
        self._send_last_report(runner)

    def grow(self, msg: Any, **_: object) -> None:
        """Take note of how many users the whole run has, as the master says."""
        if self.users is not None:
            self.users.grow(msg.data["users"])

    def print_table(self, **_: object) -> None:
        """Print the rig's table, where the reports are."""
        if self.collector is not None:
            self.collector.print_table()

    def panel(self) -> dict[str, Any]:
        """Return what the web page shows of the run; empty where there was none yet."""
        return {} if self.collector is None else self.collector.panel()


def _facts(options: Namespace) -> Mapping[str, Any]:
    return record.environment() if options.results else {}


context = RunContext()

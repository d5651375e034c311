"""The rig's part inside Locust: reports from workers, the verdict, the exit status.

Importing this registers listeners with Locust, once per process, so master and workers
all have them. How a run flows:

    options     the parser learns ours (`locust_options`); a mistake ends the command before any
                fork
    test_start  each process starts to count (`locust_own`); the collecting one, the master or the
                only one, looks for the server (`locust_usage`)
    report      each worker adds what is new to Locust's own report; the master collects it
                (`live_run`)
    test_stop   the users are gone: workers send a last report, the master waits for all of them,
                judges the run and writes its folder (`locust_results`)
    quitting    the exit status is decided, where the reports are

`locust_web` shows the run while it goes on, `locust_tables` mends Locust's own tables.

The exit status: 1 where the run does not count (no call was answered, a worker's last report is
missing), or where a --fail-if holds. With --fail-if and neither of these it is 0, however many
calls failed; without --fail-if failed calls make it 1, as Locust has it.
"""

import logging
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gevent
import locust.log
from gevent.event import Event
from locust import events
from locust.env import Environment
from locust.runners import (
    STATE_CLEANUP,
    STATE_RUNNING,
    STATE_SPAWNING,
    LocalRunner,
    MasterRunner,
    Runner,
    WorkerRunner,
)

from capnp_rig.loadtest.locust_rig import tables as locust_tables  # noqa: F401 - mends Locust's tables
from capnp_rig.loadtest.locust_rig import web as locust_web
from capnp_rig.loadtest.locust_rig.live_panel import panel
from capnp_rig.loadtest.locust_rig.live_run import Envelope, LiveRun
from capnp_rig.loadtest.locust_rig.milliseconds import bucket_ms
from capnp_rig.loadtest.locust_rig.options import add_options, needs_host
from capnp_rig.loadtest.locust_rig.process_recorder import Own
from capnp_rig.loadtest.locust_rig.resource_sampler import ServerWatch
from capnp_rig.loadtest.locust_rig.results import (
    Outcome,
    Provenance,
    conclude,
    plain_options,
    write_folder,
)
from capnp_rig.loadtest.results import record
from capnp_rig.loadtest.stats.reasons import text_of
from capnp_rig.loadtest.stats.tally import Tally

__all__ = ["bucket_ms", "log_few", "needs_host", "tally"]

_REPORT_KEY = "capnp_rig"
_FLUSH = "capnp_rig_flush"
_ASK = "capnp_rig_ask"
# Beyond --stop-timeout; a worker that is still silent then is reported as lost.
_FLUSH_TIMEOUT_S = 5.0
# Judging and writing a long run; whoever quits meanwhile waits for it.
_WRITE_TIMEOUT_S = 60.0
_POLL_S = 0.02
# In one process, whoever looks at the run makes it report, but not more often.
_FRESH_S = 0.9

_logger = logging.getLogger(__name__)
# As Locust prints its own tables.
_table_logger = logging.getLogger("locust.stats_logger")


@dataclass
class _Collected:
    """What the collecting process knows of the current run, or of the last one."""

    runner: LocalRunner | MasterRunner
    live: LiveRun
    watch: ServerWatch
    started: datetime
    facts: Mapping[str, Any]
    notes: dict[str, Any] = field(default_factory=dict)
    exit_status: int | None = None
    is_ending: bool = False
    ended: Event = field(default_factory=Event)
    outcome: Outcome | None = None
    folder: Path | None = None
    lines: tuple[str, ...] = ()
    is_said: bool = False


@dataclass
class _Process:
    """The rig's state in this process.

    `pin` is the --pin of this very command; `last` is the last report of the run, to be sent once;
    `facts` are those that the first run records of its surroundings.
    """

    own: Own = field(default_factory=Own)
    collected: _Collected | None = None
    pin: str | None = None
    last: Envelope | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


_process = _Process()


def tally() -> Tally:
    """Return the tally of the current run in this process."""
    return _process.own.tally


def log_few(text: str) -> None:
    """Log a line, but only a few per run and process: a broken server breaks every call."""
    _process.own.log_few(text)


# --- for shapes ------------------------------------------------------------------------------


def fresh_run(timeout_s: float) -> LiveRun | None:
    """Return the run with what every process has seen up to now; None where none was started.

    A worker that does not answer within `timeout_s` is taken as it last reported.
    """
    run = _process.collected
    if run is None:
        return None
    if isinstance(run.runner, LocalRunner):
        _collect_own(run)
        return run.live
    asked_s = time.monotonic()
    clients = [client.id for client in run.runner.clients.all]
    for client_id in clients:
        run.runner.send_message(_ASK, None, client_id)
    while time.monotonic() < asked_s + timeout_s:
        known = [run.live.generators.get(client_id) for client_id in clients]
        if all(each is not None and each.heard_s > asked_s for each in known):
            break
        gevent.sleep(_POLL_S)
    return run.live


def note(name: str, value: object) -> None:
    """Put something into the ``run.json`` of the current run, under a name of its own."""
    if _process.collected is not None:
        _process.collected.notes[name] = value


def decide_exit(status: int) -> None:
    """Say what the exit status is, if the run counts and no --fail-if says otherwise."""
    if _process.collected is not None:
        _process.collected.exit_status = status


# --- the start -------------------------------------------------------------------------------


def _on_init(environment: Environment, **_: object) -> None:
    # Python raises KeyboardInterrupt wherever it stands, such as in a user between the rig's count
    # and Locust's; here it reaches the main greenlet only, where Locust expects it.
    gevent.signal_handler(signal.SIGINT, gevent.kill, gevent.getcurrent(), KeyboardInterrupt)
    # The last to be added is the first to be told, and the runner's own listener says farewell.
    _events.quitting.add_listener(_on_quitting)
    # At the start of a run the master's options take the place of a worker's.
    _process.pin = _options(environment).pin
    runner = environment.runner
    if isinstance(runner, WorkerRunner):
        runner.register_message(_FLUSH, _flush)
        runner.register_message(_ASK, _answer)
    if environment.web_ui is not None:
        locust_web.add_panel(environment, _look)
    if isinstance(runner, LocalRunner | MasterRunner):
        _process.facts = _facts(_options(environment))
    # The time of --run-time runs from now: nothing slow is left to do before the users start, and
    # a timer counts from when the loop last looked at the clock, which was before all the imports.
    gevent.get_hub().loop.update_now()


def _facts(options: Namespace) -> Mapping[str, Any]:
    return record.environment() if options.results else {}


def _options(environment: Environment) -> Namespace:
    options = environment.parsed_options
    assert isinstance(options, Namespace)
    return options


def _on_start(environment: Environment, **_: object) -> None:
    runner, options = environment.runner, _options(environment)
    if isinstance(runner, LocalRunner | MasterRunner):
        _process.collected = _start_collecting(environment, runner, options)
    if isinstance(runner, LocalRunner | WorkerRunner):
        if _process.own.is_running:
            # A run that a lost master never ended.
            _process.own.take(final=True)
        number = max(runner.worker_index, 0)
        _process.own = Own.start(options, pin=_process.pin or options.pin, number=number)


def _start_collecting(
    environment: Environment, runner: LocalRunner | MasterRunner, options: Namespace
) -> _Collected:
    hosts = [environment.host, *(each.host for each in environment.user_classes)]
    watch = ServerWatch(next((host for host in hosts if host), ""))
    facts, _process.facts = _process.facts or _facts(options), {}
    run = LiveRun(is_open_loop=options.rate is not None)
    watch.start(every_second=bool(options.results or environment.web_ui))
    return _Collected(runner, run, watch, datetime.now(UTC), facts)


# --- reports ---------------------------------------------------------------------------------


def _on_report(data: dict[str, Any], **_: object) -> None:
    last, _process.last = _process.last, None
    # Between runs there is nothing to say, and the next run must not hear of this one's end.
    if last is not None or _process.own.is_running:
        data[_REPORT_KEY] = (last or _process.own.take()).to_json()


def _on_worker_report(client_id: str, data: dict[str, Any], **_: object) -> None:
    run = _process.collected
    if run is None or run.ended.is_set() or _REPORT_KEY not in data:
        return
    number = _number(run.runner, client_id)
    run.live.receive(client_id, number, Envelope.from_json(data[_REPORT_KEY]), time.monotonic())


def _number(runner: Any, client_id: str) -> int:
    return int(runner.get_worker_index(client_id))


def _collect_own(run: _Collected, *, final: bool = False) -> None:
    """Take what this process itself has seen, where it is the only one."""
    assert isinstance(run.runner, LocalRunner)
    envelope = _process.own.take(final=final)
    run.live.receive(run.runner.client_id, 0, envelope, time.monotonic())


def _answer(environment: Environment, **_: object) -> None:
    """Report now, as the master asks."""
    runner = environment.runner
    assert isinstance(runner, WorkerRunner)
    runner._send_stats()


def _flush(environment: Environment, **_: object) -> None:
    """Stop the users of this worker and send what they have seen."""
    runner = environment.runner
    assert isinstance(runner, WorkerRunner)
    runner.stop()
    # Stopping has sent it, unless there was nothing to stop.
    _report_last(runner)


def _report_last(runner: WorkerRunner) -> None:
    _process.last = _process.own.take(final=True)
    runner._send_stats()


def _look() -> dict[str, Any]:
    """Return what the web page shows of the run; empty where there was none yet."""
    run = _process.collected
    if run is None:
        return {}
    is_running = not run.is_ending
    if is_running and isinstance(run.runner, LocalRunner):
        generator = run.live.generators.get(run.runner.client_id)
        if generator is None or time.monotonic() - generator.heard_s > _FRESH_S:
            _collect_own(run)
    summary = None if run.outcome is None else run.outcome.summary
    shown = panel(run.live, run.watch, time.monotonic(), summary, is_running=is_running)
    return shown | {"folder": None if run.folder is None else str(run.folder)}


# --- the end ---------------------------------------------------------------------------------


def _on_stopping(**_: object) -> None:
    _process.own.stopping()


def _on_stop(environment: Environment, **_: object) -> None:
    runner, run = environment.runner, _process.collected
    if isinstance(runner, WorkerRunner):
        _report_last(runner)
        return
    if run is None or run.is_ending:
        return
    run.is_ending = True
    try:
        if isinstance(runner, MasterRunner):
            _await_last_reports(runner, run, (environment.stop_timeout or 0) + _FLUSH_TIMEOUT_S)
        else:
            _collect_own(run, final=True)
        _conclude(environment, run)
    finally:
        run.ended.set()


def _await_last_reports(runner: MasterRunner, run: _Collected, timeout_s: float) -> None:
    """Ask the workers for their last reports: Locust itself allows them half a second."""
    for client in list(runner.clients.all):
        run.live.expect(client.id, _number(runner, client.id), time.monotonic())
        runner.send_message(_FLUSH, None, client.id)
    deadline_s = time.monotonic() + timeout_s
    while run.live.missing and time.monotonic() < deadline_s:
        gevent.sleep(_POLL_S)


def _conclude(environment: Environment, run: _Collected) -> None:
    options = _options(environment)
    run.watch.stop()
    is_shaped = environment.shape_class is not None
    outcome = conclude(run.live, run.watch, options.fail_if, is_shaped=is_shaped)
    summary = outcome.summary
    verdict = f"{summary.verdict}: {text_of(summary.reasons)}" if summary.reasons else "valid"
    lines = [*outcome.lines, verdict]
    if options.results:
        lines += _write(environment, run, outcome)
    run.outcome, run.lines = outcome, tuple(lines)
    if environment.web_ui is not None:
        _say(run)


def _write(environment: Environment, run: _Collected, outcome: Outcome) -> list[str]:
    """Write the run's folder; return what there is to say about that."""
    options, shape = _options(environment), environment.shape_class
    config = {"loop": "open" if run.live.is_open_loop else "closed", **plain_options(options)}
    more = {"shape": None if shape is None else type(shape).__name__, **run.notes}
    origin = Provenance(run.started, config, run.facts, more)
    try:
        run.folder, notes = write_folder(
            Path(options.results), origin, run.live, run.watch, outcome
        )
    except OSError as error:
        sys.stderr.write(f"locust: cannot write {error.filename}: {error.strerror}\n")
        environment.process_exit_code = 1
        return []
    return [*notes, f"Results written to {run.folder}"]


def _say(run: _Collected) -> None:
    """Print the rig's own table, as Locust does its own."""
    if not run.is_said:
        run.is_said = True
        for line in ("", *run.lines):
            _table_logger.info(line)


def _on_quitting(environment: Environment, **_: object) -> None:
    runner, run = environment.runner, _process.collected
    if isinstance(runner, WorkerRunner):
        # Ctrl-C reaches the workers of a terminal too; the master will not ask them then.
        if _process.own.is_running:
            _flush(environment)
        return
    if run is None or runner is None:
        return
    _stop_users(runner)
    # Nothing is stopped that had not quite begun.
    _on_stop(environment)
    run.ended.wait(_WRITE_TIMEOUT_S)
    _decide(environment, run)


def _stop_users(runner: Runner) -> None:
    """End a run that a signal interrupted as its time limit would have."""
    if runner.state in {STATE_RUNNING, STATE_SPAWNING, STATE_CLEANUP}:
        if isinstance(runner, MasterRunner):
            runner.stop(send_stop_to_client=False)
        else:
            runner.stop()


def _decide(environment: Environment, run: _Collected) -> None:
    """Set the exit status that the module's docstring promises."""
    outcome = run.outcome
    if outcome is None:
        environment.process_exit_code = environment.process_exit_code or 1
        return
    for problem in outcome.problems:
        _logger.error("The run does not count: %s", problem)
    for violation in outcome.violations:
        _logger.error("failed: %s", violation)
    if environment.process_exit_code is not None:
        return
    status = run.exit_status
    if _options(environment).fail_if:
        status = 0
    if outcome.problems or outcome.violations:
        status = 1
    # An error in the code of a user, or of ours, stays one.
    exceptions = run.runner.exceptions or locust.log.unhandled_greenlet_exception
    if status == 0 and exceptions:
        return
    environment.process_exit_code = status


def _on_quit(**_: object) -> None:
    if _process.collected is not None:
        _say(_process.collected)


def _on_user_error(**_: object) -> None:
    # Locust logs a traceback and runs the task again at once: a bug would fill the disk.
    gevent.sleep(1)


# Locust ships type information, but not for its hooks.
_events: Any = events
_events.init_command_line_parser.add_listener(add_options)
_events.init.add_listener(_on_init)
_events.test_start.add_listener(_on_start)
_events.test_stopping.add_listener(_on_stopping)
_events.test_stop.add_listener(_on_stop)
_events.report_to_master.add_listener(_on_report)
_events.user_error.add_listener(_on_user_error)
_events.worker_report.add_listener(_on_worker_report)
_events.quit.add_listener(_on_quit)

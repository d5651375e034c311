"""The rig's part inside Locust: options, microseconds, reports from workers, the verdict.

Importing this registers listeners with Locust, once per process, so master and workers
all have them. How a run flows:

    options     the parser learns ours; a missing or bad -H ends the command before any fork
    test_start  a fresh tally
    report      each worker adds what is new to Locust's own report, the master collects
    test_stop   the users are gone: workers send a last report, the master waits for all of them
    quitting    the file is written and the exit status decided, where the reports are
"""

import json
import logging
import math
import signal
import sys
import time
from argparse import ArgumentTypeError, Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
import locust.stats
from locust import events
from locust.argument_parser import LocustArgumentParser
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

from loadtest.load_file import load_document
from loadtest.tally import Collector, Report, Tally
from loadtest.texts import NONCE_CHARS
from wire.address import AddressError, parse_address

_REPORT_KEY = "capnp_rig"
_FLUSH = "capnp_rig_flush"
# Beyond --stop-timeout; a worker that is still silent then is reported as lost.
_FLUSH_TIMEOUT_S = 5.0

_NO_HOST = "no server to load: give its address as -H host:port"

_logger = logging.getLogger(__name__)


@dataclass
class _Run:
    """The state of the run in this process."""

    tally: Tally = field(default_factory=Tally)
    collector: Collector = field(default_factory=Collector)
    started: bool = False
    cpu_ns: int = 0
    logged: int = 0


run = _Run()


def tally() -> Tally:
    """Return the tally of the current run in this process."""
    return run.tally


def log_few(text: str) -> None:
    """Log a line, but only a few per run and process: a broken server breaks every call."""
    run.logged += 1
    if run.logged <= 3:
        _logger.error("%s%s", text, " (no more such lines follow)" if run.logged == 3 else "")


# --- microseconds in Locust's own statistics -----------------------------------------------


def bucket_ms(time_ms: float) -> float:
    """Round a time to three digits, from 1 µs up.

    Locust rounds times below 100 ms to whole milliseconds. Every bucket here is a multiple of
    a power of ten: 5,500 at most, whatever is measured.
    """
    if time_ms < 1:
        return int(time_ms * 1000 + 0.5) / 1000
    if time_ms < 10:
        return int(time_ms * 100 + 0.5) / 100
    if time_ms < 100:
        return int(time_ms * 10 + 0.5) / 10
    step = 10.0 ** (int(math.log10(time_ms)) - 2)
    return int(time_ms / step + 0.5) * step


# Master and workers must agree, so this happens at import (Locust's PR #3373 allows it).
locust.stats.bucket_response_time = bucket_ms  # type: ignore[assignment] # declared for ints


# --- options -------------------------------------------------------------------------------


def _address(text: str) -> str:
    try:
        parse_address(text)
    except AddressError as error:
        raise ArgumentTypeError(str(error)) from error
    return text


def _at_least(least: int) -> Any:  # noqa: ANN401 - what argparse takes as a type
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise ArgumentTypeError(f"{value} is less than {least}")
        return value

    return number


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"{text} is not a positive number of seconds")
    return value


def _readable_file(text: str) -> str:
    try:
        Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ArgumentTypeError(f"cannot read {text}: {error}") from error
    return text


def _add_options(parser: LocustArgumentParser) -> None:
    for action in parser._actions:  # noqa: SLF001 - argparse has no public list
        if action.dest == "host":
            action.type = _address
            action.help = "Server to load: host:port, [ipv6]:port or unix:/path"
            action.metavar = "<ADDR>"
    _add_payload_options(parser)
    parser.add_argument(
        "--in-flight",
        type=_at_least(1),
        default=1,
        metavar="<int>",
        help="Calls that each ReverseUser keeps in flight on its connection (default: 1)",
    )
    parser.add_argument(
        "--call-timeout",
        type=_seconds,
        default=15.0,
        metavar="<seconds>",
        help="Deadline of each call, in seconds (default: 15)",
    )
    parser.add_argument(
        "--rig-json",
        metavar="<file>",
        help="Write the run with its microsecond histograms to this file when it ends",
        # The web form must not make this process write, or read, files of the caller's choice.
        include_in_web_ui=False,
    )
    _check_host_while_parsing(parser)


def _add_payload_options(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--payload-bytes",
        type=_at_least(NONCE_CHARS),
        default=32,
        metavar="<int>",
        help="Size of each generated text in bytes of UTF-8, its "
        f"{NONCE_CHARS}-character nonce included (default: 32)",
    )
    parser.add_argument(
        "--text", default="", metavar="<text>", help="Send this text, after a nonce, each time"
    )
    parser.add_argument(
        "--corpus",
        type=_readable_file,
        metavar="<file>",
        help="Send the lines of this file in turn, each after a nonce",
        include_in_web_ui=False,
    )
    parser.add_argument(
        "--data-seed",
        type=int,
        default=1,
        metavar="<int>",
        help="Seed of the generated texts (default: 1)",
    )


def _check_host_while_parsing(parser: LocustArgumentParser) -> None:
    """Make a headless run without -H end as any other mistake in the usage does.

    In `init` it would be too late: with --processes the workers are forked by then, and
    outlive a parent that exits.
    """
    parse: Any = parser.parse_args

    def parse_args(*args: Any, **kwargs: Any) -> Namespace:  # noqa: ANN401 - argparse's own
        options: Namespace = parse(*args, **kwargs)
        if options.headless and not options.worker and not options.host and not _default_host():
            parser.exit(2, f"{parser.prog}: error: {_NO_HOST}\n")
        return options

    parser.parse_args = parse_args


_hosts: list[Any] = []


def needs_host(user_class: Any) -> None:  # noqa: ANN401 - a User class
    """Register a class whose `host` is needed where -H is missing."""
    _hosts.append(user_class)


def _default_host() -> bool:
    concrete = [one for one in _hosts if one.abstract is False]
    return all(one.host is not None for one in concrete)


# --- a run -----------------------------------------------------------------------------------


def _on_init(environment: Environment, **_: object) -> None:
    # Python raises KeyboardInterrupt wherever it stands, such as in a user between the rig's count
    # and Locust's; here it reaches the main greenlet only, where Locust expects it.
    gevent.signal_handler(signal.SIGINT, gevent.kill, gevent.getcurrent(), KeyboardInterrupt)
    # The last to be added is the first to be told, and the runner's own listener says farewell.
    _events.quitting.add_listener(_on_quitting)
    runner = environment.runner
    if isinstance(runner, WorkerRunner):
        runner.register_message(_FLUSH, _flush)


def _on_start(**_: object) -> None:
    run.tally, run.collector = Tally(), Collector()
    run.started, run.logged = True, 0
    run.cpu_ns = time.process_time_ns()


def _take(*, final: bool) -> Report:
    now_ns = time.process_time_ns()
    used_ns, run.cpu_ns = now_ns - run.cpu_ns, now_ns
    return run.tally.take(cpu_ns=used_ns, final=final)


def _on_stop(environment: Environment, **_: object) -> None:
    runner = environment.runner
    if isinstance(runner, LocalRunner):
        run.collector.receive(runner.client_id, _take(final=True))
    elif isinstance(runner, MasterRunner) and run.started:
        _await_last_reports(runner, (environment.stop_timeout or 0) + _FLUSH_TIMEOUT_S)


def _await_last_reports(runner: MasterRunner, timeout_s: float) -> None:
    """Ask the workers for their last reports: Locust itself allows them half a second."""
    for client in list(runner.clients.all):
        run.collector.receive(client.id, Report())
        runner.send_message(_FLUSH, None, client.id)
    deadline_s = time.monotonic() + timeout_s
    while run.collector.missing and time.monotonic() < deadline_s:
        gevent.sleep(0.02)


def _flush(environment: Environment, **_: object) -> None:
    """Stop the users of this worker and send what they have seen."""
    runner = environment.runner
    assert isinstance(runner, WorkerRunner)
    runner.stop()
    run.started = False
    runner._send_stats()  # noqa: SLF001 - the only way to report between the intervals


def _on_report(data: dict[str, Any], **_: object) -> None:
    data[_REPORT_KEY] = _take(final=not run.started).to_json()


def _on_worker_report(client_id: str, data: dict[str, Any], **_: object) -> None:
    if run.started and _REPORT_KEY in data:
        run.collector.receive(client_id, Report.from_json(data[_REPORT_KEY]))


def _on_user_error(**_: object) -> None:
    # Locust logs a traceback and runs the task again at once: a bug would fill the disk.
    gevent.sleep(1)


# --- the end ---------------------------------------------------------------------------------


def _on_quitting(environment: Environment, **_: object) -> None:
    runner = environment.runner
    if isinstance(runner, WorkerRunner):
        # Ctrl-C reaches the workers of a terminal too; the master will not ask them then.
        if run.started:
            _flush(environment)
        return
    if not run.started or runner is None:
        return
    _stop_users(runner)
    options = environment.parsed_options
    assert options is not None
    document = load_document(run.collector, _plain_options(options))
    if options.rig_json:
        _write(Path(options.rig_json), document, environment)
    for problem in document["problems"]:
        _logger.error("The run does not count: %s", problem)
        environment.process_exit_code = environment.process_exit_code or 1


def _stop_users(runner: Runner) -> None:
    """End a run that a signal interrupted as its time limit would have."""
    if runner.state in {STATE_RUNNING, STATE_SPAWNING, STATE_CLEANUP}:
        if isinstance(runner, MasterRunner):
            runner.stop(send_stop_to_client=False)
        else:
            runner.stop()


def _plain_options(options: Namespace) -> dict[str, Any]:
    # A password of the web UI has no place in a result.
    secret = {"web_login", "tls_key", "tls_cert"}
    plain = {name: value for name, value in vars(options).items() if name not in secret}
    return json.loads(json.dumps(plain, default=str))  # type: ignore[no-any-return]


def _write(file: Path, document: dict[str, Any], environment: Environment) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        sys.stderr.write(f"locust: cannot write {file}: {error.strerror}\n")
        environment.process_exit_code = 1


# Locust ships type information, but not for its hooks.
_events: Any = events
_events.init_command_line_parser.add_listener(_add_options)
_events.init.add_listener(_on_init)
_events.test_start.add_listener(_on_start)
_events.test_stop.add_listener(_on_stop)
_events.report_to_master.add_listener(_on_report)
_events.user_error.add_listener(_on_user_error)
_events.worker_report.add_listener(_on_worker_report)

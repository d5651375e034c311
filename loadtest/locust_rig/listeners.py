"""All that the rig does in Locust, in the order of Locust's events.

Importing this registers the listeners with Locust, once per process, so that master and workers all
have them. `run_context.context` holds the state. How a run flows:

    options        the parser learns ours (`options`). A mistake ends the command before any fork.
    init           what takes time is done before a run: web pages, facts of the machine
    test_start     each process starts to count (`process_recorder`) and takes users (`user_group`).
                   The collecting one, the master or the only one, looks for the server
                   (`resource_sampler`).
    report         each worker adds what is new to Locust's own report; the master collects it
                   (`live_run`)
    test_stopping  no more calls are started
    test_stop      the users are gone. Workers send a last report; the master waits for all of
                   them, judges the run and writes its folder (`run_collector`, `results`).
    quitting       the exit status is decided, where the reports are
"""

import logging
import signal
from functools import cache
from typing import Any

import gevent
from locust import argument_parser, events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from capnp_rig.loadtest.locust_rig import tables, web
from capnp_rig.loadtest.locust_rig.options import add_options
from capnp_rig.loadtest.locust_rig.run_collector import LAST_REPORT_MESSAGE, REPORT_MESSAGE
from capnp_rig.loadtest.locust_rig.run_context import context
from capnp_rig.loadtest.locust_rig.user_group import BUG_MESSAGE, end_run
from capnp_rig.loadtest.locust_rig.worker_shares import USERS_MESSAGE
from capnp_rig.rigcli import raise_open_files

# Who imports the context from here has the listeners as well.
__all__ = ["context"]

_logger = logging.getLogger(__name__)
# Locust ships type information, but not for its hooks.
_events: Any = events
_argument_parser: Any = argument_parser


def _on_parser(parser: LocustArgumentParser) -> None:
    # The web UI parses the command line anew for each page.
    add_options(parser, None if context.is_prepared else context.user_classes)


def _on_init(environment: Environment, **_: object) -> None:
    # Python raises KeyboardInterrupt wherever it stands, such as in a user between the rig's count
    # and Locust's; here it reaches the main greenlet only, where Locust expects it.
    gevent.signal_handler(signal.SIGINT, gevent.kill, gevent.getcurrent(), KeyboardInterrupt)
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, setattr, context, "signal", number)
    # Locust itself stops at 10,000.
    raise_open_files()
    # The last to be added is the first to be told, and the runner's own listener says farewell.
    _events.quitting.add_listener(context.quit)
    runner = environment.runner
    if isinstance(runner, MasterRunner):
        runner.register_message(BUG_MESSAGE, _on_bug)
        _events.worker_connect.add_listener(
            # Fired by Locust with the id alone.
            lambda client_id, **_: context.shares.join(environment, client_id)
        )
    elif isinstance(runner, WorkerRunner):
        runner.register_message(LAST_REPORT_MESSAGE, context.stop_worker)
        runner.register_message(REPORT_MESSAGE, _on_report_asked)
        runner.register_message(USERS_MESSAGE, context.grow)
    if environment.web_ui is not None:
        web.add_panel(environment, context.panel)
    context.prepare(environment)
    # The time of --run-time runs from now: nothing slow is left to do before the users start, and
    # a timer counts from when the loop last looked at the clock, which was before all the imports.
    gevent.get_hub().loop.update_now()


def _on_user_error(**_: object) -> None:
    # Locust logs a traceback and runs the task again at once: a bug would fill the disk.
    gevent.sleep(1)


def _on_report_asked(environment: Environment, **_: object) -> None:
    assert isinstance(environment.runner, WorkerRunner)
    environment.runner._send_stats()


def _on_bug(environment: Environment, msg: Any, **_: object) -> None:
    _logger.critical("The run ends: %s", msg.data["text"])
    end_run(environment, exit_status=1)


tables.mend_tables()
# At each order to spawn users, a worker of Locust's makes the parser of all options anew for every
# one of them: a second, on a busy machine, in which it sends no call and reads no reply.
_argument_parser.default_args_dict = cache(_argument_parser.default_args_dict)
for event, listener in (
    (_events.init_command_line_parser, _on_parser),
    (_events.init, _on_init),
    # Locust's own, which report and reset the statistics, come after these: they are added with
    # the runner.
    (_events.test_start, context.start_run),
    (_events.spawning_complete, context.update_locust),
    (_events.report_to_master, context.add_report),
    (_events.worker_report, context.receive_report),
    (_events.user_error, _on_user_error),
    (_events.test_stopping, context.stop_sending),
    (_events.test_stop, context.end_run),
    (_events.quit, context.print_table),
):
    event.add_listener(listener)

"""A locustfile beside another: ends the run once enough was asked, however slow the machine is.

`run_locust` gives the number of requests, as Locust counts them, in the environment. The run goes
on for half a second at least, so that a fast machine has something to measure too.
"""

import os
import time
from typing import Any

import gevent
from locust import events, runners, stats
from locust.env import Environment

ENOUGH = "ENOUGH_REQUESTS"
LEAST_S = 0.5
# A master knows what its workers have told it: not every 3 s.
runners.WORKER_REPORT_INTERVAL = 0.5
# Its files are not written at the end, but every second: what comes later is not in them.
stats.CSV_STATS_INTERVAL_SEC = 0.1


def _end(environment: Environment) -> None:
    runner = environment.runner
    assert runner is not None
    started_s = time.monotonic()
    while (
        runner.stats.num_requests < int(os.environ[ENOUGH])
        or time.monotonic() - started_s < LEAST_S
    ):
        gevent.sleep(0.02)
    gevent.sleep(3 * stats.CSV_STATS_INTERVAL_SEC)
    runner.quit()


def _begin(environment: Environment, **_: object) -> None:
    if not isinstance(environment.runner, runners.WorkerRunner):
        gevent.spawn(_end, environment)


_events: Any = events
_events.test_start.add_listener(_begin)

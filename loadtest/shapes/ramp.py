"""Ramp to failure: the load grows in steps until a condition fails, and the run says what held.

The steps and the answer go into the log and into ``run.json`` under ``ramp``. To find a limit is a
success: the exit status is 0, unless a --fail-if holds for the run as a whole. It is 1 if even the
first step fails. If all steps hold, the usual rules apply.
"""

import logging
import time
from argparse import Namespace
from typing import Any

from locust import events
from locust.argument_parser import LocustArgumentParser

from capnp_rig.loadtest.locust_rig.listeners import context
from capnp_rig.loadtest.locust_rig.options import (
    add_number,
    at_least,
    at_least_seconds,
    condition,
    number_above,
)
from capnp_rig.loadtest.locust_rig.run_collector import RunCollector
from capnp_rig.loadtest.locust_rig.shape_plan import Ramp
from capnp_rig.loadtest.shapes.planned_shape import PlannedShape
from capnp_rig.loadtest.stats.run_summary import Summary
from capnp_rig.loadtest.stats.thresholds import parse_threshold

_CONDITION = "errors>1%"
_SHORTEST_S = 3.0
# Beyond that a worker is judged by what it reported last.
_REPORT_S = 2.0

_logger = logging.getLogger(__name__)


class RampShape(PlannedShape):
    """``--ramp-rate`` users a second more, in steps of ``--ramp-time``, up to ``--ramp-max``.

    The users of a step come at once, and its first second is not judged.
    """

    _ramp: Ramp | None = None

    def plan(self, options: Namespace) -> Ramp:
        """Return a ramp that has not begun."""
        users = max(1, round(options.ramp_rate * options.ramp_time))
        conditions = tuple(map(parse_threshold, options.ramp_fail_if or [_CONDITION]))
        return Ramp(users, options.ramp_time, options.ramp_max, conditions, self._measure)

    def reset_time(self) -> None:
        """Begin anew, as Locust says at the start of each run."""
        super().reset_time()  # type: ignore[no-untyped-call]
        self._ramp = None

    def users_at(self, at_s: float) -> int | None:
        """Return how many users there are; judge the step that is over, if one is."""
        ramp = self._ramp = self._ramp or self.plan(self.options)
        judged = len(ramp.done)
        users = ramp.users_at(at_s)
        for step in ramp.done[judged:]:
            _logger.info("Ramp: %s%s", step, "" if step.held else ": " + "; ".join(step.violations))
            _collector().notes["ramp"] = ramp.to_json()
        if users is None:
            self._finish(ramp)
        return users

    def spawn_rate(self) -> float:
        """Return how fast users come: all of a step at once."""
        return float(self.plan(self.options).users)

    def _finish(self, ramp: Ramp) -> None:
        _logger.info("Ramp: %s", ramp.answer)
        if ramp.failed is not None:
            _collector().exit_status = 0 if ramp.highest else 1

    def _measure(self, from_s: float, until_s: float) -> Summary:
        began_s = time.monotonic() - self.get_run_time()  # type: ignore[no-untyped-call]
        live = _collector().fresh(_REPORT_S)
        return live.between(began_s + from_s, began_s + until_s)


def _collector() -> RunCollector:
    assert context.collector is not None, "shapes run within a run"
    return context.collector


def _add_options(parser: LocustArgumentParser) -> None:
    text = "Users that come per second, those of a step at once"
    add_number(parser, "--ramp-rate", number_above(0), 1.0, "<float>", text)
    text = f"How long a step lasts, at least {_SHORTEST_S:g}s"
    step_time = at_least_seconds(_SHORTEST_S)
    add_number(parser, "--ramp-time", step_time, 10.0, "<seconds>", text)
    text = "Users with which the ramp ends if all steps hold"
    add_number(parser, "--ramp-max", at_least(1), 200, "<int>", text)
    parser.add_argument(
        "--ramp-fail-if",
        type=condition,
        action="append",
        default=[],
        metavar="<condition>",
        help="What must not hold within a step, as p99>2ms, errors>0.1%%, calls/s<20000; "
        "repeatable (default: errors>1%%)",
        include_in_web_ui=False,
    )


# Locust ships type information, but not for its hooks.
_events: Any = events
_events.init_command_line_parser.add_listener(_add_options)

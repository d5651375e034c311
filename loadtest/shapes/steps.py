"""Steps: a load that grows by as much at a time, each step long enough to be looked at."""

from argparse import Namespace
from typing import Any

from locust import events
from locust.argument_parser import LocustArgumentParser

from capnp_rig.loadtest.locust_rig.options import add_number, at_least, seconds
from capnp_rig.loadtest.locust_rig.shape_plan import Steps
from capnp_rig.loadtest.shapes.planned_shape import PlannedShape


class StepsShape(PlannedShape):
    """``--step-users`` more every ``--step-time``, ``--steps`` times."""

    def plan(self, options: Namespace) -> Steps:
        """Return the steps that the options ask for."""
        return Steps(options.step_users, options.step_time, options.steps)


def _add_options(parser: LocustArgumentParser) -> None:
    add_number(parser, "--step-users", at_least(1), 10, "<int>", "Users that each step adds")
    add_number(parser, "--step-time", seconds, 30.0, "<seconds>", "How long a step lasts")
    add_number(parser, "--steps", at_least(1), 5, "<int>", "How many steps there are")


# Locust ships type information, but not for its hooks.
_events: Any = events
_events.init_command_line_parser.add_listener(_add_options)

"""A spike: a steady load, for a while many times of it, and the steady load again."""

from argparse import Namespace
from typing import Any

from locust import events
from locust.argument_parser import LocustArgumentParser

from capnp_rig.loadtest.locust_rig.options import add_number, at_least, seconds
from capnp_rig.loadtest.locust_rig.shape_plan import Spike
from capnp_rig.loadtest.shapes.planned_shape import PlannedShape


class SpikeShape(PlannedShape):
    """``--spike-base`` users, but ``--spike-users`` from ``--spike-at`` on for ``--spike-for``."""

    def plan(self, options: Namespace) -> Spike:
        """Return the spike that the options ask for; it takes as long after it as before."""
        at_s = options.spike_at
        return Spike(options.spike_base, options.spike_users, at_s, options.spike_for, at_s)


def _add_options(parser: LocustArgumentParser) -> None:
    add_number(parser, "--spike-base", at_least(1), 10, "<int>", "Users before and after the spike")
    add_number(parser, "--spike-users", at_least(1), 100, "<int>", "Users in the spike")
    text = "When the spike begins; as long after its end the run is over"
    add_number(parser, "--spike-at", seconds, 30.0, "<seconds>", text)
    add_number(parser, "--spike-for", seconds, 10.0, "<seconds>", "How long the spike lasts")


# Locust ships type information, but not for its hooks.
_events: Any = events
_events.init_command_line_parser.add_listener(_add_options)

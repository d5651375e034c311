"""A spike: a steady load, for a while many times of it, and the steady load again."""

from argparse import Namespace
from typing import Any

from locust import events
from locust.argument_parser import LocustArgumentParser

from capnp_rig.loadtest.locust_rig.options import at_least, seconds
from capnp_rig.loadtest.locust_rig.shape_plan import Spike
from capnp_rig.loadtest.shapes.planned_shape import TimedShape


class SpikeShape(TimedShape):
    """``--spike-base`` users, but ``--spike-users`` from ``--spike-at`` on for ``--spike-for``."""

    def plan(self, options: Namespace) -> Spike:
        """Return the spike that the options ask for; it takes as long after it as before."""
        at_s = options.spike_at
        return Spike(options.spike_base, options.spike_users, at_s, options.spike_for, at_s)


def _add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--spike-base",
        type=at_least(1),
        default=10,
        metavar="<int>",
        help="Users before and after the spike (default: 10)",
    )
    parser.add_argument(
        "--spike-users",
        type=at_least(1),
        default=100,
        metavar="<int>",
        help="Users in the spike (default: 100)",
    )
    parser.add_argument(
        "--spike-at",
        type=seconds,
        default=30.0,
        metavar="<seconds>",
        help="When the spike begins; as long after its end the run is over (default: 30)",
    )
    parser.add_argument(
        "--spike-for",
        type=seconds,
        default=10.0,
        metavar="<seconds>",
        help="How long the spike lasts (default: 10)",
    )


# Locust ships type information, but not for its hooks.
_events: Any = events
_events.init_command_line_parser.add_listener(_add_options)

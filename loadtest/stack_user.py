"""Locust users of every protocol that the server speaks: ``locust -f loadtest/stack_user.py``.

``--stack json`` loads what ``server run --stack json`` serves, and so on; ``--stack http1`` and
``--stack http2`` load ``server run --stack http``. As `ReverseUser` does, such a user keeps
``--in-flight`` calls under way on its connection, or makes calls when they are due with ``--rate``.
What it sends is said by ``--payload-bytes``, ``--payload-kind``, ``--text`` and ``--corpus``; every
reply is checked. All speak their protocol by themselves (`loadtest.protocols`), without the event
loop of a library such as grpcio, which would keep gevent's waiting.
"""

from typing import Any

from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

# Not by name: Locust runs every user class that it finds in a locustfile, imported ones included.
from capnp_rig.loadtest import capnp_user
from capnp_rig.loadtest.locust_rig.user_group import options_of
from capnp_rig.loadtest.protocols import JSON, STACKS


class StackUser(capnp_user.ReverseUser):
    """Makes calls over the protocol that ``--stack`` names."""

    def __init__(self, environment: Environment) -> None:
        self.stack = options_of(environment).stack
        super().__init__(environment)


def _add_option(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--stack",
        choices=STACKS,
        default=JSON,
        help=f"The protocol (default: {JSON})",
        include_in_web_ui=False,
    )


# Locust ships type information, but not for its hooks.
_events: Any = events
_events.init_command_line_parser.add_listener(_add_option)

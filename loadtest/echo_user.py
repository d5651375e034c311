"""Locust users of the TCP echo, ``server run --stack echo``.

``locust -f loadtest/echo_user.py -H ADDR``; `loadtest.stack_user` has the options.
"""

from capnp_rig.loadtest.stack_user import StackUser


class EchoUser(StackUser):
    """Sends texts or bytes, and waits for them to come back."""

    stack = "echo"

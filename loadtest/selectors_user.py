"""Locust users of the readiness loop, ``server run --stack selectors``.

``locust -f loadtest/selectors_user.py -H ADDR``; `loadtest.stack_user` has the options.
"""

from capnp_rig.loadtest.stack_user import StackUser


class SelectorsUser(StackUser):
    """Sends frames of texts or bytes."""

    stack = "selectors"

"""Locust users of the JSON RPC, ``server run --stack json``.

``locust -f loadtest/json_user.py -H ADDR``; `loadtest.stack_user` has the options.
"""

from capnp_rig.loadtest.stack_user import StackUser


class JsonUser(StackUser):
    """Calls `read`, or `reverse_bytes` with a binary payload."""

    stack = "json"

"""Locust users of HTTP/2 with JSON bodies, ``server run --stack http``.

``locust -f loadtest/http2_user.py -H ADDR``; `loadtest.stack_user` has the options.
"""

from capnp_rig.loadtest.stack_user import StackUser


class Http2User(StackUser):
    """Posts JSON to ``/reverse``, or to ``/reverse-bytes`` with a binary payload."""

    stack = "http2"

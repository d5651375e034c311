"""The base of the Locust users for the stacks beside capnp: same options, same statistics.

``locust -f loadtest/json_user.py -H 127.0.0.1:5000`` loads what ``server run --stack json``
serves, and so on. As `ReverseUser` does, such a user keeps ``--in-flight`` calls under way on its
connection, or makes calls when they are due with ``--rate``; what it sends is said by
``--payload-bytes``, ``--payload-kind``, ``--text`` and ``--corpus``; every reply is checked.
"""

# Not by name: Locust takes every user class that it finds in a locustfile for one to run, and in
# whatever that imports by name.
from capnp_rig.loadtest import capnp_user


class StackUser(capnp_user.ReverseUser):
    """A user of `stack`, one of `loadtest.protocols.STACKS`; subclasses say which."""

    abstract = True

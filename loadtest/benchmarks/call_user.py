"""The job of `ReverseUser`, written as a user's own scenario: what `CapnpUser.call` costs.

``loadtest bench-locust --calls`` compares it with `ReverseUser`. Its params are encoded, and its
results read and compared, in Python for each call.
"""

from itertools import cycle

from locust import task
from locust.env import Environment

# Not by name: Locust runs every user class that it finds in a locustfile, imported ones included.
from capnp_rig.loadtest import capnp_user
from capnp_rig.loadtest.workload.bodies import random_texts

_PAYLOAD_BYTES = 32
_SEED = 1
# As many as `ReverseUser` has with one call in flight.
_TEXTS = 3


class CallUser(capnp_user.CapnpUser):
    """Sends texts and checks each reply, one call after the other."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        texts = [
            f"{self._number:016x}{body}"
            for body in random_texts(_PAYLOAD_BYTES, seed=_SEED, count=_TEXTS)
        ]
        self._texts = cycle([(text, text[::-1].encode()) for text in texts])

    @task
    def reverse(self) -> None:
        """Loop inside the task: each return would cost a sleep."""
        while self.running:
            text, expected = next(self._texts)
            results = self.call("read", {"request": {"content": text}})
            self.expect(results.chunk == expected)

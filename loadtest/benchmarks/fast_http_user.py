"""The same job over HTTP with Locust's fastest HTTP client, to compare `ReverseUser` with.

``locust -f loadtest/benchmarks/fast_http_user.py -H http://host:port`` posts texts to a server
that answers with the text reversed, such as `loadtest.benchmarks.http_reverse`, and compares each
reply. Locust alone counts, as for anyone's `FastHttpUser`. ``loadtest/stack_user.py --stack http1``
loads ``server run --stack http`` and counts as the rig does.
"""

from itertools import count, cycle
from typing import Any

from locust import task
from locust.contrib.fasthttp import FastHttpUser
from locust.user.task import LOCUST_STATE_STOPPING

from capnp_rig.loadtest.stats.failures import WrongReply, check_reply
from capnp_rig.loadtest.workload.bodies import random_texts

_PAYLOAD_BYTES = 32
_SEED = 1
# As many as `ReverseUser` has with one call in flight.
_TEXTS = 3
_numbers = count()


class HttpReverseUser(FastHttpUser):
    """Posts texts and checks each reply, one after the other on one connection."""

    def on_start(self) -> None:
        """Prepare the texts; no other user has the same."""
        bodies = random_texts(_PAYLOAD_BYTES, seed=_SEED, count=_TEXTS)
        texts = [f"{next(_numbers):016x}{body}" for body in bodies]
        self._texts = cycle([(text.encode(), text[::-1].encode()) for text in texts])

    @task
    def reverse(self) -> None:
        """Loop inside the task: each return would cost a sleep. Nothing here is looked up twice."""
        post: Any = self.client.post
        texts = self._texts
        while self._state != LOCUST_STATE_STOPPING:
            body, expected = next(texts)
            response = post("/", data=body)
            # Without `catch_response`, which costs more. A failed request was counted, and has no
            # content.
            if response.content != expected and response.content is not None:
                self._count_wrong(response.content, expected)

    def _count_wrong(self, reply: bytes, expected: bytes) -> None:
        try:
            check_reply(reply, expected)
        except WrongReply as error:
            self.environment.events.request.fire(
                request_type="POST", name="/", response_time=0, response_length=0, exception=error
            )

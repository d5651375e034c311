"""Locust users of HTTP/1.1 with JSON bodies, ``server run --stack http``, by Locust's fast client.

``locust -f loadtest/http_user.py -H ADDR``; `loadtest.stack_user` has the options. What
`FastHttpUser` has for a client sends the requests; the rig counts them, as it does for all others.
It makes one request at a time, so there is no ``--in-flight``; for more calls per second than it
makes, `loadtest run --stack http1` speaks the same.
"""

import time
from collections.abc import Iterator
from itertools import cycle
from typing import Any

from locust import task
from locust.contrib.fasthttp import FastHttpSession
from locust.env import Environment
from locust.event import EventHook
from locust.exception import StopTest

from capnp_rig.client.errors import Disconnected
from capnp_rig.loadtest import capnp_user
from capnp_rig.loadtest.protocols import StackWorkload
from capnp_rig.loadtest.protocols.http1_stack import BINARY_BODY, TEXT_BODY, JsonBody
from capnp_rig.loadtest.protocols.payloads import Payload
from capnp_rig.loadtest.workload import BINARY, WorkloadError

# Untyped.
_EventHook: Any = EventHook
_HEADERS = {"content-type": "application/json", "accept-encoding": "identity"}


class HttpUser(capnp_user.CapnpUser):
    """Posts to ``/reverse``, or to ``/reverse-bytes`` with a binary payload."""

    stack = "http1"

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        options = self._crew.options
        if options.in_flight > 1:
            raise StopTest("HttpUser makes one request at a time: leave out --in-flight")
        if self._address.path is not None:
            raise StopTest("HttpUser needs a TCP address")
        try:
            workload = self._crew.workload(self.stack)
        except WorkloadError as error:
            raise StopTest(str(error)) from error
        assert isinstance(workload, StackWorkload)
        self._payloads = workload.payloads
        self._calls = self._count(workload.label)
        self._body = BINARY_BODY if options.payload_kind == BINARY else TEXT_BODY
        # Locust's own statistics are fed by the rig, not by the client.
        self._session: Any = FastHttpSession(
            base_url=f"http://{self.host}",
            request_event=_EventHook(),
            user=None,
            network_timeout=self.call_timeout_s,
            connection_timeout=self.connect_timeout_s,
        )

    @task
    def keep_posting(self) -> None:
        """Make one call after the other until the user is stopped."""
        requests = self._requests()
        while self.running:
            payload, body, expected = next(requests)
            due_ns = self._await_due()
            self._in_flight = 1
            sent_ns = time.monotonic_ns()
            response = self._session.request("POST", self._body.path, data=body, headers=_HEADERS)
            received_ns = time.monotonic_ns()
            self._in_flight = 0
            due_ns = sent_ns if due_ns is None else due_ns
            content: bytes | None = response.content
            # A response without content has failed; it has a status of 0.
            if content == expected and response.status_code == 200:
                self._answered(due_ns, sent_ns, received_ns, len(content))
            else:
                self._judge(response, payload, (due_ns, sent_ns, received_ns))
            self._tell()

    def _answered(self, due_ns: int, sent_ns: int, received_ns: int, size: int) -> None:
        self._backoff.reset()
        self._calls.answered(due_ns, sent_ns, received_ns)
        self._calls.received(size)

    def _judge(self, response: Any, payload: Payload, times: tuple[int, int, int]) -> None:
        """Count a response that is not the expected one, to the byte."""
        failure: Exception | None
        if response.status_code:
            content: bytes = response.content or b""
            failure = self._body.judge(response.status_code, payload, content)
            if failure is None:
                self._answered(*times, len(content))
                return
        else:
            # The errors of the network have no type in common.
            error = response.error
            failure = Disconnected(f"{type(error).__name__}: {error}")
        self._calls.failed(failure, *times[1:])
        self._recover(failure)

    def _requests(self) -> Iterator[tuple[Payload, bytes, bytes]]:
        lap = _requests(self._body, self._payloads.lap(self._number, 1))
        return cycle(lap) if self._payloads.is_repeating else lap


def _requests(body: JsonBody, lap: Iterator[Payload]) -> Iterator[tuple[Payload, bytes, bytes]]:
    """Yield payloads, each with the body that is posted and the one that comes back."""
    for payload in lap:
        yield payload, b"".join(body.request(payload)), b"".join(body.reply(payload))

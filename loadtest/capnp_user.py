"""Locust users that call a Cap'n Proto server: ``locust -f loadtest/capnp_user.py -H ADDR``.

`ReverseUser` calls the tutorial's ``MessageStream.read`` and compares every reply. For an
interface of your own, subclass `CapnpUser` in your own locustfile::

    from locust import task
    from loadtest.capnp_user import CapnpUser
    from schema import load
    from wire.interfaces import compile_interface

    class AdderUser(CapnpUser):
        interface = compile_interface(load("./adder.capnp").Adder)

        @task
        def add(self):
            while self.running:
                results = self.call("add", {"a": 1, "b": 2})
                self.expect(results.sum == 3)

`call` counts the call in Locust's statistics and in the rig's microsecond histograms, and
returns a view of the results. Where it fails, it is counted as failed, the task
ends there, and Locust starts the next; catch `CallFailed` to go on instead. A lost
connection is made anew before the next call, after a wait that grows and is jittered.

One user has one connection and waits for its replies: a closed loop, so the times are
service times, and a server that stalls is asked less. They include the time until
gevent runs the user again.
"""

import random
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import gevent
from locust import User, task
from locust.env import Environment
from locust.exception import RescheduleTask, StopTest
from locust.runners import WorkerRunner
from locust.user.task import LOCUST_STATE_STOPPING

from client import Client, ClientError, DeadlineExceeded, Disconnected, PendingCall, ProtocolError
from client.blocking import CONNECT_TIMEOUT_S, MESSAGE_STREAM
from loadtest import locust_report
from loadtest.backoff import Backoff
from loadtest.failures import WrongReply, check_reply, describe_mismatch
from loadtest.texts import Text, TextError, generate, parse_corpus, prepare, requests
from wire.address import AddressError, parse_address
from wire.errors import WireError
from wire.interfaces import Interface

_REQUEST_TYPE = "capnp"
_NO_CONTEXT: dict[str, Any] = {}


class CallFailed(RescheduleTask):
    """A call of `CapnpUser.call` failed and has been counted; `__cause__` says how."""


class CapnpUser(User):
    """A user with one connection to the server at `host`; subclass it, see the module."""

    abstract = True
    interface: Interface = MESSAGE_STREAM
    connect_timeout_s = CONNECT_TIMEOUT_S

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        locust_report.needs_host(cls)

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        try:
            self._address = parse_address(self.host or "")
        except AddressError as error:
            raise StopTest(f"no server to load: {error}") from error
        self.call_timeout_s: float = _options(environment).call_timeout
        # Workers are forked: only what is made here differs between them.
        self.rng = random.Random()  # noqa: S311 - jitter and payloads
        self._backoff = Backoff(self.rng)
        self._client: Client | None = None
        self._tally = locust_report.tally()
        # Locust's hooks are untyped.
        self._fire: Callable[..., None] = environment.events.request.fire
        self._names = {name: f"{self.interface.name}.{name}" for name in self.interface.methods}
        # Locust wants to know when a call started by the wall clock, which may be set.
        self._epoch_s = time.time() - time.monotonic()
        self._in_flight = 0

    @property
    def running(self) -> bool:
        """Whether the user may go on: loop on it inside a task, each return costs a sleep."""
        return bool(self._state != LOCUST_STATE_STOPPING)

    def on_stop(self) -> None:
        """Give up the calls in flight, and close the connection."""
        self._tally.unfinished(self._in_flight)
        self._in_flight = 0
        self.disconnect()

    def call(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        check: Callable[[Any], object] | None = None,
    ) -> Any:  # noqa: ANN401 - a view of the schema's results
        """Call a method by its schema name, count the call, return a view of the results.

        `check` gets the results and raises, `WrongReply` for example, where they are wrong.

        Raises:
            CallFailed: The call failed, or `check` did; it is counted already.
        """
        client = self.connected()
        sent_ns = time.monotonic_ns()
        self._in_flight = 1
        try:
            results = client.call(method, params, timeout_s=self.call_timeout_s)
            received_ns = time.monotonic_ns()
            self._in_flight = 0
            if check is not None:
                check(results)
        except (ClientError, WireError, WrongReply) as error:
            self._in_flight = 0
            self._fail(method, sent_ns, time.monotonic_ns(), error)
            self._recover(error)
            raise CallFailed from error
        self._succeed(method, sent_ns, received_ns, 0)
        # As in ReverseUser._receive.
        gevent.sleep(0)
        return results

    def expect(self, ok: bool, what: str = "the results are not as expected") -> None:  # noqa: FBT001 - reads as a sentence
        """Count a failure where `ok` is false; `what` must not vary from call to call.

        Raises:
            CallFailed: `ok` is false.
        """
        if not ok:
            now_ns = time.monotonic_ns()
            error = WrongReply(what)
            self._fail("expect", now_ns, now_ns, error)
            raise CallFailed from error

    def connected(self) -> Client:
        """Return the connection, made anew where it was lost.

        Raises:
            CallFailed: It cannot be made; counted, and waited for a moment.
        """
        if self._client is not None:
            return self._client
        started_ns = time.monotonic_ns()
        try:
            self._client = Client.connect(
                self._address, interface=self.interface, connect_timeout_s=self.connect_timeout_s
            )
        except ClientError as error:
            self._fail("connect", started_ns, time.monotonic_ns(), error)
            self._recover(error)
            raise CallFailed from error
        return self._client

    def disconnect(self) -> None:
        """Close the connection; the next call makes a new one."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _succeed(self, method: str, sent_ns: int, received_ns: int, reply_bytes: int) -> None:
        self._backoff.reset()
        name = self._names[method]
        self._tally.answered(name, sent_ns, received_ns)
        self._fire(
            request_type=_REQUEST_TYPE,
            name=name,
            response_time=(received_ns - sent_ns) / 1e6,
            response_length=reply_bytes,
            response=None,
            context=_NO_CONTEXT,
            exception=None,
            start_time=self._epoch_s + sent_ns / 1e9,
            url=None,
        )

    def _fail(self, method: str, sent_ns: int, received_ns: int, error: Exception) -> None:
        name = self._names.get(method, method)
        short = self._tally.failed(name, sent_ns, received_ns, error)
        self._fire(
            request_type=_REQUEST_TYPE,
            name=name,
            response_time=(received_ns - sent_ns) / 1e6,
            response_length=0,
            response=None,
            context=_NO_CONTEXT,
            exception=short,
            start_time=self._epoch_s + sent_ns / 1e9,
            url=None,
        )

    def _recover(self, error: Exception) -> None:
        """Drop a lost connection, and wait a moment, so that no busy loop of reconnects results."""
        if isinstance(error, (Disconnected, ProtocolError)):
            self.disconnect()
            gevent.sleep(self._backoff.next_s())


class ReverseUser(CapnpUser):
    """Sends texts to the tutorial's service, and compares each reply with the text reversed."""

    def on_start(self) -> None:
        """Prepare the texts; each user starts elsewhere among them, with nonces of its own."""
        options = _options(self.environment)
        self._depth: int = options.in_flight
        texts = _texts(options)
        number = _user_number(self.environment)
        turn = number % len(texts)
        self._requests = requests(texts[turn:] + texts[:turn], number)
        self._expected: dict[PendingCall, bytes] = {}

    def on_stop(self) -> None:
        """Count the calls that the end of the run cut off."""
        self._in_flight = len(self._expected)
        super().on_stop()

    @task
    def reverse(self) -> None:
        """Keep calls in flight until the user is stopped or the connection lost."""
        client = self.connected()
        try:
            while self.running:
                self._send(client)
                self._receive(client)
            while self._expected:
                self._receive(client)
        except ClientError as error:
            self._lose(error)

    def _send(self, client: Client) -> None:
        expected = self._expected
        while len(expected) < self._depth:
            content, reply = next(self._requests)
            expected[client.submit("read", {"request": {"content": content}})] = reply

    def _receive(self, client: Client) -> None:
        """Wait for replies and count them.

        Raises:
            ClientError: The connection is lost, or a call is overdue.
        """
        lost: ClientError | None = None
        for pending in client.wait(timeout_s=self.call_timeout_s):
            self._settle(pending, self._expected.pop(pending))
            if isinstance(pending.error, (Disconnected, ProtocolError)):
                lost = pending.error
        if lost is not None:
            raise lost
        now_ns = pending.received_ns
        if self._expected:
            oldest = next(iter(self._expected))
            if now_ns - oldest.sent_ns > self.call_timeout_s * 1e9:
                raise DeadlineExceeded("no answer within the deadline")
        # Without this, a user whose reply is always there already keeps the others, and Locust's
        # heartbeats, waiting. It also pays: replies come in meanwhile, and gevent's wait for
        # a socket costs more than a sleep (15,100 calls/s with 16 users, 11,300 without).
        gevent.sleep(0)

    def _settle(self, pending: PendingCall, expected: bytes) -> None:
        """Count one call that is done."""
        error: Exception | None = pending.error
        if error is None:
            try:
                # As bytes: comparing a memoryview goes byte by byte.
                reply = bytes(pending.results.chunk)
                check_reply(reply, expected)
            except WireError as unreadable:
                error = unreadable
            except WrongReply as wrong:
                error = wrong
                locust_report.log_few(f"Wrong reply: {describe_mismatch(reply, expected)}")
            else:
                self._succeed("read", pending.sent_ns, pending.received_ns, len(reply))
                return
        self._fail("read", pending.sent_ns, pending.received_ns, error)

    def _lose(self, error: ClientError) -> None:
        """Count what was in flight as failed, and start over with a new connection."""
        now_ns = time.monotonic_ns()
        waiting, self._expected = self._expected, {}
        for pending in waiting:
            self._fail("read", pending.sent_ns, now_ns, error)
        # Replies to calls given up must not meet those of new ones.
        self.disconnect()
        gevent.sleep(self._backoff.next_s())


_numbers = count()


def _user_number(environment: Environment) -> int:
    """Return a number that no other user of the run has."""
    runner = environment.runner
    # -1 until the master's first word; a run starts after that.
    index = runner.worker_index if isinstance(runner, WorkerRunner) else 0
    return max(index, 0) << 20 | next(_numbers)


def _options(environment: Environment) -> Namespace:
    options = environment.parsed_options
    assert isinstance(options, Namespace)
    return options


def _texts(options: Namespace) -> tuple[Text, ...]:
    """Return what the options ask to send.

    Raises:
        StopTest: The texts are unusable.
    """
    key = (options.text, options.corpus, options.payload_bytes, options.data_seed)
    try:
        return _prepared(*key)
    except (TextError, OSError, UnicodeError) as error:
        raise StopTest(str(error)) from error


@cache
def _prepared(
    text: str, corpus: str | None, payload_bytes: int, data_seed: int
) -> tuple[Text, ...]:
    if corpus:
        return prepare(parse_corpus(Path(corpus).read_text(encoding="utf-8")))
    if text:
        return prepare([text])
    return prepare(generate(payload_bytes, seed=data_seed))

"""F-7: one blocking `ReverseClient`, and those who share it: threads, forks, greenlets, closers."""

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from fake_server import answering, fake_server, until_closed
from forked import error_of, in_child
from running_server import ROOT, environment

from capnp_rig.client import ClientError, DeadlineExceeded, Disconnected, ReverseClient
from capnp_rig.objects.errors import UsageError, UsedAfterFork
from capnp_rig.schema import message
from capnp_rig.wire.encoding.encoded import EncodedStruct
from capnp_rig.wire.rpc.connection import Called
from capnp_rig.wire.rpc.interfaces import compile_interface

READ = compile_interface(message.MessageStream).methods["read"]
# Far more than a machine needs, far less than the calls that are waited for.
SOON_S = 40.0
LONG_S = 50.0


def reversed_text(event: Called) -> EncodedStruct | None:
    """Answer all but "never"."""
    text = READ.params.open(event.params).request.content
    return None if text == "never" else READ.results.write({"chunk": text[::-1].encode()})


@pytest.fixture
def address() -> Iterator[str]:
    with fake_server(answering(reversed_text)) as found:
        yield found


# --- forks ------------------------------------------------------------------------------

# Newer Pythons warn of what is tested here.
FORKS = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def used_in_a_child(client: ReverseClient) -> str:
    uses = (
        lambda: client.read("child"),
        lambda: client.call("read", {}),
        lambda: client.submit("read", {}),
        client.wait,
    )
    errors = {error_of(use) for use in uses}
    with client:
        pass
    client.close()
    return str(errors | {error_of(use) for use in uses})


REFUSED = str({UsedAfterFork})


@FORKS
def test_f7_a_fork_leaves_the_connection_to_its_parent(address: str) -> None:
    with ReverseClient.connect(address) as client:
        for number in range(3):
            first = client.submit("read", {"request": {"content": f"before {number}"}})
            assert in_child(lambda: used_in_a_child(client)) == REFUSED
            assert client.reverse("between") == "neewteb"
            assert client.wait() == [first]
            assert bytes(first.results.chunk).decode() == f"before {number}"[::-1]


@FORKS
def test_f7_a_child_that_collects_the_client_does_not_hurt_its_parent(address: str) -> None:
    clients = [ReverseClient.connect(address)]

    def collect() -> str:
        with warnings.catch_warnings():
            # The socket warns that nobody closed it.
            warnings.simplefilter("ignore", ResourceWarning)
            clients.clear()
            gc.collect()
        return "collected"

    assert in_child(collect) == "collected"
    assert clients[0].reverse("alive") == "evila"
    clients[0].close()


@FORKS
def test_f7_a_fork_in_the_middle_of_a_call_of_another_thread(address: str) -> None:
    with ReverseClient.connect(address) as client:
        ended: list[str] = []

        def call() -> None:
            with pytest.raises(DeadlineExceeded):
                client.read("never", timeout_s=0.5)
            ended.append(client.reverse("parent"))

        thread = threading.Thread(target=call)
        thread.start()
        until(lambda: client._owner is not None)
        # The child has a copy of the lock that nobody will ever release.
        assert in_child(lambda: used_in_a_child(client)) == REFUSED
        thread.join(SOON_S)
        assert ended == ["tnerap"]


@FORKS
def test_f7_a_parent_that_closes_ends_the_connection_though_a_child_has_it() -> None:
    ended = threading.Event()

    def behave(connection: socket.socket) -> None:
        until_closed(connection)
        ended.set()

    with fake_server(behave) as address:
        client = ReverseClient.connect(address)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.read(reading, 1)
            os._exit(0)
        client.close()
        assert ended.wait(SOON_S)
        os.write(writing, b"x")
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)


# --- threads ----------------------------------------------------------------------------


def until(is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + SOON_S
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.001)


class Caller:
    """A thread that makes one call; `error` is what it ended in."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.error: BaseException | None = None
        self.result: object = None
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._work()
        except ClientError as error:
            self.error = error

    def ended(self) -> BaseException | None:
        self._thread.join(SOON_S)
        assert not self._thread.is_alive()
        return self.error


def test_f7_a_deadline_covers_the_wait_for_other_threads(address: str) -> None:
    with ReverseClient.connect(address) as client:
        long = Caller(lambda: client.read("never", timeout_s=LONG_S))
        until(lambda: client._owner is not None)
        started_s = time.monotonic()
        for use in (lambda: client.read("x", timeout_s=0.2), lambda: client.wait(timeout_s=0.2)):
            with pytest.raises(DeadlineExceeded):
                use()
        assert time.monotonic() - started_s < SOON_S
        client.close()
        assert isinstance(long.ended(), Disconnected)


def test_f7_close_ends_the_calls_of_all_threads_at_once(address: str) -> None:
    client = ReverseClient.connect(address, timeout_s=LONG_S)
    sock = client._socket._socket
    submitted = client.submit("read", {"request": {"content": "never"}})
    callers = [Caller(lambda: client.read("never")), *(Caller(client.wait) for _ in range(3))]
    until(lambda: client._owner is not None)
    client.close()
    client.close()
    for caller in callers:
        error = caller.ended()
        assert error is None or str(error) == "the client is closed"
    assert submitted.done
    assert str(submitted.error) == "the client is closed"
    # Whoever had the turn closed the descriptor.
    until(lambda: sock.fileno() == -1)
    assert client._pending == {}


def test_f7_close_ends_a_call_that_cannot_be_sent() -> None:
    release = threading.Event()
    with fake_server(lambda _: bool(release.wait(LONG_S)) and None, receive_bytes=4096) as address:
        client = ReverseClient.connect(address, timeout_s=LONG_S)
        client._socket._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        caller = Caller(lambda: client.read("x" * 4_000_000))
        until(lambda: client._socket.is_blocked)
        client.close()
        assert str(caller.ended()) == "the client is closed"
        release.set()


def test_f7_64_threads_get_their_own_answers(address: str) -> None:
    def work(number: int) -> list[str]:
        texts = [f"{number} {turn}" for turn in range(4)]
        return [text for text in texts if client.reverse(text) != text[::-1]]

    with ReverseClient.connect(address, timeout_s=LONG_S) as client:
        callers = [Caller(lambda number=number: work(number)) for number in range(64)]
        for caller in callers:
            assert caller.ended() is None
            assert caller.result == []
        assert client._pending == {}


def test_f7_a_signal_handler_that_closes_ends_the_call_it_interrupts(address: str) -> None:
    client = ReverseClient.connect(address, timeout_s=LONG_S)
    before = signal.signal(signal.SIGUSR1, lambda *_: client.close())
    try:
        threading.Thread(
            target=lambda: (
                until(lambda: client._owner is not None),
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1),
            )
        ).start()
        with pytest.raises(Disconnected):
            client.read("never")
    finally:
        signal.signal(signal.SIGUSR1, before)
    with pytest.raises(Disconnected, match="the client is closed"):
        client.read("x")


def test_f7_a_call_in_a_signal_handler_is_no_deadlock(address: str) -> None:
    client = ReverseClient.connect(address, timeout_s=LONG_S)
    inner: list[ClientError] = []

    def call_again(*_: object) -> None:
        try:
            client.read("inner")
        except ClientError as error:
            inner.append(error)

    before = signal.signal(signal.SIGUSR1, call_again)
    try:
        threading.Thread(
            target=lambda: (
                until(lambda: client._owner is not None),
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1),
            )
        ).start()
        with pytest.raises(Disconnected):
            client.read("never")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert [type(error) for error in inner] == [Disconnected]
    client.close()


def test_f7_ctrl_c_cancels_the_call_and_the_connection_lives(address: str) -> None:
    with ReverseClient.connect(address, timeout_s=LONG_S) as client:
        threading.Thread(
            target=lambda: (
                until(lambda: bool(client._pending)),
                # By now it most likely waits; if not, the connection is given up.
                time.sleep(0.05),
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT),
            )
        ).start()
        with pytest.raises(KeyboardInterrupt):
            client.read("never")
        with suppress(Disconnected):
            assert client.reverse("after") == "retfa"


# --- timeouts ---------------------------------------------------------------------------

BAD_TIMEOUTS: list[Any] = [float("inf"), float("nan"), -1.0, 1e300, "1"]


@pytest.mark.parametrize("timeout_s", BAD_TIMEOUTS)
def test_f2_a_timeout_that_is_none_leaves_the_connection_alive(
    address: str, timeout_s: float
) -> None:
    with pytest.raises(UsageError):
        ReverseClient.connect(address, timeout_s=timeout_s)
    with ReverseClient.connect(address) as client:
        for use in (
            lambda: client.read("x", timeout_s=timeout_s),
            lambda: client.wait(timeout_s=timeout_s),
        ):
            with pytest.raises(UsageError):
                use()
        assert client.reverse("alive", timeout_s=30 * 86_400.0) == "evila"


def test_f7_a_server_that_reads_late_gets_all_that_was_submitted() -> None:
    """Each side stops reading while the other does not: only sending both ways goes on."""
    texts = [f"{number} " + "x" * 100_000 for number in range(40)]
    with fake_server(answering(reversed_text)) as address, ReverseClient.connect(address) as client:
        calls = {client.submit("read", {"request": {"content": text}}): text for text in texts}
        while calls:
            for done in client.wait():
                assert bytes(done.results.chunk).decode() == calls.pop(done)[::-1]


def test_f7_what_is_answered_during_another_call_is_returned_by_wait(address: str) -> None:
    with ReverseClient.connect(address) as client:
        submitted = client.submit("read", {"request": {"content": "one"}})
        assert client.reverse("two") == "owt"
        assert submitted.done
        assert client.wait() == [submitted]
        assert client.wait() == []


# --- processes of their own ---------------------------------------------------------------

GREENLETS = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent
from capnp_rig.client import ReverseClient, DeadlineExceeded, Disconnected

with ReverseClient.connect(sys.argv[1]) as client:
    # Killed in its call, which is its turn, and while it waits for one.
    for _ in range(3):
        callers = [gevent.spawn(client.read, "never") for _ in range(3)]
        gevent.sleep(0.05)
        gevent.killall(callers)
        assert client.reverse("after") == "retfa"
    with gevent.Timeout(0.05, False):
        client.read("never")
    assert client.reverse("timeout") == "tuoemit"
    try:
        client.read("never", timeout_s=0.05)
    except DeadlineExceeded:
        pass
    texts = [f"text {n}" for n in range(30)]
    callers = [gevent.spawn(client.reverse, text) for text in texts]
    gevent.joinall(callers, raise_error=True)
    assert [caller.value for caller in callers] == [text[::-1] for text in texts]
    assert not client._pending

    def wait():
        try:
            client.read("never")
        except Disconnected:
            return "disconnected"

    waiting = gevent.spawn(wait)
    gevent.sleep(0.05)
    client.close()
    assert waiting.get(timeout=10) == "disconnected"
print("right")
"""

AT_EXIT = """
import sys, threading, time
from capnp_rig.client import ReverseClient
assert "gevent" not in sys.modules
client = ReverseClient.connect(sys.argv[1])
threading.Thread(target=client.read, args=["never"], daemon=True).start()
while not client._pending:
    time.sleep(0.001)
print("right")
"""

IN_A_LOOP = """
import asyncio, sys
from capnp_rig.client import ReverseClient
async def main():
    with ReverseClient.connect(sys.argv[1]) as client:
        assert client.reverse("abc") == "cba"
        assert await asyncio.to_thread(client.reverse, "def") == "fed"
asyncio.run(main())
print("right")
"""


@pytest.mark.parametrize("program", [GREENLETS, AT_EXIT, IN_A_LOOP], ids=["gevent", "exit", "loop"])
def test_f7_elsewhere(address: str, program: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", program, address],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env=environment(),
        text=True,
        timeout=30,
    )
    assert (found.stdout, found.stderr, found.returncode) == ("right\n", "", 0)

"""F-7: an interrupt at any bytecode of a call leaves a client that is right, or says so."""

import errno
import gc
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from interrupting import interrupted

import capnp_rig
from capnp_rig.client import DeadlineExceeded, Disconnected, RemoteError, ReverseClient
from capnp_rig.schema import message
from capnp_rig.wire.errors import EncodeError
from capnp_rig.wire.rpc.connection import Called, Cancelled
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.messages import RemoteError as WireRemoteError
from capnp_rig.wire.rpc.server_connection import ServerConnection

ROOT = Path(capnp_rig.__file__).parent
# All that keeps state. What they call only computes: an interrupt in there is one at the call.
TRACED = tuple(
    str(ROOT / name)
    for name in (
        "client/",
        "wire/rpc/client_connection.py",
        "wire/rpc/connection.py",
        "wire/encoding/frames.py",
    )
)
READ = compile_interface(message.MessageStream).methods["read"]
LARGE = 20_000
WHOLE = 1 << 20


class ServedSocket:
    """A socket whose server runs inside `send`: no thread, so each run is the same.

    Reads a text and answers it reversed, "fail" with an exception, "never" not at all.
    """

    def __init__(self, *, step: int = 1 << 20) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._server = ServerConnection()
        self._step = step
        self._took = False
        # How deep the stack is in here, where nothing is interrupted.
        self.depth = 0
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ours, name)

    def recv(self, size: int) -> bytes:
        return self._ours.recv(min(size, self._step))

    def send(self, data: memoryview) -> int:
        if self._step < len(data) and self._took:
            self._took = False
            raise BlockingIOError(errno.EAGAIN, "busy")
        self._took = True
        self.depth += 1
        taken = bytes(data[: self._step])
        for event in self._server.events(taken):
            if isinstance(event, Called):
                self.calls += 1
                self._answer(event)
            elif isinstance(event, Cancelled):
                self._server.send_exception(event.question_id, WireRemoteError("cancelled"))
        self._theirs.sendall(self._server.data_to_send())
        self.depth -= 1
        return len(taken)

    def _answer(self, event: Called) -> None:
        text = READ.params.open(event.params).request.content
        if text.startswith("fail"):
            self._server.send_exception(event.question_id, WireRemoteError(text))
        elif not text.startswith("never"):
            results = READ.results.write({"chunk": text[::-1].encode()})
            self._server.send_results(event.question_id, results)

    def end(self) -> None:
        self._theirs.close()

    @property
    def open_calls(self) -> int:
        return self._server.calls_in_flight


def answer_of(client: ReverseClient, text: str, **options: float) -> None:
    assert client.reverse(text, **options) == text[::-1]


def a_call(client: ReverseClient) -> None:
    answer_of(client, "first")


def a_large_call(client: ReverseClient) -> None:
    answer_of(client, "large" * (LARGE // 5))


def a_failing_call(client: ReverseClient) -> None:
    with pytest.raises(RemoteError, match="fail"):
        client.read("fail")


def an_overdue_call(client: ReverseClient) -> None:
    with pytest.raises(DeadlineExceeded):
        client.read("never", timeout_s=0)


def a_call_that_cannot_be_encoded(client: ReverseClient) -> None:
    with pytest.raises(EncodeError):
        client.read("\ud800")


def submitted_calls(client: ReverseClient) -> None:
    expected = {}
    for text in ("one", "fail two", "three"):
        expected[client.submit("read", {"request": {"content": text}})] = text
    while expected:
        for done in client.wait():
            text = expected.pop(done)
            if done.error is None:
                assert bytes(done.results.chunk).decode() == text[::-1]
            else:
                assert str(done.error) == text


def an_overdue_wait(client: ReverseClient) -> None:
    client.submit("read", {"request": {"content": "never"}})
    with pytest.raises(DeadlineExceeded):
        client.wait(timeout_s=0)


def closing(client: ReverseClient) -> None:
    with client:
        pass


def a_call_that_finds_the_end(client: ReverseClient) -> None:
    with pytest.raises(Disconnected):
        client.read("lost")


Scenario = Callable[[ReverseClient], None]


def run_interrupted(scenario: Scenario, at: int, *, warm: bool, step: int) -> bool:
    """Interrupt `scenario` at one bytecode, and check what is left; return whether that came."""
    served = ServedSocket(step=step)
    client = ReverseClient(served, timeout_s=5)  # type: ignore[arg-type]
    if warm:
        answer_of(client, "warm")
    if scenario is a_call_that_finds_the_end:
        served.end()
    with interrupted(at, TRACED, lambda: served.depth > 0) as came:
        try:
            scenario(client)
        except KeyboardInterrupt:
            assert came()
    served.depth = 0
    is_right_after(client, served)
    return came()


def is_right_after(client: ReverseClient, served: ServedSocket) -> None:
    # Else other threads would wait for ever.
    lock: Any = client._lock
    assert not lock._is_owned()
    with suppress(Disconnected):
        answer_of(client, "after")
        # Only what nobody ever answers may still be under way.
        assert served.open_calls <= 1
    with suppress(DeadlineExceeded):
        for done in client.wait(timeout_s=0):
            assert done.done
    client.close()
    assert client._pending == {}
    assert served.fileno() == -1
    served.end()


# How far apart the interrupts are: at each bytecode of some, at samples of what differs little.
@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="Python 3.12 and later leave out opcode events of warm code"
)
@pytest.mark.parametrize(
    ("scenario", "warm", "step", "stride"),
    [
        (a_call, False, WHOLE, 3),
        (a_call, True, WHOLE, 3),
        (a_large_call, False, 7_000, 7),
        (a_large_call, True, 7_000, 5),
        (a_failing_call, True, WHOLE, 5),
        (an_overdue_call, False, WHOLE, 7),
        (an_overdue_call, True, WHOLE, 1),
        (a_call_that_cannot_be_encoded, True, WHOLE, 1),
        (submitted_calls, False, WHOLE, 7),
        (submitted_calls, True, WHOLE, 3),
        (an_overdue_wait, True, WHOLE, 5),
        (closing, True, WHOLE, 1),
        (a_call_that_finds_the_end, False, WHOLE, 5),
    ],
)
def test_f7_an_interrupt_at_any_bytecode_is_survived(
    scenario: Scenario,
    warm: bool,
    step: int,
    stride: int,
) -> None:
    # Else a collection runs bytecodes of others in the middle.
    gc.disable()
    try:
        at = 1
        while run_interrupted(scenario, at, warm=warm, step=step):
            at += stride
    finally:
        gc.enable()
    assert at > 60

"""Both clients against pycapnp's own server, and against servers that misbehave."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop
from fake_server import Behaviour, answering, fake_server, finish, reset, until_closed
from running_peer import running_peer

from capnp_rig.client import (
    AsyncReverseClient,
    ClientError,
    ConnectError,
    DeadlineExceeded,
    Disconnected,
    EncodeError,
    Overloaded,
    ProtocolError,
    RemoteError,
    ReverseClient,
)
from capnp_rig.schema import load_rpc, message
from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT, EncodedStruct
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.message_encoder import (
    encode_abort,
    encode_bootstrap,
    encode_exception,
    encode_finish,
)
from capnp_rig.wire.rpc.messages import ExceptionType
from capnp_rig.wire.rpc.messages import RemoteError as WireRemoteError
from capnp_rig.wire.rpc.server_connection import ServerConnection

RPC = load_rpc()
READ = compile_interface(message.MessageStream).methods["read"]

# Calls `reverse` once over a fresh connection.
Reverse = Callable[..., str]


def blocking(address: str, text: str = "abc", *, timeout_s: float = 5.0) -> str:
    with ReverseClient.connect(address, timeout_s=timeout_s) as client:
        return client.reverse(text)


async def _reverse(address: str, text: str, timeout_s: float) -> str:
    async with await AsyncReverseClient.connect(address, timeout_s=timeout_s) as client:
        return await client.reverse(text)


def on_asyncio(address: str, text: str = "abc", *, timeout_s: float = 5.0) -> str:
    return asyncio.run(_reverse(address, text, timeout_s))


def on_uvloop(address: str, text: str = "abc", *, timeout_s: float = 5.0) -> str:
    return uvloop.run(_reverse(address, text, timeout_s))


@pytest.fixture(params=[blocking, on_asyncio, on_uvloop])
def reverse(request: pytest.FixtureRequest) -> Reverse:
    chosen: Reverse = request.param
    return chosen


@pytest.fixture(scope="module")
def reference() -> Iterator[str]:
    """The address of pycapnp's TwoPartyServer."""
    with running_peer("reference_server.py") as address:
        yield address


TEXTS = ["", "a", "Hello", "Grüße 🦀", "a\0b", "x" * 100_000, "e\u0301\u200d", "line\nbreak"]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_pycapnp_answers_us(reference: str, reverse: Reverse, text: str) -> None:
    assert reverse(reference, text) == text[::-1]


def test_an_exception_of_the_server_reaches_the_caller(reference: str, reverse: Reverse) -> None:
    with pytest.raises(RemoteError, match="boom in the method") as error:
        reverse(reference, "boom")
    assert error.value.type is ExceptionType.FAILED


def test_f1_a_deadline_cancels_and_the_connection_lives(reference: str) -> None:
    with ReverseClient.connect(reference) as client:
        with pytest.raises(DeadlineExceeded):
            client.read("slow", timeout_s=0.05)
        assert client.reverse("after") == "retfa"


def test_f1_a_deadline_cancels_and_the_async_connection_lives(reference: str) -> None:
    async def run() -> str:
        async with await AsyncReverseClient.connect(reference) as client:
            with pytest.raises(DeadlineExceeded):
                await client.read("slow", timeout_s=0.05)
            return await client.reverse("after")

    assert asyncio.run(run()) == "retfa"


def test_a_cancelled_task_cancels_its_call_only(reference: str) -> None:
    async def run() -> list[str]:
        async with await AsyncReverseClient.connect(reference) as client:
            slow = asyncio.create_task(client.read("slow"))
            other = asyncio.create_task(client.reverse("other"))
            await asyncio.sleep(0)
            slow.cancel()
            with suppress(asyncio.CancelledError):
                await slow
            return [await other, await client.reverse("next")]

    assert asyncio.run(run()) == ["rehto", "txen"]


def test_a_thousand_concurrent_calls_get_their_own_answers(reference: str) -> None:
    async def run() -> list[str]:
        async with await AsyncReverseClient.connect(reference) as client:
            return await asyncio.gather(*(client.reverse(f"call {n}") for n in range(1000)))

    assert asyncio.run(run()) == [f"call {n}"[::-1] for n in range(1000)]


def test_submitted_calls_are_completed_by_wait(reference: str) -> None:
    with ReverseClient.connect(reference) as client:
        calls = {
            client.submit("read", {"request": {"content": f"n{n}"}}): f"n{n}"[::-1].encode()
            for n in range(20)
        }
        left = dict(calls)
        while left:
            for done in client.wait():
                assert bytes(done.results.chunk) == left.pop(done)
                assert done.sent_ns <= done.received_ns
        assert client.wait() == []


def test_a_wait_without_answer_ends_at_its_deadline(reference: str) -> None:
    with ReverseClient.connect(reference) as client:
        client.submit("read", {"request": {"content": "slow"}})
        with pytest.raises(DeadlineExceeded):
            client.wait(timeout_s=0.05)


def test_threads_share_a_client(reference: str) -> None:
    wrong: list[str] = []
    with ReverseClient.connect(reference) as client:

        def work(name: str) -> None:
            for number in range(20):
                text = f"{name}-{number}"
                if client.reverse(text) != text[::-1]:
                    wrong.append(text)

        threads = [threading.Thread(target=work, args=[f"t{n}"]) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert wrong == []


def test_what_cannot_be_sent_leaves_the_connection_unhurt(reference: str) -> None:
    with ReverseClient.connect(reference) as client:
        for text in ("\ud800", "x" * 5_000_000):
            with pytest.raises(EncodeError):
                client.read(text)
        with pytest.raises(AttributeError, match="no method 'write'"):
            client.call("write", {})
        assert client.reverse("fine") == "enif"


def test_a_closed_client_says_so(reference: str) -> None:
    client = ReverseClient.connect(reference)
    client.close()
    with pytest.raises(Disconnected, match="the client is closed"):
        client.read("x")


# --- servers that misbehave --------------------------------------------------------------


def closes(_: socket.socket) -> None:
    pass


def closes_after_reading(connection: socket.socket) -> None:
    connection.recv(65536)
    finish(connection)


def resets(connection: socket.socket) -> None:
    connection.recv(65536)
    reset(connection)


def speaks_http(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    until_closed(connection)


def sends_a_tls_alert(connection: socket.socket) -> None:
    connection.sendall(bytes.fromhex("15 0303 0002 02 0a"))
    until_closed(connection)


def sends_garbage(connection: socket.socket) -> None:
    connection.sendall(b"\xff" * 64)
    until_closed(connection)


def answers_half(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(encode_abort(WireRemoteError("never whole"))[:20])
    finish(connection)


def is_full(connection: socket.socket) -> None:
    # Closing with unread bytes resets: what was sent before must be used all the same.
    connection.sendall(encode_abort(WireRemoteError("full", ExceptionType.OVERLOADED)))


def is_full_after_reading(connection: socket.socket) -> None:
    connection.recv(65536)
    is_full(connection)
    finish(connection)


def is_full_in_the_middle(connection: socket.socket) -> None:
    connection.recv(65536)
    server = ServerConnection()
    server.receive_data(encode_bootstrap(0))
    connection.sendall(server.data_to_send())
    is_full(connection)
    finish(connection)


def answers_too_much(connection: socket.socket) -> None:
    connection.recv(65536)
    server = ServerConnection()
    server.receive_data(encode_bootstrap(0))
    # A beginning of so much tells which call it answers, or not.
    table = bytes.fromhex("00000000 00000800")
    connection.sendall(server.data_to_send() + table + bytes(4096))
    until_closed(connection)


def aborts(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(encode_abort(WireRemoteError("go away")))
    finish(connection)


def has_no_bootstrap(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"".join(encode_exception(0, WireRemoteError("nothing here"))))
    until_closed(connection)


def is_overloaded(connection: socket.socket) -> None:
    server = ServerConnection()
    while data := connection.recv(65536):
        for event in server.receive_data(data):
            refusal = WireRemoteError("busy", ExceptionType.OVERLOADED)
            server.send_exception(event.question_id, refusal)  # type: ignore[union-attr]
        connection.sendall(server.data_to_send())


def bad_results(_: object) -> EncodedStruct:
    # A pointer far outside the message, where the chunk should be.
    return EncodedStruct(1 << 16, [b"\x01\0\0\x70\x02\x01\0\0"], 1)


def not_utf8(_: object) -> EncodedStruct:
    return READ.results.write({"chunk": b"\xff\xfe"})


@pytest.mark.parametrize(
    ("behave", "error", "reason"),
    [
        (closes, Disconnected, "closed the connection|lost"),
        (closes_after_reading, Disconnected, "the server closed the connection"),
        # A send that meets the reset takes it, and what is read then is the end.
        (resets, Disconnected, "Connection reset by peer|the server closed the connection"),
        (speaks_http, ProtocolError, "not a Cap'n Proto server: it speaks HTTP"),
        (sends_a_tls_alert, ProtocolError, "not a Cap'n Proto server: it speaks TLS"),
        (sends_garbage, ProtocolError, "not a Cap'n Proto server, or a broken one: message has"),
        (is_full, Overloaded, "full"),
        (is_full_after_reading, Overloaded, "full"),
        (is_full_in_the_middle, Disconnected, "the server ended the connection: full"),
        (answers_too_much, ProtocolError, "of the server is over our own limit: message is too"),
        (answers_half, Disconnected, "the server closed the connection within a message"),
        (aborts, Disconnected, "the server ended the connection: go away"),
        (has_no_bootstrap, RemoteError, "nothing here"),
        (is_overloaded, Overloaded, "busy"),
        (answering(lambda _: EMPTY_STRUCT), None, ""),
        (answering(bad_results), ProtocolError, "leaves its segment"),
        (answering(not_utf8), ProtocolError, "the answer is not UTF-8"),
        (answering(lambda _: None), DeadlineExceeded, "no answer within the deadline"),
        (until_closed, DeadlineExceeded, "no answer within the deadline"),
    ],
)
def test_b3_f9_a_server_that_misbehaves_gives_a_typed_error(
    reverse: Reverse, behave: Behaviour, error: type[ClientError] | None, reason: str
) -> None:
    with fake_server(behave) as address:
        for _ in range(3):
            if error is None:
                assert reverse(address) == ""
                continue
            with pytest.raises(error, match=reason) as raised:
                reverse(address, timeout_s=0.2 if error is DeadlineExceeded else 5.0)
            assert raised.type is error


@pytest.mark.parametrize("number", [4, 200, 65535])
def test_d5_an_unknown_exception_type_is_a_remote_error(reverse: Reverse, number: int) -> None:
    def behave(connection: socket.socket) -> None:
        server = ServerConnection()
        while data := connection.recv(65536):
            for event in server.receive_data(data):
                server.send_exception(
                    event.question_id,  # type: ignore[union-attr]
                    WireRemoteError("odd", number),  # type: ignore[arg-type]
                )
            connection.sendall(server.data_to_send())

    with fake_server(behave) as address, pytest.raises(RemoteError, match="odd") as error:
        reverse(address)
    assert error.value.type is ExceptionType.FAILED


def never_stops_sending(connection: socket.socket) -> None:
    ignored = encode_finish(77) * 4096
    end_s = time.monotonic() + 8
    while time.monotonic() < end_s:
        connection.sendall(ignored)


def test_f9_a_server_that_never_stops_sending_does_not_outlast_the_deadline(
    reverse: Reverse,
) -> None:
    # It ends after 8 s: then this would be `Disconnected`.
    with fake_server(never_stops_sending) as address, pytest.raises(DeadlineExceeded):
        reverse(address, timeout_s=0.3)


def test_a_server_that_does_not_read_ends_at_the_deadline() -> None:
    release = threading.Event()
    with fake_server(lambda _: bool(release.wait(10)) and None, receive_bytes=4096) as address:
        # More than the buffers of both sockets hold.
        with ReverseClient.connect(address) as client, pytest.raises(DeadlineExceeded):
            client.call("read", {"request": {"content": "x" * 4_000_000}}, timeout_s=0.3)
        release.set()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:1", "cannot connect to 127.0.0.1:1: "),
        ("unix:/nowhere/rig.sock", "cannot connect to unix:/nowhere/rig.sock: "),
    ],
)
def test_nobody_there_is_a_connect_error(reverse: Reverse, address: str, reason: str) -> None:
    with pytest.raises(ConnectError) as error:
        reverse(address)
    assert str(error.value).startswith(reason)


def test_a_connect_that_hangs_ends_in_time(reverse: Reverse) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        where = full.getsockname()
        # Fill the backlog, so that the next SYN is dropped.
        waiting = [socket.socket() for _ in range(3)]
        for sock in waiting:
            sock.settimeout(0)
            sock.connect_ex(where)
        started = time.monotonic()
        with pytest.raises(ConnectError, match="no answer in time"):
            reverse(f"127.0.0.1:{where[1]}")
        assert time.monotonic() - started < 10
        for sock in waiting:
            sock.close()


def test_a_unix_socket_is_an_address(reverse: Reverse, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def accept_and_close() -> None:
            listener.accept()[0].close()

        thread = threading.Thread(target=accept_and_close, daemon=True)
        thread.start()
        with pytest.raises(Disconnected):
            reverse(f"unix:{path}")
        thread.join(5)

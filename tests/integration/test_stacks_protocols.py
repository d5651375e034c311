"""Each stack's own protocol, to the byte: portions, mistakes, limits."""

import contextlib
import json
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
from deadline import eventually
from running_server import TELLING, Running
from running_stack import (
    await_read,
    connect,
    read_all,
    read_exactly,
    serves,
    stack_client,
    stack_server,
)

from capnp_rig.client import ClientError, RemoteError

LIMIT_BYTES = 16 * 1024 * 1024
OVERHEAD_BYTES = 4096


def one_server(stack: str) -> Callable[[], Iterator[Running]]:
    @pytest.fixture(scope="module", name=f"{stack}_server")
    def serve() -> Iterator[Running]:
        with stack_server(stack, *TELLING, "--workers", "1") as server:
            yield server
            assert not server.err.find("Traceback")
            assert not server.err.find("replacing it")

    return serve  # type: ignore[no-any-return]


echo_server = one_server("echo")
json_server = one_server("json")
http_server = one_server("http")
grpc_server = one_server("grpc")
selectors_server = one_server("selectors")


def byte_by_byte(sock: socket.socket, data: bytes) -> None:
    for at in range(len(data)):
        sock.sendall(data[at : at + 1])


# --- echo


def test_b8_an_echo_that_nobody_reads_stops_reading(echo_server: Running) -> None:
    with connect(echo_server) as sock:
        sock.settimeout(0.5)
        part = bytes(range(256)) * 4096
        sent = 0
        try:
            while sent < 200 << 20:
                sent += sock.send(part[sent % len(part) :])
        except TimeoutError:
            pass
        # Two socket buffers each way, and 1 MiB.
        assert sent < 40 << 20
        sock.settimeout(10)
        expected = part * (sent // len(part) + 1)
        assert read_exactly(sock, sent) == expected[:sent]
        sock.sendall(b"and on")
        assert read_exactly(sock, 6) == b"and on"


# --- json

CALL = '{"method":"read","params":{"content":"Grüße, \\"🦀\\""},"id":7}'.encode()
ANSWER = '{"id":7,"result":"\\"🦀\\" ,eßürG"}\n'.encode()


def test_a_ping_needs_no_delimiter(json_server: Running) -> None:
    with connect(json_server) as sock:
        sock.sendall(b'"Ping"')
        assert read_exactly(sock, 5) == b'"Ack"'
        sock.sendall(b'"Ping" \n"Pi')
        assert read_exactly(sock, 5) == b'"Ack"'
        sock.sendall(b'ng"')
        assert read_exactly(sock, 5) == b'"Ack"'


def test_values_come_in_any_portions(json_server: Running) -> None:
    with connect(json_server) as sock:
        byte_by_byte(sock, CALL + b'"Ping"' + CALL + b"\n")
        assert read_exactly(sock, 2 * len(ANSWER) + 5) == ANSWER + b'"Ack"' + ANSWER


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n\t "])
def test_many_calls_in_a_row_are_answered_in_order(json_server: Running, end: bytes) -> None:
    calls = [
        json.dumps({"method": "read", "params": {"content": f"{n}"}, "id": n}).encode() + end
        for n in range(5000)
    ]
    answers = b"".join(
        b'{"id":%d,"result":"%b"}\n' % (n, str(n)[::-1].encode()) for n in range(5000)
    )
    with connect(json_server) as sock:
        threading.Thread(target=sock.sendall, args=[b"".join(calls)]).start()
        assert read_exactly(sock, len(answers)) == answers


def test_a_bad_call_is_answered_and_the_connection_lives(json_server: Running) -> None:
    with connect(json_server) as sock:
        sock.sendall(b'{"id":1,"method":"nope"}' + CALL)
        error = b'{"id":1,"error":"no such method: there are read and reverse_bytes"}\n'
        assert read_exactly(sock, len(error) + len(ANSWER)) == error + ANSWER


@pytest.mark.parametrize(
    "nonsense", [b"nonsense", b'"Pong"', b"[1]", b"12\n", b'{"a":}', b'"\xff"', b"{]", b"\0"]
)
def test_unreadable_data_closes_the_connection(json_server: Running, nonsense: bytes) -> None:
    with connect(json_server) as sock:
        sock.sendall(CALL + nonsense + b'"Ping"' * 100_000)
        assert read_all(sock) == ANSWER


def test_a_value_over_the_limit_is_told_and_the_connection_closed(json_server: Running) -> None:
    limit = LIMIT_BYTES + OVERHEAD_BYTES
    error = {"id": None, "error": f"a value may have at most {limit} bytes"}
    with connect(json_server) as sock:
        sock.sendall(b'"Ping"{"method":"' + b"x" * limit)
        assert read_exactly(sock, 5) == b'"Ack"'
        assert json.loads(read_all(sock)) == error


# --- selectors


def test_frames_come_in_any_portions(selectors_server: Running) -> None:
    with connect(selectors_server) as sock:
        byte_by_byte(sock, bytes.fromhex("05 00 00 00 48 65 6c 6c 6f 00 00 00 00 01 00 00 00 78"))
        expected = bytes.fromhex("05 00 00 00 6f 6c 6c 65 48 00 00 00 00 01 00 00 00 78")
        assert read_exactly(sock, len(expected)) == expected


def test_many_frames_in_a_row_are_answered_in_order(selectors_server: Running) -> None:
    texts = [str(n).encode() * (n % 50) for n in range(5000)]
    stream = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    answers = b"".join(len(text).to_bytes(4, "little") + text[::-1] for text in texts)
    with connect(selectors_server) as sock:
        threading.Thread(target=sock.sendall, args=[stream]).start()
        assert read_exactly(sock, len(answers)) == answers


@pytest.mark.parametrize(
    "bad",
    [(LIMIT_BYTES + 1).to_bytes(4, "little"), b"\xff\xff\xff\xff", b"\2\0\0\0\xff\xfe"],
    ids=["too long", "far too long", "not UTF-8"],
)
def test_a_bad_frame_closes_the_connection(selectors_server: Running, bad: bytes) -> None:
    with connect(selectors_server) as sock:
        sock.sendall(b"\2\0\0\0ab" + bad + bytes(1_000_000))
        assert read_all(sock) == b"\2\0\0\0ba"


def test_b8_a_peer_that_reads_no_answers_is_not_read_from(selectors_server: Running) -> None:
    frame = (1 << 20).to_bytes(4, "little") + b"x" * (1 << 20)
    with connect(selectors_server) as sock:
        sock.settimeout(0.5)
        sent = 0
        try:
            while sent < 200 * len(frame):
                sent += sock.send(frame[sent % len(frame) :])
        except TimeoutError:
            pass
        assert sent < 40 << 20
        sock.settimeout(10)
        whole = sent // len(frame)
        assert read_exactly(sock, whole * len(frame)) == frame * whole


@pytest.mark.parametrize(("name", "bad"), [("json", b"nonsense"), ("selectors", b"\xff" * 4)])
def test_a_peer_that_goes_on_after_a_mistake_is_cut_off(
    json_server: Running, selectors_server: Running, name: str, bad: bytes
) -> None:
    server = json_server if name == "json" else selectors_server
    with connect(server) as sock:
        sock.sendall(bad)
        assert read_all(sock) == b""
        with pytest.raises(ConnectionError):  # noqa: PT012 - the one that notices
            for _ in range(500):
                sock.sendall(b"more")
                time.sleep(0.01)


# --- http


def exchange(server: Running, request: bytes) -> bytes:
    """Send something and return all that comes back until the server closes."""
    with connect(server) as sock:
        sock.sendall(request)
        return read_all(sock)


def post(body: bytes, *headers: bytes) -> bytes:
    lines = [b"POST /reverse HTTP/1.1", b"host: x", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def test_pipelined_requests_are_answered_in_order(http_server: Running) -> None:
    said = exchange(
        http_server,
        post(b'{"content":"one"}')
        + b"GET /nope HTTP/1.1\r\nhost: x\r\n\r\n"
        + post(b"nonsense")
        + b"POST /reverse HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        + b'8\r\n{"conten\r\n9\r\nt":"two"}\r\n0\r\n\r\n'
        + b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    lines = said.decode().split("\r\n")
    assert [line for line in lines if line.startswith(("HTTP", "{"))] == [
        "HTTP/1.1 200 OK",
        '{"chunk":"eno"}HTTP/1.1 404 Not Found',
        (
            '{"error":"no such path: there are /reverse, /reverse-bytes and /health"}'
            "HTTP/1.1 400 Bad Request"
        ),
        '{"error":"the body is not JSON"}HTTP/1.1 200 OK',
        '{"chunk":"owt"}HTTP/1.1 200 OK',
        '{"status":"ok"}',
    ]


def test_an_offer_of_an_upgrade_is_ignored_with_the_body_read(http_server: Running) -> None:
    # What `curl --http2` sends, in two portions, and many more right behind.
    offer = (b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c", b"http2-settings: AAMAAABk")
    first = post(b'{"content":"one"}', *offer)
    last = post(b'{"content":"two"}', b"connection: close")
    with connect(http_server) as sock:
        sock.sendall(first[:-5])
        time.sleep(0.05)
        sock.sendall(first[-5:] + first * 2000 + last)
        said = read_all(sock)
    assert said.count(b'{"chunk":"eno"}') == 2001
    assert said.endswith(b'{"chunk":"owt"}')


def test_b5_all_that_came_before_the_end_of_the_stream_is_answered(http_server: Running) -> None:
    count = 3000
    with connect(http_server) as sock:
        # The last one is not all here.
        requests = post(b'{"content":"ab"}') * count + post(b"nonsense")[:-1]
        threading.Thread(
            target=lambda: (sock.sendall(requests), sock.shutdown(socket.SHUT_WR)), daemon=True
        ).start()
        said = read_all(sock)
    assert said.count(b"HTTP/1.1 ") == said.count(b'{"chunk":"ba"}') == count


def test_b8_pipelined_requests_wait_in_the_kernel(http_server: Running) -> None:
    (pid,) = http_server.workers()
    worker = psutil.Process(pid)
    serves(http_server, "http")
    before = worker.memory_info().rss
    with connect(http_server) as sock:
        sock.settimeout(0.5)
        portion = post(b'{"content":"ab"}')
        # Nobody reads the answers.
        with pytest.raises(TimeoutError):
            sock.sendall(portion * 500_000)
        assert worker.memory_info().rss - before < 30 << 20


@pytest.mark.parametrize(
    ("portions", "words"),
    [
        ([b"nonsense\r\n\r\n"], b"Invalid HTTP request received."),
        ([b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"], b"Invalid HTTP request received."),
        # The last byte is one too many: what is left unread would reset the connection.
        ([(b"GET / HTTP/1.1\r\nx: ").ljust(65_537, b"x")], b"the head of the request is too long"),
        (
            [
                b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
                b"x: ".ljust(65_537, b"x"),
            ],
            b"the head of the request is too long",
        ),
    ],
    ids=["nonsense", "half a preface", "endless head", "endless trailer"],
)
def test_what_is_no_http_gets_a_400(
    http_server: Running, portions: list[bytes], words: bytes
) -> None:
    with connect(http_server) as sock:
        for portion in portions:
            sock.sendall(portion)
            time.sleep(0.1)
        said = read_all(sock)
    assert said.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert said.endswith(b"\r\n\r\n" + words)


@pytest.mark.parametrize(
    ("stack", "whole", "answer"),
    [("json", b'"Ping"\n ', b'"Ack"'), ("selectors", b"\0\0\0\0", b"\0\0\0\0")],
)
def test_a_peer_that_ends_within_a_message_is_told_of(
    json_server: Running, selectors_server: Running, stack: str, whole: bytes, answer: bytes
) -> None:
    server = {"json": json_server, "selectors": selectors_server}[stack]
    for data, is_error in ((whole, False), (whole + whole[:3], True)):
        with connect(server) as sock:
            host, port = sock.getsockname()
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == answer
        peer = f"peer {host}:{port}"
        if is_error:
            server.err.wait_for(f"{peer}: the peer closed within a message")
        else:
            server.out.wait_for(f"{peer} finished cleanly")


@pytest.mark.parametrize("name", ["http", "http2"])
def test_a_body_over_the_limit_is_a_413_and_the_connection_lives(
    http_server: Running, name: str
) -> None:
    with stack_client(http_server, name) as client:
        with pytest.raises(RemoteError, match=r"HTTP status 413: the body may have at most \d+"):
            client.read("x" * (LIMIT_BYTES + OVERHEAD_BYTES))
        assert client.read("ab") == b"ba"


def test_http2_serves_streams_side_by_side_and_its_mistakes_with_a_status(
    http_server: Running,
) -> None:
    pytest.importorskip("h2", reason="needs the extra stacks: h2")
    from h2_peer import H2Peer

    with connect(http_server) as sock:
        peer = H2Peer(sock)
        slow = peer.request("POST", "/reverse", end=False)
        peer.send(slow, b'{"content":', end=False)
        # With a body that nobody asked for.
        wrong = peer.request("POST", "/nope", end=False)
        peer.send(wrong, bytes(300_000), end=True)
        headers, body = peer.finish(wrong)
        assert (headers[":status"], json.loads(body).keys()) == ("404", {"error"})
        fast = peer.request("POST", "/reverse", end=False)
        peer.send(fast, b'{"content":"fast"}', end=True)
        assert peer.finish(fast)[1] == b'{"chunk":"tsaf"}'
        peer.send(slow, b'"slow"}', end=True)
        assert peer.finish(slow)[1] == b'{"chunk":"wols"}'


def leave_with_a_stream_open(server: Running) -> None:
    """Begin a body over HTTP/2, and reset the connection."""
    from h2_peer import H2Peer

    with connect(server) as sock:
        peer = H2Peer(sock)
        peer.send(peer.request("POST", "/reverse", end=False), b"{", end=False)
        await_read(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_an_http2_peer_that_leaves_early_leaves_nothing_behind() -> None:
    pytest.importorskip("h2", reason="needs the extra stacks: h2")
    with stack_server("http", "--workers", "1") as server:
        for _ in range(3):
            leave_with_a_stream_open(server)
        server.err.wait_for("Connection reset by peer", count=3)
        # What is left behind would hold up the drain, for its 30 s.
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def leave_unread(server: Running, requests: bytes) -> None:
    """Send until nobody reads any more, and close without having read."""
    with connect(server) as sock:
        sock.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            for _ in range(1000):
                sock.sendall(requests)


def test_peers_that_leave_with_answers_unsent_are_no_errors_of_the_http_server(
    http_server: Running,
) -> None:
    body = b'{"content":"%b"}' % (b"x" * 60_000)
    for requests in (post(body) * 20, post(b'{"content":"ab"}') * 500):
        leave_unread(http_server, requests)
    assert serves(http_server, "http")
    assert not http_server.err.find("uvicorn")


def test_peers_that_leave_with_answers_unsent_are_no_errors_of_the_grpc_server(
    grpc_server: Running,
) -> None:
    pytest.importorskip("h2", reason="needs the extra stacks: h2")
    from h2_peer import H2Peer

    message = b"\x0a\x80\x7d" + b"x" * 16_000
    with connect(grpc_server) as sock:
        peer = H2Peer(sock)
        grpc_headers = (("content-type", "application/grpc"), ("te", "trailers"))
        for _ in range(200):
            stream = peer.request("POST", "/capnp_rig.MessageStream/Read", *grpc_headers, end=False)
            sock.sendall(b"")
            peer.send(stream, b"\0" + len(message).to_bytes(4, "big") + message, end=True)
    assert serves(grpc_server, "grpc")
    assert grpc_server.err.lines == []


def test_an_http2_connection_takes_thousands_of_requests(http_server: Running) -> None:
    with stack_client(http_server, "http2") as client:
        for _ in range(2500):
            client.ping()


def test_a_preface_comes_in_any_portions(http_server: Running) -> None:
    with connect(http_server) as sock:
        byte_by_byte(sock, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        sock.sendall(b"\0\0\0\4\0\0\0\0\0")
        # A SETTINGS frame comes back.
        assert read_exactly(sock, 9)[3] == 4


# --- grpc


def test_grpc_answers_mistakes_with_a_status(grpc_server: Running) -> None:
    grpc = pytest.importorskip("grpc", reason="needs the extra stacks: grpcio")
    with grpc.insecure_channel(
        f"127.0.0.1:{grpc_server.port}", options=[("grpc.max_send_message_length", -1)]
    ) as channel:

        def status(path: str, request: bytes) -> str:
            try:
                channel.unary_unary(path)(request, timeout=10)
            except grpc.RpcError as error:
                return f"{error.code().name}: {error.details()}"
            return "OK"

        read = "/capnp_rig.MessageStream/Read"
        bad = "INVALID_ARGUMENT: the message is no MessageContent in UTF-8"
        assert status(read, b"\x0a\x02\xc3\xa9") == "OK"
        assert status(read, b"\x0a\x01\xff") == bad
        assert status(read, b"\xff\xff") == bad
        assert status("/capnp_rig.MessageStream/Nope", b"").startswith("UNIMPLEMENTED: ")
        assert status(read, bytes(LIMIT_BYTES + OVERHEAD_BYTES + 1)).startswith(
            "RESOURCE_EXHAUSTED: "
        )
        assert status(read, b"\x0a\x02\xc3\xa9") == "OK"


def test_grpc_takes_a_bounded_number_of_calls_at_once(grpc_server: Running) -> None:
    with connect(grpc_server) as sock:
        sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        head = read_exactly(sock, 9)
        assert head[3] == 4
        settings = read_exactly(sock, int.from_bytes(head[:3], "big"))
    # SETTINGS_MAX_CONCURRENT_STREAMS is the third.
    pairs = [settings[at : at + 6] for at in range(0, len(settings), 6)]
    assert b"\0\3" + (256).to_bytes(4, "big") in pairs


def test_a_client_of_another_protocol_gets_a_typed_error(
    json_server: Running, http_server: Running, selectors_server: Running, grpc_server: Running
) -> None:
    servers = [json_server, http_server, selectors_server, grpc_server]
    for server, own in zip(servers, ["json", "http", "selectors", "grpc"], strict=True):
        for name in ("json", "http", "http2", "selectors", "grpc"):
            if name == own or (own, name) == ("http", "http2"):
                continue
            with pytest.raises(ClientError), stack_client(server, name, timeout_s=1) as client:
                client.read("x")
        eventually(lambda: serves(server, own))

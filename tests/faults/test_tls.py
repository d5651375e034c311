"""B17, H1, H3: TLS with a throwaway CA, on both engines and loops; who is refused, and how."""

import asyncio
import shutil
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import uvloop
from cryptography import x509
from deadline import WITHIN_S, eventually
from running_server import ENGINES, ROOT, TELLING, Running, run_to_end, running_server
from throwaway_ca import Pair, ThrowawayCa

from capnp_rig.client import AsyncChannel, Channel, Client
from capnp_rig.client.reverse import AsyncReverseClient, ReverseClient
from capnp_rig.client.tls import Tls
from capnp_rig.objects.errors import ClientError, ConnectError, Disconnected
from capnp_rig.schema import message

HANDSHAKE_S = 0.5
REPEATS = 20


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> ThrowawayCa:
    return ThrowawayCa(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> ThrowawayCa:
    """A CA that nobody trusts."""
    return ThrowawayCa(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module", params=ENGINES, ids="-".join)
def server(request: pytest.FixtureRequest, ca: ThrowawayCa) -> Iterator[Running]:
    engine, loop = request.param
    kind = ["--workers", "1", "--engine", engine, "--loop", loop, *TELLING]
    limit = ["--tls-handshake-timeout", str(HANDSHAKE_S)]
    with running_server(*kind, *limit, *ca.server_options()) as running:
        yield running


def address_of(server: Running) -> str:
    return f"{server.host}:{server.port}"


def tls_of(ca: ThrowawayCa, pair: Pair | None = None) -> Tls:
    pair = pair or ca.client
    return Tls(ca=ca.pem, cert=pair.cert, key=pair.key)


# --- who is served --------------------------------------------------------------------------

LONG = "0123456789 äöü €" * 60_000


def test_h3_a_blocking_client_is_served(server: Running, ca: ThrowawayCa) -> None:
    with ReverseClient.connect(address_of(server), tls=tls_of(ca)) as client:
        assert client.reverse("Hello") == "olleH"
        assert client.reverse(LONG) == LONG[::-1]
        calls = [client.submit("read", {"request": {"content": f"{n}."}}) for n in range(100)]
        while not all(call.done for call in calls):
            client.wait()
        assert [bytes(call.results.chunk) for call in calls] == [
            f"{n}."[::-1].encode() for n in range(100)
        ]
    server.out.wait_for("finished cleanly")


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_h3_an_asyncio_client_is_served(
    server: Running, ca: ThrowawayCa, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def call() -> list[str]:
        async with await AsyncReverseClient.connect(address_of(server), tls=tls_of(ca)) as client:
            return await asyncio.gather(*(client.reverse(text) for text in ("Hello", LONG, "x")))

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(asyncio.wait_for(call(), WITHIN_S)) == ["olleH", LONG[::-1], "x"]


def test_h3_channels_are_served(server: Running, ca: ThrowawayCa) -> None:
    with Channel([address_of(server)], interface=message.MessageStream, tls=tls_of(ca)) as channel:
        assert bytes(channel.call("read", {"request": {"content": "ab"}}).chunk) == b"ba"

    async def call() -> bytes:
        async with AsyncChannel(
            [address_of(server)], interface=message.MessageStream, tls=tls_of(ca)
        ) as channel:
            return bytes((await channel.call("read", {"request": {"content": "ab"}})).chunk)

    assert asyncio.run(call()) == b"ba"


def serial_number(pair: Pair) -> str:
    """Return that of a certificate, as `ssl` writes it."""
    return f"{x509.load_pem_x509_certificate(Path(pair.cert).read_bytes()).serial_number:X}"


def whoami(address: str, tls: Tls) -> str:
    with Client.connect(address, interface=message.MessageStream, tls=tls) as client:
        first, late = (
            bytes(client.call("read", {"request": {"content": content}}).chunk).decode()
            for content in ("", "late")
        )
        assert first == late
        return first


@pytest.mark.parametrize(("engine", "loop"), ENGINES)
def test_h3_a_service_sees_the_certificate_of_who_calls(
    ca: ThrowawayCa, engine: str, loop: str
) -> None:
    kind = ["--workers", "1", "--engine", engine, "--loop", loop]
    kind += ["--service", "sample_services:Whoami"]
    callers = [ca.issue(f"{name}-{engine}-{loop}", name, common_name=name) for name in ("a", "b")]
    with running_server(*kind, *ca.server_options(), cwd=ROOT / "tests") as server:
        for name, caller in zip("ab", callers, strict=True):
            subject, alternative, serial = whoami(address_of(server), tls_of(ca, caller)).split("|")
            assert f"CN={name}" in subject.split(",")
            assert alternative == name
            assert serial.lstrip("0") == serial_number(caller)
    # A certificate that nobody asked for is not sent, let alone believed.
    with running_server(*kind, *ca.server_options(mutual=False), cwd=ROOT / "tests") as server:
        assert whoami(address_of(server), tls_of(ca, callers[0])) == "nobody"


# --- who is not -----------------------------------------------------------------------------


@contextmanager
def tcp(server: Running) -> Iterator[socket.socket]:
    with socket.create_connection((server.host, server.port), WITHIN_S) as sock:
        yield sock


def read_to_end(sock: socket.socket) -> None:
    with suppress(OSError):
        while sock.recv(65_536):
            pass


def send_plain(server: Running) -> None:
    with tcp(server) as sock:
        sock.sendall(bytes(64))
        read_to_end(sock)


def stall(server: Running) -> None:
    with tcp(server) as sock:
        began_s = time.monotonic()
        # The head of a ClientHello.
        sock.sendall(bytes([22, 3, 1, 2, 0]))
        read_to_end(sock)
        assert time.monotonic() - began_s > HANDSHAKE_S / 2


def leave_at_once(server: Running) -> None:
    with tcp(server):
        pass


def show(context: ssl.SSLContext, server: Running) -> None:
    """Make a handshake, call, and see the end of the connection."""
    with (
        tcp(server) as sock,
        suppress(OSError),
        context.wrap_socket(sock, server_hostname="localhost") as secured,
    ):
        secured.sendall(bytes(64))
        read_to_end(secured)


def hostile(ca: ThrowawayCa, stranger: ThrowawayCa) -> dict[str, Callable[[Running], None]]:
    """Return what peers do that have no business here."""
    expired = ca.issue_expired("expired-client")
    old = ca.client_context(ca.client)
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    # As all that is older.
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    contexts = {
        "no certificate": ca.client_context(),
        "another CA": ca.client_context(stranger.client),
        "expired": ca.client_context(expired),
        "does not trust us": stranger.client_context(ca.client),
        "TLS 1.1": old,
    }
    return {
        "plain bytes": send_plain,
        "stalled": stall,
        "gone": leave_at_once,
        **{name: lambda server, it=it: show(it, server) for name, it in contexts.items()},
    }


CASES = [
    *("plain bytes", "stalled", "gone", "no certificate", "another CA", "expired"),
    *("does not trust us", "TLS 1.1"),
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_b17_a_peer_without_a_good_handshake_reaches_nothing(
    server: Running, ca: ThrowawayCa, stranger: ThrowawayCa, case: str
) -> None:
    act = hostile(ca, stranger)[case]
    worker = psutil.Process(server.workers()[0])
    act(server)
    files = worker.num_fds()
    threads = [threading.Thread(target=act, args=[server]) for _ in range(REPEATS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN_S)
    assert not any(thread.is_alive() for thread in threads)
    eventually(lambda: worker.num_fds() <= files, what="the descriptors of refused connections")
    server.err.wait_for("TLS handshake: ")
    assert not server.err.find("protocol error")
    with ReverseClient.connect(address_of(server), tls=tls_of(ca)) as client:
        assert client.reverse("Hello") == "olleH"


# Each way to end a connection without a word in it; the engines' loops live on.
ENDS = {
    "close_notify": lambda sock: sock.unwrap(),
    "half": lambda sock: socket.socket.shutdown(sock, socket.SHUT_WR),
    "both": lambda sock: socket.socket.shutdown(sock, socket.SHUT_RDWR),
    "none": lambda sock: None,
}


@pytest.mark.parametrize("end", ENDS)
def test_b5_a_connection_may_end_right_after_its_handshake(
    server: Running, ca: ThrowawayCa, end: str
) -> None:
    workers = server.workers()
    context = ca.client_context(ca.client)
    for _ in range(REPEATS):
        with tcp(server) as sock, suppress(OSError):
            secured = context.wrap_socket(sock, server_hostname="localhost")
            with secured:
                ENDS[end](secured)
    with ReverseClient.connect(address_of(server), tls=tls_of(ca)) as client:
        assert client.reverse("Hello") == "olleH"
    assert server.workers() == workers


def test_b5_what_the_server_has_to_say_in_the_end_arrives(server: Running, ca: ThrowawayCa) -> None:
    context = ca.client_context(ca.client)
    with tcp(server) as sock, context.wrap_socket(sock, server_hostname="localhost") as secured:
        # Neither message is one, and the second is on its way when the first is refused.
        secured.sendall(bytes(8))
        with suppress(OSError):
            secured.sendall(bytes(1 << 20))
        said = b""
        while data := secured.recv(65_536):
            said += data
    assert b"message has no root pointer" in said


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve each connection with `answer`; yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    with sock, suppress(OSError):
                        answer(sock)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(WITHIN_S)


def with_certificate(pair: Pair) -> Callable[[socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)

    def answer(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as secured:
            read_to_end(secured)

    return answer


def connect_error(address: str, tls: Tls, timeout_s: float = WITHIN_S) -> str:
    """Return why both clients cannot connect; the reasons are the same."""

    async def connect() -> None:
        await AsyncReverseClient.connect(address, tls=tls, connect_timeout_s=timeout_s)

    with pytest.raises(ConnectError) as blocking:
        ReverseClient.connect(address, tls=tls, connect_timeout_s=timeout_s)
    for loop in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=loop) as runner, pytest.raises(ConnectError) as error:
            runner.run(connect())
        assert str(error.value) == str(blocking.value)
    prefix = f"cannot connect to {address} over TLS: "
    assert str(blocking.value).startswith(prefix)
    return str(blocking.value).removeprefix(prefix)


def test_h3_a_client_refuses_a_server_that_it_does_not_trust(
    ca: ThrowawayCa, stranger: ThrowawayCa
) -> None:
    refused = "the server's certificate is refused: "
    with answering(with_certificate(ca.server)) as address:
        assert connect_error(address, Tls(ca=stranger.pem)) == (
            refused + "unable to get local issuer certificate"
        )
        assert connect_error(address, Tls(ca=ca.pem, name="other.example")) == (
            refused + "Hostname mismatch, certificate is not valid for 'other.example' "
            "(its name may be given: --tls-name, Tls(name=...))"
        )
    with answering(with_certificate(ca.issue_expired("expired-server"))) as address:
        assert connect_error(address, Tls(ca=ca.pem)) == refused + "certificate has expired"


def test_b17_a_client_refuses_what_is_no_tls(ca: ThrowawayCa) -> None:
    def hold(sock: socket.socket) -> None:
        sock.settimeout(WITHIN_S)
        read_to_end(sock)

    with answering(lambda sock: sock.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")) as address:
        assert connect_error(address, Tls(ca=ca.pem)) == "the peer does not speak TLS"
    with answering(lambda sock: None) as address:
        assert connect_error(address, Tls(ca=ca.pem)) == "the peer closed the connection"
    with answering(hold) as address:
        assert connect_error(address, Tls(ca=ca.pem), 0.3) == "no answer in time"


def test_b17_clients_name_what_breaks_a_connection_after_its_handshake(ca: ThrowawayCa) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca.server.cert, ca.server.key)

    def answer(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as secured:
            secured.recv(1)
            # As it is.
            socket.socket.sendall(secured, b"no record at all")
            read_to_end(secured)

    async def call(address: str) -> None:
        async with await AsyncReverseClient.connect(address, tls=Tls(ca=ca.pem)) as client:
            await client.reverse("Hello")

    lost = "^the connection was lost: the peer does not speak TLS$"
    with answering(answer) as address:
        with (
            ReverseClient.connect(address, tls=Tls(ca=ca.pem)) as client,
            pytest.raises(Disconnected, match=lost),
        ):
            client.reverse("Hello")
        for loop in (asyncio.new_event_loop, uvloop.new_event_loop):
            with (
                asyncio.Runner(loop_factory=loop) as runner,
                pytest.raises(Disconnected, match=lost),
            ):
                runner.run(call(address))


def test_b17_a_channel_takes_a_handshake_that_fails_for_a_failed_connect(
    ca: ThrowawayCa, stranger: ThrowawayCa
) -> None:
    with answering(with_certificate(ca.server)) as address:
        channel = Channel([address], interface=message.MessageStream, tls=Tls(ca=stranger.pem))
        with channel, pytest.raises(ConnectError, match="certificate is refused"):
            channel.call("read", {"request": {"content": "ab"}}, timeout_s=WITHIN_S)


def test_b17_a_client_without_the_certificate_asked_for_gets_a_typed_error(
    server: Running, ca: ThrowawayCa
) -> None:
    with pytest.raises(ClientError):  # noqa: SIM117 - the handshake may seem to be done
        with closing(ReverseClient.connect(address_of(server), tls=Tls(ca=ca.pem))) as client:
            client.reverse("Hello")


def test_b17_a_drain_does_not_wait_for_a_handshake(ca: ThrowawayCa) -> None:
    options = ["--tls-handshake-timeout", "60", "--workers", "1", *TELLING]
    with running_server(*options, *ca.server_options()) as running, tcp(running) as sock:
        running.out.wait_for("started for peer")
        running.signal(signal.SIGTERM)
        assert running.wait() == 0
        read_to_end(sock)


def serial_of(server: Running, ca: ThrowawayCa) -> str:
    """Return the serial number of the certificate that a server shows now."""
    with tcp(server) as sock:
        context = ca.client_context(ca.client)
        with context.wrap_socket(sock, server_hostname="localhost") as secured:
            shown = secured.getpeercert()
            assert shown is not None
            return str(shown["serialNumber"])


def replace_files(pair: Pair, by: Pair) -> None:
    shutil.copy(by.cert, pair.cert)
    shutil.copy(by.key, pair.key)


def test_b17_a_reload_takes_new_certificates_and_refuses_bad_ones(tmp_path: Path) -> None:
    ca = ThrowawayCa(tmp_path)
    with running_server("--workers", "1", *ca.server_options()) as server:
        first = serial_of(server, ca)
        replace_files(ca.server, ca.issue_expired("expired"))
        server.signal(signal.SIGHUP)
        server.err.wait_for("certificate has expired")
        assert serial_of(server, ca) == first
        replace_files(ca.server, ca.issue("new"))
        server.signal(signal.SIGHUP)
        eventually(lambda: serial_of(server, ca) != first, what="the new certificate")


# --- the files ------------------------------------------------------------------------------


def test_b17_files_that_no_client_would_accept_are_refused_before_anything_listens(
    ca: ThrowawayCa, stranger: ThrowawayCa, tmp_path: Path
) -> None:
    text = tmp_path / "text.pem"
    text.write_text("nothing")
    expired = ca.issue_expired("expired")
    missing = f"{tmp_path}/none.pem"
    cert, key = ca.server.cert, ca.server.key
    cases = {
        ("--tls-cert", missing): f"cannot read {missing}: {missing}: No such file or directory",
        ("--tls-cert", str(text)): f"cannot use the certificate {text}: not in PEM format",
        ("--tls-cert", cert, "--tls-key", stranger.server.key): (
            f"cannot use the certificate {cert} with key {stranger.server.key}: "
            "the key is that of another certificate"
        ),
        ("--tls-cert", expired.cert, "--tls-key", expired.key): (
            f"cannot use the certificate {expired.cert}: certificate has expired"
        ),
        ("--tls-cert", cert, "--tls-key", key, "--tls-client-ca", str(text)): (
            f"cannot use the CA {text}: not in PEM format"
        ),
    }
    for options, reason in cases.items():
        ended = run_to_end("run", "127.0.0.1:0", *options)
        assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"server: {reason}\n")


def test_h1_an_address_that_others_reach_needs_tls(ca: ThrowawayCa) -> None:
    refused = run_to_end("run", "0.0.0.0:0")
    assert refused.returncode == 2
    assert "--tls-cert" in refused.stderr
    assert "--insecure" in refused.stderr
    with running_server("--workers", "1", *ca.server_options(), address="0.0.0.0:0") as running:
        assert running.port
    with running_server(
        "--workers", "1", *ca.server_options(mutual=False), address="0.0.0.0:0"
    ) as running:
        running.err.wait_for("any client that reaches")

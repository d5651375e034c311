"""`server run --stack` and `client --stack` as commands: their whole output and exit status."""

import contextlib
import io
import os
import socket
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from fake_server import fake_server, until_closed
from running_server import command, environment
from running_stack import STACKS, served_by, stack_server

from capnp_rig import rigcli
from capnp_rig.client.cli import cli

OPTIONS = {"http2": ["--stack", "http", "--http2"]}


def options(name: str) -> list[str]:
    return OPTIONS.get(name, ["--stack", name])


def run(program: list[str], *, stdin: bytes = b"", path: str = "") -> tuple[int, str, str]:
    env = environment()
    if path:
        env["PYTHONPATH"] = path
    done = subprocess.run(
        program, input=stdin, capture_output=True, env=env, timeout=40, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def client(*args: str, stdin: bytes = b"", path: str = "") -> tuple[int, str, str]:
    return run([sys.executable, "-P", "-m", "capnp_rig.client", *args], stdin=stdin, path=path)


def client_here(*args: str) -> tuple[int, str, str]:
    """Run the client in this process: as the command does, without the start of a process."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with (
        mock.patch.object(sys, "argv", ["client", *args]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        rigcli.run(cli, "client", prints=True)
    said = []
    for stream in (out, err):
        stream.seek(0)
        said.append(stream.read())
    assert isinstance(ended.value.code, int)
    return ended.value.code, said[0], said[1]


def call(name: str, *args: str) -> tuple[int, str, str]:
    """Run the client for a stack, here if its library leaves nothing behind in a process."""
    return (client if name == "grpc" else client_here)(*args, *options(name))


@pytest.mark.parametrize("name", STACKS)
def test_the_client_talks_to_each_stack(name: str) -> None:
    with stack_server(name, "--workers", "1") as server:
        address = f"127.0.0.1:{server.port}"

        def answer(text: str) -> str:
            return f"{text if name == 'echo' else text[::-1]}\n"

        said = client("send", address, "Grüße 🦀", *options(name))
        assert said == (0, answer("Grüße 🦀"), "")
        assert call(name, "send", address, "") == (0, "\n", "")
        lines = client("send", address, *options(name), stdin=b"one\n\n two \r\nlast")
        assert lines == (0, "".join(map(answer, ["one", "", " two ", "last"])), "")
        status, out, err = call(name, "ping", address, "-c", "2")
        assert (status, err) == (0, "")
        words = [line.split() for line in out.splitlines()]
        starts = [["connected", "to"], ["reply", "1"], ["reply", "2"], ["2", "of"]]
        assert [line[:2] for line in words] == starts
        status, out, err = client("send", address, os.fsdecode(b"\xff"), *options(name))
        assert (status, out) == (2, "")
        assert err == ("client: the message is not UTF-8 (see client send --help)\n")


@pytest.mark.parametrize("name", STACKS)
def test_a_server_that_is_not_there_is_one_line(name: str) -> None:
    served_by(name)
    refused = "client: cannot connect to 127.0.0.1:1: Connection refused\n"
    assert call(name, "send", "127.0.0.1:1", "x") == (1, "", refused)
    assert call(name, "ping", "127.0.0.1:1") == (3, "", refused)


@pytest.mark.parametrize("name", STACKS)
def test_a_server_that_says_nothing_is_given_up_at_the_deadline(name: str) -> None:
    served_by(name)
    with fake_server(until_closed) as address:
        limits = ("--timeout", "0.3", "--connect-timeout", "0.3")
        status, out, err = call(name, "send", address, "x", *limits)
    assert (status, out) == (1, "")
    said = {"grpc": f"cannot connect to {address}: no gRPC server answers there"}
    assert err == f"client: {said.get(name, 'no answer within the deadline')}\n"


@pytest.mark.parametrize("name", ["echo", "json", "http", "http2", "selectors"])
def test_a_server_that_hangs_up_is_one_line(name: str) -> None:
    served_by(name)
    with fake_server(lambda sock: sock.recv(65_536) and None) as address:
        assert client_here("send", address, "x", *options(name)) == (
            1,
            "",
            "client: the server closed the connection\n",
        )


@pytest.mark.parametrize(
    ("name", "said", "err"),
    [
        ("json", b"[]\n", "the server's answer is no JSON object"),
        ("json", b"nonsense\n", "the server's answer is no JSON"),
        ("json", b'{"id":9,"result":"x"}\n', "the server answered another call"),
        ("json", b'{"id":1}\n', "the server's answer has no result"),
        ("json", b'{"id":null,"error":"full\\nup"}\n', "full"),
        (
            "json",
            b'{"id":1,"result":"\\ud800"}\n',
            "the server's answer: the text is no valid Unicode: surrogates not allowed",
        ),
        ("selectors", b"\xff\xff\xff\xff", "the server's answer is too long, or no frame"),
        ("selectors", b"\1\0\0\0xx", "the server answered more than was asked"),
        (
            "http",
            b"nonsense\r\n",
            "not an HTTP server, or a broken one: BadStatusLine('nonsense\\r\\n')",
        ),
        (
            "http",
            b"x" * 9999 + b"\r\n",
            f"not an HTTP server, or a broken one: BadStatusLine('{'x' * 65}…",
        ),
        ("echo", b"y", "not an echo: other bytes came back"),
        ("echo", b"xy", "not an echo: other bytes came back"),
        (
            "http2",
            # SETTINGS, and GOAWAY with ENHANCE_YOUR_CALM.
            b"\0\0\0\4\0\0\0\0\0" + b"\0\0\x08\7\0\0\0\0\0" + bytes(7) + b"\x0b",
            "the server ended the connection: ENHANCE_YOUR_CALM",
        ),
        (
            "http",
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]",
            "the server's answer is no JSON object",
        ),
        (
            "http",
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
            "the server's answer has no chunk",
        ),
        (
            "http",
            b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n",
            "HTTP status 500: no reason given",
        ),
        (
            "http",
            b'HTTP/1.1 503 Full\r\ncontent-length: 16\r\n\r\n{"error":"full"}',
            "HTTP status 503: full",
        ),
    ],
)
def test_a_server_that_answers_badly_is_one_line(name: str, said: bytes, err: str) -> None:
    def behave(sock: socket.socket) -> None:
        sock.recv(65_536)
        sock.sendall(said)
        sock.recv(1)

    with fake_server(behave) as address:
        assert client_here("send", address, "x", *options(name)) == (1, "", f"client: {err}\n")


def test_a_ping_that_is_not_acknowledged_is_one_line() -> None:
    def behave(sock: socket.socket) -> None:
        assert sock.recv(65_536) == b'"Ping"'
        sock.sendall(b'"Nak"')
        sock.recv(1)

    with fake_server(behave) as address:
        status, _, err = client_here("ping", address, "--stack", "json")
    assert (status, err) == (5, 'client: the server did not answer "Ack"\n')


SERVER_HELP = "(see server run --help)"
CLIENT_HELP = "(see client send --help)"


@pytest.mark.parametrize(
    ("arguments", "stderr"),
    [
        (
            ["--stack", "json", "--engine", "wire"],
            f"server: --engine does not go with --stack json {SERVER_HELP}\n",
        ),
        (
            ["--stack", "echo", "--service", "a:B"],
            f"server: --service does not go with --stack echo {SERVER_HELP}\n",
        ),
        (
            ["--stack", "selectors", "--loop", "asyncio"],
            f"server: --loop does not go with --stack selectors {SERVER_HELP}\n",
        ),
        (
            ["--stack", "json", "--max-message", "64MiB"],
            f"server: --max-message does not go with --stack json {SERVER_HELP}\n",
        ),
        (
            ["--stack", "nope"],
            (
                "server: Invalid value for '--stack': 'nope' is not one of 'capnp', 'echo', "
                f"'json', 'http', 'grpc', 'selectors'. {SERVER_HELP}\n"
            ),
        ),
    ],
)
def test_options_that_do_not_go_together_are_one_line(arguments: list[str], stderr: str) -> None:
    assert run(command("run", "127.0.0.1:0", *arguments)) == (2, "", stderr)


def test_grpc_needs_a_port(tmp_path: Path) -> None:
    status, out, err = run(command("run", f"unix:{tmp_path}/s", "--stack", "grpc"))
    assert (status, out) == (2, "")
    assert err == (
        "server: --stack grpc cannot listen on a Unix socket: every worker listens by itself, and "
        f"only a TCP port can be shared {SERVER_HELP}\n"
    )


def test_http2_is_for_http() -> None:
    assert client("send", "127.0.0.1:1", "x", "--stack", "json", "--http2") == (
        2,
        "",
        f"client: --http2 goes with --stack http {CLIENT_HELP}\n",
    )


HIDING = """
import sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hide())
"""


@pytest.mark.parametrize(
    ("stack", "module", "library"),
    [
        ("json", "orjson", "orjson"),
        ("http", "uvicorn", "uvicorn"),
        ("http", "hypercorn", "hypercorn"),
        ("grpc", "grpc", "grpcio"),
        ("grpc", "google", "protobuf"),
    ],
)
def test_a_missing_library_is_one_line_before_anything_starts(
    tmp_path: Path, stack: str, module: str, library: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDING.format(names=[module]))
    assert run(command("run", "127.0.0.1:0", "--stack", stack), path=str(tmp_path)) == (
        1,
        "",
        f"server: --stack {stack} needs {library}: pip install 'capnp-rig[stacks]'\n",
    )


@pytest.mark.parametrize(("name", "module"), [("http2", "h2"), ("grpc", "grpc")])
def test_the_client_names_a_missing_library(tmp_path: Path, name: str, module: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDING.format(names=[module]))
    stack = name.removesuffix("2")
    assert client("send", "127.0.0.1:1", "x", *options(name), path=str(tmp_path)) == (
        1,
        "",
        f"client: --stack {stack} needs {module}: pip install 'capnp-rig[stacks]'\n",
    )


def test_the_others_need_no_library(tmp_path: Path) -> None:
    names = ["orjson", "uvicorn", "hypercorn", "httptools", "h2", "grpc", "google"]
    (tmp_path / "sitecustomize.py").write_text(HIDING.format(names=names))
    script = (
        "import sys; from capnp_rig.server.stacks import echo, readiness_worker, registry; "
        "from capnp_rig.client.stacks import http1_client, registry as clients; "
        "sys.exit(any(map(registry.missing_library, ['capnp', 'echo', 'selectors'])))"
    )
    assert run([sys.executable, "-P", "-c", script], path=str(tmp_path)) == (0, "", "")

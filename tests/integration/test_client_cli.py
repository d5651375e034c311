"""The `client` command: its whole output and its exit status."""

import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import pytest
from fake_server import answering, fake_server
from running_server import environment

from capnp_rig.schema import message
from capnp_rig.wire.encoding.encoded import EncodedStruct
from capnp_rig.wire.rpc.connection import Called
from capnp_rig.wire.rpc.interfaces import compile_interface

NOTHING: Mapping[str, str] = MappingProxyType({})
READ = compile_interface(message.MessageStream).methods["read"]


def reversing(call: Called) -> EncodedStruct:
    text = READ.params.open(call.params).request.content
    return READ.results.write({"chunk": text[::-1].encode()})


def client(
    *args: str, stdin: bytes | BinaryIO = b"", changes: Mapping[str, str] = NOTHING
) -> tuple[int, str, str]:
    source: dict[str, Any] = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "capnp_rig.client", *args],
        **source,
        capture_output=True,
        env={**environment(), **changes},
        timeout=20,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_send_prints_the_answer() -> None:
    with fake_server(answering(reversing)) as address:
        assert client("send", address, "Hello") == (0, "olleH\n", "")
        assert client("send", address, "") == (0, "\n", "")
        assert client("send", address, "Grüße 🦀") == (0, "🦀 eßürG\n", "")
        assert client("send", address, "--", "-x") == (0, "x-\n", "")


def test_send_answers_each_line_of_a_pipe() -> None:
    with fake_server(answering(reversing)) as address:
        lines = b"one\n\n two \r\nlast"
        assert client("send", address, stdin=lines) == (0, "eno\n\n owt \ntsal\n", "")
        assert client("send", address, stdin=b"") == (0, "", "")
        assert client("send", address, stdin=b"ok\n\xff\n") == (
            2,
            "ko\n",
            "client: line 2 of the input is not UTF-8 (see client send --help)\n",
        )


def test_send_prompts_on_a_terminal_as_the_tutorial_does() -> None:
    with fake_server(answering(reversing)) as address:
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "capnp_rig.client", "send", address],
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        os.close(slave)
        os.write(master, b"  Hello there \n")
        out, err = process.communicate(timeout=20)
        os.close(master)
    assert process.returncode == 0
    assert out == b"ereht olleH\n"
    assert err.decode() == f"Connected to inference server at {address}\nEnter your message:\n"


EXPECTED = "expected host:port, [ipv6]:port or unix:/path"
SEE = "(see client send --help)"


@pytest.mark.parametrize(
    ("args", "status", "err"),
    [
        (
            ["send", "127.0.0.1:1", "x"],
            1,
            "client: cannot connect to 127.0.0.1:1: Connection refused",
        ),
        (["ping", "127.0.0.1:1"], 3, "client: cannot connect to 127.0.0.1:1: Connection refused"),
        (
            ["send", "nowhere", "x"],
            2,
            f"client: bad address 'nowhere': {EXPECTED} {SEE}",
        ),
        (["send"], 2, f"client: Missing argument 'ADDR'. {SEE}"),
        (["send", "--nope", "h:1"], 2, f"client: No such option '--nope'. {SEE}"),
        (
            ["send", "h:1", "x", "--timeout", "0"],
            2,
            f"client: Invalid value for '--timeout': 0.0 is not in the range x>0. {SEE}",
        ),
        (["nope"], 2, "client: No such command 'nope'. (see client --help)"),
    ],
)
def test_a_mistake_is_one_line(args: list[str], status: int, err: str) -> None:
    assert client(*args) == (status, "", err + "\n")


def test_a_text_that_is_no_unicode_is_a_mistake_in_the_usage() -> None:
    with fake_server(answering(reversing)) as address:
        assert client("send", address, os.fsdecode(b"\xff")) == (
            2,
            "",
            f"client: the message is not UTF-8 {SEE}\n",
        )


def test_a_message_is_utf8_whatever_the_locale() -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    with fake_server(answering(reversing)) as address:
        assert client("send", address, "Grüße", changes=ascii_only) == (0, "eßürG\n", "")


def test_a_line_without_an_end_is_not_read_to_it() -> None:
    with fake_server(answering(reversing)) as address, Path("/dev/zero").open("rb") as zeros:
        why = "line 1 of the input is over 4194304 bytes: no message holds it (--max-message)"
        assert client("send", address, stdin=zeros) == (2, "", f"client: {why} {SEE}\n")


def test_an_error_of_the_server_is_one_line() -> None:
    def fail(_: Called) -> EncodedStruct:
        return EncodedStruct(1 << 16, [b"\x01\0\0\x70\x02\x01\0\0"], 1)

    with fake_server(answering(fail)) as address:
        assert client("send", address, "x") == (
            1,
            "",
            "client: message has a pointer that leaves its segment\n",
        )


def test_a_reader_that_leaves_ends_it_quietly() -> None:
    with fake_server(answering(reversing)) as address:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "capnp_rig.client", "send", address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, err = process.communicate(b"line\n" * 100, timeout=20)
    assert (process.returncode, err) == (1, b"")


def test_version_and_help_work() -> None:
    assert client("--version")[1].startswith("client 0.")
    assert "Usage: client send [OPTIONS] ADDR [MESSAGE]" in client("send", "--help")[1]


@pytest.mark.parametrize("stack", ["capnp", "json"])
@pytest.mark.parametrize("option", ["--timeout", "--connect-timeout"])
@pytest.mark.parametrize("value", ["inf", "nan"])
def test_a_timeout_that_is_none_is_a_usage_error(stack: str, option: str, value: str) -> None:
    assert client("send", "127.0.0.1:1", "x", "--stack", stack, option, value) == (
        2,
        "",
        f"client: Invalid value for '{option}': {value} is not a finite number. {SEE}\n",
    )

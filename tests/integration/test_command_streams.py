"""`client` and `loadtest` without streams, files or time to start: one line, no traceback."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_server import answering, fake_server
from running_server import environment

from capnp_rig.schema import message
from capnp_rig.wire.encoding.encoded import EncodedStruct
from capnp_rig.wire.rpc.connection import Called
from capnp_rig.wire.rpc.interfaces import compile_interface

READ = compile_interface(message.MessageStream).methods["read"]
CLOSED = "the standard output is closed: send it to /dev/null"
FULL = "No space left on device"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    def reverse(call: Called) -> EncodedStruct:
        text: str = READ.params.open(call.params).request.content
        return READ.results.write({"chunk": text[::-1].encode()})

    with fake_server(answering(reverse)) as found:
        yield found


def run(script: str, name: str, *arguments: str, **changes: str) -> tuple[int, str, str]:
    """Run a shell script, in which ``"$@"`` is the command."""
    done = subprocess.run(
        [
            "/bin/sh",
            "-c",
            script,
            "sh",
            sys.executable,
            "-P",
            "-m",
            f"capnp_rig.{name}",
            *arguments,
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**environment(), **changes},
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def load(address: str, results: Path) -> list[str]:
    return [
        *("loadtest", "run", address, "--calls", "20", "--connections", "2", "--no-pin"),
        *("--results", str(results), "--allow-void"),
    ]


@pytest.mark.parametrize(
    ("redirection", "arguments", "expected"),
    [
        ("<&-", ["x"], (0, "x\n", "")),
        (
            "<&-",
            [],
            (
                2,
                "",
                "client: no message: the standard input is closed (see client send --help)\n",
            ),
        ),
        (">&-", ["x"], (1, "", f"client: {CLOSED}\n")),
        (">/dev/full", ["x"], (1, "", f"client: {FULL}\n")),
        (">&- 2>&-", ["x"], (1, "", "")),
    ],
)
def test_send_without_a_stream(
    address: str, redirection: str, arguments: list[str], expected: tuple[int, str, str]
) -> None:
    assert run(f'exec "$@" {redirection}', "client", "send", address, *arguments) == expected


def test_ping_on_a_full_disk(address: str) -> None:
    assert run('exec "$@" >/dev/full', "client", "ping", address) == (1, "", f"client: {FULL}\n")


@pytest.mark.parametrize(
    ("redirection", "line"),
    [(">&-", f"loadtest: {CLOSED}"), (">/dev/full", f"loadtest: {FULL}")],
)
def test_a_load_without_an_output(
    address: str, tmp_path: Path, redirection: str, line: str
) -> None:
    assert run(f'exec "$@" {redirection}', *load(address, tmp_path)) == (1, "", f"{line}\n")


@pytest.mark.usefixtures("pictures")
def test_a_load_without_an_input_runs(address: str, tmp_path: Path) -> None:
    status, out, err = run('exec "$@" <&-', *load(address, tmp_path), "--json")
    assert (status, json.loads(out)["calls"]) == (0, 20), err + out
    assert "<svg" in (Path(json.loads(out)["folder"]) / "report.html").read_text("utf-8")


def test_an_output_in_ascii_gets_ascii(address: str, tmp_path: Path) -> None:
    status, out, _ = run('"$@"', *load(address, tmp_path), PYTHONIOENCODING="ascii")
    assert status == 0
    assert out.isascii()
    assert "Times in us" in out
    status, out, err = run('"$@"', "client", "ping", address, PYTHONIOENCODING="ascii")
    assert (status, err) == (0, "")
    assert all(line.endswith(" us") for line in out.splitlines())


@pytest.mark.parametrize("name", ["client", "loadtest"])
def test_too_few_open_files(name: str) -> None:
    # Cap'n Proto aborts where it cannot open a schema.
    assert run('ulimit -n 6; exec "$@"', name, "--help") == (
        1,
        "",
        f"{name}: only 6 open files are allowed: raise ulimit -n\n",
    )
    assert run('ulimit -S -n 6; exec "$@"', name, "--version")[0] == 0


def test_more_connections_than_open_files(address: str, tmp_path: Path) -> None:
    many = (*load(address, tmp_path), "--calls", "200", "--connections", "60")
    status, _, err = run('ulimit -S -n 64; exec "$@"', *many)
    assert status == 0, err
    status, out, err = run('ulimit -n 64; exec "$@"', *many)
    assert (status, out, len(err.splitlines())) == (1, "", 1)
    assert "take 92 open files, and 64 are allowed: raise ulimit -n" in err


# A signal at the moment when a module is looked for, as a slow disk would make likely.
INTERRUPTING = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), {number:d})

sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.parametrize(
    ("name", "module", "number", "status"),
    [
        # Before the command is known the signal ends the process, as the shell sees in its status.
        ("client", "capnp_rig.rigcli", signal.SIGINT, -signal.SIGINT),
        ("client", "click.core", signal.SIGINT, -signal.SIGINT),
        ("client", "capnp_rig.client.cli", signal.SIGINT, -signal.SIGINT),
        ("client", "capnp", signal.SIGINT, 130),
        ("loadtest", "capnp_rig.rigcli", signal.SIGINT, 130),
        ("loadtest", "capnp_rig.loadtest.cli.sweep", signal.SIGINT, 130),
        ("loadtest", "capnp_rig.loadtest.cli.sweep", signal.SIGTERM, 143),
        ("loadtest", "capnp_rig.loadtest.engine.run", signal.SIGINT, 130),
        ("loadtest", "capnp_rig.loadtest.engine.run", signal.SIGTERM, 143),
    ],
)
def test_a_signal_while_it_starts(
    tmp_path: Path, name: str, module: str, number: signal.Signals, status: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTING.format(name=module, number=number))
    arguments = ["send", "127.0.0.1:1", "x"] if name == "client" else ["run", "127.0.0.1:1"]
    found, out, err = run('exec "$@"', name, *arguments, PYTHONPATH=str(tmp_path))
    # Click ends the line of a terminal's ^C.
    assert (found, out, err.strip()) == (status, "", "")


def test_an_interrupt_that_is_ignored_stays_so(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        INTERRUPTING.format(name="capnp_rig.client.cli", number=signal.SIGINT)
    )
    path = str(tmp_path)
    status, out, _ = run("trap '' INT; exec \"$@\"", "client", "--version", PYTHONPATH=path)
    assert (status, out.split()[0]) == (0, "client")

"""A server that a command of the user's starts, at an address of ours."""

import os
import shlex
import socket
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from capnp_rig.loadtest.engine.child_process import kept_alive, last_line
from capnp_rig.loadtest.engine.server_process import ServerFailed
from capnp_rig.rigcli.address import AddressError, parse_address

PLACE = "{addr}"
_READY_S = 15.0
_POLL_S = 0.01
_DRAINED_S = 2.0
_LOOPBACK = "127.0.0.1"


class CommandError(ValueError):
    """The text is no command; the message says why."""


def split_command(text: str) -> list[str]:
    """Return the words of a command as a shell would read them; no shell runs it.

    Raises:
        CommandError: There is none, or a quotation mark is not closed.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise CommandError(f"bad command {text!r}: {error}") from error
    if not words:
        raise CommandError("an empty command starts no server")
    return words


def with_address(words: Sequence[str], address: str) -> list[str]:
    """Return a command with its address: at ``{addr}``, else for the one it has, else behind it.

    It may also be in parts, at ``{host}`` and ``{port}``.
    """
    host, _, port = address.rpartition(":")
    places = {PLACE: address, "{host}": host, "{port}": port}
    placed = [_filled(word, places) for word in words]
    if placed != [*words]:
        return placed
    at = next((at for at, word in enumerate(words) if is_address(word)), len(words))
    return [*words[:at], address, *words[at + 1 :]]


def _filled(word: str, places: Mapping[str, str]) -> str:
    for place, text in places.items():
        word = word.replace(place, text)
    return word


def is_address(word: str) -> bool:
    """Tell whether a word is an address, as `parse_address` reads it."""
    try:
        parse_address(word)
    except AddressError:
        return False
    return True


def free_address() -> str:
    """Return an address of loopback on which nobody listens now."""
    with socket.socket() as free:
        free.bind((_LOOPBACK, 0))
        return f"{_LOOPBACK}:{free.getsockname()[1]}"


class StartedServer:
    """A server that is starting, or runs: its `address` and processes; it prints to `log`."""

    def __init__(self, process: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
        self.address = address
        self._process, self.log = process, log
        self._port = int(address.rpartition(":")[2])

    def await_ready(self) -> None:
        """Return when one of its processes listens on its address.

        Nobody connects to find out: there are servers that do not survive a connection that says
        nothing.

        Raises:
            ServerFailed: It has ended, or does not listen within 15 s.
        """
        deadline_s = time.monotonic() + _READY_S
        while self._port not in (ports := self._ports()):
            if self._process.poll() is not None:
                raise ServerFailed(f"the server did not start: {last_line(self.log)}")
            if time.monotonic() > deadline_s:
                raise ServerFailed(self._not_there(ports))
            time.sleep(_POLL_S)

    def _ports(self) -> set[int]:
        """Return all ports on which its processes listen."""
        return {
            connection.laddr.port
            for process in self.processes()
            for connection in _connections(process)
            if connection.status == psutil.CONN_LISTEN
        }

    def _not_there(self, ports: set[int]) -> str:
        text = f"the server did not listen on {self.address} in {_READY_S:g} s"
        if ports:
            text += f", but on port {', '.join(map(str, sorted(ports)))}"
            return f"{text}: put {PLACE}, or {{host}} and {{port}}, into its command"
        return f"{text}; its last line: {last_line(self.log)}"

    def processes(self) -> list[psutil.Process]:
        """Return all processes that the command has started, and that run now."""
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._process.pid)
            return [root, *root.children(recursive=True)]
        return []

    def ask_to_end(self) -> None:
        """Send SIGTERM, and do not wait."""
        self._process.terminate()

    def await_end(self) -> None:
        """Wait for it to end, but not for ever: a second SIGTERM would cut its drain short."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_DRAINED_S)


def _connections(process: psutil.Process) -> list[Any]:
    with suppress(psutil.Error):
        return list(process.net_connections("inet"))
    return []


@contextmanager
def started_server(
    words: Sequence[str], *, log: Path, hash_seed: int, cpus: Collection[int] | None
) -> Iterator[StartedServer]:
    """Start a server by the words of its command, and end it with the block.

    What it prints is added to the file `log`; `cpus` are the only ones it may use, None for all of
    ours; `hash_seed` is that of Python's texts, 0 or more.
    """
    confined = [] if cpus is None else ["taskset", "-c", ",".join(map(str, sorted(cpus)))]
    address = free_address()
    with (
        log.open("ab") as stream,
        kept_alive(
            [*confined, *with_address(words, address)],
            # Not `child_environment`: the command may be of another checkout than ours.
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
            stdout=stream,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        yield StartedServer(process, address, log)

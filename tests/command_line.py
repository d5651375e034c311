"""Runs a command of the rig in this process, as its entry point does."""

import io
import sys
from typing import Protocol

import click
import pytest

from capnp_rig import rigcli


class RunCommand(Protocol):
    def __call__(self, *args: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """Return the exit status, the output, and what went to stderr."""


def runner(
    command: click.Command,
    name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> RunCommand:
    """Return what runs `command` as the program `name`."""

    def run(*args: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *args])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            rigcli.run(command, name, prints=True)
        status = ended.value.code
        assert isinstance(status, int)
        return status, *capsys.readouterr()

    return run

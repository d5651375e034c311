"""Servers of the scenarios: those of the rig, and the C++ one."""

import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from running_server import Running, running_server

_TESTS = Path(__file__).resolve().parents[1]


def serving(engine: str) -> AbstractContextManager[Running]:
    """Run a server of the rig."""
    args = ["--service", "scenarios.service:Lobby", "--engine", engine, "--workers", "1"]
    return running_server(*args, cwd=_TESTS)


@contextmanager
def serving_cpp(program: Path) -> Iterator[int]:
    """Run the C++ server, which ends with its standard input; yield its port."""
    with subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.communicate(timeout=20)

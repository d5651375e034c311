"""Starts a pycapnp server of the tests in a process of its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from running_server import environment


@contextmanager
def running_peer(script: str) -> Iterator[str]:
    """Yield the address of the server that a script in ``tests`` is; it prints its port."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / script)],
        stdout=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    assert process.stdout is not None
    try:
        yield f"127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait(5)
        process.stdout.close()

"""Starts `named_call_server`."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from running_server import environment


@contextmanager
def named_call_peer() -> Iterator[str]:
    """Yield the address of a pycapnp server in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "named_call_server.py")],
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

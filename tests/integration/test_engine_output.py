import fcntl
import json
import signal
import struct
import subprocess
import sys
import termios

import psutil
from deadline import eventually
from running_rig import ROOT

from capnp_rig.loadtest.engine.child_process import child_environment, kept_alive

_CODE = "from capnp_rig.loadtest.engine.process import line_writer; line_writer()('x' * 400_000)"
_PIPE_BYTES = 65536


def test_a_process_that_is_stopped_while_it_writes_loses_nothing() -> None:
    with kept_alive(
        [sys.executable, "-P", "-c", _CODE],
        env=child_environment(PYTHONUNBUFFERED="1"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        pipe = child.stdout.fileno()

        def waiting() -> int:
            found: tuple[int] = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))
            return found[0]

        process = psutil.Process(child.pid)
        eventually(lambda: waiting() == _PIPE_BYTES, within_s=20, what="a full pipe")
        eventually(lambda: process.status() == psutil.STATUS_SLEEPING)
        child.send_signal(signal.SIGSTOP)
        eventually(lambda: process.status() == psutil.STATUS_STOPPED)
        child.send_signal(signal.SIGCONT)
        eventually(lambda: process.status() != psutil.STATUS_STOPPED)
        said = child.stdout.read()
        assert child.wait(5) == 0
    assert json.loads(said) == "x" * 400_000

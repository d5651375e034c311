"""`server run --user`, which root alone can test."""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest
from pycapnp_peer import reversed_by
from running_server import ENGINES, ROOT, run_to_end, running_server

NOBODY = 65534


def nobody_may_run(python: str) -> bool:
    """Return whether this is our version of Python, where another user may run it."""
    script = "import sys; print(sys.version_info[:2])"
    try:
        version = subprocess.check_output(
            [python, "-c", script], user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", timeout=20
        )
    except OSError:
        return False
    return version.decode().strip() == str(sys.version_info[:2])


@pytest.fixture(scope="module")
def running_as() -> dict[str, Any]:
    """How to start a server whose interpreter nobody may run too; ours may be in root's home."""
    if os.getuid() != 0:
        pytest.skip("only root can change its user")
    for python in (sys.executable, "/usr/bin/python3"):
        if nobody_may_run(python):
            break
    else:
        pytest.skip("there is no such Python that another user than root may run")
    starter = ["/bin/sh", "-c", f'shift; exec {shlex.quote(python)} "$@"', "sh"]
    # What the other interpreter has not: the packages of ours.
    paths = [str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))]
    env = {} if python == sys.executable else {"PYTHONPATH": os.pathsep.join(paths)}
    return {"starter": starter, "env": env, "cwd": Path("/")}


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.parametrize(("engine", "loop"), ENGINES[::3])
def test_h6_supervisor_and_workers_have_given_up_root(
    engine: str, loop: str, running_as: dict[str, Any]
) -> None:
    options = ["--workers", "1", "--engine", engine, "--loop", loop]
    with running_server(*options, "--user", f"{NOBODY}:{NOBODY}", **running_as) as server:
        (worker,) = server.workers()
        assert reversed_by(server) == b"olleH"
        for pid in (server.pid, worker):
            status = status_of(pid)
            assert status["Uid"].split() == [str(NOBODY)] * 4
            assert status["Gid"].split() == [str(NOBODY)] * 4
            assert status["Groups"].split() == [str(NOBODY)]
            assert (int(status["CapPrm"], 16), int(status["CapEff"], 16)) == (0, 0)
        # It watches and replaces workers as before.
        os.kill(worker, signal.SIGKILL)
        server.err.wait_for("was killed by SIGKILL: replacing it")
        assert reversed_by(server) == b"olleH"
        (worker,) = server.workers()
        assert psutil.Process(worker).uids().real == NOBODY
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_h6_the_unix_socket_is_the_users(running_as: dict[str, Any]) -> None:
    # Not pytest's folder, into which root alone may go.
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, NOBODY, NOBODY)
        path = Path(folder, "s")
        user = ["--workers", "1", "--user", f"{NOBODY}:{NOBODY}"]
        with running_server(*user, address=f"unix:{path}", **running_as) as server:
            status = path.stat()
            assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (NOBODY, NOBODY, 0o600)
            assert reversed_by(server) == b"olleH"
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
        assert not path.exists()


def test_h6_a_user_that_is_not_there_is_told_before_the_bind() -> None:
    done = run_to_end("run", "127.0.0.1:0", "--user", "no-such-user")
    assert (done.returncode, done.stderr) == (1, "server: there is no user 'no-such-user'\n")

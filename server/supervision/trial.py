"""Starts one worker to see whether it can serve, and ends it."""

import select
import time
from dataclasses import replace

from capnp_rig.server.config import ServerConfig
from capnp_rig.server.control.messages import Setup
from capnp_rig.server.supervision.launch import current_folder
from capnp_rig.server.supervision.worker_process import WorkerProcess

# As long as the supervisor waits for one that is to serve.
_LIMIT_S = 15.0
_POLL_MS = 100


class TrialError(Exception):
    """A worker does not start; the message says why, `trace` where if it is the user's code."""

    def __init__(self, cause: str, trace: str | None = None) -> None:
        super().__init__(cause)
        self.trace = trace


def try_worker(config: ServerConfig) -> None:
    """Start a worker as `config` says, wait until it could serve, and end it.

    Raises:
        TrialError: It cannot serve.
        OSError: The system starts no process.
    """
    setup = Setup(
        config=replace(config, log_level="error"),
        worker=0,
        core=None,
        folder=current_folder(),
        # Not on the port of a server that runs.
        listen="127.0.0.1:0" if config.workers_listen else None,
        max_connections=1,
    )
    worker = WorkerProcess(setup)
    try:
        _await_ready(worker)
    finally:
        worker.kill()
        worker.close()


def _await_ready(worker: WorkerProcess) -> None:
    waiting = select.poll()
    waiting.register(worker.channel.fileno(), select.POLLIN)
    end_s = time.monotonic() + _LIMIT_S
    while time.monotonic() < end_s:
        # At its end the channel is readable, and `poll` knows a moment later.
        if waiting.poll(_POLL_MS):
            for _ in worker.read():
                pass
        if worker.ready:
            return
        how = worker.poll()
        if how is not None:
            raise TrialError(worker.failure or how, worker.failure_trace)
    raise TrialError(f"it is not ready after {_LIMIT_S:g} s")

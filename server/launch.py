"""From the options to a running server: the order is what makes the start quick.

The address is bound first, so that its errors come at once. Then the workers are started, and only
while they import their libraries does this process import asyncio and structlog.
"""

import os
import resource
import signal
from pathlib import Path

from server.affinity import plan_affinity
from server.config import ServerConfig
from server.limits import plan_connections
from server.listener import Listener, open_listener
from server.messages import Setup
from server.worker_process import STOP_SIGNALS, WorkerProcess


def launch(config: ServerConfig) -> int:
    """Serve until a signal and return the exit status.

    Raises:
        ListenError: The address cannot be listened on.
        NotLoopbackError: The address is not local, and that was not asked for.
    """
    listener = open_listener(
        config.address,
        backlog=config.backlog,
        insecure=config.insecure,
        workers_listen=config.workers_listen,
    )
    try:
        return _supervise(config, listener)
    finally:
        listener.close()


def _supervise(config: ServerConfig, listener: Listener) -> int:
    max_connections = _claim_connections(config.max_connections)
    setups = _plan_workers(config, listener, max_connections)

    def start_worker(index: int) -> WorkerProcess:
        return WorkerProcess(setups[index])

    # A signal that comes now waits for the supervisor, which ends the workers in good order.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    workers = [start_worker(index) for index in range(config.workers)]
    import asyncio  # noqa: PLC0415 - the workers are starting meanwhile

    from server.supervisor import Supervisor  # noqa: PLC0415 - as above

    supervisor = Supervisor(
        config, listener, workers, start_worker=start_worker, max_connections=max_connections
    )
    return asyncio.run(supervisor.run())


def _plan_workers(config: ServerConfig, listener: Listener, max_connections: int) -> list[Setup]:
    cores = plan_affinity(os.sched_getaffinity(0), config.workers)
    listen = str(listener.address) if config.workers_listen else None
    share = -(-max_connections // config.workers)
    return [
        Setup(
            worker=index,
            core=core,
            engine=config.engine,
            loop=config.loop,
            service=config.service,
            log_level=config.log_level,
            log_format=config.log_format,
            folder=str(Path.cwd()),
            stack=config.stack,
            listen=listen,
            max_connections=share,
        )
        for index, core in enumerate(cores)
    ]


def _claim_connections(wanted: int) -> int:
    """Raise the open-files limit as far as needed and return how many connections to admit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = plan_connections(wanted, soft, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit.nofile, hard))
    return limit.connections

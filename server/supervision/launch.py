"""From the options to a running server: the order is what makes the start quick.

The address is bound first, so that its errors come at once, and as the user who may. Then the
workers are started, as the user of --user, and only while they import their libraries does this
process import asyncio.
"""

import os
import resource
import signal
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from capnp_rig.server.config import ConfigError, ServerConfig
from capnp_rig.server.control.messages import Setup
from capnp_rig.server.control.signals import (
    IDLE_SIGNALS,
    ORDER_SIGNALS,
    SUPERVISOR_SIGNALS,
    TERMINAL_SIGNALS,
    survive_signals,
)
from capnp_rig.server.supervision.listener import (
    Listener,
    check_metrics_address,
    open_listener,
)
from capnp_rig.server.supervision.notify import ServiceManager
from capnp_rig.server.supervision.passed_sockets import adopt_listener, check_passed, passed_fds
from capnp_rig.server.supervision.plan import Plan
from capnp_rig.server.supervision.user import become, find_user
from capnp_rig.server.supervision.worker_process import WorkerProcess

# Listener, control sockets, log files, libraries.
_RESERVED_FDS = 64
# A worker starts with 25 of them; the supervisor has two for each worker.
_LEAST_FDS = 32
_METRICS_BACKLOG = 64


class ScarceFilesError(Exception):
    """The open-files limit is too low; the message says what is needed."""


def launch(config: ServerConfig, reread: Callable[[], ServerConfig] | None = None) -> int:
    """Serve until a signal and return the exit status.

    `reread` returns the configuration that a reload is to take, or raises `ConfigError`; without
    it, that is `config` again.

    Raises:
        ListenError: The address cannot be listened on.
        NotLoopbackError: The address is not local, and that was not asked for.
        ScarceFilesError: The open-files limit is too low.
        UserError: The server cannot become the user that it is to be.
        OSError: The system starts no process.
    """
    survive_signals(IDLE_SIGNALS)
    _hold_signals(ORDER_SIGNALS + TERMINAL_SIGNALS)
    manager = ServiceManager.of_environment(os.environ)
    user = None if config.user is None else find_user(config.user)
    # An error of it comes before the address is taken.
    _claim_connections(config)
    if config.address.path is not None:
        # Before there is a file to remove; a host's name, though, may be waited for.
        _hold_signals()
    listener = _open_listener(config)
    _hold_signals()
    metrics = None
    try:
        metrics = _open_metrics(config)
        if user is not None:
            become(user, _own_sockets(listener, metrics))
        return _supervise(config, listener, metrics, manager, reread or (lambda: config))
    finally:
        listener.close()
        if metrics is not None:
            metrics.close()


def _open_listener(config: ServerConfig) -> Listener:
    passed = passed_fds(os.environ)
    check_passed(config.address, passed)
    if config.address.fd is not None:
        return adopt_listener(config.address, insecure=config.may_be_reached)
    return open_listener(
        config.address,
        backlog=config.backlog,
        insecure=config.may_be_reached,
        workers_listen=config.workers_listen,
        socket_mode=config.unix.socket_mode,
    )


def _own_sockets(*listeners: Listener | None) -> list[str]:
    """Return the Unix sockets that this server has made."""
    return [
        each.address.path
        for each in listeners
        if each is not None and each.file_id is not None and each.address.path is not None
    ]


def _open_metrics(config: ServerConfig) -> Listener | None:
    if config.metrics is None:
        return None
    check_metrics_address(config.metrics, insecure=config.insecure)
    return open_listener(config.metrics, backlog=_METRICS_BACKLOG, insecure=config.insecure)


def _supervise(
    config: ServerConfig,
    listener: Listener,
    metrics: Listener | None,
    manager: ServiceManager,
    reread: Callable[[], ServerConfig],
) -> int:
    first = _plan(listener, config)
    workers: list[WorkerProcess] = []
    try:
        for setup in first.setups:
            workers.append(WorkerProcess(setup))  # noqa: PERF401 - those that started are ended
        import asyncio

        from capnp_rig.server.supervision.supervisor import supervise

        return asyncio.run(
            supervise(
                first,
                listener,
                workers,
                manager,
                metrics=metrics,
                plan=partial(_plan, listener),
                reread=reread,
            )
        )
    finally:
        # None is left, unless something failed here.
        for worker in workers:
            worker.kill()


def _hold_signals(numbers: Iterable[int] = SUPERVISOR_SIGNALS) -> None:
    """Let signals wait for the supervisor, which ends the workers in good order."""
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)


def _plan(listener: Listener, config: ServerConfig) -> Plan:
    try:
        max_connections = _claim_connections(config)
    except ScarceFilesError as error:
        raise ConfigError(str(error)) from error
    return Plan(config, _plan_workers(config, listener, max_connections), max_connections)


def _plan_workers(config: ServerConfig, listener: Listener, max_connections: int) -> list[Setup]:
    cores = plan_affinity(os.sched_getaffinity(0), config.workers)
    listen = str(listener.address) if config.workers_listen else None
    folder = current_folder()
    share = -(-max_connections // config.workers)
    return [
        Setup(
            config=config,
            worker=index,
            core=core,
            folder=folder,
            listen=listen,
            max_connections=share,
        )
        for index, core in enumerate(cores)
    ]


def current_folder() -> str | None:
    """Return where we were started; None if that was removed since, as by a deploy."""
    try:
        return str(Path.cwd())
    except OSError:
        return None


def _claim_connections(config: ServerConfig) -> int:
    """Raise the open-files limit as far as needed and return how many connections to admit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections, nofile = plan_connections(config.limits.max_connections, soft, hard)
    least = _LEAST_FDS + 2 * config.workers
    if nofile < least:
        raise ScarceFilesError(
            f"the open-files limit of {nofile} is too low: raise it to {least} at least "
            "(ulimit -n), or start fewer workers"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, hard))
    return connections


def plan_connections(wanted: int, soft_nofile: int, hard_nofile: int) -> tuple[int, int]:
    """Return how many of the `wanted` connections to admit, and the open-files limit to set first.

    They are at most half of the open files. The soft limit is raised as far as that needs and the
    hard limit allows, never lowered.
    """
    nofile = max(soft_nofile, min(2 * wanted + _RESERVED_FDS, hard_nofile))
    return max(1, min(wanted, nofile // 2)), nofile


def plan_affinity(cpus: Iterable[int], workers: int) -> tuple[int, ...]:
    """Return the CPU of each worker, lowest number first.

    More workers than CPUs share them evenly, in turns.

    Raises:
        ValueError: There is no CPU, or no worker.
    """
    ordered = sorted(set(cpus))
    if not ordered or workers < 1:
        raise ValueError("a plan needs at least one CPU and one worker")
    return tuple(ordered[index % len(ordered)] for index in range(workers))

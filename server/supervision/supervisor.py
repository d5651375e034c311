"""The supervisor: joins those that do its work, and hands them its signals.

- `workers.Workers` starts the workers, watches them and replaces those that end;
- `dispatcher.Dispatcher` accepts connections and hands them over;
- `drain.Drain` ends the server in good order;
- `reload.Changes` replaces workers that serve, and `upkeep.Upkeep` tells it which are worn.

Each imports only those above it in this list. What happens to a worker comes back to the others
as `WorkerEvents`.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from capnp_rig.rigcli.address import Address
from capnp_rig.server.config import ServerConfig
from capnp_rig.server.control.signals import (
    SUPERVISOR_SIGNALS,
    SentSignals,
    in_foreground,
    stop_like_others,
)
from capnp_rig.server.logs.log import Log, open_log
from capnp_rig.server.supervision.dispatcher import Dispatcher
from capnp_rig.server.supervision.drain import Drain
from capnp_rig.server.supervision.listener import Listener, caution_of_strangers
from capnp_rig.server.supervision.notify import ServiceManager
from capnp_rig.server.supervision.observation import Observation
from capnp_rig.server.supervision.plan import Plan
from capnp_rig.server.supervision.reload import Changes
from capnp_rig.server.supervision.upkeep import Upkeep
from capnp_rig.server.supervision.watch import names_of, snapshot, watch
from capnp_rig.server.supervision.worker_process import WorkerProcess
from capnp_rig.server.supervision.workers import EndedWorker, WorkerEvents, Workers


async def supervise(
    first: Plan,
    listener: Listener,
    started: Sequence[WorkerProcess],
    manager: ServiceManager,
    *,
    metrics: Listener | None,
    plan: Callable[[ServerConfig], Plan],
    reread: Callable[[], ServerConfig],
) -> int:
    """Serve until a signal, with workers that were started already; return the exit status.

    `plan` and `reread` are those of `Changes`; `first` is the plan of those workers. `metrics` is
    where the metrics are asked for.
    """
    config = first.config
    log = open_log(config.log_level, config.log_format)
    if config.tls.tls_cert is not None and config.tls.tls_client_ca is None:
        caution_of_strangers(listener, log)
    workers = Workers(started, first.setups, log)
    dispatcher = Dispatcher(
        config, listener, workers, log, manager, max_connections=first.max_connections
    )
    drain = Drain(workers, dispatcher, log, manager, limit_s=config.drain_timeout_s)

    observation = Observation(config, workers, dispatcher)

    def after_end(ended: EndedWorker) -> None:
        observation.after_end(ended)
        dispatcher.after_end(ended)
        drain.after_end(ended)

    def apply(changed: Plan) -> None:
        dispatcher.reconfigure(changed.config, changed.max_connections)
        drain.limit_s = changed.config.drain_timeout_s

    changes = Changes(config, workers, log, manager, plan=plan, reread=reread, apply=apply)
    # At every level: somebody asks for it.
    told = open_log("info", config.log_format)
    upkeep = Upkeep(workers, changes, told, str(listener.address))

    def report(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # asyncio would print it on stderr, and block.
        log.error(
            f"{context.get('message')}: {context.get('exception')!r}", kind="unexpected errors"
        )

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(report)
    loop.add_signal_handler(signal.SIGTERM, drain.on_stop_signal)
    loop.add_signal_handler(signal.SIGINT, drain.on_stop_signal)
    loop.add_signal_handler(signal.SIGQUIT, drain.stop_now)
    loop.add_signal_handler(signal.SIGTSTP, _suspend, workers)
    loop.add_signal_handler(signal.SIGCHLD, workers.reap)
    loop.add_signal_handler(signal.SIGHUP, changes.reload)
    loop.add_signal_handler(signal.SIGUSR1, upkeep.tell)
    sent = SentSignals()
    loop.add_reader(sent.fileno(), _resize, changes, sent)
    if manager.watchdog_s is not None:
        _keep_alive(manager, manager.watchdog_s)
    # The launcher blocked them until somebody could act on them.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SUPERVISOR_SIGNALS)
    workers.watch(
        WorkerEvents(
            changed=dispatcher.dispatch,
            ready=dispatcher.start_when_ready,
            ended=after_end,
            gave_up=drain.give_up,
        )
    )
    async with AsyncExitStack() as stack:
        if metrics is not None:
            # It takes a library that not everybody has.
            from capnp_rig.server.metrics.endpoint import open_endpoint

            endpoint = open_endpoint(metrics.sock, observation.state, lambda: observation.is_ready)
            stack.callback((await endpoint).close)
            told.info(_metrics_line(metrics.address), address=str(metrics.address))
        if config.reload:
            stack.callback(loop.create_task(_watch(config, changes, log)).cancel)
        return await drain.status


def _metrics_line(address: Address) -> str:
    # There are no URLs of Unix sockets.
    where = f"http://{address}" if address.path is None else f"{address}, path "
    return f"Metrics on {where}/metrics"


async def _watch(config: ServerConfig, changes: Changes, log: Log) -> None:
    """Reload when a source file changes."""
    folders = config.reload_dir or (os.curdir,)

    def on_change(paths: list[str]) -> None:
        log.info(f"Changed: {names_of(paths)}", files=paths)
        changes.reload()

    # Not in a thread: nothing is served yet, and nothing that changes from now on is missed.
    await watch(folders, snapshot(folders), on_change)


def _resize(changes: Changes, sent: SentSignals) -> None:
    for number in sent.read():
        changes.resize(1 if number == signal.SIGTTIN else -1)


def _keep_alive(manager: ServiceManager, interval_s: float) -> None:
    """Tell the service manager that this loop turns, now and at each interval."""
    manager.watchdog()
    loop = asyncio.get_running_loop()
    loop.call_later(interval_s, _keep_alive, manager, interval_s)


def _suspend(workers: Workers) -> None:
    """Stop for a while, with the workers, if somebody at our terminal typed Ctrl-Z."""
    if not in_foreground():
        return
    for worker in workers.alive():
        worker.signal_group(signal.SIGSTOP)
    stop_like_others()
    for worker in workers.alive():
        worker.signal_group(signal.SIGCONT)

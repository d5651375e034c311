"""The supervisor: joins the three that do its work, and hands them its signals.

- `workers.Workers` starts the workers, watches them and replaces those that end;
- `dispatcher.Dispatcher` accepts connections and hands them over;
- `drain.Drain` ends the server in good order.

Each imports only those above it in this list. What happens to a worker comes back to the others
as `WorkerEvents`.
"""

import asyncio
import signal
from collections.abc import Sequence
from typing import Any

from capnp_rig.server.config import ServerConfig
from capnp_rig.server.control.messages import Setup
from capnp_rig.server.control.signals import SUPERVISOR_SIGNALS, in_foreground, stop_like_others
from capnp_rig.server.logs.log import open_log
from capnp_rig.server.supervision.dispatcher import Dispatcher
from capnp_rig.server.supervision.drain import Drain
from capnp_rig.server.supervision.listener import Listener
from capnp_rig.server.supervision.notify import ServiceManager
from capnp_rig.server.supervision.worker_process import WorkerProcess
from capnp_rig.server.supervision.workers import EndedWorker, WorkerEvents, Workers


async def supervise(
    config: ServerConfig,
    listener: Listener,
    first: Sequence[WorkerProcess],
    manager: ServiceManager,
    *,
    setups: Sequence[Setup],
    max_connections: int,
) -> int:
    """Serve until a signal, with workers that were started already; return the exit status."""
    log = open_log(config.log_level, config.log_format)
    workers = Workers(first, setups, log)
    dispatcher = Dispatcher(
        config, listener, workers, log, manager, max_connections=max_connections
    )
    drain = Drain(workers, dispatcher, log, manager, limit_s=config.drain_timeout_s)

    def after_end(ended: EndedWorker) -> None:
        dispatcher.after_end(ended)
        drain.after_end(ended)

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
    return await drain.status


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

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
from capnp_rig.server.control.signals import SUPERVISOR_SIGNALS, in_foreground, stop_like_others
from capnp_rig.server.logs.log import Log, open_log
from capnp_rig.server.supervision.dispatcher import Dispatcher
from capnp_rig.server.supervision.drain import Drain
from capnp_rig.server.supervision.listener import Listener
from capnp_rig.server.supervision.worker_process import WorkerProcess
from capnp_rig.server.supervision.workers import EndedWorker, StartWorker, WorkerEvents, Workers


async def supervise(
    config: ServerConfig,
    listener: Listener,
    workers: Sequence[WorkerProcess],
    *,
    start_worker: StartWorker,
    max_connections: int,
) -> int:
    """Serve until a signal, with `workers` that were started already; return the exit status."""
    log = open_log(config.log_level, config.log_format)
    all_workers = Workers(workers, start_worker, log)
    dispatcher = Dispatcher(config, listener, all_workers, log, max_connections=max_connections)
    drain = Drain(all_workers, dispatcher, log, limit_s=config.drain_timeout_s)
    return await Supervisor(all_workers, dispatcher, drain, log).run()


class Supervisor:
    """Joins the three, and gives them the signals that the process gets."""

    def __init__(self, workers: Workers, dispatcher: Dispatcher, drain: Drain, log: Log) -> None:
        self._workers = workers
        self._dispatcher = dispatcher
        self._drain = drain
        self._log = log

    async def run(self) -> int:
        """Serve until a signal; return the exit status."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._report)
        for number, handle in (
            (signal.SIGTERM, self._drain.on_stop_signal),
            (signal.SIGINT, self._drain.on_stop_signal),
            (signal.SIGQUIT, self._drain.stop_now),
            (signal.SIGTSTP, self._suspend),
            (signal.SIGCHLD, self._workers.reap),
        ):
            loop.add_signal_handler(number, handle)
        # The launcher blocked them until somebody could act on them.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SUPERVISOR_SIGNALS)
        self._workers.watch(
            WorkerEvents(
                changed=self._dispatcher.dispatch,
                ready=self._dispatcher.start_when_ready,
                ended=self._after_end,
                gave_up=self._drain.give_up,
            )
        )
        return await self._drain.status

    def _after_end(self, ended: EndedWorker) -> None:
        self._dispatcher.after_end(ended)
        self._drain.after_end(ended)

    def _suspend(self) -> None:
        """Stop for a while, with the workers, if somebody at our terminal typed Ctrl-Z."""
        if not in_foreground():
            return
        for worker in self._workers.alive():
            worker.signal_group(signal.SIGSTOP)
        stop_like_others()
        for worker in self._workers.alive():
            worker.signal_group(signal.SIGCONT)

    def _report(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what asyncio would otherwise print, blocking, on stderr."""
        self._log.error(
            f"{context.get('message')}: {context.get('exception')!r}", kind="unexpected errors"
        )

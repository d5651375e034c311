"""The end of the server, which is one way: it starts with a drain, or at once.

A drain closes the listener and lets every worker finish. After the limit the remaining workers are
ordered to stop, then killed. `Drain.status` gets the exit status of the server when the last worker
is gone; if it is not 0, a log line says why.
"""

import asyncio
import math

from capnp_rig.server.logs.log import Log
from capnp_rig.server.supervision.dispatcher import Dispatcher
from capnp_rig.server.supervision.notify import ServiceManager
from capnp_rig.server.supervision.workers import EndedWorker, Workers

# timeout(1) signals its child, and then the group that the child is in: one order, sent twice.
_SAME_ORDER_S = 0.05

DRAINED = 0
FAILED = 1


class Drain:
    """Ends the workers on an order, and then the server."""

    def __init__(
        self,
        workers: Workers,
        dispatcher: Dispatcher,
        log: Log,
        manager: ServiceManager,
        *,
        limit_s: float,
    ) -> None:
        """Wait for an order; calls in flight will have `limit_s` to end."""
        self._loop = asyncio.get_running_loop()
        self._workers = workers
        self._dispatcher = dispatcher
        self._log = log
        self._manager = manager
        self.limit_s = limit_s
        # The exit status, once the last worker is gone.
        self.status: asyncio.Future[int] = self._loop.create_future()
        self._has_begun = False
        self._is_at_once = False
        self._ordered_s = -math.inf
        self._result = DRAINED
        self._cancelled = 0

    def on_stop_signal(self) -> None:
        """Drain at the first order, stop at once at the second."""
        now_s = self._loop.time()
        if not self._has_begun:
            self._ordered_s = now_s
            self._drain()
        elif now_s - self._ordered_s > _SAME_ORDER_S:
            self.stop_now()

    def give_up(self) -> None:
        """End a server whose workers cannot start."""
        self._result = FAILED
        self._drain()

    def stop_now(self) -> None:
        """Kill every worker, whatever it is doing, and say what was lost."""
        self._begin()
        losses = [worker.unfinished for worker in self._workers.alive()]
        known = [loss for loss in losses if loss is not None]
        if any(known) or len(known) < len(losses):
            self._result = FAILED
            lost = sum(known)
            what = "1 call in flight was" if lost == 1 else f"{lost} calls in flight were"
            if len(known) < len(losses):
                what = "calls in flight were"
            self._log.error(f"Stopped at once: {what} lost", lost=lost)
        elif not self._is_at_once:
            self._log.info("Stopped at once: no call was in flight", lost=0)
        self._is_at_once = True
        for worker in self._workers.alive():
            worker.kill()
        self._finish_if_alone()

    def after_end(self, ended: EndedWorker) -> None:
        """Take note of how a worker ended in the drain."""
        if not self._has_begun:
            return
        if not self._is_at_once:
            self._note(ended)
        self._finish_if_alone()

    def _note(self, ended: EndedWorker) -> None:
        worker = ended.worker
        if worker.cancelled:
            self._cancelled += worker.cancelled
            self._result = FAILED
        elif worker.cancelled is None and worker.ready:
            self._log.error(
                f"{worker.name} {ended.how} in the drain, with {worker.serving} connections open",
                worker=worker.index,
            )
            self._result = FAILED

    def _begin(self) -> None:
        if not self._has_begun:
            self._manager.stopping()
        self._has_begun = True
        self._workers.stop_replacing()
        self._dispatcher.stop()

    def _drain(self) -> None:
        self._begin()
        for worker in self._workers.alive():
            # Those that were replaced leave already.
            if not worker.leaving:
                self._workers.retire(worker, self.limit_s)
        self._finish_if_alone()

    def _finish_if_alone(self) -> None:
        if self._workers.alive() or self.status.done():
            return
        if self._cancelled:
            self._log.error(
                f"The drain limit of {self.limit_s:g} s passed: {self._cancelled} calls cancelled",
                cancelled=self._cancelled,
            )
        self._log.flush(last=True)
        self._dispatcher.close()
        self.status.set_result(self._result)

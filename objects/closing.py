"""The end of service objects in an event loop: their `close`, once nobody refers to them."""

import asyncio
from typing import Any

from capnp_rig.objects.call_context import outside_of_calls
from capnp_rig.objects.serving import Explain, is_async_close


class Closing:
    """Closes objects; what their `close` raises is explained, which logs it."""

    def __init__(self, explain: Explain) -> None:
        self._explain = explain
        self._tasks: set[asyncio.Task[None]] = set()

    def close(self, target: Any) -> None:
        """Close an object, or begin to: in no call, though it may come while one is served."""
        with outside_of_calls():
            if is_async_close(target):
                task = asyncio.get_running_loop().create_task(self._close(target))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                close_plainly(target, self._explain)

    async def _close(self, target: Any) -> None:
        try:
            await target.close()
        except BaseException as error:  # noqa: BLE001 - as in a method: nothing ends the worker
            _tell(target, error, self._explain)

    async def finish(self) -> None:
        """Wait for those that are being closed."""
        while self._tasks:
            await asyncio.wait(self._tasks)


def close_plainly(target: Any, explain: Explain) -> None:
    """Close an object whose `close` is no coroutine."""
    try:
        target.close()
    except BaseException as error:  # noqa: BLE001 - as above
        _tell(target, error, explain)


def _tell(target: Any, error: BaseException, explain: Explain) -> None:
    explain(f"{type(target).__name__}.close", error)

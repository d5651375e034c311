"""What the worker asks of an engine: the part that speaks the protocol on adopted connections.

To add one: write a module with an async context manager like `open_pycapnp_engine`, and name it in
`open_engine`.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from capnp_rig.server.control.call_stamp import Stamp, no_stamp
from capnp_rig.server.logs.log import Log

# Called once when a connection is over: None when it ended cleanly, else a short reason.
OnEnd = Callable[[str | None], None]


class Engine(Protocol):
    """Serves connections on the running event loop."""

    @property
    def unfinished(self) -> int:
        """The calls in flight, and the connections whose replies have not all left."""

    def protocol(self, on_end: OnEnd, connection: int = 0) -> asyncio.BaseProtocol:
        """Return the asyncio protocol for one new connection, and the number of its stamp."""

    async def heartbeat(self) -> None:
        """Return once a call has gone all the way through the engine's own machinery."""

    async def drain(self) -> None:
        """Start no more calls, deliver the replies of those in flight, close every connection."""


def open_engine(
    name: str,
    service: Any,
    log: Log,
    *,
    debug: bool,
    stamp: Stamp | None = None,
) -> AbstractAsyncContextManager[Engine]:
    """Return the engine that serves `service`, to be entered in a running event loop.

    It stamps the connection whose call runs, as `server.control.call_stamp` explains.
    """
    stamp = no_stamp() if stamp is None else stamp
    if name == "wire":
        from capnp_rig.server.engines.wire_engine import open_wire_engine

        return open_wire_engine(service, log, debug=debug, stamp=stamp)
    from capnp_rig.server.engines.pycapnp_engine import open_pycapnp_engine

    return open_pycapnp_engine(service, log, debug=debug, stamp=stamp)

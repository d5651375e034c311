"""B7: a connection that waits for a worker, and says nothing, is ended at the first limit."""

import asyncio
import logging
import socket
from dataclasses import replace
from typing import Any, cast

from virtual_loop import VirtualLoop

from capnp_rig.rigcli.address import Address
from capnp_rig.server.config import ConnectionLimits, ServerConfig
from capnp_rig.server.supervision.dispatcher import Dispatcher
from capnp_rig.server.supervision.slots import Slot
from capnp_rig.server.supervision.worker_process import Connection


class NoWorkers:
    """A server whose workers are all being started."""

    def slots(self) -> list[Slot]:
        return [Slot(ready=False)]

    def alive(self) -> list[Any]:
        return []


class Lines(logging.Logger):
    def warning(self, msg: object, *args: object, **more: Any) -> None:
        """Take any fields."""


def test_b7_what_waits_for_a_worker_is_ended_if_it_says_nothing() -> None:
    loop = VirtualLoop()

    async def dispatched() -> Dispatcher:
        config = ServerConfig(Address(host="x", port=1), workers=1)
        nothing: Any = None
        return Dispatcher(
            config,
            nothing,
            cast("Any", NoWorkers()),
            cast("Any", Lines("x")),
            nothing,
            max_connections=9,
        )

    dispatcher = loop.run_until_complete(dispatched())
    pairs = [socket.socketpair() for _ in range(3)]
    for number, (ours, theirs) in enumerate(pairs):
        ours.setblocking(False)
        if number == 1:
            theirs.sendall(b"x")
        dispatcher._pending.append(Connection(number, ours, "peer", "origin", 0.0))
    loop.advance(9.9)
    dispatcher.dispatch()
    assert len(dispatcher._pending) == 3
    loop.advance(0.2)
    dispatcher.dispatch()
    # The first is gone; the second has said something.
    assert [connection.number for connection in dispatcher._pending] == [1, 2]
    assert pairs[0][1].recv(1) == b""
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
    loop.close()
    asyncio.set_event_loop(None)


def test_a_reload_takes_new_limits_on_peers() -> None:
    loop = VirtualLoop()
    limits = ConnectionLimits(max_connections_per_peer=1)
    before = ServerConfig(Address(host="x", port=1), workers=1)

    async def reconfigured() -> Dispatcher:
        nothing: Any = None
        workers, log = cast("Any", NoWorkers()), cast("Any", Lines("x"))
        return Dispatcher(before, nothing, workers, log, nothing, max_connections=9)

    dispatcher = loop.run_until_complete(reconfigured())
    dispatcher.reconfigure(replace(before, limits=limits), 9)
    assert dispatcher._peer_limits.refusal("uid 1", 1, 0.0) is not None
    kept = dispatcher._peer_limits
    dispatcher.reconfigure(replace(before, limits=limits, workers=2), 9)
    assert dispatcher._peer_limits is kept
    loop.close()
    asyncio.set_event_loop(None)

"""Serves `Echo` on a connection that it was handed, as a worker of the server does, until it ends.

    python -m capnp_rig.loadtest.benchmarks.rpc_peer FD

That is the server's wire engine on uvloop; the supervisor, which accepts connections and hands
them over, has no part in a call.
"""

import asyncio
import socket
import sys
from collections.abc import Mapping
from typing import Any

import uvloop

from capnp_rig.schema import load
from capnp_rig.server.connections.socket_options import tune
from capnp_rig.server.engines.registry import open_engine
from capnp_rig.server.logs.log import open_log


class Echo:
    """`Echo.echo`; no data gives no data."""

    interface = load("echo.capnp").Echo

    def echo(self, params: Any) -> Mapping[str, Any]:
        """Answer with the bytes as they came."""
        return {"data": params.data}


async def serve(sock: socket.socket) -> None:
    """Serve one connection to its end."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[str | None] = loop.create_future()
    async with open_engine("wire", Echo(), open_log("error", "text"), debug=False) as engine:
        tune(sock)
        await loop.connect_accepted_socket(lambda: engine.protocol(ended.set_result), sock)
        await ended


def main() -> None:
    """Serve until the other end is closed, or its process gone."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    main()

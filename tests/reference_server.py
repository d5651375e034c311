"""pycapnp's own server for the tutorial's contract, as a process that prints its port.

Run on stock asyncio, which needs no gate. `read` of "boom" raises, of "slow" waits a minute.
"""

import asyncio
import socket
import sys
from typing import Any

import capnp

from capnp_rig.schema import message


class Reverse(message.MessageStream.Server):  # type: ignore[misc]
    async def read(self, request: Any, _context: Any, **_: Any) -> None:
        text = request.content
        if text == "boom":
            raise ValueError("boom in the method")
        if text == "slow":
            await asyncio.sleep(60)
        _context.results.chunk = text[::-1].encode()


async def serve(stream: Any) -> None:
    await capnp.TwoPartyServer(stream, bootstrap=Reverse()).on_disconnect()


async def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = await capnp.AsyncIoStream.create_server(serve, "127.0.0.1", port)
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(capnp.run(main()))

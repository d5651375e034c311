"""pycapnp's own server for the tutorial's contract, as a process that prints its port.

Run on stock asyncio, which needs no gate. `read` of "boom" raises, of "slow" waits a minute.
"""

import asyncio
from typing import Any

from pycapnp_serving import serve_forever

from capnp_rig.schema import message


class Reverse(message.MessageStream.Server):  # type: ignore[misc]
    async def read(self, request: Any, _context: Any, **_: Any) -> None:
        text = request.content
        if text == "boom":
            raise ValueError("boom in the method")
        if text == "slow":
            await asyncio.sleep(60)
        _context.results.chunk = text[::-1].encode()


if __name__ == "__main__":
    serve_forever(Reverse)

"""The tutorial's service with the faults of a `FaultPage`: ``server run --service`` gets it."""

from collections.abc import Mapping
from typing import Any

from capnp_rig.loadtest.clients.fault_page import FaultyPart
from capnp_rig.schema import message


class Faulty:
    """`MessageStream` as in the tutorial, after what the page of faults asks for."""

    interface = message.MessageStream

    def __init__(self) -> None:
        """Map the page of this server."""
        self._part = FaultyPart()

    async def read(self, params: Any) -> Mapping[str, bytes]:
        """Answer with the content reversed, as UTF-8."""
        await self._part.run()
        return {"chunk": params.request.content[::-1].encode()}

import asyncio
from typing import Any

import pytest

from capnp_rig.loadtest.engine import process
from capnp_rig.loadtest.engine.process import EngineConfig, Load
from capnp_rig.objects.errors import Disconnected


def test_a_connection_that_is_lost_as_soon_as_it_is_ready_was_not_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever waits for it learns that only in the loop's next turn."""

    async def opened(*_where: object) -> None:
        """Open nothing."""

    async def adopted(_sock: object, connection: Any) -> None:
        connection.ready.set_result(None)
        connection.connection_lost(None)

    async def connect() -> None:
        load = Load(EngineConfig("127.0.0.1:1"))
        with pytest.raises(Disconnected, match="the server closed it"):
            await load.connect(0)
        assert (load.connections, load.in_flight) == ({}, 0)

    monkeypatch.setattr(process, "open_socket", opened)
    monkeypatch.setattr(process, "adopt", adopted)
    asyncio.run(connect())

import asyncio
from types import SimpleNamespace
from typing import Any

from capnp_rig.server.engines.pycapnp_engine import _Connection


def test_a6_a_peer_that_leaves_while_its_replies_are_flushed_ends_the_wait() -> None:
    connection: Any = _Connection.__new__(_Connection)
    connection._gate = SimpleNamespace(is_over=False, unsent_bytes=0)
    connection._meter = SimpleNamespace(calls_in_flight=0)

    async def settle() -> None:
        # As `_lost` leaves it.
        connection._gate = None

    connection._engine = SimpleNamespace(settle=settle)
    asyncio.run(connection._flushed())

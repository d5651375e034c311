import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from capnp_rig.objects.users_code import BadServiceError
from capnp_rig.schema import message
from capnp_rig.server.engines.pycapnp_engine import _adapt, _Connection


def test_a6_a_peer_that_leaves_while_its_replies_are_flushed_ends_the_wait() -> None:
    connection: Any = _Connection.__new__(_Connection)
    connection._gate = SimpleNamespace(is_over=False, unsent_bytes=0)
    connection._meter = SimpleNamespace(calls_in_flight=0)

    async def settle() -> None:
        # As `_lost` leaves it.
        connection._gate = None

    connection._engine = SimpleNamespace(settle=settle)
    asyncio.run(connection._flushed())


def test_a3_several_interfaces_are_refused() -> None:
    service = SimpleNamespace(interface=(message.MessageStream,), read=lambda _: None)
    with pytest.raises(BadServiceError, match="several interfaces, which only the wire engine"):
        _adapt(service)

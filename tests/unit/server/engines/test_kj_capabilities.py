import asyncio
from threading import get_ident
from types import SimpleNamespace
from typing import Any

import pytest
from place_services import SCHEMA

from capnp_rig.objects.users_code import BadServiceError
from capnp_rig.server.engines.kj_capabilities import Reference, widest
from capnp_rig.wire.rpc.interfaces import compile_interface


class Client:
    """As pycapnp's, which crashes if it ends in another thread."""

    _parent: Any = "the message"

    def __init__(self, ended_in: list[int]) -> None:
        self.ended_in = ended_in

    def __del__(self) -> None:
        self.ended_in.append(get_ident())


def test_what_is_dropped_in_another_thread_ends_in_the_loops() -> None:
    ended_in: list[int] = []

    async def work() -> None:
        peer: Any = SimpleNamespace(loop=asyncio.get_running_loop(), thread=get_ident())
        held = [Reference(peer, Client(ended_in))]
        assert held[0].live()._parent is None
        await asyncio.to_thread(held.clear)
        await asyncio.sleep(0)

    asyncio.run(work())
    assert ended_in == [get_ident()]


def test_of_several_interfaces_the_one_that_extends_the_others_is_served() -> None:
    base, leaf, other = map(compile_interface, (SCHEMA.Base, SCHEMA.Leaf, SCHEMA.Other))
    assert widest([base, leaf]) is leaf
    with pytest.raises(BadServiceError, match="one interface, not of Leaf and Other"):
        widest([leaf, other])

import asyncio
import socket
from pathlib import Path

import pytest

from capnp_rig.loadtest.clients.fault_page import (
    ENVIRONMENT_NAME,
    FaultPage,
    FaultyPart,
    reset_connections,
)


def test_both_sides_see_the_same_numbers(tmp_path: Path) -> None:
    ours = FaultPage.create(tmp_path / "page", 5000)
    theirs = FaultPage(tmp_path / "page")
    theirs.executions += 2
    ours.call_us, ours.resets = 50_000, 1
    assert (ours.executions, theirs.call_us, theirs.resets) == (2, 50_000, 1)


def test_a_reset_reaches_the_peer_and_spares_who_listens() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), 10) as peer,
    ):
        server, _ = listener.accept()
        with server:
            reset_connections()
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
        socket.create_connection(listener.getsockname(), 10).close()


def test_calls_are_counted_and_resets_need_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "capnp_rig.loadtest.clients.fault_page"
    monkeypatch.setenv(ENVIRONMENT_NAME, str(tmp_path / "page"))
    page = FaultPage.create(tmp_path / "page", 0)

    async def reset_once() -> None:
        was_reset = asyncio.Event()
        monkeypatch.setattr(f"{module}.reset_connections", was_reset.set)
        part = FaultyPart()
        await part.run()
        await part.run()
        assert not was_reset.is_set()
        page.resets += 1
        await asyncio.wait_for(was_reset.wait(), 30)

    asyncio.run(reset_once())
    assert page.executions == 2

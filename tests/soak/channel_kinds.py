"""Kinds of calls over channels; each batch leaves its channel without calls and waiters."""

import asyncio
from collections.abc import Callable
from typing import Any

from soak.capability_kinds import KINDS
from soak.kinds import _DEADLINE_S, _ask, _fails, _in_tasks, _in_threads, _put, _raises, kind
from soak.stage import SOAK, Stage

from capnp_rig.client import AsyncChannel, Channel, DeadlineExceeded, Overloaded, RemoteError
from capnp_rig.client.policies import ConcurrencyLimit, Hedge, LoadShed, default_stack

__all__ = ["KINDS"]

# A time of the soak may pass without any call of a kind.
_IDLE_S = 3600.0


def _policies() -> list[Any]:
    return [*default_stack(), Hedge(0.5), ConcurrencyLimit(50)]


def _make(kind: Callable[..., Any], stage: Stage, **options: Any) -> Any:
    options = {"policies": _policies(), "idempotent": {"zeros"}, "idle_s": _IDLE_S} | options
    return kind(stage.address, interface=SOAK, **options)


async def _lasting(stage: Stage, name: str) -> AsyncChannel:
    """Return one that lasts, whose only connection stands."""
    if name not in stage.lasting:
        channel: AsyncChannel = _make(AsyncChannel, stage, size=1, eager=True)
        stage.lasting[name] = await stage.closing.enter_async_context(channel)
        while not channel.endpoints[0].connections:
            await asyncio.sleep(0.001)
    lasting: AsyncChannel = stage.lasting[name]
    return lasting


def _rests(channel: AsyncChannel | Channel) -> None:
    assert [each.in_flight for each in channel.endpoints] == [0]
    pool = channel._pool
    assert pool.waiting == 0
    assert pool.policies[-1].running == 0  # type: ignore[attr-defined]


@kind(400, at_least=2000)
async def channel_calls(stage: Stage, count: int) -> None:
    channel: Any = await _lasting(stage, "channel calls")
    await _in_tasks(count, 80, lambda: _ask(stage, channel, "later"))
    _rests(channel)


@kind(200, at_least=1000)
async def channel_hedged(stage: Stage, count: int) -> None:
    channel = await _lasting(stage, "channel hedged")

    async def once() -> None:
        nonce = stage.nonce()
        results = await channel.call("zeros", {"nonce": nonce, "size": 9})
        assert (results.nonce, bytes(results.data)) == (nonce, bytes(9))

    await _in_tasks(count, 5, once)
    _rests(channel)


@kind(300, at_least=1500)
async def channel_ends(stage: Stage, count: int) -> None:
    """End calls in all other ways: failed, too late, cancelled at once or later."""
    channel: Any = await _lasting(stage, "channel ends")

    async def once() -> None:
        nonce = stage.nonce()
        await _fails(channel.call("fail", {"nonce": nonce}), RemoteError, f"{nonce}")
        await _fails(channel.call("wait", {"nonce": 1}, timeout_s=_DEADLINE_S), DeadlineExceeded)
        task = asyncio.create_task(channel.call("wait", {"nonce": 1}))
        for _ in range(stage.random.randrange(4)):
            await asyncio.sleep(0)
        task.cancel()
        # So that few of a connection's calls are cancelled.
        await _ask(stage, channel, "plain")
        await _ask(stage, channel, "plain")
        async with channel.connection() as client:
            await _ask(stage, client, "plain")

    await _in_tasks(count // 6, 60, once)
    _rests(channel)


@kind(20, at_least=100)
async def channel_short(stage: Stage, count: int) -> None:
    """Make, use and close channels, with calls that wait and are shed."""
    for _ in range(count // 10):
        policies = [*default_stack(), LoadShed(2), ConcurrencyLimit(1)]
        async with _make(AsyncChannel, stage, policies=policies) as channel:
            await _ask(stage, channel, "plain")
            calls = [channel.call("zerosLater", {"nonce": 1, "size": 1}) for _ in range(8)]
            ends = await asyncio.gather(*calls, return_exceptions=True)
            shed = [each for each in ends if isinstance(each, Overloaded)]
            assert len(shed) == 5, ends
            _rests(channel)


@kind(200, at_least=1000)
def channel_threads(stage: Stage, count: int) -> None:
    """Share a blocking channel among more threads than it has connections."""
    with _make(Channel, stage, size=3) as channel:
        _in_threads(count, 8, lambda: _put(stage, channel, "plain"))
        params = {"nonce": 1}
        _raises(RemoteError, "failed", lambda: channel.call("fail", params))
        _raises(DeadlineExceeded, "", lambda: channel.call("wait", params, timeout_s=_DEADLINE_S))
        zeros = {"nonce": 1, "size": 9}
        _in_threads(count // 4, 4, lambda: channel.call("zeros", zeros))
        _rests(channel)

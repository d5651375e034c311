"""Kinds that create, pass, call and drop capabilities; their batches count calls.

Every object of the client is closed once it is let go, which each batch awaits for its own; those
of the server are in its census.
"""

import asyncio
import functools
import itertools
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import capnp
from soak.kinds import (
    KINDS,
    _aio,
    _ask,
    _ask_foreign,
    _blocking,
    _fails,
    _foreign,
    _in_tasks,
    _in_threads,
    _lasting_aio,
    _lasting_blocking,
    _lasting_foreign,
    _put,
    _raises,
    kind,
)
from soak.service import SCHEMA
from soak.stage import Stage

from capnp_rig.client import Disconnected, RemoteError
from capnp_rig.server import ServiceError

__all__ = ["KINDS"]

# Of one unit of any kind, at least.
_CALLS = 4
_LET_GO_S = 20.0

# A long soak is to make many of these calls.
_TIMES = 3 if float(os.environ.get("SOAK_S", "30")) >= 600 else 1


def with_capabilities(batch: int) -> Callable[[Any], Any]:
    """Add a kind that passes capabilities."""
    return kind(_TIMES * batch, at_least=batch, passes_capabilities=True)


class Echo:
    """An object of the client's."""

    interface = SCHEMA.Echo

    def __init__(self) -> None:
        self.closed = 0

    def plain(self, params: Any) -> dict[str, Any]:
        return {"nonce": params.nonce, "data": bytes(params.data)[::-1]}

    def close(self) -> None:
        self.closed += 1

    async def is_let_go(self) -> None:
        """Wait until the server has let it go."""
        async with asyncio.timeout(_LET_GO_S):
            while not self.closed:
                await asyncio.sleep(0.001)
        assert self.closed == 1, f"closed {self.closed} times"


class Giver:
    """Gives a capability, or fails without one, a little later than it is asked."""

    interface = SCHEMA.Giver

    def __init__(self, echo: Any) -> None:
        self._echo = echo

    async def give(self, _params: Any) -> dict[str, Any]:
        await asyncio.sleep(0)
        if self._echo is None:
            raise ServiceError("nothing to give")
        return {"echo": self._echo}


# --- AsyncClient -------------------------------------------------------------------------


async def _units(count: int, tasks: int, once: Callable[[int], Awaitable[None]]) -> None:
    """Do something of several calls so often that it is `count` calls."""
    numbers = itertools.count()
    await _in_tasks(count // _CALLS, tasks, lambda: once(next(numbers)))


@with_capabilities(200)
async def aio_sessions(stage: Stage, count: int) -> None:
    client = await _lasting_aio(stage)

    async def once(number: int) -> None:
        results = await client.call("open", {"nonce": number})
        session = results.session
        for method in ("plain", "later"):
            await _ask(stage, session, method)
        inner = (await session.call("open", {"nonce": number})).session
        # Closed, or left to the collector.
        if number % 2:
            session.close()
            inner.close()

    await _units(count, 5, once)


@with_capabilities(200)
async def aio_pipelined(stage: Stage, count: int) -> None:
    client = await _lasting_aio(stage)

    async def once(number: int) -> None:
        opened = client.pipeline("open", {"nonce": number})
        inner = opened.session.pipeline("open", {"nonce": number}).session
        await _ask(stage, inner, "later" if number % 2 else "plain")
        await _ask(stage, opened.session if number % 3 else inner, "plain")

    await _units(count, 5, once)


@with_capabilities(200)
async def aio_callbacks(stage: Stage, count: int) -> None:
    client = await _lasting_aio(stage)

    async def once(_number: int) -> None:
        for _ in range(2):
            echo, question = Echo(), stage.ask("lend")
            params = {**question.params, "echo": echo}
            stage.check(question, await client.call("lend", params))
            await echo.is_let_go()

    await _units(count, 5, once)


async def _ask_echo(stage: Stage, echo: Any) -> None:
    """Call an object of the client's, whose calls no server counts."""
    question = stage.ask("plain")
    results = await echo.call("plain", question.params)
    assert (results.nonce, bytes(results.data)) == (question.nonce, question.right)


@with_capabilities(200)
async def aio_kept(stage: Stage, count: int) -> None:
    """Leave an object with a session, get it back, and let it go with the session or before."""
    client = await _lasting_aio(stage)

    async def once(number: int) -> None:
        echo = Echo()
        session = client.pipeline("open", {"nonce": number}).session
        await session.call("keep", {"echo": echo})
        # Called on the way, and when it is known to be here.
        kept = session.pipeline("kept", {})
        await _ask_echo(stage, kept.echo)
        with (await session.call("kept", {})).echo as again:
            await _ask_echo(stage, again)
        if number % 2:
            await session.call("keep", {"echo": None})
        del kept, again
        session.close()
        await echo.is_let_go()

    await _units(count, 5, once)


@with_capabilities(200)
async def aio_promises(stage: Stage, count: int) -> None:
    """Call what the server does not know yet: it is the client's, its own, or broken."""
    client = await _lasting_aio(stage)

    async def once(number: int) -> None:
        mine = Echo()
        session = (await client.call("open", {"nonce": number})).session
        given = (mine, session, None)[number % 3]
        promised = client.pipeline("promise", {"giver": Giver(given)}).echo
        if given is mine:
            await _ask_echo(stage, promised)
        elif given is session:
            await _ask(stage, promised, "plain")
        else:
            await _fails(promised.call("plain", {}), RemoteError, "nothing to give")
        promised.close()
        session.close()
        if given is mine:
            await mine.is_let_go()

    await _units(count, 5, once)


@with_capabilities(100)
async def aio_lent_and_cancelled(stage: Stage, count: int) -> None:
    """Cancel one call in four, which has a capability; another waits for its results."""
    client = await _lasting_aio(stage)

    async def once(number: int) -> None:
        echo = Echo()
        session = (await client.call("open", {"nonce": number})).session
        task = asyncio.create_task(session.call("wait", {"echo": echo}))
        await _ask(stage, session, "plain")
        await _ask(stage, session, "later")
        task.cancel()
        await echo.is_let_go()
        session.close()

    await _units(count, 5, once)


@with_capabilities(40)
async def aio_dead_with_capabilities(stage: Stage, count: int) -> None:
    """End a connection while both sides hold objects of the other, and promises."""

    async def once(number: int) -> None:
        async with await _aio(stage) as client:
            kept, given, waits = Echo(), Echo(), Echo()
            session = (await client.call("open", {"nonce": number})).session
            await session.call("keep", {"echo": kept})
            promised = client.pipeline("promise", {"giver": Giver(given)}).echo
            waiting = asyncio.create_task(session.call("wait", {"echo": waits}))
            opened = client.pipeline("open", {"nonce": number})
            inner = opened.session.pipeline("open", {"nonce": number}).session
            await _ask(stage, session, "later")
            if number % 2:
                client._protocol._transport.abort()
            else:
                await client.close()
            await _fails(waiting, Disconnected)
            await kept.is_let_go()
            await waits.is_let_go()
            for capability in (session, promised, inner):
                await _fails(capability.call("plain", {}), Disconnected)

    await _units(count, 2, once)


# --- Client ------------------------------------------------------------------------------


@with_capabilities(100)
def blocking_sessions(stage: Stage, count: int) -> None:
    client = _lasting_blocking(stage, "capabilities")
    for number in range(count // _CALLS):
        session = client.call("open", {"nonce": number}).session
        for method in ("plain", "later"):
            _put(stage, session, method)
        inner = session.call("open", {"nonce": number}).session
        if number % 2:
            session.close()
            inner.close()


@with_capabilities(100)
def blocking_pipelined(stage: Stage, count: int) -> None:
    client = _lasting_blocking(stage, "pipelines")

    def once() -> None:
        opened = client.pipeline("open", {"nonce": 1})
        inner = opened.session.pipeline("open", {"nonce": 2}).session
        _put(stage, inner, "later")
        _put(stage, opened.session, "plain")

    _in_threads(count // _CALLS, 2, once)


@with_capabilities(100)
def blocking_callbacks(stage: Stage, count: int) -> None:
    client = _lasting_blocking(stage, "callbacks")
    for _ in range(count // 2):
        echo, question = Echo(), stage.ask("lend")
        stage.check(question, client.call("lend", {**question.params, "echo": echo}))
        end_s = time.monotonic() + _LET_GO_S
        while not echo.closed:
            _put(stage, client, "plain")
            assert time.monotonic() < end_s, "an object of the client's is not let go"
        assert echo.closed == 1


@with_capabilities(20)
def blocking_dead_with_capabilities(stage: Stage, count: int) -> None:
    for number in range(count // _CALLS):
        with _blocking(stage) as client:
            echo = Echo()
            session = client.call("open", {"nonce": number}).session
            session.call("keep", {"echo": echo})
            promised = client.pipeline("open", {"nonce": number}).session
            _put(stage, session, "later")
        assert echo.closed == 1, echo.closed
        for capability in (session, promised):
            _raises(Disconnected, "", functools.partial(capability.call, "plain", {}))


# --- pycapnp's client --------------------------------------------------------------------


class ForeignEcho(SCHEMA.Echo.Server):  # type: ignore[misc]
    """An object of pycapnp's."""

    def __init__(self, closed: list[int]) -> None:
        self._closed = closed

    async def plain_context(self, context: Any) -> None:
        context.results.nonce = context.params.nonce
        context.results.data = bytes(context.params.data)[::-1]

    def __del__(self) -> None:
        self._closed.append(1)


@with_capabilities(100)
async def foreign_sessions(stage: Stage, count: int) -> None:
    peer = await _lasting_foreign(stage)

    async def once(number: int) -> None:
        session = (await peer.open(number)).session
        await _ask_foreign(stage, session, "plain")
        await _ask_foreign(stage, session, "later")
        await _ask_foreign(stage, session.open(number).session, "plain")

    await _units(count, 4, once)


@with_capabilities(100)
async def foreign_callbacks(stage: Stage, count: int) -> None:
    peer = await _lasting_foreign(stage)

    async def once(_number: int) -> None:
        closed: list[int] = []
        echo = ForeignEcho(closed)
        for _ in range(2):
            question = stage.ask("lend")
            stage.check(question, await peer.lend(echo=echo, **question.params))
        del echo
        async with asyncio.timeout(_LET_GO_S):
            while not closed:
                await asyncio.sleep(0.001)

    await _units(count, 4, once)


@with_capabilities(20)
async def foreign_dead_with_capabilities(stage: Stage, count: int) -> None:
    for number in range(count // _CALLS):
        closed: list[int] = []
        async with _foreign(stage) as peer:
            session = (await peer.open(number)).session
            await session.keep(ForeignEcho(closed))
            inner = session.open(number).session
            await _ask_foreign(stage, session, "later")
        try:
            await session.plain(number, b"")
        except capnp.KjException:
            pass
        else:
            raise AssertionError("a call on a connection that is over")
        del session, inner
        async with asyncio.timeout(_LET_GO_S):
            while not closed:
                await asyncio.sleep(0.001)

"""Every kind of call and every kind of end, for each client: the table of the soak.

A kind is a function that makes a batch of its calls and raises AssertionError unless each ends as
it must. Those of `AsyncClient` and of pycapnp's client are coroutines on the soak's one loop;
those of `Client` and of raw bytes run in threads of their own, at the same time.
"""

import asyncio
import concurrent.futures
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import capnp
from pycapnp_peer import connected
from raw_peer import RawPeer, bootstrap, call_builder, encoded, finish, release
from soak.service import SCHEMA
from soak.stage import NEWER, SOAK, Question, Stage, closed

from capnp_rig.client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    Disconnected,
    EncodeError,
    Overloaded,
    RemoteError,
)
from capnp_rig.wire.rpc.messages import ExceptionType

MIB = 1 << 20
# Over the limit of a frame, 4 MiB.
_TOO_LARGE = 5 * MIB
_CALL_S = 20.0
_CONNECT_S = 5.0
# Longer than a turn of both loops, so that most of these calls run when their time is over.
_DEADLINE_S = 0.004
_SOAK_ID: int = SCHEMA.Soak.schema.node.id
_METHODS = list(SCHEMA.Soak.schema.methods)

Coro = Callable[[Stage, int], Coroutine[Any, Any, None]]
Blocking = Callable[[Stage, int], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: `batch` calls a round, `at_least` so many however short the soak is."""

    name: str
    run: Coro | Blocking
    batch: int
    at_least: int
    passes_capabilities: bool = False

    @property
    def is_async(self) -> bool:
        return asyncio.iscoroutinefunction(self.run)

    @property
    def when_full(self) -> bool:
        """Whether its calls are made while the server has no place left."""
        return self.name.startswith("full_")


KINDS: list[Kind] = []


def kind(
    batch: int, *, at_least: int = 0, passes_capabilities: bool = False
) -> Callable[[Any], Any]:
    """Add a function to the table, under its own name."""

    def add(run: Any) -> Any:
        KINDS.append(Kind(run.__name__, run, batch, at_least, passes_capabilities))
        return run

    return add


# --- AsyncClient -------------------------------------------------------------------------


async def _aio(stage: Stage, interface: Any = SOAK) -> AsyncClient:
    return await AsyncClient.connect(
        stage.address, interface=interface, timeout_s=_CALL_S, connect_timeout_s=_CONNECT_S
    )


async def _lasting_aio(stage: Stage, interface: Any = SOAK) -> AsyncClient:
    """Return the one client of all kinds that leave their connection as it was."""

    async def connect() -> AsyncClient:
        client: AsyncClient = await stage.closing.enter_async_context(await _aio(stage, interface))
        return client

    name = f"aio {interface.name}"
    if name not in stage.lasting:
        stage.lasting[name] = asyncio.ensure_future(connect())
    client: AsyncClient = await stage.lasting[name]
    return client


async def _ask(stage: Stage, client: AsyncClient, method: str, size: int | None = None) -> None:
    question = stage.ask(method, size)
    stage.check(question, await client.call(method, question.params))


async def _fails(call: Awaitable[Any], kind: type[Exception], text: str = "") -> None:
    try:
        await call
    except kind as error:
        assert text in str(error), error
    else:
        raise AssertionError(f"an answer in the place of {kind.__name__}")


async def _in_tasks(count: int, tasks: int, once: Callable[[], Awaitable[None]]) -> None:
    """Do something `count` times, in several tasks at once."""

    async def some() -> None:
        for _ in range(-(-count // tasks)):
            await once()

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(some())


@kind(500, at_least=2500)
async def aio_plain(stage: Stage, count: int) -> None:
    client = await _lasting_aio(stage)
    await _in_tasks(count, 5, lambda: _ask(stage, client, "plain"))


@kind(900, at_least=4500)
async def aio_async(stage: Stage, count: int) -> None:
    client = await _lasting_aio(stage)
    await _in_tasks(count, 10, lambda: _ask(stage, client, "later"))


@kind(400, at_least=2000)
async def aio_failing(stage: Stage, count: int) -> None:
    client = await _lasting_aio(stage)

    async def once() -> None:
        nonce = stage.nonce()
        call = client.call("fail", {"nonce": nonce})
        await _fails(call, RemoteError, f"failed as asked: {nonce}")

    await _in_tasks(count, 4, once)
    for _ in range(count // 20):
        try:
            await client.call("crash", {"nonce": 1})
        except RemoteError as error:
            assert "internal error" in str(error), error
            assert "secret" not in str(error), error


@kind(400, at_least=2000)
async def aio_unimplemented(stage: Stage, count: int) -> None:
    client = await _lasting_aio(stage, NEWER)

    async def once() -> None:
        try:
            await client.call("newer", {})
        except RemoteError as error:
            assert error.type is ExceptionType.UNIMPLEMENTED, error
        else:
            raise AssertionError("an answer from a method that there is not")

    await _in_tasks(count, 4, once)


@kind(400, at_least=2000)
async def aio_cancelled(stage: Stage, count: int) -> None:
    """Cancel one call in three: a peer that cancels most of its calls is cut off (D7)."""
    client = await _lasting_aio(stage)

    async def once() -> None:
        task = asyncio.create_task(client.call("wait", {"nonce": stage.nonce()}))
        for _ in range(stage.random.randrange(4)):
            await asyncio.sleep(0)
        await _ask(stage, client, "plain")
        task.cancel()
        await _ask(stage, client, "later")
        assert task.cancelled() or isinstance(task.exception(), asyncio.CancelledError)

    await _in_tasks(count, 10, once)


@kind(200, at_least=1000)
async def aio_timed_out(stage: Stage, count: int) -> None:
    client = await _lasting_aio(stage)

    async def once() -> None:
        call = client.call("wait", {"nonce": stage.nonce()}, timeout_s=_DEADLINE_S)
        await _fails(call, DeadlineExceeded)
        await _ask(stage, client, "plain")
        await _ask(stage, client, "later")

    await _in_tasks(count, 20, once)


@kind(3)
async def aio_large(stage: Stage, count: int) -> None:
    client = await _lasting_aio(stage)
    for _ in range(count):
        await _ask(stage, client, "plain", MIB)
        await _ask(stage, client, "later", MIB)
        for method in ("zeros", "zerosLater"):
            call = client.call(method, {"nonce": stage.nonce(), "size": _TOO_LARGE})
            await _fails(call, RemoteError)
        params = {"nonce": stage.nonce(), "data": bytes(_TOO_LARGE)}
        await _fails(client.call("plain", params), EncodeError)
        await _ask(stage, client, "plain")


@kind(20)
async def aio_overloaded(stage: Stage, count: int) -> None:
    """Fill a connection's 256 calls in flight; those over them are refused, and only those."""
    async with await _aio(stage) as client:
        waits = [
            asyncio.create_task(client.call("wait", {"nonce": stage.nonce()})) for _ in range(256)
        ]
        await asyncio.sleep(0)
        for _ in range(count):
            try:
                await client.call("later", {"nonce": stage.nonce()})
            except RemoteError as error:
                assert error.type is ExceptionType.OVERLOADED, error
        for task in waits:
            task.cancel()
        await asyncio.wait(waits)
        await _settled(stage, client)


async def _settled(stage: Stage, client: AsyncClient) -> None:
    """Return once the connection takes calls: a cancelled one keeps its slot until it ends."""
    async with asyncio.timeout(_CALL_S):
        while True:
            try:
                return await _ask(stage, client, "later")
            except RemoteError as error:
                if error.type is not ExceptionType.OVERLOADED:
                    raise


@kind(40, at_least=200)
async def aio_reconnecting(stage: Stage, count: int) -> None:
    for number in range(count):
        async with await _aio(stage) as client:
            await _ask(stage, client, "later" if number % 2 else "plain")


@kind(15, at_least=100)
async def aio_killed(stage: Stage, count: int) -> None:
    """Lose the connection while calls run, by our own close or under the client's feet."""
    for number in range(count):
        async with await _aio(stage) as client:
            calls = [
                asyncio.create_task(client.call("wait", {"nonce": stage.nonce()})) for _ in range(3)
            ]
            await asyncio.sleep(0)
            if number % 3:
                await _ask(stage, client, "later")
            if number % 2:
                client._protocol._transport.abort()
            else:
                await client.close()
            for call in calls:
                await _fails(call, Disconnected)


# --- Client ------------------------------------------------------------------------------


def _blocking(stage: Stage, interface: Any = SOAK) -> Client:
    return Client.connect(
        stage.address, interface=interface, timeout_s=_CALL_S, connect_timeout_s=_CONNECT_S
    )


def _lasting_blocking(stage: Stage, name: str = "shared", interface: Any = SOAK) -> Client:
    """Return a client that lasts; the shared one is that of several threads."""
    with stage.lock:
        if name not in stage.lasting:
            stage.lasting[name] = client = _blocking(stage, interface)
            stage.closing.callback(client.close)
        found: Client = stage.lasting[name]
        return found


def _put(stage: Stage, client: Client, method: str, size: int | None = None) -> None:
    question = stage.ask(method, size)
    stage.check(question, client.call(method, question.params))


def _raises(kind: type[Exception], text: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except kind as error:
        assert text in str(error), error
    else:
        raise AssertionError(f"an answer in the place of {kind.__name__}")


def _in_threads(count: int, threads: int, once: Callable[[], None]) -> None:
    """Do something `count` times, in several threads at once."""

    def some() -> None:
        for _ in range(-(-count // threads)):
            once()

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(some) for _ in range(threads)]:
            future.result()


@kind(250, at_least=1250)
def blocking_plain(stage: Stage, count: int) -> None:
    client = _lasting_blocking(stage)
    _in_threads(count, 2, lambda: _put(stage, client, "plain"))


@kind(450, at_least=2250)
def blocking_async(stage: Stage, count: int) -> None:
    client = _lasting_blocking(stage)
    _in_threads(count, 2, lambda: _put(stage, client, "later"))


@kind(900, at_least=4500)
def blocking_submitted(stage: Stage, count: int) -> None:
    client = _lasting_blocking(stage, "submits")
    waiting: dict[Any, Question] = {}
    for number in range(count):
        question = stage.ask("later" if number % 2 else "plain")
        waiting[client.submit(question.method, question.params)] = question
        if number % 16 == 15:
            _take_all(stage, client, waiting)
    _take_all(stage, client, waiting)


def _take_all(stage: Stage, client: Client, waiting: dict[Any, Question]) -> None:
    while waiting:
        done = client.wait(timeout_s=_CALL_S)
        assert done, "no call is in flight, and some were not answered"
        for pending in done:
            assert pending.error is None, pending.error
            stage.check(waiting.pop(pending), pending.results)


@kind(250, at_least=1250)
def blocking_failing(stage: Stage, count: int) -> None:
    client = _lasting_blocking(stage)
    for _ in range(count):
        nonce = stage.nonce()
        text = f"failed as asked: {nonce}"
        _raises(RemoteError, text, lambda: client.call("fail", {"nonce": nonce}))


@kind(250, at_least=1250)
def blocking_unimplemented(stage: Stage, count: int) -> None:
    client = _lasting_blocking(stage, "newer", NEWER)
    for _ in range(count):
        _raises(RemoteError, "", lambda: client.call("newer", {}))


@kind(40, at_least=200)
def blocking_timed_out(stage: Stage, count: int) -> None:
    client = _lasting_blocking(stage)
    for _ in range(count):
        params = {"nonce": stage.nonce()}
        _raises(
            DeadlineExceeded,
            "",
            lambda: client.call("wait", params, timeout_s=_DEADLINE_S),
        )
        _put(stage, client, "plain")
        _put(stage, client, "later")


@kind(3)
def blocking_large(stage: Stage, count: int) -> None:
    client = _lasting_blocking(stage)
    for _ in range(count):
        _put(stage, client, "plain", MIB)
        _put(stage, client, "later", MIB)
        for method in ("zeros", "zerosLater"):
            params = {"nonce": stage.nonce(), "size": _TOO_LARGE}
            _raises(RemoteError, "", lambda: client.call(method, params))
        large = {"nonce": stage.nonce(), "data": bytes(_TOO_LARGE)}
        _raises(EncodeError, "", lambda: client.call("plain", large))
        _put(stage, client, "plain")


@kind(20)
def blocking_overloaded(stage: Stage, count: int) -> None:
    with _blocking(stage) as client:
        for _ in range(256):
            client.submit("wait", {"nonce": stage.nonce()})
        for _ in range(count):
            params = {"nonce": stage.nonce()}
            _raises(RemoteError, "", lambda: client.call("later", params))


@kind(40, at_least=200)
def blocking_reconnecting(stage: Stage, count: int) -> None:
    for number in range(count):
        with _blocking(stage) as client:
            _put(stage, client, "later" if number % 2 else "plain")


@kind(10, at_least=50)
def blocking_killed(stage: Stage, count: int) -> None:
    for number in range(count):
        sock = socket.create_connection((stage.host, stage.port), _CONNECT_S)
        with Client(sock, interface=SOAK, timeout_s=_CALL_S) as client:
            if number % 2:
                client.submit("wait", {"nonce": stage.nonce()})
                _put(stage, client, "later")
                continue
            killer = threading.Timer(0.002, _shut, [sock])
            killer.start()
            params = {"nonce": stage.nonce()}
            _raises(Disconnected, "", lambda: client.call("wait", params))
            killer.join()


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


# --- pycapnp's client --------------------------------------------------------------------


def _foreign(stage: Stage) -> Any:
    return connected(stage.port, host=stage.host, interface=SCHEMA.Soak)


async def _lasting_foreign(stage: Stage) -> Any:
    if "foreign" not in stage.lasting:
        stage.lasting["foreign"] = asyncio.ensure_future(
            stage.closing.enter_async_context(_foreign(stage))
        )
    return await stage.lasting["foreign"]


async def _ask_foreign(stage: Stage, peer: Any, method: str, size: int | None = None) -> None:
    question = stage.ask(method, size)
    stage.check(question, await getattr(peer, method)(**question.params))


@kind(250, at_least=1250)
async def foreign_plain(stage: Stage, count: int) -> None:
    peer = await _lasting_foreign(stage)
    await _in_tasks(count, 4, lambda: _ask_foreign(stage, peer, "plain"))


@kind(450, at_least=2250)
async def foreign_async(stage: Stage, count: int) -> None:
    peer = await _lasting_foreign(stage)
    await _in_tasks(count, 4, lambda: _ask_foreign(stage, peer, "later"))


@kind(150, at_least=750)
async def foreign_failing(stage: Stage, count: int) -> None:
    peer = await _lasting_foreign(stage)
    for _ in range(count):
        nonce = stage.nonce()
        await _fails(peer.fail(nonce=nonce), capnp.KjException, f"failed as asked: {nonce}")


@kind(100, at_least=500)
async def foreign_cancelled(stage: Stage, count: int) -> None:
    peer = await _lasting_foreign(stage)

    async def once() -> None:
        waiting = asyncio.ensure_future(_awaited(peer.wait(nonce=stage.nonce())))
        await _ask_foreign(stage, peer, "plain")
        waiting.cancel()
        await _ask_foreign(stage, peer, "later")
        with suppress(asyncio.CancelledError):
            await waiting

    await _in_tasks(count, 5, once)


async def _awaited(promise: Any) -> Any:
    return await promise


@kind(2)
async def foreign_large(stage: Stage, count: int) -> None:
    peer = await _lasting_foreign(stage)
    for _ in range(count):
        await _ask_foreign(stage, peer, "plain", MIB)
        await _ask_foreign(stage, peer, "later", MIB)
        await _fails(peer.zeros(nonce=1, size=_TOO_LARGE), capnp.KjException)
        await _ask_foreign(stage, peer, "plain")


@kind(20, at_least=100)
async def foreign_reconnecting(stage: Stage, count: int) -> None:
    for number in range(count):
        async with _foreign(stage) as peer:
            if number % 2:
                waiting = asyncio.ensure_future(_awaited(peer.wait(nonce=stage.nonce())))
            await _ask_foreign(stage, peer, "later")
        if number % 2:
            await asyncio.wait([waiting], timeout=_CALL_S)
            assert waiting.done(), "a call outlived its connection"
            waiting.exception()


# --- raw bytes ---------------------------------------------------------------------------


def _peer(stage: Stage) -> RawPeer:
    # It needs no more of a server than where it listens.
    return RawPeer(stage, timeout_s=_CALL_S)


def _raw_call(question_id: int, method: str, question: Question | None = None) -> bytes:
    build = call_builder(question_id, interface_id=_SOAK_ID, method_id=_METHODS.index(method))
    if question is not None:
        params = build.call.params.content.as_struct(SCHEMA.Soak.schema.methods[method].param_type)
        params.nonce = question.nonce
        params.data = question.params["data"]
    return encoded(build)


@kind(20, at_least=100)
def raw_half_closed(stage: Stage, count: int) -> None:
    """End our half after some calls: plain ones are answered; pycapnp drops what it has (B5)."""
    for _ in range(count):
        with _peer(stage) as peer:
            peer.open()
            questions = [stage.ask("plain") for _ in range(4)]
            calls = [_raw_call(at, "plain", asked) for at, asked in enumerate(questions, 1)]
            peer.send(*calls, _raw_call(9, "wait"))
            peer.socket.shutdown(socket.SHUT_WR)
            replies = peer.until_eof()
            assert replies[-1].kind == "eof", replies
            found = {reply.id: reply for reply in replies if reply.kind == "results"}
            if stage.engine == "wire":
                assert set(found) == {1, 2, 3, 4}, replies
            for at, reply in found.items():
                results = reply.results(SCHEMA.Soak.schema.methods["plain"].result_type)
                assert results["data"] == questions[at - 1].right


@kind(40, at_least=200)
def raw_reset(stage: Stage, count: int) -> None:
    """Reset the connection while calls run and while answers leave."""
    for number in range(count):
        peer = _peer(stage)
        if number % 4:
            peer.open()
        asked = stage.ask("plain", 0 if number % 8 else MIB)
        peer.send(_raw_call(1, "wait"), _raw_call(2, "plain", asked))
        peer.reset()


@kind(200, at_least=1000)
def raw_finished(stage: Stage, count: int) -> None:
    """Send the Finish right behind its call, among twice as many others."""
    with _peer(stage) as peer:
        peer.open()
        for _ in range(count // 10):
            asked = {at: stage.ask("later" if at % 2 else "plain") for at in range(100, 120)}
            for at, question in asked.items():
                peer.send(_raw_call(at, question.method, question))
            for at in range(10):
                peer.send(_raw_call(at + 1, "wait"), finish(at + 1))
            # A cancelled call frees its id with its answer.
            ids = {at + 1 for at in range(10)} | set(asked)
            while ids:
                reply = peer.receive()
                assert reply.kind != "eof"
                ids.remove(reply.id)
                if reply.id in asked:
                    method = asked[reply.id].method
                    schema = SCHEMA.Soak.schema.methods[method].result_type
                    assert reply.results(schema)["data"] == asked[reply.id].right
                if stage.engine == "pycapnp":
                    peer.send(finish(reply.id))


@kind(250, at_least=1250)
def raw_bootstraps(stage: Stage, count: int) -> None:
    with _peer(stage) as peer:
        peer.open()
        for at in range(1, count + 1):
            peer.send(bootstrap(at))
            assert peer.receive().kind == "capability"
            peer.send(finish(at, release=bool(at % 2)))
            if not at % 2:
                peer.send(release(0, 1))


@kind(12, at_least=60)
def raw_garbage(stage: Stage, count: int) -> None:
    """Break the protocol in several ways: the server closes, whatever it says before."""
    broken = [
        bytes(8) + b"\xff" * 64,
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        b"\xff\xff\xff\xff" * 4,
        bootstrap(1) + bootstrap(1),
        release(0, 9),
        encoded(call_builder(1, export=77)),
    ]
    for number in range(count):
        with _peer(stage) as peer:
            peer.send(broken[number % len(broken)])
            peer.socket.shutdown(socket.SHUT_WR)
            assert closed(peer), f"garbage {number % len(broken)} leaves the connection open"


@kind(40, at_least=200)
def raw_vanishing(stage: Stage, count: int) -> None:
    """Connect and leave: at once, in the middle of a frame, or with bytes unread."""
    for number in range(count):
        with _peer(stage) as peer:
            if number % 3 == 1:
                peer.send(bootstrap()[:12])
            elif number % 3 == 2:
                peer.send(bootstrap())


# --- a full house ------------------------------------------------------------------------


@contextmanager
def full_house(stage: Stage, limit: int) -> Iterator[None]:
    """Hold all connections that the server admits, no more and no less than `limit` in all.

    Those that others have closed take their moment to be known, so this tries until its end.
    """
    places = limit - len(stage.lasting)
    peers: list[RawPeer] = []
    end = threading.Event()
    timer = threading.Timer(_CALL_S, end.set)
    timer.start()
    try:
        while len(peers) < places:
            assert not end.is_set(), f"the server admits {len(peers)} connections, not {places}"
            peer = _peer(stage)
            peer.send(bootstrap())
            if peer.receive().kind == "capability":
                peers.append(peer)
            else:
                peer.socket.close()
        yield
    finally:
        timer.cancel()
        timer.join()
        for peer in peers:
            peer.socket.shutdown(socket.SHUT_WR)
        # The next calls must not find the house still full.
        for peer in peers:
            with peer:
                assert closed(peer), "an idle connection outlives its end"


@kind(10, at_least=50)
async def full_aio_refused(stage: Stage, count: int) -> None:
    for _ in range(count):
        try:
            async with await _aio(stage) as client:
                await client.call("plain", {"nonce": stage.nonce()})
        except Overloaded:
            continue
        raise AssertionError("a connection over the limit was served")


@kind(10, at_least=50)
def full_blocking_refused(stage: Stage, count: int) -> None:
    for _ in range(count):
        with _blocking(stage) as client:
            params = {"nonce": stage.nonce()}
            _raises(Overloaded, "", lambda: client.call("plain", params))

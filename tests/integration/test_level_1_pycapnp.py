"""Level 1 against pycapnp over socket pairs: sessions, pipelines, callbacks, promises, order."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import capnp
import pytest
from level_1_peer import CallError, Peer, Ref, Service, ref, run

from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.messages import RemoteError

SCHEMA = load_schema(Path(__file__).parents[1] / "data" / "level_1.capnp")
MAIN, SESSION, CALLBACK = SCHEMA.Main, SCHEMA.Session, SCHEMA.Callback
COUNT = 20


# --- pycapnp serves ----------------------------------------------------------------------------


class TheirSession(SESSION.Server):  # type: ignore[misc]
    live = 0

    def __init__(self, name: str) -> None:
        self.name = name
        TheirSession.live += 1

    def __del__(self) -> None:
        TheirSession.live -= 1

    async def read(self, number: int, **_: Any) -> str:
        return f"{self.name} {number}"

    async def nested(self, name: str, **_: Any) -> Any:
        if name == "late":
            await asyncio.sleep(0.02)
        if self.name == "broken":
            raise ValueError("never")
        return TheirSession(f"{self.name}.{name}")


class TheirMain(MAIN.Server):  # type: ignore[misc]
    def __init__(self) -> None:
        self.kept: Any = None
        self.opening = asyncio.Event()

    async def login(self, user: str, _context: Any, **_: Any) -> None:
        await asyncio.sleep(0.01)
        if user == "nobody":
            raise ValueError("wrong password")
        _context.results.session = TheirSession(user)
        pair = _context.results.init("pair")
        pair.name, pair.session = "pair", TheirSession(f"{user}'s other")

    async def adopt(self, callback: Any, times: int, **_: Any) -> Any:
        return [(await callback.tell(number)).seen for number in range(times)]

    async def keep(self, callback: Any, **_: Any) -> None:
        self.kept = callback

    async def back(self, callback: Any, delay: int, **_: Any) -> Any:
        await asyncio.sleep(delay / 1000)
        return callback

    async def promise(self, kind: str, _context: Any, **_: Any) -> None:
        # What is not known yet: the result of a call of the caller's object, or of one here.
        if kind in {"here", "broken here"}:
            late = SESSION._new_client(TheirSession(kind.partition(" ")[0])).nested("late")
            _context.results.session = late.session
        else:
            _context.results.session = self.kept.give().session

    async def live(self, **_: Any) -> int:
        return TheirSession.live

    async def tail(self, callback: Any, _context: Any, **_: Any) -> Any:
        return await _context.tail_call(callback.give_request())


@asynccontextmanager
async def to_their_server() -> AsyncIterator[tuple[Peer, Ref]]:
    ours, theirs = socket.socketpair()
    stream = await capnp.AsyncIoStream.create_connection(sock=theirs)
    server = capnp.TwoPartyServer(stream, bootstrap=TheirMain())
    peer = Peer(ours)
    try:
        yield peer, peer.bootstrap(MAIN)
    finally:
        peer.close()
        await server.on_disconnect()
        stream.close()


def with_their_server(work: Callable[[Peer, Ref], Awaitable[None]]) -> None:
    async def body() -> None:
        async with to_their_server() as (peer, main):
            await work(peer, main)

    run(body)


async def call(reference: Ref, name: str, **values: Any) -> Any:
    return await reference.call(name, values)


class OurSession(Service):
    interface = SESSION

    def __init__(self, name: str) -> None:
        self.name = name

    async def read(self, peer: Peer, params: Any) -> dict[str, Any]:
        return {"text": f"{self.name} {params.number}"}

    async def nested(self, peer: Peer, params: Any) -> dict[str, Any]:
        return {"session": OurSession(f"{self.name}.{params.name}")}


class OurCallback(Service):
    interface = CALLBACK

    def __init__(self) -> None:
        self.told: list[int] = []
        self.gives: Any = None

    async def tell(self, peer: Peer, params: Any) -> dict[str, Any]:
        self.told.append(params.number)
        return {"seen": params.number * 2}

    async def give(self, peer: Peer, params: Any) -> dict[str, Any]:
        if self.gives is None:
            raise ValueError("nothing to give")
        await asyncio.sleep(0.02)
        return {"session": self.gives}


def test_sessions_are_returned_called_and_released() -> None:
    async def work(peer: Peer, main: Ref) -> None:
        results = await call(main, "login", user="ada")
        session = ref(peer, results.session, SESSION)
        other = ref(peer, results.pair.session, SESSION)
        assert (await call(session, "read", number=7)).text == "ada 7"
        assert (await call(other, "read", number=8)).text == "ada's other 8"
        assert (await call(main, "live")).sessions == 2
        session.release()
        assert (await call(main, "live")).sessions == 1
        del results, other
        gc.collect()
        assert (await call(main, "live")).sessions == 0
        assert peer.connection._imports.keys() == {0}

    with_their_server(work)


def test_calls_are_pipelined_on_what_is_not_there_yet() -> None:
    async def work(peer: Peer, main: Ref) -> None:
        login = main.call("login", {"user": "ada"})
        session = login.field("session", SESSION)
        nested = session.call("nested", {"name": "b"})
        deeper = nested.field("session", SESSION).call("nested", {"name": "c"})
        reads = [session.call("read", {"number": number}) for number in range(3)]
        reads.append(deeper.field("session", SESSION).call("read", {"number": 9}))
        texts = [(await each).text for each in reads]
        assert texts == ["ada 0", "ada 1", "ada 2", "ada.b.c 9"]
        # By the same reference, when the answer is here.
        assert (await call(session, "read", number=4)).text == "ada 4"

    with_their_server(work)


def test_d10_calls_on_what_fails_fail() -> None:
    async def work(peer: Peer, main: Ref) -> None:
        login = main.call("login", {"user": "nobody"})
        read = login.field("session", SESSION).call("read", {"number": 1})
        for each in (login, read):
            with pytest.raises(CallError, match="wrong password"):
                await each

    with_their_server(work)


def test_callbacks_are_called_while_a_call_runs_and_released_after_it() -> None:
    async def work(peer: Peer, main: Ref) -> None:
        callback = OurCallback()
        results = await call(main, "adopt", callback=callback, times=3)
        assert (list(results.seen), callback.told) == ([0, 2, 4], [0, 1, 2])
        await call(main, "live")
        assert peer.released == [callback]
        kept = [OurCallback(), OurCallback()]
        for each in kept:
            await call(main, "keep", callback=each)
        await call(main, "live")
        assert peer.released == [callback, kept[0]]

    with_their_server(work)


def test_calls_keep_their_order_when_a_result_is_ours() -> None:
    async def work(peer: Peer, main: Ref) -> None:
        for delay_ms in (0, 30):
            callback = OurCallback()
            promised = main.call("back", {"callback": callback, "delay": delay_ms})
            again = promised.field("callback", CALLBACK)
            told = []
            for number in range(COUNT):
                told.append(again.call("tell", {"number": number}))
                peer.flush()
                await asyncio.sleep(0.003)
            assert [(await each).seen for each in told] == [2 * n for n in range(COUNT)]
            assert callback.told == list(range(COUNT))
            assert again.capability.hosted is callback

    with_their_server(work)


@pytest.mark.parametrize("kind", ["ours", "theirs", "broken"])
def test_promises_of_the_server_resolve(kind: str) -> None:
    async def work(peer: Peer, main: Ref) -> None:
        callback = OurCallback()
        if kind == "ours":
            callback.gives = OurSession("mine")
        elif kind == "theirs":
            callback.gives = (await call(main, "login", user="ada")).session
        await call(main, "keep", callback=callback)
        promised = main.call("promise", {"kind": kind})
        session = promised.field("session", SESSION)
        results = await promised
        reads = [session.call("read", {"number": number}) for number in range(3)]
        reads.append(ref(peer, results.session, SESSION).call("read", {"number": 3}))
        if kind == "broken":
            for each in reads:
                with pytest.raises(CallError, match="nothing to give"):
                    await each
            return
        name = "mine" if kind == "ours" else "ada"
        assert [(await each).text for each in reads] == [f"{name} {n}" for n in range(4)]
        await asyncio.sleep(0.05)
        assert (session.capability.hosted is callback.gives) == (kind == "ours")

    with_their_server(work)


@pytest.mark.parametrize("kind", ["here", "broken here"])
def test_a_resolve_of_the_server_is_followed(kind: str) -> None:
    async def work(peer: Peer, main: Ref) -> None:
        session = ref(peer, (await call(main, "promise", kind=kind)).session, SESSION)
        assert not session.capability.is_settled
        read = session.call("read", {"number": 1})
        await asyncio.sleep(0.05)
        reads = [read, session.call("read", {"number": 2})]
        assert session.capability.is_settled
        if kind == "here":
            assert [(await each).text for each in reads] == ["here.late 1", "here.late 2"]
            return
        for each in reads:
            with pytest.raises(CallError, match="never"):
                await each

    with_their_server(work)


def test_the_server_makes_tail_calls_to_us() -> None:
    async def work(peer: Peer, main: Ref) -> None:
        callback = OurCallback()
        callback.gives = OurSession("mine")
        promised = main.call("tail", {"callback": callback})
        read = promised.field("session", SESSION).call("read", {"number": 1})
        assert (await read).text == "mine 1"
        assert (await promised).session.hosted is callback.gives

    with_their_server(work)


def test_a_call_is_given_up() -> None:
    async def work(peer: Peer, main: Ref) -> None:
        promised = main.call("back", {"callback": OurCallback(), "delay": 10_000})
        peer.flush()
        peer.connection.cancel(promised.number)
        await call(main, "live")
        assert len(peer.released) == 1
        assert not peer.connection._questions

    with_their_server(work)


# --- pycapnp calls -----------------------------------------------------------------------------


class OurMain(Service):
    interface = MAIN

    def __init__(self) -> None:
        self.kept: Any = None
        self.promises: list[Any] = []

    async def login(self, peer: Peer, params: Any) -> dict[str, Any]:
        await asyncio.sleep(0.01)
        if params.user == "nobody":
            raise ValueError("wrong password")
        pair = {"name": "pair", "session": OurSession(f"{params.user}'s other")}
        return {"session": OurSession(params.user), "pair": pair}

    async def adopt(self, peer: Peer, params: Any) -> dict[str, Any]:
        callback = ref(peer, params.callback, CALLBACK)
        return {
            "seen": [
                (await callback.call("tell", {"number": number})).seen
                for number in range(params.times)
            ]
        }

    async def keep(self, peer: Peer, params: Any) -> dict[str, Any]:
        self.kept = ref(peer, params.callback, CALLBACK)
        return {}

    async def back(self, peer: Peer, params: Any) -> dict[str, Any]:
        await asyncio.sleep(params.delay / 1000)
        return {"callback": params.callback}

    async def promise(self, peer: Peer, params: Any) -> dict[str, Any]:
        promise = peer.connection.promise()
        asyncio.get_running_loop().call_later(0.03, self.resolve, peer, promise, params.kind)
        return {"session": promise}

    def resolve(self, peer: Peer, promise: Any, kind: str) -> None:
        if kind == "ours":
            promise.resolve(OurSession("late"))
        elif kind == "theirs":
            promise.resolve(self.kept.call("give").field("session", SESSION).capability)
        else:
            promise.reject(RemoteError("never"))
        promise.release()
        peer.flush()

    async def live(self, peer: Peer, params: Any) -> dict[str, Any]:
        hosted = [node.target for node in peer.connection._hosted.values()]
        return {"sessions": sum(isinstance(each, OurSession) for each in hosted)}

    async def tail(self, peer: Peer, params: Any) -> Any:
        method = compile_interface(CALLBACK).methods["give"]
        callback = params.callback

        def answer(number: int) -> None:
            peer.connection.tail_call(
                number, callback, method.interface_id, method.method_id, EMPTY_STRUCT
            )

        return answer


class TheirCallback(CALLBACK.Server):  # type: ignore[misc]
    def __init__(self) -> None:
        self.told: list[int] = []

    async def tell(self, number: int, **_: Any) -> int:
        self.told.append(number)
        return number * 2

    async def give(self, **_: Any) -> Any:
        await asyncio.sleep(0.02)
        return TheirSession("theirs")


def with_our_server(work: Callable[[Any, Peer], Awaitable[None]]) -> None:
    async def body() -> None:
        ours, theirs = socket.socketpair()
        peer = Peer(ours, OurMain())
        stream = await capnp.AsyncIoStream.create_connection(sock=theirs)
        client = capnp.TwoPartyClient(stream)
        try:
            await work(client.bootstrap().cast_as(MAIN), peer)
        finally:
            client.close()
            stream.close()
            await peer.reader
            peer.close()
        assert peer.ended is not None
        assert not peer.connection._hosted

    run(body)


def test_their_client_gets_sessions_and_releases_them() -> None:
    async def work(main: Any, peer: Peer) -> None:
        results = await main.login("ada")
        assert (await results.session.read(7)).text == "ada 7"
        assert (await results.pair.session.read(8)).text == "ada's other 8"
        assert (await main.live()).sessions == 2
        del results
        gc.collect()
        await asyncio.sleep(0)
        assert (await main.live()).sessions == 0
        assert {each.name for each in peer.released} == {"ada", "ada's other"}

    with_our_server(work)


def test_their_client_pipelines() -> None:
    async def work(main: Any, peer: Peer) -> None:
        login = main.login("ada")
        session = login.session
        deeper = session.nested("b").session.nested("c").session.read(9)
        reads = [session.read(number) for number in range(3)]
        assert [(await each).text for each in reads] == ["ada 0", "ada 1", "ada 2"]
        assert (await deeper).text == "ada.b.c 9"
        assert (await login.pair.session.read(1)).text == "ada's other 1"
        failed = main.login("nobody")
        read = failed.session.read(1)
        for each in (failed, read):
            with pytest.raises(capnp.KjException, match="wrong password"):
                await each

    with_our_server(work)


def test_their_callbacks_are_called_kept_and_let_go() -> None:
    async def work(main: Any, peer: Peer) -> None:
        callback = TheirCallback()
        results = await main.adopt(callback, 3)
        assert (list(results.seen), callback.told) == ([0, 2, 4], [0, 1, 2])
        gc.collect()
        await main.live()
        assert not peer.connection._imports
        await main.keep(callback)
        await main.live()
        assert len(peer.connection._imports) == 1

    with_our_server(work)


def test_their_calls_keep_their_order_when_a_result_is_theirs() -> None:
    async def work(main: Any, peer: Peer) -> None:
        for delay_ms in (0, 30):
            callback = TheirCallback()
            again = main.back(callback, delay_ms).callback
            told = []
            for number in range(COUNT):
                told.append(asyncio.ensure_future(tell(again, number)))
                await asyncio.sleep(0.003)
            assert [await each for each in told] == [2 * n for n in range(COUNT)]
            assert callback.told == list(range(COUNT))

    async def tell(callback: Any, number: int) -> int:
        seen: int = (await callback.tell(number)).seen
        return seen

    with_our_server(work)


@pytest.mark.parametrize("kind", ["ours", "theirs", "broken"])
def test_our_promises_resolve_for_them(kind: str) -> None:
    async def work(main: Any, peer: Peer) -> None:
        await main.keep(TheirCallback())
        session = (await main.promise(kind)).session
        reads = [session.read(number) for number in range(3)]
        if kind == "broken":
            for each in reads:
                with pytest.raises(capnp.KjException, match="never"):
                    await each
            return
        name = "late" if kind == "ours" else "theirs"
        assert [(await each).text for each in reads] == [f"{name} {n}" for n in range(3)]
        assert (await session.read(4)).text == f"{name} 4"

    with_our_server(work)


def test_our_tail_calls_leave_the_results_with_them() -> None:
    async def work(main: Any, peer: Peer) -> None:
        promised = main.tail(TheirCallback())
        read = promised.session.read(1)
        assert (await read).text == "theirs 1"
        assert (await (await promised).session.read(2)).text == "theirs 2"

    with_our_server(work)

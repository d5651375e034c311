"""What methods learn of their calls, on both engines."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from capnp_rig import AsyncClient, RemoteError, call_context, load_schema
from capnp_rig.client.asyncio_client import _Protocol
from capnp_rig.client.connecting import adopt
from capnp_rig.server.config import ConnectionLimits
from capnp_rig.server.control.call_stamp import unwatched
from capnp_rig.server.engines.call_site import WorkerPlace
from capnp_rig.server.engines.pycapnp_engine import open_pycapnp_engine
from capnp_rig.server.engines.wire_engine import open_wire_engine
from capnp_rig.server.logs.log import Log
from capnp_rig.wire.rpc.interfaces import compile_interface

ENGINES = pytest.mark.parametrize("engine", ["wire", "pycapnp"])
Connect = Callable[[], Awaitable[AsyncClient]]


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("schema") / "asked.capnp"
    file.write_text(
        "@0xb7c1a1d7f4c5e002;\n"
        "interface Asked { plain @0 () -> (text :Text); later @1 () -> (text :Text); }\n"
    )
    return load_schema(file).Asked


class Asked:
    """Answers as its two functions do, plain and async."""

    interface: Any

    def __init__(self, plain: Any = None, later: Any = None) -> None:
        self._plain, self._later = plain, later

    def plain(self, _params: Any) -> dict[str, str]:
        return {"text": self._plain()}

    async def later(self, _params: Any) -> dict[str, str]:
        return {"text": await self._later()}


class Lines:
    """A log, and what was written."""

    def __init__(self, level: str = "info") -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []
        self.log = Log(self._write, level, lambda: 0.0)

    def _write(self, level: str, event: str, fields: Any) -> None:
        self.lines.append((level, event, fields))


def serve(
    engine: str,
    service: Any,
    body: Callable[[Connect], Awaitable[None]],
    lines: Lines | None = None,
    place: WorkerPlace | None = None,
    sockets: list[socket.socket] | None = None,
) -> None:
    opened = open_wire_engine if engine == "wire" else open_pycapnp_engine

    async def work() -> None:
        async with AsyncExitStack() as stack:
            log = (lines or Lines()).log
            running = await stack.enter_async_context(
                opened(service, log, unwatched(), ConnectionLimits(), place)
            )
            numbers = iter(range(5, 100))

            async def connect() -> AsyncClient:
                theirs, ours = socket.socketpair()
                if sockets is not None:
                    sockets.append(ours)
                number = next(numbers)
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: running.protocol(lambda _: None, number), theirs
                )
                protocol = _Protocol(compile_interface(service.interface), ours, 10, 65_536)
                await adopt(ours, protocol)
                return await stack.enter_async_context(AsyncClient(protocol))

            await body(connect)

    asyncio.run(asyncio.wait_for(work(), 20))


@ENGINES
def test_methods_learn_who_calls_and_each_call_has_an_id(schema: Any, engine: str) -> None:
    async def later() -> str:
        before = call_context().call_id
        # In a task, and in a thread.
        inner = await asyncio.gather(asyncio.to_thread(ask), asyncio.create_task(aask()))
        assert inner == [ask(), ask()]
        assert before == call_context().call_id
        return ask()

    async def aask() -> str:
        return ask()

    def ask() -> str:
        context = call_context()
        return f"{context.call_id} of {context.peer.address}"

    service = Asked(ask, later)
    service.interface = schema

    async def body(connect: Connect) -> None:
        first, second = await connect(), await connect()
        texts = [
            (await client.call(name)).text
            for client in (first, second)
            for name in ("plain", "later", "plain")
        ]
        peer = f"unix:pid={os.getpid()},uid={os.getuid()}"
        assert texts == [f"3-{c}-{n} of {peer}" for c in (5, 6) for n in (1, 2, 3)]

    serve(engine, service, body, place=WorkerPlace(3))


@ENGINES
def test_calls_in_flight_at_once_do_not_see_each_others_context(schema: Any, engine: str) -> None:
    gate: list[asyncio.Event] = []

    async def later() -> str:
        before = call_context()
        await gate[0].wait()
        assert call_context() is before
        return before.call_id

    service = Asked(lambda: call_context().call_id, later)
    service.interface = schema

    async def body(connect: Connect) -> None:
        gate.append(asyncio.Event())
        client = await connect()
        calls = [asyncio.ensure_future(client.call("later")) for _ in range(5)]
        # By its answer all five have begun.
        plain = (await client.call("plain")).text
        gate[0].set()
        ids = {(await call).text for call in calls} | {plain}
        assert ids == {f"0-5-{number}" for number in range(1, 7)}

    serve(engine, service, body)


@ENGINES
def test_a_call_that_fails_quotes_its_id_and_so_does_the_log(schema: Any, engine: str) -> None:
    def fail() -> str:
        call_context().log.info("about to fail")
        raise ValueError("secret")

    async def afail() -> str:
        return fail()

    service = Asked(fail, afail)
    service.interface = schema
    lines = Lines()

    async def body(connect: Connect) -> None:
        client = await connect()
        for number, name in enumerate(("plain", "later"), 1):
            with pytest.raises(RemoteError) as caught:
                await client.call(name)
            assert str(caught.value) == f"internal error [id 0-5-{number}]"

    serve(engine, service, body, lines)
    peer = f"unix:pid={os.getpid()},uid={os.getuid()}"
    assert [line[1] for line in lines.lines] == [
        f"[Worker 0] call 0-5-1 of {peer}: about to fail",
        "internal error [id 0-5-1] in plain",
        f"[Worker 0] call 0-5-2 of {peer}: about to fail",
        "internal error [id 0-5-2] in later",
    ]


@ENGINES
def test_a_thread_sees_that_its_call_was_cancelled(schema: Any, engine: str) -> None:
    done: list[asyncio.Future[bool]] = []

    def wait_in_thread(context: Any) -> bool:
        while not context.is_cancelled:
            pass
        return True

    async def later() -> str:
        context = call_context()
        assert not context.is_cancelled
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(None, wait_in_thread, context)
        done[0].set_result(True)
        done.append(work)
        return str(await asyncio.shield(work))

    service = Asked(None, later)
    service.interface = schema

    async def body(connect: Connect) -> None:
        for ends in ("cancelled", "closed"):
            done[:] = [asyncio.get_running_loop().create_future()]
            client = await connect()
            call = asyncio.ensure_future(client.call("later"))
            await done[0]
            if ends == "cancelled":
                call.cancel()
            else:
                await client.close()
            await done[1]
            await asyncio.gather(call, return_exceptions=True)

    serve(engine, service, body)


@ENGINES
def test_a_plain_method_sees_that_its_caller_has_left(schema: Any, engine: str) -> None:
    seen: list[bool] = []
    clients: list[socket.socket] = []

    def plain() -> str:
        context = call_context()
        seen.append(context.is_cancelled)
        clients[0].shutdown(socket.SHUT_RDWR)
        seen.append(context.is_cancelled)
        return ""

    service = Asked(plain)
    service.interface = schema

    async def body(connect: Connect) -> None:
        client = await connect()
        with pytest.raises(Exception, match="connection"):
            await client.call("plain")

    serve(engine, service, body, sockets=clients)
    assert seen == [False, True]


@ENGINES
def test_the_time_that_a_drain_leaves(schema: Any, engine: str) -> None:
    place = WorkerPlace()
    service = Asked(lambda: str(call_context().drain_remaining_s))
    service.interface = schema

    async def body(connect: Connect) -> None:
        client = await connect()
        assert (await client.call("plain")).text == "None"
        place.drain_within(1000)
        assert 900 < float((await client.call("plain")).text) <= 1000
        place.drain_within(-1)
        assert (await client.call("plain")).text == "0.0"

    serve(engine, service, body, place=place)


def test_lines_of_calls_are_cut_and_too_many_are_counted(schema: Any) -> None:
    def plain() -> str:
        log = call_context().log
        log.warning("x" * 10_000, size=10_000, more="y" * 10_000, call="forged", what=[1])
        for _ in range(100):
            log.error("again", traceback=ValueError("why"))
        log.debug("not at this level")
        return ""

    service = Asked(plain)
    service.interface = schema
    lines = Lines()

    async def body(connect: Connect) -> None:
        await (await connect()).call("plain")

    serve("wire", service, body, lines)
    level, text, fields = lines.lines[0]
    assert level == "warning"
    assert len(text) < 2_200
    assert (fields["size"], fields["call"], fields["worker"], fields["what"]) == (
        *(10_000, "0-5-1", 0),
        "[1]",
    )
    assert len(str(fields["more"])) < 2_100
    again = lines.lines[1:]
    assert len(again) == 20
    assert all("ValueError: why" in str(each[2]["traceback"]) for each in again)
    lines.log.flush(last=True)
    assert lines.lines[-1][1] == "[Worker 0] lines of calls, error: 80 more left out in 1 s"

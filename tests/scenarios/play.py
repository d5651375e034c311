"""The scenarios: what a client does and sees, once for all clients, with what is to be seen.

A client's capability has `call(name, values)`, to be awaited for the results, `pipeline(name,
values)`, which may be awaited too and has what the results will have, `cast` and `close`. Calls of
streaming methods by `stream` are not waited for, but until more may be sent.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from proxy import HELD, Proxy
from scenarios.service import CALCULATOR, SCHEMA, ServiceError

Results = Mapping[str, Any]
_REASON = re.compile(r"\[[^\]]*\]")


def reason_in(text: str) -> str:
    """Return what a service raised, of all that was written around it."""
    match = _REASON.search(text)
    return match[0] if match else f"? {text}"


class Play:
    """One run of a scenario: the world it plays in, and what was seen."""

    def __init__(self, link: Proxy, lobby: Any, world: Any) -> None:
        self.is_blocking = getattr(lobby, "is_blocking", False)
        self.link = link
        self.lobby = lobby
        self.world = world
        self.seen: list[str] = []

    def see(self, *what: object) -> None:
        self.seen.append(
            " ".join(f"{each:g}" if type(each) is float else str(each) for each in what)
        )

    async def fails(self, call: Awaitable[Any]) -> None:
        """See how a call fails."""
        try:
            results = await call
        except Exception as error:
            self.see("fails:", reason_in(str(error)))
        else:
            self.see("results instead of a failure:", results)

    async def breathe(self) -> None:
        """Let what was called leave, and what came be heard."""
        await asyncio.sleep(0.003)

    async def journal(self) -> None:
        """See what the server's objects were asked."""
        for line in (await self.world.call("journal", {})).lines:
            self.see("|", line)


Scenario = Callable[[Play], Awaitable[None]]
SCENARIOS: dict[str, tuple[Scenario, str]] = {}


def scenario(run: Scenario) -> Scenario:
    """Add a scenario; its docstring is what is to be seen."""
    lines = (run.__doc__ or "").splitlines()
    SCENARIOS[run.__name__] = run, "\n".join(line.strip() for line in lines if line.strip())
    return run


async def played(name: str, link: Proxy, lobby: Any) -> str:
    """Return what is seen in a scenario, of a lobby over a link."""
    run, _ = SCENARIOS[name]
    play = Play(link, lobby, (await lobby.call("enter", {})).world)
    await run(play)
    return "\n".join(play.seen)


async def until(play: Play, is_so: Callable[[int], bool]) -> None:
    """Wait for what another side brings about, given how many objects its world has."""
    for _ in range(300):
        count = (await play.world.call("live", {})).count
        if is_so(count):
            return
        await play.breathe()
    play.see("it did not come about;", count, "are live")


# --- a calculator ---


def literal(number: float) -> Results:
    return {"literal": number}


def call(function: Any, *params: Results) -> Results:
    return {"call": {"function": function, "params": list(params)}}


class Power:
    """A function of the client's."""

    interface = CALCULATOR.Function

    def __init__(self, play: Play) -> None:
        self.play = play

    def call(self, params: Any) -> Results:
        base, exponent = params.params
        self.play.see("power", base, exponent)
        return {"number": base**exponent}


@scenario
async def calculator(play: Play) -> None:
    """2.5
    (123 + 45) / 2 is 84
    | add 123 45
    | divide 168 2
    f(3, 4) is 304
    f(f(1, 2), 3) is 10203
    | function 3 4
    | multiply 3 100
    | add 300 4
    | function 1 2
    | multiply 1 100
    | add 100 2
    | function 102 3
    | multiply 102 100
    | add 10200 3
    84 + 2 is 86
    power 2 3
    power 8 2
    2 ** 3 ** 2 is 64
    fails: [division by zero]
    fails: [division by zero]
    fails: [wrong number of params]
    """
    # All of it is asked for before anything is answered, the functions too.
    calc = play.world.pipeline("calculator", {}).calculator
    add, multiply, divide = (
        calc.pipeline("operation", {"operator": name}).function
        for name in ("add", "multiply", "divide")
    )

    def evaluate(expression: Results) -> Any:
        return calc.pipeline("evaluate", {"expression": expression}).value

    async def number(value: Any) -> float:
        return float((await value.call("read", {})).number)

    play.see(await number(evaluate(literal(2.5))))
    half = evaluate(call(divide, call(add, literal(123.0), literal(45.0)), literal(2.0)))
    play.see("(123 + 45) / 2 is", await number(half))
    await play.journal()
    first, second = {"parameter": 0}, {"parameter": 1}
    body = call(add, call(multiply, first, literal(100.0)), second)
    f = calc.pipeline("define", {"params": 2, "body": body}).function
    play.see("f(3, 4) is", await number(evaluate(call(f, literal(3.0), literal(4.0)))))
    nested = call(f, call(f, literal(1.0), literal(2.0)), literal(3.0))
    play.see("f(f(1, 2), 3) is", await number(evaluate(nested)))
    await play.journal()
    play.see("84 + 2 is", await number(evaluate(call(add, {"value": half}, literal(2.0)))))
    power = Power(play)
    tower = call(power, call(power, literal(2.0), literal(3.0)), literal(2.0))
    play.see("2 ** 3 ** 2 is", await number(evaluate(tower)))
    broken = evaluate(call(divide, literal(1.0), literal(0.0)))
    await play.fails(number(broken))
    await play.fails(number(evaluate(call(add, {"value": broken}, literal(1.0)))))
    await play.fails(number(evaluate(call(f, literal(1.0)))))


# --- a file system ---


@scenario
async def files(play: Play) -> None:
    """docs 0 bytes
    hello by the file: Hello, world
    notes has 12 bytes
    entries: docs hello
    the second is hello, 12 bytes
    the nodes are: docs hello
    null: True True True
    found: directory False True
    guest: 5 bytes of Hello
    | hello: write 5 at 0
    | hello: write 7 at 5
    | guest: logout
    fails: [logged out]
    fails: [logged out]
    fails: [no such user]
    fails: [no such user]
    still ada: 12
    """
    world = play.world
    session = world.pipeline("login", {"user": "ada"}).session
    root = session.pipeline("root", {}).root
    docs = root.pipeline("make", {"name": "docs"}).directory
    hello = root.pipeline("create", {"name": "hello"}).file
    # Four calls deep, before the first is answered; `stat` is inherited.
    await hello.call("write", {"at": 0, "data": b"Hello"})
    await hello.call("write", {"at": 5, "data": b", world"})
    stat = await docs.call("stat", {})
    play.see(stat.name, stat.bytes, "bytes")
    data = (await hello.call("read", {"at": 0, "bytes": 100})).data
    play.see("hello by the file:", bytes(data).decode())
    # The same node under another name, of another directory; given by a promise.
    await docs.call("link", {"name": "notes", "node": hello})
    notes = (await docs.call("find", {"name": "notes"})).node
    play.see("notes has", (await notes.call("stat", {})).bytes, "bytes")
    listed = await root.call("list", {})
    play.see("entries:", *(each.name for each in listed.entries))
    stat = await listed.entries[1].node.call("stat", {})
    play.see("the second is", f"{stat.name},", stat.bytes, "bytes")
    play.see("the nodes are:", *[(await each.call("stat", {})).name for each in listed.nodes])
    nothing = await root.call("find", {"name": "nothing"})
    play.see("null:", *(each is None for each in (nothing.node, nothing.file, nothing.directory)))
    found = await root.call("find", {"name": "docs"})
    play.see("found: directory", found.directory is None, found.file is None)
    await on_guests(play, hello)
    play.see("still ada:", (await hello.call("stat", {})).bytes)


async def on_guests(play: Play, hello: Any) -> None:
    session = (await play.world.call("login", {"user": "guest"})).session
    root = (await session.call("root", {})).root
    await root.call("link", {"name": "theirs", "node": hello})
    # Found as a node; it is a file all the same.
    found = root.pipeline("find", {"name": "theirs"}).node.cast(SCHEMA.File)
    data = (await found.call("read", {"at": 0, "bytes": 5})).data
    play.see("guest:", len(data), "bytes of", bytes(data).decode())
    await session.call("logout", {})
    await play.journal()
    await play.fails(root.call("stat", {}))
    await play.fails(root.pipeline("find", {"name": "theirs"}).node.call("stat", {}))
    nobody = play.world.pipeline("login", {"user": "nobody"})
    await play.fails(nobody.session.pipeline("root", {}).root.call("list", {}))
    await play.fails(nobody)


# --- an upload ---


@scenario
async def upload(play: Play) -> None:
    """30000 bytes, sum 632797908
    | whole: end after 30000
    fails: [empty chunk]
    """
    sink = play.world.pipeline("upload", {"name": "whole"}).sink
    for number in range(1, 31):
        await stream(sink, "write", {"chunk": bytes([number]) * 1000})
    results = await sink.call("end", {})
    play.see(results.bytes, "bytes, sum", results.sum)
    await play.journal()
    sink = play.world.pipeline("upload", {"name": "broken"}).sink
    for chunk in (b"a", b"", b"b"):
        with suppress(Exception):
            await stream(sink, "write", {"chunk": chunk})
    # What comes after a failed write is not done.
    await play.fails(sink.call("end", {}))
    await play.journal()


async def stream(capability: Any, name: str, values: Results) -> None:
    """Call a streaming method, in the way of a client's own if it has one."""
    await getattr(capability, "stream", capability.call)(name, values)


# --- promises ---


class Cell:
    """A cell of the client's."""

    interface = SCHEMA.Cell

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.closed = 0

    def add(self, params: Any) -> Results:
        self.numbers.append(params.number)
        return {"total": sum(self.numbers)}

    def close(self) -> None:
        self.closed += 1


class Giver:
    """Gives a cell once it may, or fails if it has none."""

    interface = SCHEMA.Giver

    def __init__(self, cell: Any) -> None:
        self.cell = cell
        self.may_give = asyncio.Event()

    async def give(self, _params: Any) -> Results:
        await self.may_give.wait()
        if self.cell is None:
            raise ServiceError("[nothing to give]")
        return {"cell": self.cell}


class GiverAtOnce(Giver):
    """Gives a cell when it is asked, which is when a blocking client waits."""

    def give(self, _params: Any) -> Results:  # type: ignore[override]
        if self.cell is None:
            raise ServiceError("[nothing to give]")
        return {"cell": getattr(self.cell, "thing", self.cell)}


@scenario
async def promises(play: Play) -> None:
    """of a cell of the server's
    totals 0 1 3 6
    of a cell of the client's
    totals 0 1 3 6
    of nothing
    fails: [nothing to give]
    fails: [nothing to give]
    it got 0 1 2 3
    """
    mine = Cell()
    for what, cell in (
        ("a cell of the server's", (await play.world.call("cell", {"name": "theirs"})).cell),
        ("a cell of the client's", mine),
        ("nothing", None),
    ):
        play.see("of", what)
        giver = (GiverAtOnce if play.is_blocking else Giver)(cell)
        promised = (await play.world.call("later", {"giver": giver})).cell
        await on_promise(play, promised, giver.may_give.set, is_broken=cell is None)
    play.see("it got", *mine.numbers)


@scenario
async def promises_there(play: Play) -> None:
    """of a cell
    totals 0 1 3 6
    of nothing
    fails: [nothing to give]
    fails: [nothing to give]
    """
    for name in ("new", ""):
        play.see("of", "a cell" if name else "nothing")
        world = (await play.lobby.call("enter", {})).world
        giver = (await world.call("giver", {"name": name})).giver
        # It comes back to where it is from, so the promise is the server's own.
        promised = (await world.call("later", {"giver": giver})).cell
        opening: list[Any] = []
        await on_promise(
            play,
            promised,
            lambda: opening.append(world.pipeline("open", {"delay": 0})),
            is_broken=not name,
        )


async def on_promise(
    play: Play, promised: Any, resolve: Callable[[], Any], *, is_broken: bool
) -> None:
    """Call what a promise will be, before and after it is."""
    early = [promised.pipeline("add", {"number": number}) for number in range(3)]
    resolve()
    if is_broken:
        await play.fails(early[0])
        await play.fails(promised.call("add", {"number": 3}))
        return
    totals = [(await each).total for each in early]
    totals.append((await promised.call("add", {"number": 3})).total)
    play.see("totals", *totals)


@scenario
async def order(play: Play) -> None:
    """it got 0 1 2 3 4 5 6 7 8 9 10 11
    total 66
    """
    mine = Cell()
    promised = play.world.pipeline("back", {"cell": mine})
    await on_order(play, mine, promised.cell, promised)


@scenario
async def order_after_a_resolve(play: Play) -> None:
    """it got 0 1 2 3 4 5 6 7 8 9 10 11
    total 66
    """
    mine = Cell()
    giver = (await play.world.call("giverOf", {"cell": mine})).giver
    promised = (await play.world.call("later", {"giver": giver})).cell
    await on_order(play, mine, promised, asyncio.sleep(0.2))


async def on_order(play: Play, mine: Cell, promised: Any, is_known: Awaitable[Any]) -> None:
    """Call what will turn out to be here, while other calls are still on the longer way."""
    calls = [promised.pipeline("add", {"number": number}) for number in range(4)]
    await play.world.call("open", {"delay": 50})
    play.link.upstream = [HELD]
    calls += [promised.pipeline("add", {"number": number}) for number in range(4, 8)]
    await is_known
    calls += [promised.pipeline("add", {"number": number}) for number in range(8, 12)]
    await play.breathe()
    play.link.upstream = []
    totals = [(await each).total for each in calls]
    play.see("it got", *mine.numbers)
    play.see("total", totals[-1])


# --- references ---


@scenario
async def references(play: Play) -> None:
    """two made
    one closed: 1 live
    a kept cell has 3, and its own name for the server: 3
    let go of: 0 live
    a session and its root: 2 live, then 0
    given up: 0 live
    """
    world = play.world
    first, second = [(await world.call("cell", {"name": name})).cell for name in ("a", "b")]
    await live(play, 2)
    play.see("two made")
    first.close()
    await live(play, 1)
    play.see("one closed: 1 live")
    await world.call("keep", {"cell": second})
    # The same object under two references, each given back by itself.
    kept = (await world.call("kept", {})).cell
    second.close()
    total = (await world.call("call", {"cell": kept, "times": 3})).total
    play.see("a kept cell has", f"{total},", "and its own name for the server:", total)
    await world.call("keep", {"cell": None})
    await live(play, 1)
    kept.close()
    await live(play, 0)
    play.see("let go of: 0 live")
    session = world.pipeline("login", {"user": "ada"}).session
    root = (await session.call("root", {})).root
    await live(play, 2)
    session.close()
    root.close()
    await live(play, 0)
    play.see("a session and its root: 2 live, then 0")
    for _ in range(5):
        world.pipeline("cell", {"name": "unwanted"}).cell.close()
    await live(play, 0)
    play.see("given up: 0 live")


@scenario
async def callbacks(play: Play) -> None:
    """called 3 times: total 3
    let go of: True
    kept: True
    called back: 3 4
    closed: once
    """
    world, mine, kept = play.world, Cell(), Cell()
    play.see("called 3 times: total", (await world.call("call", {"cell": mine, "times": 3})).total)
    await until(play, lambda _: mine.closed == 1)
    play.see("let go of:", mine.closed == 1)
    await world.call("keep", {"cell": kept})
    total = (await world.call("call", {"cell": kept, "times": 3})).total
    for _ in range(3):
        await world.call("live", {})
    play.see("kept:", kept.closed == 0)
    again = (await world.call("kept", {})).cell
    play.see("called back:", total, (await again.call("add", {"number": 1})).total)
    again.close()
    await world.call("keep", {"cell": None})
    await until(play, lambda _: kept.closed > 0)
    play.see("closed:", {1: "once"}.get(kept.closed, kept.closed))


async def live(play: Play, count: int) -> None:
    await until(play, lambda found: found == count)

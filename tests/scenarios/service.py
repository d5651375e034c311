"""What the scenarios talk to, once for all servers in Python.

A service object has an `interface` and a method per method of the schema, which gets the params and
returns the results as a dict. Capabilities in params have `call` and `pipeline`. Errors are in
brackets, so that they are told from what an implementation writes around them.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any

from capnp_rig.schema import load_schema
from capnp_rig.server import ServiceError

SCHEMA = load_schema(Path(__file__).resolve().parents[1] / "data" / "scenarios.capnp")
CALCULATOR = SCHEMA.Calculator
_CELL = SCHEMA.Cell

Results = Mapping[str, Any]


class Lobby:
    interface = SCHEMA.Lobby

    def enter(self, _params: Any) -> Results:
        return {"world": World()}


class World:
    """The state that all objects of a run share: journal, objects alive, gate."""

    interface = SCHEMA.World

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.alive: set[Counted] = set()
        self.gate = asyncio.Event()
        self.cell_kept: Any = None
        self.trees: dict[str, Directory] = {}

    def journal(self, _params: Any) -> Results:
        lines, self.lines = self.lines, []
        return {"lines": lines}

    def live(self, _params: Any) -> Results:
        return {"count": len(self.alive)}

    def calculator(self, _params: Any) -> Results:
        return {"calculator": Calculator(self)}

    def login(self, params: Any) -> Results:
        if params.user == "nobody":
            raise ServiceError("[no such user]")
        return {"session": Session(self, params.user)}

    def upload(self, params: Any) -> Results:
        return {"sink": Sink(self, params.name)}

    def cell(self, params: Any) -> Results:
        return {"cell": Cell(self, params.name)}

    def keep(self, params: Any) -> None:
        self.cell_kept = params.cell

    def kept(self, _params: Any) -> Results:
        return {"cell": self.cell_kept}

    async def back(self, params: Any) -> Results:
        cell = params.cell
        await self.gate.wait()
        return {"cell": cell}

    def later(self, params: Any) -> Results:
        return {"cell": params.giver.pipeline("give", {}).cell}

    def giver(self, params: Any) -> Results:
        return {"giver": Giver(self, Cell(self, params.name) if params.name else None)}

    def giverOf(self, params: Any) -> Results:
        return {"giver": Giver(self, params.cell)}

    def open(self, params: Any) -> None:
        asyncio.get_running_loop().call_later(params.delay / 1000, self.gate.set)

    async def call(self, params: Any) -> Results:
        total = 0
        for number in range(params.times):
            total = (await params.cell.call("add", {"number": number})).total
        return {"total": total}

    def close(self) -> None:
        self.cell_kept = None


class Counted:
    """An object of a world that is counted until it is closed, which must be once."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        world.alive.add(self)

    def note(self, text: str) -> None:
        self.world.lines.append(f"{self.name}: {text}")

    def close(self) -> None:
        if self not in self.world.alive:
            self.note("closed twice")
        self.world.alive.discard(self)


# --- a calculator ---


class Calculator:
    interface = CALCULATOR

    def __init__(self, world: World) -> None:
        self.world = world

    async def evaluate(self, params: Any) -> Results:
        return {"value": Value(await evaluate(copied(params.expression), ()))}

    def define(self, params: Any) -> Results:
        return {"function": Function(self.world, params.params, copied(params.body))}

    def operation(self, params: Any) -> Results:
        return {"function": Operator(self.world, str(params.operator))}


Expression = tuple[Any, ...]


def copied(expression: Any) -> Expression:
    """Return an expression that outlives its message, with the capabilities in it."""
    kind = str(expression.which())
    if kind == "call":
        params = [copied(each) for each in expression.call.params]
        return kind, expression.call.function, params
    return kind, getattr(expression, kind)


async def evaluate(expression: Expression, values: tuple[float, ...]) -> float:
    """Return what an expression is worth, asking for one value after the other."""
    match expression:
        case "literal", number:
            return float(number)
        case "value", value:
            return float((await passed_on(value.call("read", {}))).number)
        case "parameter", index:
            return values[index]
        case _, function, params:
            numbers = [await evaluate(each, values) for each in params]
            called = function.call("call", {"params": numbers})
            return float((await passed_on(called)).number)
    raise AssertionError(expression)


async def passed_on(call: Awaitable[Any]) -> Any:
    """Return what a call returns; what it fails with is for our caller as well."""
    try:
        return await call
    except Exception as error:
        raise ServiceError(str(error)) from error


class Value:
    interface = CALCULATOR.Value

    def __init__(self, number: float) -> None:
        self.number = number

    def read(self, _params: Any) -> Results:
        return {"number": self.number}


class Operator:
    interface = CALCULATOR.Function

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name

    def call(self, params: Any) -> Results:
        first, second = params.params
        self.world.lines.append(f"{self.name} {first:g} {second:g}")
        if self.name == "divide" and second == 0:
            raise ServiceError("[division by zero]")
        return {"number": _OPERATIONS[self.name](first, second)}


_OPERATIONS = {
    "add": float.__add__,
    "subtract": float.__sub__,
    "multiply": float.__mul__,
    "divide": float.__truediv__,
}


class Function:
    """A function that a client has defined; its body, with the capabilities in it, is kept."""

    interface = CALCULATOR.Function

    def __init__(self, world: World, count: int, body: Any) -> None:
        self.world = world
        self.count = count
        self.body = body

    async def call(self, params: Any) -> Results:
        values = tuple(params.params)
        self.world.lines.append(" ".join(["function", *(f"{each:g}" for each in values)]))
        if len(values) != self.count:
            raise ServiceError("[wrong number of params]")
        return {"number": await evaluate(self.body, values)}


# --- a file system ---


class Session(Counted):
    interface = SCHEMA.Session

    def __init__(self, world: World, user: str) -> None:
        super().__init__(world, user)
        self.user = user
        self.is_open = True

    def root(self, _params: Any) -> Results:
        self.check()
        tree = self.world.trees.setdefault(self.user, Tree(self.user))
        return {"root": Directory(self, tree)}

    def logout(self, _params: Any) -> None:
        self.note("logout")
        self.is_open = False

    def check(self) -> None:
        if not self.is_open:
            raise ServiceError("[logged out]")


class Tree(dict[str, Any]):
    """The content of a directory: a tree, the bytes of a file, or a capability, by name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class Content(bytearray):
    """The content of a file."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class Node(Counted):
    def __init__(self, session: Session, content: Any) -> None:
        super().__init__(session.world, content.name)
        self.session = session
        self.content = content

    def stat(self, _params: Any) -> Results:
        self.session.check()
        return {"name": self.content.name, "bytes": len(self.content)}


class File(Node):
    interface = SCHEMA.File

    def read(self, params: Any) -> Results:
        self.session.check()
        return {"data": bytes(self.content[params.at : params.at + params.bytes])}

    def write(self, params: Any) -> None:
        self.session.check()
        self.note(f"write {len(params.data)} at {params.at}")
        self.content[params.at :] = bytes(params.data)


class Directory(Node):
    interface = SCHEMA.Directory

    def list(self, _params: Any) -> Results:
        self.session.check()
        nodes = [self._node(each) for each in self.content.values()]
        names = zip(self.content, nodes, strict=True)
        return {
            "entries": [{"name": name, "node": node} for name, node in names],
            "nodes": nodes,
        }

    def find(self, params: Any) -> Results:
        self.session.check()
        node = self._node(self.content.get(params.name))
        which = {File: "file", Directory: "directory"}.get(type(node), "node")
        return {"node": node, which: node}

    def create(self, params: Any) -> Results:
        self.session.check()
        content = self.content[params.name] = Content(params.name)
        return {"file": self._node(content)}

    def make(self, params: Any) -> Results:
        self.session.check()
        tree = self.content[params.name] = Tree(params.name)
        return {"directory": self._node(tree)}

    def link(self, params: Any) -> None:
        self.session.check()
        self.content[params.name] = params.node

    def _node(self, content: Any) -> Any:
        if isinstance(content, Tree):
            return Directory(self.session, content)
        if isinstance(content, Content):
            return File(self.session, content)
        return content


# --- an upload ---


class Sink(Counted):
    interface = SCHEMA.Sink

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.bytes = 0
        self.sum = 0

    async def write(self, params: Any) -> None:
        chunk = bytes(params.chunk)
        # A later chunk must not overtake.
        await asyncio.sleep(0.002 if self.bytes == 0 else 0)
        if not chunk:
            raise ServiceError("[empty chunk]")
        for byte in chunk:
            self.bytes += 1
            self.sum = (self.sum + self.bytes * byte) % 2**32

    def end(self, _params: Any) -> Results:
        self.note(f"end after {self.bytes}")
        return {"bytes": self.bytes, "sum": self.sum}


# --- references ---


class Cell(Counted):
    """Counts its calls, and notes one that is not the next."""

    interface = _CELL

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.next = 0
        self.total = 0

    def add(self, params: Any) -> Results:
        if params.number != self.next:
            self.note(f"add {params.number} in the place of {self.next}")
        self.next += 1
        self.total += params.number
        return {"total": self.total}


class Giver:
    """Gives a cell once the gate of its world is open."""

    interface = SCHEMA.Giver

    def __init__(self, world: World, cell: Any) -> None:
        self.world = world
        self.cell = cell

    async def give(self, _params: Any) -> Results:
        await self.world.gate.wait()
        if self.cell is None:
            raise ServiceError("[nothing to give]")
        return {"cell": self.cell}

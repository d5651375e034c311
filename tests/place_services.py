"""Services with capabilities in all places, for ``server run --service place_services:Name``."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from capnp_rig.objects.binding import ServiceError
from capnp_rig.schema import load_schema

SCHEMA = load_schema(Path(__file__).resolve().parent / "data" / "places.capnp")
Results = Mapping[str, Any]


class Leaf:
    interface = SCHEMA.Leaf
    closed: list[str]

    def __init__(self, text: str, closed: list[str]) -> None:
        self.text = text
        self.closed = closed

    def name(self, _params: Any) -> Results:
        return {"name": self.text}

    def fail(self, params: Any) -> Results:
        if params.how == "service":
            raise ServiceError("as asked")
        if params.how == "secret":
            raise LookupError("not for others")
        return {"leaf": self if params.how == "self" else None}

    async def wait(self, _params: Any) -> None:
        await asyncio.sleep(60)

    async def stream(self, params: Any) -> None:
        await asyncio.sleep(0.001 * (3 - params.number))
        self.text += str(params.number)

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.closed.append(self.text)
        # For those that outlive the test's connection.
        print("Closed", self.text, flush=True)  # noqa: T201 - the server's own output
        if self.text == "bad":
            raise LookupError("in close")


class Both:
    interface = (SCHEMA.Leaf, SCHEMA.Other)
    name = fail = wait = stream = other = lambda _self, _params: None


class Twin:
    interface = SCHEMA.Twin

    def name(self, params: Any) -> Results:
        number = getattr(params, "number", None)
        return {"name": "twin"} if number is None else {"number": number + 1}


class Nameless:
    interface = SCHEMA.Leaf


class Broken:
    """What cannot be a capability."""


async def streamed(leaf: Any) -> None:
    for number in range(3):
        assert await leaf.call("stream", {"number": number}) is None


async def closed(leaf: Any) -> None:
    leaf.close()
    assert leaf.is_closed
    await leaf.call("name")


ASKED: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "service": lambda leaf: leaf.call("fail", {"how": "service"}),
    "secret": lambda leaf: leaf.call("fail", {"how": "secret"}),
    "null": lambda leaf: leaf.pipeline("fail", {"how": "null"}).leaf.call("name"),
    "early": lambda leaf: leaf.pipeline("fail", {"how": "self"}).leaf.call("name"),
    "hang": lambda leaf: leaf.call("wait"),
    "late": lambda leaf: leaf.call("wait", timeout_s=0.01),
    "unknown": lambda leaf: leaf.call("nothing"),
    "misfit": lambda leaf: leaf.call("fail", {"how": 3}),
    "stream": streamed,
    "closed": closed,
}


class World:
    interface = SCHEMA.World

    def __init__(self) -> None:
        self.closed_names: list[str] = []
        self.kept: dict[str, Any] = {}

    def leaf(self, text: str) -> Leaf:
        return Leaf(text, self.closed_names)

    def make(self, _params: Any) -> Results:
        leaf = self.leaf
        inner = {"leaf": leaf("inner"), "data": bytearray(b"d"), "one": leaf("one")}
        places = {
            "leaf": leaf("leaf"),
            "list": [leaf("l0"), None, leaf("l2")],
            "grid": [[leaf("g00")], [], [None, leaf("g21")]],
            "number": 7,
            "inner": inner,
            "inners": [{"number": 1}, {"leaf": leaf("i1"), "inner": {"leaf": leaf("i10")}}],
            "group": {"leaf": leaf("group"), "text": "text"},
            "several": {"first": leaf("first"), "count": 3},
            "any": leaf("any"),
            "box": {"value": leaf("box")},
        }
        return {"places": places}

    def back(self, params: Any) -> Results:
        got = params.places
        places = {
            "leaf": got.leaf,
            "list": got.list,
            "grid": [list(row) for row in got.grid],
            "number": got.number,
            "inner": got.inner,
            "inners": got.inners,
            "group": {"leaf": got.group.leaf, "text": got.group.text},
            "several": {"first": got.several.first, "count": got.several.count},
            "any": got.any.as_capability(),
            "box": got.box,
        }
        return {"places": places}

    async def names(self, params: Any) -> Results:
        return {"names": [name async for name in names_in(params.places)]}

    async def ask(self, params: Any) -> Results:
        leaf, how = params.leaf, params.how
        if leaf is None:
            return {"text": "null"}
        try:
            return {"text": await self._ask(leaf, how)}
        except Exception as error:
            return {"text": f"{type(error).__name__}: {error}"}

    async def _ask(self, leaf: Any, how: str) -> str:
        if how == "keep":
            self.kept["leaf"] = leaf
        elif how == "kept":
            leaf = self.kept["leaf"]
        elif how in ASKED:
            await ASKED[how](leaf)
        with leaf.cast(SCHEMA.Base) as base:
            return str((await base.call("name")).name)

    def give(self, params: Any) -> Results:
        kinds = {"both": Both, "nameless": Nameless, "broken": Broken}
        if params.how in kinds:
            return {"leaf": kinds[params.how]()}
        if params.how == "kept":
            return {"leaf": self.kept["leaf"]}
        return {"leaf": self.leaf(params.how)}

    def twin(self, _params: Any) -> Results:
        return {"twin": Twin()}

    def closed(self, _params: Any) -> Results:
        return {"names": self.closed_names}


async def names_in(places: Any) -> AsyncIterator[str]:
    for leaf in leaves_in(places):
        yield "null" if leaf is None else (await leaf.call("name")).name


def leaves_in(places: Any) -> Iterator[Any]:
    """Return all capabilities of a struct of places."""
    yield places.leaf
    yield from places.list
    for row in places.grid:
        yield from row
    yield from (places.inner.leaf, places.inner.one)
    for inner in places.inners:
        yield from (inner.leaf, inner.inner.leaf)
    yield from (places.group.leaf, places.several.first)
    any_leaf = places.any.as_capability()
    yield None if any_leaf is None else any_leaf.cast(SCHEMA.Leaf)
    yield places.box.value

"""What a type checker says of the stubs of typed.capnp, which are `typed_stubs` (test_stubs).

A line with a comment ``error: kind`` is a mistake of this kind; there are no others. Nothing here
is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, assert_type

from capnp_rig import (
    AsyncCapability,
    AsyncChannel,
    AsyncClient,
    Capability,
    Channel,
    Client,
    load_schema,
)
from capnp_rig.wire.encoding.any_pointers import AnyPointer

if TYPE_CHECKING:
    import typed_stubs as schema
else:
    schema = load_schema("./typed.capnp")


class Watcher:
    interface = schema.Folder.Watcher

    async def changed(self, params: schema.Folder.Watcher.ChangedParams) -> None:
        assert_type(params.name, str)
        await params.folder.call("size")
        await params.folder.call("sizes")  # error: call-overload


class Sized:
    interface = schema.Node

    def size(self, params: schema.Node.SizeParams) -> schema.Node.SizeResultsDict:
        return {"bytes": "1"}  # error: typeddict-item


class WrongWatcher:
    interface = schema.Folder.Watcher

    def changed(self, params: schema.Node.SizeParams) -> None: ...


async def call_asyncio(client: AsyncClient[schema.Maker]) -> None:
    results = await client.call("add", {"left": 1, "right": 2}, timeout_s=1.5)
    assert_type(results, schema.Maker.AddResults)
    assert_type(results.sum, int)
    assert_type(results.to_dict(), dict[str, Any])
    results.sum = 3  # error: misc
    _ = results.summ  # error: attr-defined
    wrong: str = results.sum  # error: assignment
    assert_type(wrong, str)
    client.call("add", {"left": 1})  # error: unused-coroutine
    await client.call("addd", {"left": 1})  # error: call-overload
    await client.call("add", {"lefft": 1})  # error: call-overload
    await client.call("add", {"left": "1"})  # error: call-overload
    await client.call("add", {"left": 1.5})  # error: call-overload
    await client.call("add", timeout=1)  # error: call-overload

    shapes = (await client.call("draw", {"name": "a", "colour": "red", "from": b""})).shapes
    assert_type(shapes[0], schema.Shape)
    assert_type(shapes[0].name, str)
    assert_type(shapes[0].colour, Literal["red", "green"] | int)
    assert_type(shapes[0].place.x, int)
    assert_type(shapes[0].circle, float)
    assert_type(shapes[0].sides, memoryview[float])
    assert_type(shapes[0].inside[0].inside[-1].which(), Literal["circle", "sides", "none"])
    await client.call("draw", shapes[0])
    await client.call("draw", {"inside": [{"none": None}, shapes[0]], "place": {"x": 1}})
    await client.call("draw", {"inside": {"name": ["a"], "which": ["none"]}, "sides": range(3)})
    await client.call("draw", {"colour": "blue"})  # error: call-overload
    await client.call("draw", {"place": {"z": 1}})  # error: call-overload
    await client.call("draw", {"inside": [{"circle": "1"}]})  # error: call-overload

    boxes = await client.call("boxes", {"text": {"value": "x"}})
    assert_type(boxes.data.value, memoryview)
    assert_type(boxes.any, AnyPointer)
    await boxes.folder.value.call("size")
    await client.call("boxes", {"text": {"value": b"x"}})  # error: call-overload

    lists: Iterator[str] = iter(["a"])
    await client.call("keep", {"names": ["a"], "numbers": [1], "grid": [[1], b"a"]})
    await client.call("keep", {"names": lists, "numbers": b"abc", "flags": [True]})
    await client.call("keep", {"names": "abc"})  # error: call-overload
    await client.call("keep", {"numbers": [1.5]})  # error: call-overload


async def use_capabilities(client: AsyncClient[schema.Maker]) -> None:
    folder: AsyncCapability[schema.Folder] = (await client.call("root")).folder
    async with folder:
        opened = await folder.call("open", {"name": "x"})
        assert_type((await folder.call("size")).bytes, int)
        assert_type(await folder.call("write", {"data": b"x"}), None)
        await opened.node.call("open")  # error: arg-type
        await opened.pair.session.call("logout")
        await opened.pair.session.call("login")  # error: call-overload
        await folder.call("watch", {"watcher": Watcher(), "others": [Watcher(), None]})
        await folder.call("watch", {"watcher": WrongWatcher()})  # error: call-overload
        await folder.call("watch", {"watcher": folder})  # error: call-overload
        assert_type(folder.cast(schema.Node), AsyncCapability[schema.Node])
        takes_node(folder)
    assert_type(client.bootstrap(), AsyncCapability[schema.Maker])
    assert_type(client.bootstrap(schema.Folder), AsyncCapability[schema.Folder])

    pipeline = client.pipeline("root")
    await pipeline.folder.call("size")
    await pipeline.folder.pipeline("open").pair.more.session.call("logout")
    await pipeline.folder.call("sizes")  # error: call-overload
    _ = pipeline.folders  # error: attr-defined
    assert_type(await pipeline, schema.Maker.RootResults)
    assert_type((await client.pipeline("add")).sum, int)


def takes_node(node: AsyncCapability[schema.Node]) -> None:
    takes_folder(node)  # error: arg-type


def takes_folder(folder: AsyncCapability[schema.Folder]) -> None: ...


def call_blocking(client: Client[schema.Maker]) -> None:
    assert_type(client.call("add", {"left": 1}).sum, int)
    folder: Capability[schema.Folder] = client.call("root").folder
    with folder:
        assert_type(folder.call("size").bytes, int)
        folder.call("open").pair.session.call("logout")
    assert_type(client.bootstrap(), Capability[schema.Maker])
    assert_type(client.pipeline("root").folder.call("size").bytes, int)
    assert_type(client.pipeline("root").wait(), schema.Maker.BlockingRootResults)
    call = client.submit("add", {"left": 1})
    assert_type(call.results.sum, int | Any)
    _ = call.results.summ  # error: union-attr
    client.call("subtract", {})  # error: call-overload
    client.submit("add", {"left": None})  # error: call-overload


async def connect() -> None:
    async with await AsyncClient.connect("a:1", interface=schema.Maker) as client:
        assert_type(client, AsyncClient[schema.Maker])
    with Client.connect("a:1", interface=schema.Folder) as folder:
        assert_type(folder, Client[schema.Folder])
    with Client[schema.Maker].connect("a:1", interface=schema.Maker) as maker:
        assert_type(maker, Client[schema.Maker])
    later: AsyncClient[schema.Maker] = await AsyncClient.connect("a:1")
    assert_type((await later.call("add")).sum, int)


async def call_channels(channel: AsyncChannel[schema.Maker]) -> None:
    assert_type((await channel.call("add", {"left": 1})).sum, int)
    await channel.call("addd")  # error: call-overload
    async with channel.connection() as client:
        assert_type(client, AsyncClient[schema.Maker])
    with Channel("a:1,b:1", interface=schema.Maker, idempotent={"add"}) as blocking:
        assert_type(blocking.call("add").sum, int)
        blocking.call("add", {"left": "1"})  # error: call-overload
    assert_type(Channel("a:1").call("anything"), Any)


class MakerClient(Client[schema.Maker]):
    interface = schema.Maker

    def add(self, left: int) -> int:
        return self.call("add", {"left": left}).sum


async def without_stubs(client: AsyncClient, blocking: Client) -> None:
    assert_type(await client.call("anything", {"any": 1}), Any)
    assert_type(blocking.call("anything").thing.call("x"), Any)
    assert_type(await AsyncClient.connect("a:1", interface=load_schema("x").Y), AsyncClient)
    typed = await AsyncClient.connect("a:1", interface=schema.Maker)
    await without_stubs(typed, MakerClient.connect("b:1"))


maker_service: type[schema.NodeService] = Sized

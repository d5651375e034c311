"""Peers that break or strain the rules of capabilities (faults.md, D3, D10, D11, D12).

Frames are written and read by pycapnp; both engines serve the scenarios' objects.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from deadline import eventually
from level_1_frames import Descriptor, call, fill_table, message, resolve, with_content
from raw_peer import RPC, RawPeer, Reply, call_builder, encoded, finish, raw_peer, release
from running_server import Running
from scenarios.service import SCHEMA
from scenarios.serving import serving

ANSWERS = {"results", "capability", "exception", "canceled"}
# Kinds of descriptors that give the server a reference.
SENT = {"senderHosted", "senderPromise", "thirdPartyHosted"}
# Exports of ours.
OURS, OTHER, THIRD = 50, 51, 52


@pytest.fixture(scope="module", params=["wire", "pycapnp"])
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def lobby(engine: str) -> Iterator[Running]:
    with serving(engine) as server:
        yield server


@pytest.fixture
def world(lobby: Running) -> Iterator["World"]:
    with raw_peer(lobby) as peer:
        yield World(peer)
    # Another connection is served.
    with raw_peer(lobby) as peer:
        assert World(peer).count() == 0


class World:
    """A raw peer that has a world, the server's export `export`.

    It counts what the server has of it, which is never less than nothing.
    """

    def __init__(self, peer: RawPeer) -> None:
        self.peer = peer
        self.last = 100
        self.waiting: list[Reply] = []
        self.held: Counter[int] = Counter()
        self.params: dict[int, list[int]] = {}
        entered = self.send("enter", interface=SCHEMA.Lobby, export=0)
        self.export = self.capability(entered)

    # --- what is sent

    def frame(self, number: int, method: str, text: str = "", **where: Any) -> bytes:
        """Return a call of a method whose params are a text, or capabilities, or nothing."""
        interface, table = where.pop("interface", SCHEMA.World), where.pop("table", ())
        results_to = where.pop("results_to", "caller")
        if not {"export", "promise"} & where.keys():
            where["export"] = self.export
        self.params[number] = self.given(table)
        declared = [each.name for each in interface.schema.node.interface.methods]
        where.setdefault("method_id", declared.index(method))
        where.setdefault("interface_id", interface.schema.node.id)
        if not text:
            return call(number, table=table, to=results_to, **where)
        build = call_builder(number, **where)
        setattr(build.call.sendResultsTo, results_to, None)
        params = build.call.params.content.as_struct(interface.schema.methods[method].param_type)
        setattr(params, params.schema.node.struct.fields[0].name, text)
        fill_table(build.call.params, table)
        return encoded(build)

    def given(self, table: Any) -> list[int]:
        exports = [each[1] for each in table if each[0] in SENT]
        self.held.update(exports)
        return exports

    def send(self, method: str, text: str = "", **where: Any) -> int:
        """Call; return the question's id."""
        self.last += 1
        self.peer.send(self.frame(self.last, method, text, **where))
        return self.last

    def resolve(self, promise: int, to: Descriptor | str) -> None:
        self.given([] if isinstance(to, str) else [to])
        self.peer.send(resolve(promise, to))

    def give(self, called: Reply, table: Sequence[Descriptor] = (), **fields: int) -> None:
        """Answer a call of the server's."""
        build = RPC.Message.new_message()
        answer = build.init("return")
        answer.answerId = called.id
        for name, value in fields.items():
            setattr(answer, name, value)
        if table:
            fill_table(answer.init("results"), table)
        self.given(table)
        self.peer.send(with_content(encoded(build), len(table)))

    # --- what comes

    def next(self, *kinds: str, of: int | None = None) -> Reply:
        """Return the next message of some kinds, of that question; the others wait."""
        while True:
            for reply in self.waiting:
                if reply.kind in kinds and (of is None or reply.id == of):
                    self.waiting.remove(reply)
                    return reply
            self.waiting.append(self._receive())

    def _receive(self) -> Reply:
        reply = self.peer.receive()
        assert reply.kind not in {"abort", "eof"}, (reply, self.waiting)
        with RPC.Message.from_bytes(reply.frame) as found:
            if reply.kind == "release":
                self.held[found.release.id] -= found.release.referenceCount
            elif reply.kind == "call":
                reply = Reply("call", found.call.questionId, frame=reply.frame)
            elif reply.kind in ANSWERS and reply.releases_params:
                self.held.subtract(self.params.pop(reply.id))
        assert min(self.held.values(), default=0) >= 0, (self.held, reply)
        return reply

    def answer(self, number: int) -> Reply:
        """Return the Return for a question."""
        return self.next(*ANSWERS, of=number)

    def capability(self, number: int) -> int:
        """Return the export in the results of a question, which is finished."""
        reply = self.answer(number)
        assert reply.kind == "capability", reply
        self.peer.send(finish(number, release=False))
        with RPC.Message.from_bytes(reply.frame) as found:
            descriptor = getattr(found, "return").results.capTable[0]
            export: int = getattr(descriptor, str(descriptor.which()))
            return export

    def done(self, method: str, text: str = "", **where: Any) -> Reply:
        """Call, and finish when it is answered."""
        number = self.send(method, text, **where)
        reply = self.answer(number)
        self.peer.send(finish(number))
        return reply

    def fails(self, number: int, reason: str = "", kind: str = "failed") -> None:
        reply = self.answer(number)
        assert (reply.kind, reply.type) == ("exception", kind), reply
        assert reason in reply.text

    def count(self) -> int:
        """Return how many objects the world has; so the connection lives."""
        results = self.done("live").results(SCHEMA.World.schema.methods["live"].result_type)
        count: int = results["count"]
        return count

    def total(self, number: int) -> int:
        """Return what `call`, or `add`, has returned."""
        reply = self.answer(number)
        results = reply.results(SCHEMA.World.schema.methods["call"].result_type)
        total: int = results["total"]
        return total

    def is_let_go(self) -> None:
        """Check that the server releases all of ours, with the next calls at the latest."""
        eventually(lambda: self.count() == 0 and not any(self.held.values()), what="releases")
        assert "call" not in [reply.kind for reply in self.waiting], self.waiting


# --- D3 ----------------------------------------------------------------------------------


def test_d3_a_finish_for_no_question_is_ignored(world: World) -> None:
    cell = world.capability(world.send("cell", "a"))
    world.peer.send(finish(9999), finish(9999, release=False))
    assert world.done("add", interface=SCHEMA.Cell, export=cell).kind == "results"


@pytest.mark.parametrize("kind", sorted(SENT))
def test_d3_what_a_promise_of_nobody_becomes_is_released(world: World, kind: str) -> None:
    world.resolve(77, (kind, OURS))
    world.is_let_go()


def test_d3_a_promise_is_resolved_after_its_release(world: World) -> None:
    world.done("keep", table=[("senderPromise", OURS)])
    world.done("keep")
    world.is_let_go()
    world.resolve(OURS, ("senderHosted", OTHER))
    world.is_let_go()


def test_d3_what_a_promise_becomes_is_released_with_it(world: World) -> None:
    world.done("keep", table=[("senderPromise", OURS)])
    world.resolve(OURS, ("senderHosted", OTHER))
    assert world.count() == 0
    assert world.held[OTHER] == 1
    world.done("keep")
    world.is_let_go()


def test_d3_a_promise_is_resolved_twice(world: World) -> None:
    world.done("keep", table=[("senderPromise", OURS)])
    world.resolve(OURS, ("senderHosted", OTHER))
    world.resolve(OURS, ("senderHosted", THIRD))
    world.done("keep")
    world.is_let_go()


@pytest.mark.parametrize("kind", ["join", "provide", "accept"])
def test_d3_what_level_1_does_not_have_is_unimplemented(world: World, kind: str) -> None:
    world.peer.send(message(kind, questionId=5))
    assert world.next("unimplemented").text == kind
    assert world.count() == 0


# --- D10 ---------------------------------------------------------------------------------


def test_d10_calls_on_what_fails_fail_before_and_after(world: World) -> None:
    login = world.send("login", "nobody")
    on_it = {"interface": SCHEMA.Session, "promise": login, "path": (0,)}
    root = world.send("root", **on_it)
    stat = world.send("stat", interface=SCHEMA.Node, promise=root, path=(0,))
    for number in (login, root, stat):
        world.fails(number, "[no such user]")
    world.fails(world.send("root", **on_it), "[no such user]")
    world.fails(world.send("stat", interface=SCHEMA.Node, promise=root, path=(0,)))
    assert world.count() == 0


@pytest.mark.parametrize("path", [(0,), (1,), (0, 0), (7,)])
def test_d10_calls_on_nothing_fail(world: World, path: tuple[int, ...]) -> None:
    kept = world.send("kept")
    on_it = {"interface": SCHEMA.Cell, "promise": kept, "path": path}
    early = world.send("add", **on_it)
    assert world.answer(kept).kind == "results"
    world.fails(early)
    world.fails(world.send("add", **on_it))
    assert world.count() == 0


def test_d10_calls_on_an_answer_that_is_finished_fail(world: World) -> None:
    cell = world.send("cell", "a")
    world.answer(cell)
    world.peer.send(finish(cell))
    world.fails(world.send("add", interface=SCHEMA.Cell, promise=cell, path=(0,)))
    assert world.count() == 0


# --- D11 ---------------------------------------------------------------------------------

FOREIGN = [(kind, number) for number, kind in enumerate(sorted(SENT), OURS)]


def test_d11_capabilities_for_a_method_without_are_released(world: World) -> None:
    assert world.done("journal", table=FOREIGN).kind == "results"
    assert world.done("cell", "a", table=FOREIGN).kind == "capability"
    world.is_let_go()


@pytest.mark.parametrize("where", [{"method_id": 999}, {"interface_id": 999}])
def test_d11_capabilities_for_no_method_are_released(world: World, where: dict[str, int]) -> None:
    world.fails(world.send("keep", table=FOREIGN, **where), kind="unimplemented")
    world.is_let_go()


def test_d11_capabilities_for_nobody_are_released(world: World) -> None:
    login = world.send("login", "nobody")
    on_it = {"interface": SCHEMA.Session, "promise": login, "path": (0,)}
    world.fails(world.send("root", table=FOREIGN, **on_it))
    world.is_let_go()


def test_d11_a_capability_in_no_field_of_the_schema_is_released(world: World) -> None:
    world.done("keep", table=[("senderHosted", OURS), ("senderHosted", OTHER)])
    world.done("keep")
    world.is_let_go()


def test_d11_a_capability_in_the_place_of_a_text_is_released(world: World) -> None:
    world.fails(world.send("login", table=[("senderHosted", OURS)]))
    world.is_let_go()


def test_d11_capabilities_in_a_call_that_is_given_up_are_released(world: World) -> None:
    back = world.send("back", table=FOREIGN)
    assert world.count() == 0
    world.peer.send(finish(back))
    world.answer(back)
    world.is_let_go()


def test_d11_capabilities_in_results_that_nobody_reads_are_released(world: World) -> None:
    later = world.send("later", table=[("senderHosted", OURS)])
    called = world.next("call")
    world.give(called, table=FOREIGN)
    world.peer.send(finish(later))
    world.answer(later)
    world.is_let_go()


@pytest.mark.parametrize(
    "descriptor",
    [("receiverHosted", 999), ("receiverAnswer", 999), ("receiverAnswer", 999, (0,)), ("none",)],
)
def test_d11_what_is_no_capability_can_be_kept_and_not_called(
    world: World, descriptor: Descriptor
) -> None:
    assert world.done("keep", table=[descriptor]).kind in {"results", "exception"}
    kept = world.send("kept")
    world.fails(world.send("add", interface=SCHEMA.Cell, promise=kept, path=(0,)))
    world.peer.send(finish(kept))
    assert world.count() == 0


# --- D12 ---------------------------------------------------------------------------------


def test_d12_results_to_yourself_are_taken_from_there(world: World) -> None:
    cell = world.capability(world.send("cell", "a"))
    add = {"interface": SCHEMA.Cell, "export": cell, "results_to": "yourself", "data": (5,)}
    there = world.send("add", **add)
    called = world.send("call", table=[("senderHosted", OURS)], data=(1,))
    world.give(world.next("call"), takeFromOtherQuestion=there)
    assert world.next("resultsSentElsewhere").id == there
    assert world.total(called) == 5
    world.peer.send(finish(there), finish(called), release(cell, 1))
    world.is_let_go()


def test_d12_results_to_yourself_that_nobody_takes_are_let_go(world: World) -> None:
    cell = world.send("cell", "a", results_to="yourself")
    world.peer.send(finish(cell))
    world.is_let_go()


def test_d12_results_to_a_third_party_are_not_implemented(lobby: Running, engine: str) -> None:
    with raw_peer(lobby) as peer:
        world = World(peer)
        to_caller, to_yourself = (
            world.frame(7, "cell", "a", results_to=where) for where in ("caller", "yourself")
        )
        # pycapnp writes no third party: it is the number behind that of `yourself`.
        (at,) = (
            at
            for at, pair in enumerate(zip(to_caller, to_yourself, strict=True))
            if pair[0] != pair[1]
        )
        peer.send(to_yourself[:at] + b"\2" + to_yourself[at + 1 :])
        if engine == "wire":
            assert world.next("unimplemented").id == 7
            assert world.count() == 0
        else:
            # KJ gives up, where rpc.capnp asks for `unimplemented`.
            assert [reply.kind for reply in peer.until_eof()] == ["abort", "eof"]


def test_d12_an_id_is_free_right_after_its_finish(world: World) -> None:
    exports = []
    for number in range(20):
        world.peer.send(world.frame(7, "cell", f"cell {number}"))
        # The next call leaves with the Finish in one write.
        exports.append(world.capability(7))
    assert len(set(exports)) == world.count() == 20
    world.peer.send(*(release(export, 1) for export in exports))
    assert world.count() == 0


def test_d12_an_answer_that_needs_no_finish_leaves_its_id_free(world: World) -> None:
    for _ in range(20):
        world.peer.send(world.frame(7, "journal"))
        reply = world.answer(7)
        with RPC.Message.from_bytes(reply.frame) as found:
            needs_finish = not getattr(found, "return").noFinishNeeded
        if needs_finish:
            world.peer.send(finish(7))
    # One that is not needed is ignored.
    world.peer.send(finish(7))
    assert world.count() == 0


def test_d12_ours_may_need_no_finish_too(world: World) -> None:
    called = world.send("call", table=[("senderHosted", OURS)], data=(20,))
    for total in range(20):
        build = RPC.Message.new_message()
        answer = build.init("return")
        answer.answerId, answer.noFinishNeeded = world.next("call").id, True
        results = answer.init("results").content
        results.as_struct(SCHEMA.Cell.schema.methods["add"].result_type).total = total
        world.peer.send(encoded(build))
    assert world.total(called) == 19
    world.peer.send(finish(called))
    world.is_let_go()

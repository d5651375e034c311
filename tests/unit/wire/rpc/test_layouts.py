"""Messages in layouts that nobody thought of are read as `decode` and pycapnp read them.

A message has its objects in any order, over several segments, with gaps between them, sections
longer than the schema has them, and near, far and double-far pointers.
"""

import struct
from dataclasses import replace
from random import Random
from typing import Any
from weakref import WeakValueDictionary

import pytest
from hypothesis import given
from hypothesis import strategies as st
from message_layouts import Bytes, Struct, Structs, Writer

from capnp_rig.schema import load_rpc
from capnp_rig.wire.encoding.frames import FrameDecoder
from capnp_rig.wire.encoding.pointers import (
    TRAVERSAL_LIMIT_WORDS,
    Message,
    StructTuple,
)
from capnp_rig.wire.errors import MalformedMessage
from capnp_rig.wire.rpc import layouts
from capnp_rig.wire.rpc.layouts import Layout, Layouts, call_at, id_at, two_at
from capnp_rig.wire.rpc.messages import (
    Bootstrap,
    Call,
    Finish,
    ImportedCap,
    Incoming,
    Release,
    Results,
    Return,
    Tag,
    Target,
    content_of,
    decode,
)

RPC = load_rpc()
words = st.integers(0, 2)
HOSTED = Structs([Struct(struct.pack("<HHI", 1, 0, 3), [None])])
u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))


@st.composite
def content(draw: st.DrawFn) -> Struct | None:
    if draw(st.booleans()):
        return None
    return Struct(draw(st.binary(max_size=3)) * 8, [None] * draw(words))


def longer(draw: st.DrawFn, data: bytes, pointers: list[Any]) -> Struct:
    """Return a struct as a newer schema may have it."""
    return Struct(data + b"\x55" * 8 * draw(words), pointers + [None] * draw(words))


@st.composite
def operations(draw: st.DrawFn) -> Structs | Bytes | None:
    if draw(st.booleans()):
        return draw(st.sampled_from([None, Bytes(b""), Structs([])]))
    size, path = (
        draw(st.integers(1, 2)),
        draw(st.lists(st.tuples(st.integers(0, 1), u16), max_size=8)),
    )
    return Structs([Struct(struct.pack("<HHI", *each, 7) * size, []) for each in path])


@st.composite
def payload(draw: st.DrawFn, table: Structs | Bytes | None) -> Struct | None:
    if draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from([None, Struct(b"", [])]))
    pointers = [draw(content()), table]
    return longer(draw, b"", pointers[: draw(st.sampled_from([1, 2, 2, 2]))])


@st.composite
def call(draw: st.DrawFn) -> Struct:
    if draw(st.booleans()):
        target = longer(draw, struct.pack("<IHH", draw(u32), 0, 0), [None])
    else:
        answer = longer(draw, struct.pack("<II", draw(u32), 0), [draw(operations())])
        target = longer(draw, struct.pack("<IHH", 9, 1, 0), [answer])
    table = draw(st.sampled_from([None, None, Bytes(b""), Structs([]), HOSTED]))
    sends_to = draw(st.sampled_from([0, 0, 0, 0, 1]))
    data = struct.pack("<IHHQ", draw(u32), draw(u16), sends_to, draw(u64))
    return longer(draw, data, [target, draw(payload(table))])


@st.composite
def answer(draw: st.DrawFn) -> Struct:
    table = draw(st.sampled_from([None, None, Bytes(b""), Structs([]), HOSTED]))
    which = draw(st.sampled_from([0, 0, 0, 2]))
    data = struct.pack("<IBBH", draw(u32), draw(st.integers(0, 3)), 0, which)
    return longer(draw, data, [draw(payload(table))])


@st.composite
def messages(draw: st.DrawFn) -> Struct:
    numbers = struct.pack("<II", draw(u32), draw(u32))
    tag, body = draw(
        st.one_of(
            st.tuples(st.just(Tag.CALL), call()),
            st.tuples(st.just(Tag.RETURN), answer()),
            *(
                st.tuples(st.just(tag), st.just(Struct(numbers, [])))
                for tag in (Tag.FINISH, Tag.RELEASE, Tag.BOOTSTRAP)
            ),
        )
    )
    return longer(draw, struct.pack("<Q", tag), [body])


def in_layout(layout: Layout, buffer: bytes, at: int) -> Incoming:
    """Return what a layout reads, as `decode` has it, but for params and results."""
    number, second = two_at(buffer, at + layout.body)
    if layout.kind == Tag.CALL:
        question_id, method_id, interface_id = call_at(buffer, at + layout.body)
        target = layout.target_in(id_at(buffer, at + layout.target)[0])
        return Call(question_id, interface_id, method_id, target, None)
    if layout.kind == Tag.RETURN:
        return Return(number, Results(None, ()), layout.no_finish_needed, not second & 1)
    if layout.kind == Tag.FINISH:
        return Finish(number, not second & 1)
    return Release(number, second) if layout.kind == Tag.RELEASE else Bootstrap(number)


def by_reference(message: Message) -> tuple[Incoming, StructTuple | None]:
    decoded = decode(message)
    if isinstance(decoded, Call):
        return replace(decoded, params=None), content_of(decoded.params)
    if isinstance(decoded, Return) and isinstance(decoded.outcome, Results):
        results = content_of(decoded.outcome.content)
        return replace(decoded, outcome=replace(decoded.outcome, content=None)), results
    return decoded, None


def cut(frame: bytes) -> Message:
    (message,) = FrameDecoder().feed(frame)
    return message


def relative(content: StructTuple | None, at: int) -> tuple[Any, ...] | None:
    """Return where content lies from the frame's start at `at`, and what is left of its limits."""
    if content is None:
        return None
    message, *places, depth = content
    bounds = [(start - at, end - at) for start, end in message.bounds]
    return [place - at for place in places], depth, message.budget_words, bounds


def moved(root: Struct, chance: Random) -> Struct:
    """Return the same message with other numbers where a peer changes them from call to call."""
    (body,) = root.pointers[:1]
    assert isinstance(body, Struct)
    data = bytearray(body.data)
    data[:4] = chance.randbytes(4)
    return Struct(root.data, [Struct(bytes(data), body.pointers), *root.pointers[1:]])


@given(messages(), st.integers(0, 2**32), st.integers(1, 3), st.booleans(), st.booleans())
def test_any_layout_is_read_as_decode_and_pycapnp_read_it(
    root: Struct, seed: int, segments: int, gaps: bool, fars: bool
) -> None:
    """Also when it comes again with other numbers, when its layout is known."""
    layouts = Layouts()
    for again in range(3):
        chance = Random(seed + again)
        frame = Writer(seed, segments=segments, gaps=gaps, fars=fars).frame(moved(root, chance))
        found = read(layouts, frame, at=8 * again)
        expected = by_reference(cut(frame))
        if found is not None:
            assert found == (expected[0], relative(expected[1], 0))
            check_by_pycapnp(frame, *expected)
        # What `decode` is needed for: results elsewhere, capabilities, null structs on the way.
        assert found is not None or is_rare(root, expected[0])


@given(
    messages(), st.integers(0, 2**32), st.integers(1, 3), st.booleans(), st.booleans(), st.data()
)
def test_what_has_changed_is_read_as_decode_reads_it_or_not_at_all(
    root: Struct, seed: int, segments: int, gaps: bool, fars: bool, data: st.DataObject
) -> None:
    layouts = Layouts()
    frame = Writer(seed, segments=segments, gaps=gaps, fars=fars).frame(root)
    read(layouts, frame)
    read(layouts, frame)
    changed = bytearray(frame)
    # Behind the segment table.
    at = data.draw(st.integers(8 * (segments // 2 + 1), len(frame) - 1))
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    found = read(layouts, bytes(changed))
    try:
        expected = by_reference(cut(bytes(changed)))
    except MalformedMessage:
        assert found is None
    else:
        assert found is None or found == (expected[0], relative(expected[1], 0))


def read(
    layouts: Layouts, frame: bytes, at: int = 0
) -> tuple[Incoming, tuple[Any, ...] | None] | None:
    """Return what the frame says by its layout, with bytes of others in front and behind."""
    buffer = b"\xaa" * at + frame + b"\xaa" * 9
    end = at + len(frame)
    assert layouts.find(buffer, at, end - 1) is None
    layout, content = layouts.find(buffer, at, end), None
    if layout is not None:
        assert layout.frame_bytes == len(frame)
        content = layout.content_in(buffer, at, TRAVERSAL_LIMIT_WORDS)
    else:
        bounds = tuple((start + at, stop + at) for start, stop in cut(frame).bounds)
        layout, content = layouts.trace(Message(buffer, bounds), at)
    if layout is None:
        return None
    return in_layout(layout, buffer, at), relative(content, at)


def is_rare(root: Struct, decoded: Incoming) -> bool:
    if isinstance(decoded, Return):
        return not isinstance(decoded.outcome, Results) or bool(decoded.outcome.cap_table)
    return isinstance(decoded, Call) and bool(decoded.results_to or decoded.cap_table)


def check_by_pycapnp(frame: bytes, decoded: Incoming, content: StructTuple | None) -> None:
    with RPC.Message.from_bytes(frame) as message:
        if isinstance(decoded, Call):
            call = message.call
            numbers = call.questionId, call.interfaceId, call.methodId
            assert numbers == (decoded.question_id, decoded.interface_id, decoded.method_id)
            check_target(call.target, decoded.target)
            check_content(call.params, content)
        elif isinstance(decoded, Return):
            answer = getattr(message, "return")
            numbers = answer.answerId, answer.noFinishNeeded
            assert numbers == (decoded.answer_id, decoded.no_finish_needed)
            check_content(answer.results, content)
        elif isinstance(decoded, Finish):
            finish = message.finish
            assert finish.questionId == decoded.question_id
            assert finish.releaseResultCaps == decoded.release_result_caps
        elif isinstance(decoded, Release):
            assert message.release.id == decoded.export_id
            assert message.release.referenceCount == decoded.reference_count
        else:
            assert isinstance(decoded, Bootstrap)
            assert message.bootstrap.questionId == decoded.question_id


def check_target(target: Any, decoded: Target) -> None:
    if isinstance(decoded, ImportedCap):
        assert target.importedCap == decoded.import_id
        return
    assert target.promisedAnswer.questionId == decoded.question_id
    steps = target.promisedAnswer.transform
    path = [each.getPointerField for each in steps if each.which() == "getPointerField"]
    assert tuple(path) == decoded.path


def check_content(payload: Any, content: StructTuple | None) -> None:
    # Any struct of one number reads it.
    number = payload.content.as_struct(RPC.Bootstrap).questionId
    data = b"" if content is None else content[0].buffer[content[3] : content[4]]
    assert number == int.from_bytes(data[:4], "little")


def call_frame(params_words: int, path: list[Struct]) -> bytes:
    answer = Struct(struct.pack("<II", 5, 0), [Structs(path)])
    target = Struct(struct.pack("<IHH", 0, 1, 0), [answer])
    params = Struct(b"x" * 8 * params_words, [])
    body = Struct(struct.pack("<IHHQ", 1, 2, 0, 3), [target, Struct(b"", [params])])
    root = Struct(struct.pack("<Q", Tag.CALL), [body])
    return Writer(0, segments=1, gaps=False, fars=False).frame(root)


def test_a_list_that_announces_more_than_it_holds_has_no_layout() -> None:
    frame = call_frame(1, [Struct(struct.pack("<HHI", 1, 7, 0), [])])
    assert read(Layouts(), frame) is not None
    tag = struct.pack("<II", 1 << 2, 1)
    assert frame.count(tag) == 1
    announced = frame.replace(tag, struct.pack("<II", 2 << 2, 1))
    with pytest.raises(MalformedMessage, match="overrun"):
        decode(cut(announced))
    assert read(Layouts(), announced) is None


def field_call(number: int, params_words: int = 1) -> bytes:
    """Return a call to a field, by its number: that is a part of the layout."""
    return call_frame(params_words, [Struct(struct.pack("<HHI", 1, number, 0), [])])


def test_messages_of_one_size_may_have_several_layouts() -> None:
    frames = [field_call(number) for number in range(8)]
    connection = Layouts()
    for frame in [frames[0], *frames]:
        read(connection, frame)
    # More are traced each time, and push none out.
    for frame in 2 * [field_call(8), field_call(9)]:
        assert read(connection, frame) is not None
        assert connection.find(frame, 0, len(frame)) is None
    assert all(connection.find(frame, 0, len(frame)) for frame in frames)


def test_layouts_are_bounded_in_a_connection_and_in_all_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layouts, "_MAX_LEARNT", 100)
    monkeypatch.setattr(layouts, "_ANEW", 500)
    monkeypatch.setattr(layouts, "_MAX_LAYOUTS", 120)
    # Not those of connections that tests before this one have left behind.
    shared: Any = WeakValueDictionary()
    monkeypatch.setattr(layouts, "_shared", shared)
    connections = [Layouts() for _ in range(3)]
    for number, connection in enumerate(connections):
        for size in range(200):
            frame = field_call(number, size)
            assert read(connection, frame) == read(connection, frame) == read(connection, frame)
            assert len(connection._known) <= 100
            assert len(shared) <= 120
        # The latest sizes are learnt, too, if there is room.
        assert connection.find(frame, 0, len(frame)) or number
    del connection, connections
    assert not shared

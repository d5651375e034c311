import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from capnp_rig import schema
from capnp_rig.loadtest.workload import (
    Request,
    Workload,
    WorkloadConfig,
    WorkloadError,
    load_workload,
    read_params_argument,
)
from capnp_rig.loadtest.workload.templates import Source
from capnp_rig.wire.encoding.structs import StructCodec

DATA = Path(__file__).parents[3] / "data"
SCHEMA = str(DATA / "workload.capnp")
CONTENT = '{"request": {"content": "%s"}}'


def workload(**config: Any) -> Workload:
    return load_workload(WorkloadConfig(**config), clock=lambda: 77)


def geometry(method: str, **config: Any) -> Workload:
    return workload(schema=SCHEMA, interface="Geometry", method=method, **config)


def sent(workload: Workload, request: Request) -> Any:
    """Return the view that a server has of a request's params."""
    sizes, parts, words = request.params
    body = b"".join(parts)
    assert len(body) == 8 * words
    head = b"".join(n.to_bytes(4, "little") for n in (0, words + 1, 0, sizes))
    return workload.method.params.from_bytes(head + body)


def contents(workload: Workload, count: int, *, user: int = 0, in_flight: int = 1) -> list[str]:
    requests = islice(workload.requests(user, in_flight), count)
    return [sent(workload, request).request.content for request in requests]


def reply(workload: Workload, fields: dict[str, Any]) -> Any:
    codec: StructCodec = workload.method.results
    return codec.from_bytes(codec.to_bytes(fields))


def faults(workload: Workload, requests: Iterator[Request], chunks: list[bytes]) -> list[Any]:
    return [
        request.check(reply(workload, {"chunk": chunk}))
        for request, chunk in zip(requests, chunks, strict=False)
    ]


# --- generated texts ------------------------------------------------------------------------


@pytest.mark.parametrize("payload_bytes", [16, 17, 23, 24, 32, 1000, 5000])
def test_texts_fill_the_payload_and_expect_their_own_reverse(payload_bytes: int) -> None:
    made = workload(payload_bytes=payload_bytes)
    assert made.label == "MessageStream.read"
    texts = contents(made, 9, in_flight=4)
    assert len(set(texts)) == 9
    assert {len(text.encode()) for text in texts} == {payload_bytes}
    replies = [text[::-1].encode() for text in texts]
    assert faults(made, made.requests(0, 4), replies) == [None] * 9
    assert faults(made, made.requests(0, 4), replies[1:]) == ["wrong reply"] * 8
    # Cut short, longer at the end, empty, another start, longer between text and nonce.
    other = [replies[0][:-1], replies[1] + b"x", b"", b"\0" + replies[3][1:]]
    other.append(replies[4][:-16] + b"x" + replies[4][-16:])
    assert faults(made, made.requests(0, 4), other) == ["wrong reply"] * 5


def test_texts_are_what_the_codec_packs() -> None:
    made = workload(payload_bytes=37)
    for request in islice(made.requests(5, 2), 5):
        content = sent(made, request).request.content
        sizes, parts, words = made.method.params.pack({"request": {"content": content}})
        found = request.params
        assert (found[0], b"".join(found[1]), found[2]) == (sizes, b"".join(parts), words)


def test_texts_are_those_of_the_seed_and_not_only_ascii() -> None:
    texts = contents(workload(payload_bytes=64), 3)
    assert texts == contents(workload(payload_bytes=64), 3)
    assert texts != contents(workload(payload_bytes=64, seed=2), 3)
    assert not all(text.isascii() for text in texts)


@pytest.mark.parametrize("payload_bytes", [1, 5, 15, 16, 32])
def test_no_two_requests_of_a_run_are_equal(payload_bytes: int) -> None:
    made = workload(payload_bytes=payload_bytes)
    texts = [text for user in range(70) for text in contents(made, 9, user=user, in_flight=4)]
    assert len(set(texts)) == 70 * 9


@pytest.mark.parametrize(("payload_bytes", "size"), [(1, 4), (4, 4), (5, 5), (15, 15)])
def test_a_payload_too_small_for_a_nonce_is_as_small_as_it_can_be(
    payload_bytes: int, size: int
) -> None:
    made = workload(payload_bytes=payload_bytes)
    texts = contents(made, 3)
    assert {len(text) for text in texts} == {size}
    replies = [text[::-1].encode() for text in texts]
    assert faults(made, made.requests(0, 1), replies) == [None] * 3
    assert faults(made, made.requests(1, 1), replies) == ["wrong reply"] * 3


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({}, 9),
        ({"payload_bytes": 1}, 9),
        ({"text": "hello"}, 9),
        # As many as 9 that are a multiple of the lines.
        ({"corpus": "a\nb\nc\nd"}, 12),
        ({"params": "{}\n{}"}, 2),
    ],
)
def test_requests_that_repeat_are_a_cycle_of_the_same_objects(
    config: dict[str, Any], length: int
) -> None:
    made = workload(**config)
    assert made.is_repeating
    requests = list(islice(made.requests(3, 4), 2 * length))
    assert len(set(requests)) == length
    assert requests[:length] == requests[length:]


LARGE = json.dumps({"request": {"content": "x" * 5000}})


@pytest.mark.parametrize(
    "config",
    [
        {"payload_bytes": 1 << 20},
        {"corpus": "\n".join(map(str, range(257)))},
        {"params": LARGE},
        {"params": "{}\n" * 257},
        {"params": CONTENT % "{{i}}"},
        {"params": CONTENT % "a" + "\n" + CONTENT % "{{i}}"},
        {"params": CONTENT % "a", "expect": '{"chunk": "{{i}}"}'},
    ],
)
def test_requests_are_new_where_they_are_large_or_many_or_templated(config: dict[str, Any]) -> None:
    made = workload(**config)
    assert not made.is_repeating
    assert len(set(islice(made.requests(3, 1), 600))) == 600


def test_large_texts_share_their_bytes() -> None:
    made = workload(payload_bytes=1 << 20)
    requests = [r for user in range(4) for r in islice(made.requests(user, 16), 33)]
    assert len({id(request.params[1][-1]) for request in requests}) == 1
    assert len({bytes(request.params[1][0]) for request in requests}) == 4 * 33
    assert sum(len(request.params[1][0]) for request in requests) < 10_000


def test_a_text_is_sent_behind_a_nonce() -> None:
    made = workload(text="grün 🙂")
    texts = contents(made, 3)
    assert [text[16:] for text in texts] == ["grün 🙂"] * 3
    assert faults(made, made.requests(0, 1), [text[::-1].encode() for text in texts]) == [None] * 3


def test_the_lines_of_a_corpus_are_sent_in_turn() -> None:
    made = workload(corpus="a\n\nbb\nc\n")
    assert [text[16:] for text in contents(made, 7)] == ["a", "bb", "c", "a", "bb", "c", "a"]
    # Another connection starts elsewhere.
    assert [text[16:] for text in contents(made, 3, user=1)] == ["bb", "c", "a"]


# --- params ---------------------------------------------------------------------------------


def test_a_schema_is_loaded_with_its_import_path(tmp_path: Path) -> None:
    file = tmp_path / "own.capnp"
    file.write_text(
        '@0xb8a5a1cb73f3b202;\ninterface Own extends(import "/workload.capnp".Geometry) {}\n'
    )
    config = WorkloadConfig(schema=str(file), import_path=(str(DATA),), method="move")
    assert load_workload(config).label == "Own.move"
    # As an engine gets it, in JSON.
    plain = json.loads(json.dumps(asdict(config)))
    assert load_workload(WorkloadConfig(**plain)).label == "Own.move"
    with pytest.raises(WorkloadError, match=r"/workload\.capnp, which is in none of .* -I DIR"):
        workload(schema=str(file))
    with pytest.raises(WorkloadError, match=r"the import path \(-I\) goes with a schema"):
        workload(import_path=(str(DATA),))


def test_lines_are_sent_in_turn_and_each_is_expected_its_own() -> None:
    made = geometry(
        "move",
        params='{"by": 1}\n\n{"by": 2}\n{"by": 3}',
        expect='{"point": {"x": 1}}\n{}\n{"point": {"x": 3, "z": 4}}',
    )
    assert (made.label, made.is_repeating) == ("Geometry.move", True)
    requests = list(islice(made.requests(1, 1), 4))
    assert [sent(made, request).by for request in requests] == [2, 3, 1, 2]
    right = reply(made, {"point": {"x": 3, "z": 5}})
    assert [request.check(right) for request in requests] == [
        None,
        "wrong reply: field point.z",
        "wrong reply: field point.x",
        None,
    ]


def test_params_of_generic_types_are_those_of_their_brand() -> None:
    """``turn`` takes a Pair(Text, Data) and answers a Pair(Data, Text)."""
    made = workload(
        schema=str(DATA / "generics.capnp"),
        interface="TextStore",
        method="turn",
        params='{"first": "call {{i}}", "second": "text {{i}}"}\n{"first": "f", "second": "/w=="}',
        expect='{"first": "/w==", "second": "{{i}}"}',
    )
    templated, plain = islice(made.requests(0, 1), 2)
    assert sent(made, templated).to_dict() == {"first": "call 0", "second": b"text 0"}
    assert sent(made, plain).to_dict() == {"first": "f", "second": b"\xff"}
    assert plain.check(reply(made, {"first": b"\xff", "second": "1"})) is None
    for wrong, answer in (("first", {"first": b"", "second": "1"}), ("second", {"first": b"\xff"})):
        assert plain.check(reply(made, answer)) == f"wrong reply: field {wrong}"


def test_replies_of_generic_types_are_compared_with_the_first_one() -> None:
    made = workload(schema=str(DATA / "generics.capnp"), interface="TextStore", method="all")
    # There is nothing in them that JSON could not give.
    assert made.unchecked == ()
    (request,) = islice(made.requests(0, 1), 1)
    answer = {"pairs": [{"first": "f", "second": b"\xff"}]}
    assert request.check(reply(made, answer)) is None
    assert request.check(reply(made, answer)) is None
    assert "not the first one" in str(request.check(reply(made, {"pairs": []})))


def test_one_expectation_goes_with_all_lines() -> None:
    made = geometry("move", params="{}\n{}", expect='{"point": {"x": 1}}')
    for request in islice(made.requests(0, 1), 4):
        assert request.check(reply(made, {"point": {"x": 1}})) is None
        assert request.check(reply(made, {})) == "wrong reply: field point.x"


def test_without_expectation_what_can_be_read_is_right() -> None:
    made = geometry("move")
    (request,) = islice(made.requests(0, 1), 1)
    assert sent(made, request).to_dict()["by"] == 0
    assert request.check(reply(made, {"point": {"x": 1}})) is None


@pytest.mark.parametrize(
    ("params", "chunk"),
    [
        ("{}", b""),
        ('{"request": {}}', b""),
        (CONTENT % "grün", "nürg".encode()),
        (CONTENT % "{{i}}-{{user}}-{{time_ns}}", b"77-21-0"),
    ],
)
def test_the_tutorials_reply_follows_from_its_params(params: str, chunk: bytes) -> None:
    made = workload(params=params)
    (request,) = islice(made.requests(12, 1), 1)
    assert request.check(reply(made, {"chunk": chunk})) is None
    assert request.check(reply(made, {"chunk": chunk + b"x"})) == "wrong reply"


def test_an_expectation_replaces_what_the_tutorial_answers() -> None:
    made = workload(params=CONTENT % "ab", expect='{"chunk": "eHl6"}')
    (request,) = islice(made.requests(0, 1), 1)
    assert request.check(reply(made, {"chunk": b"xyz"})) is None
    assert request.check(reply(made, {"chunk": b"ba"})) == "wrong reply: field chunk"


def test_params_and_expectation_of_a_request_have_the_same_values() -> None:
    made = geometry(
        "move",
        params='{"by": "{{i}}", "name": "{{uuid}} {{user}}"}\n'
        '{"by": "{{i}}", "name": "{{uuid}} {{time_ns}}"}',
        expect='{"point": {"x": "{{i}}"}}',
    )
    one, two = made.requests(4, 2), made.requests(5, 2)
    requests = [next(one), next(two), next(one)]
    views = [sent(made, request) for request in requests]
    assert [view.by for view in views] == [0, 1, 2]
    # Drawn as the first two of this connection.
    drawn = Source(frozenset({"uuid"}), first=0, step=1, seed=1, clock=int).values(4)
    assert [views[0].name, views[2].name] == [f"{next(drawn)[2]} 4", f"{next(drawn)[2]} 77"]
    # Whatever the order of the replies.
    for number in (2, 0, 1):
        right, wrong = ({"point": {"x": x}} for x in (number, number + 1))
        assert requests[number].check(reply(made, right)) is None
        assert requests[number].check(reply(made, wrong)) == "wrong reply: field point.x"


def test_processes_share_out_the_numbers() -> None:
    config = WorkloadConfig(params=CONTENT % "{{i}}")
    made = [load_workload(config, first=first, step=2) for first in (0, 1)]
    assert [contents(each, 3) for each in made] == [["0", "2", "4"], ["1", "3", "5"]]


def test_a_union_member_without_a_value_is_sent() -> None:
    made = geometry("plain", params='{"plain": {"none": null, "number": 7}}')
    view = sent(made, next(made.requests(0, 1)))
    assert (view.plain.which(), view.plain.number) == ("none", 7)


# --- what is called, and mistakes -----------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "label", "inherited"),
    [
        ({}, "MessageStream.read", False),
        ({"schema": "message.capnp", "method": "read"}, "MessageStream.read", False),
        ({"schema": "tensor.capnp"}, "TensorService.describe", False),
        ({"schema": SCHEMA, "interface": "Measured"}, "Measured.measure", False),
        (
            {"schema": SCHEMA, "interface": "Geometry", "method": "measure"},
            "Geometry.measure",
            True,
        ),
        ({"schema": SCHEMA, "interface": "Geometry.Callback"}, "Geometry.Callback.done", False),
    ],
)
def test_a_name_left_out_is_the_only_one(
    config: dict[str, Any],
    label: str,
    inherited: bool,
) -> None:
    made = workload(**config)
    assert made.label == label
    assert (made.method.interface_id != made.interface.id) is inherited
    assert list(islice(made.requests(0, 1), 2))


def test_a_copy_of_the_tutorials_schema_is_the_tutorials(tmp_path: Path) -> None:
    copy = tmp_path / "copy.capnp"
    copy.write_text((Path(schema.__file__).parent / "message.capnp").read_text())
    made = workload(schema=str(copy))
    assert made.label == "MessageStream.read"
    assert len(contents(made, 3)) == 3


NAMES = "Measured, Geometry, Geometry.Callback, Outer.Nothing"
METHODS = "move, kinds, plain, rare, watch, open, measure"
MOVE = {"schema": SCHEMA, "interface": "Geometry", "method": "move"}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"schema": "/no/such.capnp"}, "no schema file at /no/such.capnp"),
        (
            {"schema": SCHEMA},
            f"workload.capnp has several interfaces, name one of them: {NAMES}",
        ),
        (
            {"schema": SCHEMA, "interface": "Foo"},
            f"no interface 'Foo' in workload.capnp: it has {NAMES}",
        ),
        ({"interface": "Foo"}, "no interface 'Foo' in message.capnp: it has MessageStream"),
        ({"schema": str(DATA / "probe.capnp"), "method": "x"}, "no method 'x' in Probe: it has "),
        (
            {"schema": SCHEMA, "interface": "Geometry"},
            f"Geometry has several methods, name one of them: {METHODS}",
        ),
        ({"schema": SCHEMA, "interface": "Outer.Nothing"}, "Outer.Nothing has no method"),
        (
            {"schema": SCHEMA, "interface": "Geometry", "method": "watch"},
            (
                "Geometry.watch takes a capability, callback, which no JSON gives: "
                "choose another method"
            ),
        ),
        (
            {"schema": SCHEMA, "interface": "Geometry", "method": "open"},
            "Geometry.open takes an AnyPointer, what, which no JSON gives: choose another method",
        ),
        ({"payload_bytes": 0}, "the payload must be at least 1 byte, not 0"),
        (
            {"payload_bytes": 5_000_000},
            "the payload: 5000000 bytes are more than a message holds, 4194176",
        ),
        (
            {"text": "x" * 4_194_200},
            "the text: 4194240 bytes are more than a message holds, 4194176",
        ),
        ({"text": "\ud800"}, "a text is not valid Unicode: surrogates not allowed"),
        ({"corpus": "\n\n"}, "no text to send"),
        ({"corpus": "a", "text": "b"}, "text and corpus exclude each other: give one of them"),
        ({"expect": "{}"}, "expect goes with params: generated texts have replies of their own"),
        (
            {"params": "{}", "text": "a"},
            "text is for MessageStream.read without params: leave it out",
        ),
        ({**MOVE, "corpus": "a"}, "corpus is for MessageStream.read without params: leave it out"),
        ({**MOVE, "params": "{}\n{}", "expect": "{}\n{}\n{}"}, "expect has 3 lines, params 2: "),
        ({**MOVE, "expect": "{}\n{}"}, "expect has 2 lines, params 1: give one, or as many"),
        (
            {**MOVE, "params": '{}\n{}\n{"by": 128}'},
            "params line 3: by: 128 is out of range for Int8 (-128 to 127)",
        ),
        (
            {**MOVE, "params": '{"point": {"y": 1}}'},
            "params: point: no field 'y' in Point: it has x, z",
        ),
        ({**MOVE, "params": '{}\n{"by": }'}, "params line 2, column 8: Expecting value"),
        ({**MOVE, "params": ""}, "params: there is no JSON object"),
        (
            {**MOVE, "expect": '{"by": 1}'},
            "expect: no field 'by' in the results of move: it has point",
        ),
        ({**MOVE, "expect": "{"}, "expect line 1, column 2: Expecting property name"),
    ],
)
def test_a_mistake_names_its_place(config: dict[str, Any], said: str) -> None:
    with pytest.raises(WorkloadError) as error:
        workload(**config)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("@0xa3f1c86d27b945e1;\nstruct A { x @0 :Foo; }\n", "bad.capnp:2: Not defined: Foo"),
        ("@0xa3f1c86d27b945e2;\nstruct A {}\n", "bad.capnp has no interface"),
    ],
)
def test_a_schema_that_cannot_be_used_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "bad.capnp"
    file.write_text(text)
    with pytest.raises(WorkloadError) as error:
        workload(schema=str(file))
    assert said in str(error.value)


def test_an_argument_may_name_a_file(tmp_path: Path) -> None:
    file = tmp_path / "params.json"
    file.write_bytes(b'\xef\xbb\xbf{"x": "\xc3\xa9"}\r\n')
    assert read_params_argument('{"x": 1}') == '{"x": 1}'
    assert json.loads(read_params_argument(f"@{file}")) == {"x": "é"}
    file.write_bytes(b"\xff")
    with pytest.raises(WorkloadError, match=r"cannot read .*params\.json: it is not UTF-8 text"):
        read_params_argument(f"@{file}")
    with pytest.raises(WorkloadError, match="cannot read /no/such: No such file or directory"):
        read_params_argument("@/no/such")


@pytest.mark.parametrize("text", ["", "x", "y" * 5000])
def test_a_packed_message_instead_of_params_is_named(tmp_path: Path, text: str) -> None:
    build = schema.load_rpc().Exception.new_message(reason=text)
    path = tmp_path / "params.bin"
    path.write_bytes(build.to_bytes_packed())
    with pytest.raises(WorkloadError, match="it looks like packed Cap'n Proto, not like JSON"):
        read_params_argument(f"@{path}")


def test_a_config_travels_as_json() -> None:
    config = WorkloadConfig(params="{}", corpus=None, seed=3)
    assert WorkloadConfig(**json.loads(json.dumps(asdict(config)))) == config

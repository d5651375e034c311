import json
from itertools import islice
from pathlib import Path
from typing import Any

import capnp
import pytest

from capnp_rig.loadtest.stats.reasons import ReasonCode
from capnp_rig.loadtest.workload import Workload, WorkloadConfig, load_workload
from capnp_rig.loadtest.workload.checks import NOT_FIRST, EqualToFirst, json_text, readable
from capnp_rig.schema import load_schema
from capnp_rig.wire.rpc.interfaces import compile_interface

DATA = Path(__file__).parents[3] / "data"
SCHEMA = str(DATA / "workload.capnp")


def geometry(method: str, **config: Any) -> Workload:
    asked = WorkloadConfig(schema=SCHEMA, interface="Geometry", method=method, **config)
    return load_workload(asked, clock=lambda: 77)


def reply(workload: Workload, fields: dict[str, Any]) -> Any:
    codec = workload.method.results
    return codec.from_bytes(codec.to_bytes(fields))


# --- the first reply ------------------------------------------------------------------------


def test_a_reply_to_constant_params_must_equal_the_first_one() -> None:
    made = geometry("move")
    one, other = next(made.requests(0, 1)), next(made.requests(1, 1))
    assert one.check.expected() == ""
    right, wrong = ({"point": {"x": x, "z": 4}} for x in (3, 7))
    answers = [request.check(reply(made, right)) for request in (one, other)]
    # Whatever the connection.
    answers += [request.check(reply(made, wrong)) for request in (one, other)]
    assert answers == [None, None, NOT_FIRST, NOT_FIRST]
    assert one.check.expected() == '{"point": {"x": 3, "z": 4}}'
    assert one.check(reply(made, right)) is None


def test_each_line_of_params_has_a_first_reply_of_its_own() -> None:
    made = geometry("move", params='{"by": 1}\n{"by": 2}')
    for x, request in enumerate(islice(made.requests(0, 1), 2)):
        assert request.check(reply(made, {"point": {"x": x}})) is None
    came = {place: text for place, (_, _, text) in made.firsts.items()}
    assert came == {
        "params line 1": '{"point": {"x": 0, "z": 0}}',
        "params line 2": '{"point": {"x": 1, "z": 0}}',
    }
    requests = [request for _, request, _ in made.firsts.values()]
    assert [text[:8] for text in requests] == ['{"by": 1', '{"by": 2']
    digests = {digest for digest, _, _ in made.firsts.values()}
    assert len(digests) == 2


def test_the_same_values_in_another_layout_are_the_same_reply() -> None:
    made = geometry("kinds")
    request = next(made.requests(0, 1))
    values = {"kinds": {"text": "grün", "ints": [1, 2, 3], "inner": {"number": 5}, "f64": -0.0}}
    assert request.check(reply(made, values)) is None
    results = load_schema(SCHEMA).Geometry.schema.methods["kinds"].result_type
    module = capnp._StructModule(results, "results")
    # Segments of one word: what each pointer points to is somewhere else.
    builder = module.new_message(num_first_segment_words=1)
    builder.from_dict(values)
    frame = builder.to_bytes()
    segments = int.from_bytes(frame[:4], "little") + 1
    assert segments > 1
    assert request.check(made.method.results.from_bytes(frame)) is None
    assert request.check(reply(made, {"kinds": values["kinds"] | {"u64": 1}})) == NOT_FIRST


@pytest.mark.parametrize("one", [float("nan"), float("inf"), -0.0, 1.5])
def test_floats_are_compared_by_what_they_say(one: float) -> None:
    made = geometry("measure")
    request = next(made.requests(0, 1))
    assert request.check(reply(made, {"area": one})) is None
    assert request.check(reply(made, {"area": one})) is None
    assert request.check(reply(made, {"area": 2.5})) == NOT_FIRST


# --- what nobody compares -------------------------------------------------------------------

TEMPLATE = '{"name": "{{i}}"}'


@pytest.mark.parametrize(
    ("method", "config", "codes", "is_compared"),
    [
        ("move", {}, [], True),
        ("move", {"params": TEMPLATE}, [ReasonCode.NO_EXPECT], False),
        ("move", {"params": TEMPLATE + "\n{}"}, [ReasonCode.NO_EXPECT], True),
        ("move", {"expect": '{"point": {"x": 1, "z": 2}}'}, [], True),
        ("move", {"params": TEMPLATE, "expect": '{"point": {"x": 1, "z": 2}}'}, [], True),
        ("move", {"expect": '{"point": {"x": 1}}'}, [ReasonCode.FIELDS_LEFT_OUT], True),
        ("move", {"expect": "{}"}, [ReasonCode.EMPTY_EXPECT], False),
        ("watch", {}, [ReasonCode.NO_VALUES], False),
        ("measure", {"expect": '{"area": 1}'}, [ReasonCode.FIELDS_LEFT_OUT], True),
        ("measure", {}, [ReasonCode.CAPABILITIES], True),
    ],
)
def test_what_nobody_compares_is_known(
    method: str, config: dict[str, Any], codes: list[ReasonCode], is_compared: bool
) -> None:
    if method == "watch":
        asked = WorkloadConfig(schema=SCHEMA, interface="Geometry.Callback", **config)
        made = load_workload(asked)
    else:
        made = geometry(method, **config)
    assert ([reason.code for reason in made.unchecked], made.is_compared) == (codes, is_compared)


def test_texts_are_compared_in_full() -> None:
    for config in (
        WorkloadConfig(),
        WorkloadConfig(payload_kind="binary"),
        WorkloadConfig(text="a"),
    ):
        made = load_workload(config)
        assert (made.unchecked, made.is_compared) == ((), True)


def test_the_fields_that_expect_lacks_are_named() -> None:
    expect = '{"shape": {"corners": [{"x": 1}, {"x": 2, "z": 3}], "unit": "foot"}}'
    (reason,) = geometry("measure", expect=expect).unchecked
    fields = str(dict(reason.values)["fields"]).split(", ")
    assert fields[:2] == ["area", "shape.corners[].z"]
    assert {"shape.tags", "shape.next"} < set(fields)
    # Members of the union that is compared by its active one.
    assert not {"shape.radius", "shape.nothing", "shape.label"} & set(fields)


def test_fields_without_a_value_are_named_where_they_are() -> None:
    (reason,) = geometry("measure").unchecked
    assert dict(reason.values) == {"fields": "shape.any"}


def test_some_lines_with_templates_are_counted() -> None:
    (reason,) = geometry("move", params=f"{TEMPLATE}\n{{}}\n{TEMPLATE}").unchecked
    assert reason.text == (
        "content not checked: no --expect for 2 of 3 lines of params with templates"
    )


# --- as JSON --------------------------------------------------------------------------------


def test_a_reply_as_json_may_be_given_as_what_is_expected() -> None:
    made = geometry("measure")
    shape = {"corners": [{"x": 1}], "blobs": [b"\x00\xff"], "grid": [[1], []], "voids": [None]}
    results = reply(made, {"area": 1.5, "shape": shape | {"scale": {"factor": float("inf")}}})
    text = json_text(results)
    assert json.loads(text)["shape"]["blobs"] == ["AP8="]
    assert json.loads(text)["shape"]["scale"] == {"factor": "Infinity"}
    expecting = geometry("measure", expect=text)
    check = next(expecting.requests(0, 1)).check
    assert check(results) is None
    assert check(reply(made, {"area": 1.5, "shape": shape})) == (
        "wrong reply: field shape.scale.factor"
    )


def test_people_read_the_text_that_data_holds() -> None:
    codec = compile_interface(load_schema("message.capnp").MessageStream).methods["read"].results
    results = codec.from_bytes(codec.to_bytes({"chunk": "nürg\xff".encode() + b"\xfe"}))
    assert readable(results) == '{"chunk": "nürgÿ\\\\xfe"}'


def test_what_is_expected_and_sent_is_told_with_the_values_of_the_request() -> None:
    made = geometry("move", params=TEMPLATE, expect='{"point": {"x": "{{i}}"}}')
    request = list(islice(made.requests(0, 1), 4))[3]
    assert json.loads(made.text_of(request))["name"] == "3"
    assert request.check.expected() == '{"point": {"x": 3}}'


def test_a_watcher_sees_the_first_results_of_each_connection() -> None:
    seen: list[str] = []
    made = geometry("move").watched(lambda results: seen.append(json_text(results)), 1)
    for request, x in zip(islice(made.requests(0, 1), 3), (1, 1, 2), strict=True):
        assert request.check(reply(made, {"point": {"x": x}})) == (NOT_FIRST if x == 2 else None)
    assert seen == ['{"point": {"x": 1, "z": 0}}']
    made = geometry("move", expect='{"point": {"x": 2}}').watched(seen.append, 1, compares=False)
    (request,) = islice(made.requests(0, 1), 1)
    assert request.check(reply(made, {"point": {"x": 1}})) is None
    assert len(seen) == 2


CAPABILITIES = """@0xb3f1c86d27b945e1;
interface Opener {
    open @0 () -> (file :File, size :UInt32, any :AnyPointer);
    close @1 () -> (file :File);
    interface File {}
}
"""


def test_capabilities_are_not_compared_and_that_is_said(tmp_path: Path) -> None:
    file = tmp_path / "opener.capnp"
    file.write_text(CAPABILITIES)
    made, closing = (
        load_workload(WorkloadConfig(schema=str(file), interface="Opener", method=method))
        for method in ("open", "close")
    )
    assert [reason.text for reason in (*made.unchecked, *closing.unchecked)] == [
        "content not checked of file, any: no value to compare",
        "content not checked: the results have no value to compare",
    ]
    assert (made.is_compared, closing.is_compared) == (True, False)
    check = next(made.requests(0, 1)).check
    answers = [check(reply(made, {"size": size})) for size in (3, 3, 4)]
    assert answers == [None, None, NOT_FIRST]
    assert json.loads(check.expected())["size"] == 3


def test_the_bytes_of_a_few_right_replies_are_known() -> None:
    check = next(geometry("move").requests(0, 1)).check
    assert isinstance(check, EqualToFirst)
    frames = [bytes([number]) * 8 for number in range(3)]
    for frame in (*frames, b"x" * 10_000):
        assert not check.is_known(frame, 0, len(frame))
        check.keep(frame, 0, len(frame))
    assert [check.is_known(b"__" + frame, 2, 10) for frame in frames] == [True, True, True]
    # The first may be as large as it is; of others only small ones are kept.
    assert not check.is_known(b"x" * 10_000, 0, 10_000)
    assert not check.is_known(frames[0], 0, 7)

import json

import pytest

from capnp_rig.loadtest.stats.failures import (
    CallTexts,
    Examples,
    FailedCall,
    FailureNames,
    WrongReply,
    first_examples,
    kind_of,
    shown,
    with_call,
)
from capnp_rig.loadtest.stats.tally import Report, Tally, add
from capnp_rig.objects.errors import Disconnected, RemoteError


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("internal error [id 1f2e3d4c]", "internal error"),
        ("[id 77] at first", " at first"),
        ("two [id a] of them [id b-2]", "two of them"),
        ("internal error [not logged: there are too many like it]", "internal error"),
        ("no [idea] of that", "no [idea] of that"),
        ("a list [1, 2]", "a list [1, 2]"),
    ],
)
def test_a_reason_is_named_without_the_id_of_the_failure(text: str, reason: str) -> None:
    assert FailureNames().reason(RemoteError(text)) == reason


def test_failures_with_ids_of_their_own_are_one_kind_with_an_example() -> None:
    tally = Tally(open_ns=0)
    for number in range(100):
        tally.failed("read", 0, 5, RemoteError(f"internal error [id {number:08x}]"))
    report = tally.take()
    assert report.total.failures == {"RemoteError: internal error": 100}
    (example,) = report.examples
    assert (example.kind, example.text) == (
        "RemoteError: internal error",
        "RemoteError: internal error [id 00000000]",
    )


def wrong(number: int) -> Exception:
    texts = CallTexts(f"request {number}", "right", f"wrong {number}")
    return with_call(WrongReply("wrong reply"), lambda: texts)


def test_the_first_three_wrong_replies_are_kept_and_one_of_each_other_kind() -> None:
    examples = Examples()
    for number in range(5):
        examples.add("WrongReply: wrong reply", wrong(number))
        examples.add("Disconnected: gone", Disconnected("gone"))
    kept = examples.take()
    assert [each.came for each in kept if each.is_wrong] == ["wrong 0", "wrong 1", "wrong 2"]
    assert [each.kind for each in kept if not each.is_wrong] == ["Disconnected: gone"]
    examples.add("WrongReply: wrong reply", wrong(9))
    assert examples.take() == ()


def test_texts_are_made_for_the_examples_alone() -> None:
    made = 0

    def texts() -> CallTexts:
        nonlocal made
        made += 1
        return CallTexts()

    examples = Examples()
    for _ in range(1000):
        examples.add("WrongReply: w", with_call(WrongReply("w"), texts))
    assert made == 3


def test_examples_are_few_whatever_the_kinds() -> None:
    examples = Examples()
    for number in range(100):
        examples.add(f"kind {number}", RemoteError(f"{number}"))
    assert len(examples.take()) == 8


def test_examples_of_several_processes_are_the_first_three() -> None:
    parts = []
    for process in range(3):
        tally = Tally(open_ns=0)
        for number in range(2):
            tally.failed("read", 0, 5, wrong(10 * process + number))
        parts.append(tally.take())
    total = add(add(parts[0], parts[1]), parts[2])
    assert [each.came for each in total.examples] == ["wrong 0", "wrong 1", "wrong 10"]
    assert Report.from_json(json.loads(json.dumps(total.to_json()))).examples == total.examples


def test_what_is_shown_is_cut_and_steers_no_terminal() -> None:
    assert shown("a\x1b[2Jb\nc\x9b[id 1]\u202e") == "a\\x1b[2Jb\\nc\\x9b[id 1]\\u202e"
    text = shown("x" * 1000)
    assert (text[:201], text[201:]) == ("x" * 200 + "…", " (1,000 characters)")


@pytest.mark.parametrize("size", [300, 5_000, 1_000_000])
def test_long_replies_are_shown_from_shortly_before_their_difference(size: int) -> None:
    expected = "ab" * size
    came = expected[:size] + "#" + expected[size + 1 :]
    texts = CallTexts("request", expected, came)
    example = FailedCall.of("kind", with_call(WrongReply("w"), lambda: texts))
    assert "#" in example.came
    assert "#" not in example.expected
    assert example.came[:30] == example.expected[:30]
    assert max(len(example.came), len(example.expected)) < 300


def test_a_damaged_example_is_refused() -> None:
    plain = FailedCall("kind", "text").to_json()
    assert FailedCall.from_json(plain) == FailedCall("kind", "text")
    for damaged in (plain | {"came": 5}, {"kind": "kind"}, plain | {"is_wrong": "no"}):
        with pytest.raises(TypeError):
            FailedCall.from_json(damaged)
    assert first_examples([]) == ()
    assert kind_of(WrongReply("w")) == "WrongReply: w"

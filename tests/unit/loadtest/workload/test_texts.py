import itertools
import random

import pytest

from capnp_rig.client.errors import ConnectError
from capnp_rig.loadtest.engine.backoff import Backoff
from capnp_rig.loadtest.stats.failures import WrongReply, check_reply, describe_mismatch, kind_of
from capnp_rig.loadtest.workload.texts import (
    NONCE_CHARS,
    TextError,
    generate,
    parse_corpus,
    prepare,
    requests,
)


@pytest.mark.parametrize("size_bytes", [16, 17, 19, 32, 1_000])
def test_generated_texts_fill_their_size_and_repeat(size_bytes: int) -> None:
    texts = generate(size_bytes, seed=7)
    assert texts == generate(size_bytes, seed=7)
    assert {len(text.encode()) for text in texts} == {size_bytes - NONCE_CHARS}


def test_generated_texts_are_not_only_ascii() -> None:
    assert not all(text.isascii() for text in generate(64, seed=1))


def test_a_payload_without_room_for_its_nonce_is_refused() -> None:
    with pytest.raises(TextError, match="at least 16"):
        generate(15, seed=1)


def test_each_request_is_its_own_and_expects_its_own_reverse() -> None:
    texts = prepare(["abc", "grün 🙂"])
    sent = list(itertools.islice(requests(texts, 1), 50))
    sent += itertools.islice(requests(texts, 2), 50)
    assert len({content for content, _ in sent}) == 100
    for content, reply in sent:
        assert reply == content[::-1].encode()


@pytest.mark.parametrize(("contents", "what"), [([], "no text"), (["\ud800"], "not valid")])
def test_unusable_texts_are_refused(contents: list[str], what: str) -> None:
    with pytest.raises(TextError, match=what):
        prepare(contents)


def test_a_corpus_has_a_text_per_line() -> None:
    assert parse_corpus("one\n\ntwo\r\n") == ["one", "two"]


@pytest.mark.parametrize(
    ("reply", "what"), [(b"abd", "other bytes"), (b"ab", "another length"), (b"", "length")]
)
def test_a_wrong_reply_is_named_without_its_payload(reply: bytes, what: str) -> None:
    with pytest.raises(WrongReply, match=what):
        check_reply(reply, b"abc")
    check_reply(b"abc", b"abc")


def test_a_mismatch_says_where() -> None:
    said = describe_mismatch(b"abXdef", b"abcdef")
    assert said == "byte 2 of 6: got b'abXdef', expected b'abcdef' (6 bytes in all)"
    assert describe_mismatch(b"ab", b"abc").startswith("byte 2 of 3")


def test_kinds_have_type_and_reason() -> None:
    assert kind_of(ConnectError("refused")) == "ConnectError: refused"


def test_waits_grow_to_a_bound_with_jitter() -> None:
    backoff = Backoff(random.Random(1))
    waits = [backoff.next_s() for _ in range(50)]
    assert 0.08 <= waits[0] <= 0.12
    assert 0.128 <= waits[1] <= 0.192
    assert all(0.64 <= wait <= 0.96 for wait in waits[5:])
    assert len(set(waits[5:])) > 40
    backoff.reset()
    assert backoff.next_s() <= 0.12

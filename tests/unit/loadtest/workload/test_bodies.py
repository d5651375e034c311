import pytest

from capnp_rig.loadtest.stats.failures import WrongReply, check_reply, kind_of
from capnp_rig.loadtest.workload.bodies import NONCE_BYTES, random_texts
from capnp_rig.objects.errors import ConnectError


@pytest.mark.parametrize("size_bytes", [16, 17, 19, 32, 1_000])
def test_generated_texts_fill_their_size_and_repeat(size_bytes: int) -> None:
    texts = random_texts(size_bytes, seed=7)
    assert texts == random_texts(size_bytes, seed=7)
    assert {len(text.encode()) for text in texts} == {size_bytes - NONCE_BYTES}


def test_generated_texts_are_not_only_ascii() -> None:
    assert not all(text.isascii() for text in random_texts(64, seed=1))


@pytest.mark.parametrize(
    ("reply", "what"), [(b"abd", "other bytes"), (b"ab", "another length"), (b"", "length")]
)
def test_a_wrong_reply_is_named_without_its_payload(reply: bytes, what: str) -> None:
    with pytest.raises(WrongReply, match=what):
        check_reply(reply, b"abc")
    check_reply(b"abc", b"abc")


def test_kinds_have_type_and_reason() -> None:
    assert kind_of(ConnectError("refused")) == "ConnectError: refused"

"""What applications send: texts of every kind (faults.md, E)."""

import random
import time
from collections.abc import Iterator

import pytest
from raw_peer import assert_serves, call, raw_peer, read_words, to_list
from running_server import Running, running_server

from capnp_rig.schema import message
from capnp_rig.wire.errors import EncodeError
from capnp_rig.wire.rpc.client_connection import ClientConnection
from capnp_rig.wire.rpc.interfaces import compile_interface

READ = compile_interface(message.MessageStream).methods["read"]
SEED = 20260731


@pytest.fixture(scope="module", params=["wire", "pycapnp"])
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    with running_server("--workers", "2", "--engine", request.param) as running:
        workers = running.workers()
        yield running
        assert_serves(running, workers)


@pytest.mark.parametrize(
    "text",
    [b"\xff\xfe", b"\xed\xa0\x80", b"\xed\xb0\x80", b"\xc0\x80", b"ok\x80", b"\xf5\x80\x80\x80"],
    ids=["bytes", "high surrogate", "low surrogate", "long nul", "tail", "beyond unicode"],
)
def test_e1_text_that_is_not_utf8_is_a_typed_error(server: Running, text: bytes) -> None:
    with raw_peer(server) as peer:
        peer.send(read_words(1, to_list(0, 2, len(text) + 1), text + b"\0"), call(2, "after"))
        replies = {reply.id: reply for reply in (peer.receive(), peer.receive())}
        assert (replies[1].kind, replies[1].type) == ("exception", "failed")
        assert replies[2].chunk == b"retfa"
        # H4: no path, no traceback.
        assert "/" not in replies[1].text
        assert "File" not in replies[1].text


def test_e1_text_without_nul_is_a_typed_error(server: Running) -> None:
    with raw_peer(server) as peer:
        for number, text in enumerate([b"abc", b"abcdefgh"], start=1):
            peer.send(read_words(number, to_list(0, 2, len(text)), text))
            assert peer.receive().kind == "exception"
        peer.send(call(3, "after"))
        assert peer.receive().chunk == b"retfa"


@pytest.mark.parametrize("text", ["\0", "a\0", "\0a", "a\0\0b", "\0" * 100])
def test_e2_embedded_nuls_are_preserved(server: Running, text: str) -> None:
    with raw_peer(server) as peer:
        data = text.encode()
        peer.send(read_words(1, to_list(0, 2, len(data) + 1), data + b"\0"))
        assert peer.receive().chunk == data[::-1]


TEXTS = {
    "empty": "",
    "combining marks only": "\u0301\u0302\u0303",
    "combined": "e\u0301a\u0308",
    "zwj emoji": "👩‍👩‍👧‍👦👨🏽‍🚀",
    "odd regional indicators": "🇩🇪🇫",
    "jamo": "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "indic conjuncts": "क्षत्रिय",
    "crlf": "a\r\nb\r\n",
    "bidi": "abc\u202eدفع\u202c\u05e9\u05dc\u05d5\u05dd",
    "variation selectors": "❤\ufe0f☎\ufe0e",
    "planes": "a\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff",
    "noncharacters": "\ufdd0\ufffe\U0001fffe",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_e3_code_points_come_back_in_reverse(server: Running, text: str) -> None:
    with raw_peer(server) as peer:
        peer.send(call(1, text))
        assert peer.receive().chunk == text[::-1].encode()


def test_e3_random_texts_come_back_in_reverse(server: Running) -> None:
    chance = random.Random(SEED)
    points = [*range(0x20, 0xD800), *range(0xE000, 0x110000)]
    texts = {
        number: "".join(map(chr, chance.choices(points, k=chance.randrange(200))))
        for number in range(1, 201)
    }
    with raw_peer(server) as peer:
        peer.send(*(call(number, text) for number, text in texts.items()))
        found = {reply.id: reply.chunk for reply in (peer.receive() for _ in texts)}
    assert found == {number: text[::-1].encode() for number, text in texts.items()}


def test_e4_a_million_marks_are_linear_and_block_nobody_for_long(server: Running) -> None:
    text = "a" + "\u0301" * 1_000_000
    with raw_peer(server) as peer, raw_peer(server) as other:
        start_s = time.monotonic()
        peer.send(call(1, text))
        other.send(call(1, "meanwhile"))
        assert other.receive().chunk == b"elihwnaem"
        assert peer.receive().chunk == text[::-1].encode()
        # Of the order of 10 ms; a quadratic method takes minutes.
        assert time.monotonic() - start_s < 20


@pytest.mark.parametrize("text", ["\ud800", "ok\udfff", "\udc80tail"])
def test_e5_a_lone_surrogate_is_refused_before_it_is_sent(text: str) -> None:
    client = ClientConnection()
    before = client.data_to_send()
    assert before
    with pytest.raises(EncodeError, match="surrogates not allowed"):
        READ.params.write({"request": {"content": text}})
    assert client.data_to_send() == b""
    assert client.call(READ.interface_id, READ.method_id, READ.params.write({})) == 1

"""The frames of peers, against what was seen on the wire, and against rpc.capnp by pycapnp."""

from typing import Any

import pytest

from capnp_rig.loadtest.peers.frames import OURS, PEERS, Peer, bootstrap, release
from capnp_rig.loadtest.peers.tutorial_call import READ, TEXT, params_of, results_of
from capnp_rig.schema import load_rpc, message
from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.rpc.message_encoder import (
    encode_bootstrap,
    encode_bootstrap_results,
    encode_call,
    encode_finish,
    encode_results,
)
from capnp_rig.wire.rpc.messages import ImportedCap

RPC = load_rpc()
READ_PARAMS: Any = message.MessageStream.schema.methods["read"].param_type
PARAMS, RESULTS = params_of(TEXT), results_of(TEXT[::-1])
PYCAPNP, CPP, GO, JAVASCRIPT, RUST = PEERS
EACH = pytest.mark.parametrize("peer", [OURS, *PEERS], ids=lambda peer: peer.name)


def words(frame: bytes) -> list[str]:
    return [frame[at : at + 8].hex() for at in range(0, len(frame), 8)]


def test_ours_are_those_that_wire_writes() -> None:
    ids = READ.interface_id, READ.method_id
    assert OURS.call(7, READ, PARAMS) == b"".join(encode_call(7, ImportedCap(0), *ids, PARAMS))
    assert OURS.results(7, RESULTS) == b"".join(encode_results(7, RESULTS))
    assert OURS.finish(7) == encode_finish(7)
    assert OURS.settled() == encode_finish(0, release_result_caps=False)
    assert OURS.bootstrap_results() == encode_bootstrap_results(0, 0)
    assert bootstrap() == encode_bootstrap(0)


def test_a_call_of_rust_is_as_it_was_seen() -> None:
    text = "00000000000000000005klmnopqrstuvwxyzabcdef"[10:]
    assert words(RUST.call(1, READ, params_of(text))) == [
        *("0000000018000000", "0000000001000100", "0200000000000000", "0000000003000300"),
        *("0100000000000000", "4aa4143896b61f8d", "0000000000000000"),
        # Target, params, and no list of results.
        *("2c00000001000100", "0400000000000200", "0000000000000000"),
        *("0400000000000100", "3100000007000000"),
        *("0000000000000100", "010000000a010000", "3030303030303030", "30356b6c6d6e6f70"),
        *("7172737475767778", "797a616263646566", "0000000000000000"),
        *("0000000001000000", "0000000001000100", "0000000000000000", "0100000007000000"),
        # Tags of the two empty lists.
        *("0000000001000000", "0000000001000100"),
    ]
    assert words(RUST.settled()) == [
        *("0000000004000000", "0000000001000100", "0600000000000000", "0000000001000000"),
        "0000000001000000",
    ]


def test_replies_of_rust_are_as_they_were_seen() -> None:
    assert words(RUST.bootstrap_results()) == [
        *("0100000008000000", "0400000000000000"),
        *("0000000001000100", "0300000000000000", "0000000002000100"),
        *("0000000000000000", "0000000000000000", "0000000000000200"),
        *("0300000000000000", "0200000001000000"),
        *("0100000017000000", "0400000001000100", "0100000000000000", "0000000000000000"),
    ]
    assert words(RUST.results(1, results_of("0000 zyxwvutsrqponmlkjihgfedcba")))[4:10] == [
        *("0100000003000000", "0000000000000000", "0000000000000200"),
        *("0400000000000100", "1500000007000000", "01000000fa000000"),
    ]


def test_what_the_others_send_is_as_it_was_seen() -> None:
    call = words(PYCAPNP.call(0, READ, params_of("abcdefghijklmnopqrstuvwxyz 0005")))
    assert call[7:12] == [
        *("2800000001000100", "0400000000000200", "0000000000000000"),
        *("0400000000000100", "0000000000000000"),
    ]
    assert call[-2:] == ["0000000000000000"] * 2
    assert CPP.call(3, READ, PARAMS) == PYCAPNP.call(3, READ, PARAMS)
    assert (
        GO.call(3, READ, PARAMS) == JAVASCRIPT.call(3, READ, PARAMS) == OURS.call(3, READ, PARAMS)
    )
    flags = {peer.name: words(peer.finish(1))[4][8:] for peer in PEERS if peer.finishes}
    assert flags == {"C++ 0.9": "01000000", "JavaScript": "01000000"}
    flags = {peer.name: words(peer.results(1, RESULTS))[4][8:] for peer in PEERS if peer.serves}
    assert flags == {
        "pycapnp": "03000000",
        "C++ 0.9": "01000000",
        "Go": "01000000",
        "Rust": "03000000",
    }


def read(frame: bytes) -> dict[str, Any]:
    with RPC.Message.from_bytes(frame) as reader:
        plain: dict[str, Any] = reader.to_dict(verbose=True)
        return plain


@EACH
@pytest.mark.parametrize("text", ["", "x" * 7, TEXT, "é" * 1000])
def test_pycapnp_reads_a_call(peer: Peer, text: str) -> None:
    frame = peer.call(2**32 - 1, READ, params_of(text))
    with RPC.Message.from_bytes(frame) as reader:
        call = reader.call
        assert (call.questionId, call.interfaceId, call.methodId) == (
            *(2**32 - 1, READ.interface_id, READ.method_id),
        )
        assert call.sendResultsTo.which() == "caller"
        assert len(call.params.capTable) == 0
        if peer.calls_promise:
            answer = call.target.promisedAnswer
            assert (answer.questionId, len(answer.transform)) == (0, 0)
        else:
            assert call.target.importedCap == 0
        assert call.params.content.as_struct(READ_PARAMS).request.content == text


@EACH
def test_pycapnp_reads_how_calls_end_and_what_is_answered(peer: Peer) -> None:
    assert read(peer.finish(9))["finish"]["questionId"] == 9
    settled = read(peer.settled())
    if peer.calls_promise:
        assert settled["release"] == {"id": 0, "referenceCount": 1}
    else:
        assert settled["finish"]["releaseResultCaps"] is False
    answered = read(peer.results(9, RESULTS))["return"]
    assert answered["answerId"] == 9
    assert answered["noFinishNeeded"] is (peer.name not in {"C++ 0.9", "Go"})
    (capability,) = read(peer.bootstrap_results())["return"]["results"]["capTable"]
    assert capability["senderHosted"] == 0
    assert read(release(0, 3))["release"] == {"id": 0, "referenceCount": 3}


def test_the_empty_lists_are_no_null_pointers() -> None:
    assert len(RUST.results(1, RESULTS)) == len(PYCAPNP.results(1, RESULTS)) + 8
    empty: EncodedTuple = params_of("")
    assert len(RUST.call(1, READ, empty)) == len(PYCAPNP.call(1, READ, empty)) + 32

import pytest

from capnp_rig.loadtest.peers.frames import OURS, PEERS, Peer, bootstrap
from capnp_rig.loadtest.peers.load import Caller, Replies, WrongReplyError
from capnp_rig.loadtest.peers.tutorial_call import INLINE, TEXT, results_of
from capnp_rig.wire.encoding.frames import FrameDecoder
from capnp_rig.wire.rpc.message_encoder import encode_exception
from capnp_rig.wire.rpc.messages import Finish, RemoteError, decode
from capnp_rig.wire.rpc.server_connection import ServerConnection


@pytest.mark.parametrize("peer", [OURS, *PEERS], ids=lambda peer: peer.name)
def test_a_caller_asks_with_fresh_ids_and_ends_calls_as_its_peer_does(peer: Peer) -> None:
    server, caller = ServerConnection(), Caller(peer, Replies())
    server.receive_data(bootstrap() + peer.settled())
    server.data_to_send()
    sent, answered = b"".join(caller.calls(3)), 0
    for _ in range(3):
        assert list(server.events(sent, INLINE)) == []
        replies = server.data_to_send()
        # A reply may come in parts.
        first, one = caller.take(replies[:50])
        rest, other = caller.take(replies[50:])
        answered, sent = answered + first + rest, one + other
    assert answered == 9
    assert server.inline_calls == 9
    kinds = [type(message) for message in messages(sent)]
    assert kinds.count(Finish) == (3 if peer.finishes else 0)
    assert len(kinds) == (6 if peer.finishes else 3)


def messages(data: bytes) -> list[object]:
    """Return what the frames in some bytes say."""
    decoder, at, decoded = FrameDecoder(), 0, []
    while (message := decoder.cut(data, at, len(data))) is not None:
        decoded.append(decode(message))
        at = message.bounds[-1][1]
    assert at == len(data)
    return decoded


RIGHT = OURS.results(1, results_of(TEXT[::-1]))


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        (OURS.results(1, results_of(TEXT)), "the reversal of"),
        (RIGHT + OURS.results(2, results_of(TEXT)), "the reversal of"),
        (RIGHT + RIGHT, "call 1 was answered, which does not wait"),
        (OURS.results(9, results_of(TEXT[::-1])), "call 9 was answered, which does not wait"),
        (b"".join(encode_exception(1, RemoteError("no disk"))), "no disk"),
    ],
)
def test_a_wrong_reply_is_noticed(replies: bytes, reason: str) -> None:
    caller = Caller(OURS, Replies())
    caller.calls(2)
    with pytest.raises(WrongReplyError, match=reason):
        caller.take(replies)

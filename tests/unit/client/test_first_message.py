"""B7: a client asks for the bootstrap capability at once, so that it may wait with its calls."""

import socket

from raw_peer import bootstrap

from capnp_rig.client import ReverseClient


def test_b7_a_new_client_has_sent_its_first_message() -> None:
    ours, theirs = socket.socketpair()
    with theirs, ReverseClient(ours):
        theirs.setblocking(False)
        assert theirs.recv(4096) == bootstrap()


def test_b7_a_server_that_is_gone_is_told_by_the_first_call() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ReverseClient(ours) as client:
        assert not client.is_alive()

"""Objects of a blocking client, which are called while it waits."""

import socket
from pathlib import Path
from typing import Any

import pytest

from capnp_rig.client import Client, UsageError
from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT
from capnp_rig.wire.rpc.connection import Answered, Called, Connection, Event, Released
from capnp_rig.wire.rpc.interfaces import compile_interface

LISTENER = load_schema(Path(__file__).parents[2] / "data" / "callbacks.capnp").Listener
HEARD = compile_interface(LISTENER).methods["heard"]
# A struct with one pointer, to the first capability.
ONE_CAPABILITY = (1 << 16, [bytes([3, 0, 0, 0, 0, 0, 0, 0])], 1)


class Peer:
    """The server's end, by hand."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(10)
        self._sock = sock
        self.connection = Connection(bootstrap="main")

    def send(self) -> None:
        self._sock.sendall(self.connection.data_to_send())

    def receive(self) -> list[Event]:
        return self.connection.receive_data(self._sock.recv(65536))


class Listener:
    interface = LISTENER

    def __init__(self, client: Client) -> None:
        self._client = client
        self.refusals: list[str] = []

    def heard(self, params: Any) -> None:
        owners = (params.by, self._client)
        for call in [each for owner in owners for each in (owner.call, owner.pipeline)]:
            with pytest.raises(UsageError) as refusal:
                call("heard")
            self.refusals.append(str(refusal.value))
        params.by.close()


def test_a_callback_gives_back_what_it_gets_but_does_not_call() -> None:
    ours, theirs = socket.socketpair()
    with theirs, Client(ours, interface=LISTENER, timeout_s=10) as client:
        peer, listener = Peer(theirs), Listener(client)
        pending = client.submit("heard", {"by": listener})
        (asked,) = peer.receive()
        assert isinstance(asked, Called)
        assert asked.params is not None
        (given,) = asked.params[0].capabilities
        peer.connection.call(given, HEARD.interface_id, HEARD.method_id, ONE_CAPABILITY, ["own"])
        peer.connection.send_results(asked.question_id, EMPTY_STRUCT)
        peer.send()
        assert client.wait() == [pending]
        assert client.is_open
        assert [type(event) for event in peer.receive()] == [Answered, Released]
    assert (
        listener.refusals
        == ["a callback cannot call: its client waits for it; see AsyncClient"] * 4
    )

"""What is noted for the next call reaches that one and no other, however it ends."""

from typing import Any

from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT
from capnp_rig.wire.rpc.client_connection import ClientConnection
from capnp_rig.wire.rpc.connection import Called, Limits
from capnp_rig.wire.rpc.server_connection import ServerConnection


class Pair:
    """A client and a server that takes two calls at once, connected."""

    def __init__(self) -> None:
        self.client = ClientConnection()
        self.server = ServerConnection(Limits(max_calls_in_flight=2))
        self.exchange()

    def exchange(self) -> list[tuple[int, Any]]:
        """Move all bytes; return the calls that the server was handed, with their notes."""
        handed = [
            (event.question_id, self.server.take_note())
            for event in self.server.events(self.client.data_to_send())
            if isinstance(event, Called)
        ]
        self.client.receive_data(self.server.data_to_send())
        return handed

    def call(self) -> int:
        return self.client.call(7, 0, EMPTY_STRUCT)


def test_the_next_call_has_the_note_and_the_one_after_it_has_none() -> None:
    pair = Pair()
    pair.server.note_next("trace")
    first, second = pair.call(), pair.call()
    assert pair.exchange() == [(first, "trace"), (second, None)]
    assert pair.server.take_note() is None


def test_a_note_that_is_not_taken_ends_with_its_call() -> None:
    pair = Pair()
    pair.server.note_next("trace")
    pair.call()
    list(pair.server.events(pair.client.data_to_send()))
    # Something else is remembered: so the next call is looked at.
    pair.server.note_next("other")
    second = pair.call()
    assert pair.exchange() == [(second, "other")]


def test_the_note_of_a_refused_call_is_gone_with_it() -> None:
    pair = Pair()
    running = [pair.call(), pair.call()]
    assert pair.exchange() == [(number, None) for number in running]
    pair.server.note_next("trace")
    pair.call()
    assert pair.exchange() == []
    pair.server.send_results(running[0], EMPTY_STRUCT)
    pair.exchange()
    last = pair.call()
    assert pair.exchange() == [(last, None)]


def test_a_later_note_takes_the_place_of_one_without_a_call() -> None:
    pair = Pair()
    pair.server.note_next("first")
    pair.server.note_next("second")
    number = pair.call()
    assert pair.exchange() == [(number, "second")]

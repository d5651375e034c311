"""Properties of the whole of `wire`: any text, any split, any truncation, any bytes."""

import random
from contextlib import suppress
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from message_layouts import Bytes, Struct, Writer

from capnp_rig.schema import message
from capnp_rig.wire.errors import MalformedMessage
from capnp_rig.wire.rpc.client_connection import ClientConnection
from capnp_rig.wire.rpc.connection import Answered, Called, Ended
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.server_connection import ServerConnection

READ = compile_interface(message.MessageStream).methods["read"]
TEXT = st.text(max_size=200)


@given(TEXT, st.binary(max_size=40), st.integers(0, 2**32), st.integers(1, 3), st.booleans())
def test_fields_are_read_wherever_they_lie(
    text: str, chunk: bytes, seed: int, segments: int, gaps: bool
) -> None:
    def frame(root: Struct) -> bytes:
        return Writer(seed, segments=segments, gaps=gaps, fars=gaps).frame(root)

    content = Struct(b"", [Bytes(text.encode() + b"\0")])
    params = READ.params.from_bytes(frame(Struct(b"", [content])))
    assert params.request.content == text
    assert params.to_dict() == {"request": {"content": text}}
    results = READ.results.from_bytes(frame(Struct(b"", [Bytes(chunk)])))
    assert results.chunk == chunk
    assert results.to_dict() == {"chunk": chunk}


def serve(server: ServerConnection, data: bytes) -> bytes:
    """Feed the server, reverse what it is asked to, return what it sends."""
    for event in server.receive_data(data):
        if isinstance(event, Called):
            text = READ.params.open(event.params).request.content
            chunk = text[::-1].encode()
            server.send_results(event.question_id, READ.results.write({"chunk": chunk}))
    return server.data_to_send()


def answers(client: ClientConnection, data: bytes) -> dict[int, bytes]:
    return {
        event.question_id: bytes(READ.results.open(event.content).chunk)
        for event in client.receive_data(data)
        if isinstance(event, Answered)
    }


def requests(client: ClientConnection, texts: list[str]) -> dict[int, bytes]:
    """Queue a call per text; return the answers that are due."""
    return {
        client.call(
            READ.interface_id, READ.method_id, READ.params.write({"request": {"content": text}})
        ): text[::-1].encode()
        for text in texts
    }


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[first:last] for first, last in pairwise(edges)]


@given(st.lists(TEXT, min_size=1, max_size=5), st.lists(st.integers(0), max_size=8))
def test_any_text_in_any_portions_comes_back_reversed(texts: list[str], places: list[int]) -> None:
    client, server = ClientConnection(), ServerConnection()
    due = requests(client, texts)
    replies = b"".join(serve(server, part) for part in cut(client.data_to_send(), places))
    found: dict[int, bytes] = {}
    for part in cut(replies, places):
        found |= answers(client, part)
    assert found == due


def test_c13_every_byte_split_of_twelve_calls_gives_the_same_replies() -> None:
    client = ClientConnection()
    requests(client, [f"call {number} é" * (number % 4) for number in range(12)])
    stream = client.data_to_send()
    expected = serve(ServerConnection(), stream)
    for place in range(len(stream) + 1):
        server = ServerConnection()
        assert serve(server, stream[:place]) + serve(server, stream[place:]) == expected


@given(TEXT, st.data())
def test_a_truncated_stream_never_gives_a_wrong_answer(text: str, data: st.DataObject) -> None:
    client, server = ClientConnection(), ServerConnection()
    due = requests(client, [text])
    stream = client.data_to_send()
    kept = data.draw(st.integers(0, len(stream)))
    found = answers(client, serve(server, stream[:kept]))
    assert found == (due if kept == len(stream) else {})
    (event,) = server.receive_eof()
    assert isinstance(event, Ended)


@given(st.binary(max_size=300))
def test_any_bytes_end_in_an_event_or_wait_for_more(data: bytes) -> None:
    for connection in (ClientConnection(), ServerConnection()):
        connection.receive_data(data)
        connection.receive_eof()
        assert connection.ended


@settings(max_examples=30)
@given(st.integers(0, 2**32))
def test_flipped_bits_end_in_an_answer_or_a_typed_error(seed: int) -> None:
    chance = random.Random(seed)
    client = ClientConnection()
    requests(client, ["flip me", "and me"])
    stream = client.data_to_send()
    for _ in range(50):
        mutated = bytearray(stream)
        for _ in range(chance.randint(1, 4)):
            mutated[chance.randrange(len(mutated))] ^= 1 << chance.randrange(8)
        # Reading the params of a call that is still one may fail, with our error only.
        with suppress(MalformedMessage):
            serve(ServerConnection(), bytes(mutated))

"""How often the bytes of a large message are copied, by counting what is allocated."""

import tracemalloc
from array import array
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.pointers import Buffer, StructTuple
from capnp_rig.wire.encoding.structs import compile_struct
from capnp_rig.wire.rpc.client_connection import ClientConnection
from capnp_rig.wire.rpc.connection import Answered, Answers, Called
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.message_encoder import encode_bootstrap_results
from capnp_rig.wire.rpc.server_connection import ServerConnection

DESCRIBE = compile_interface(load_schema("tensor.capnp").TensorService).methods["describe"]
SIZE = 1 << 20
READ_BYTES = 262_144
DATA = Path(__file__).parents[3] / "data"


def echo(params: StructTuple | None) -> EncodedTuple:
    data = DESCRIBE.params.open(params).tensor.data
    assert len(data) == SIZE
    return DESCRIBE.results.pack({"tensor": {"data": data}})


def test_a_mebibyte_echoed_is_copied_once_on_the_way_in_and_once_on_the_way_out() -> None:
    client, server = ClientConnection(), ServerConnection()
    server.receive_data(client.data_to_send())
    server.data_to_send()
    client.receive_data(encode_bootstrap_results(0, 0))
    server.receive_data(client.data_to_send())
    params = DESCRIBE.params.pack({"tensor": {"data": bytes(range(256)) * (SIZE // 256)}})
    client.call(DESCRIBE.interface_id, DESCRIBE.method_id, params)
    request = client.data_to_send()
    # As the server's worker receives it: one buffer, filled again and again.
    buffer = memoryview(bytearray(READ_BYTES))
    edges = [*range(0, len(request), READ_BYTES), len(request)]
    inline = {(DESCRIBE.interface_id, DESCRIBE.method_id): echo}
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for first, last in pairwise(edges):
        buffer[: last - first] = request[first:last]
        assert all(
            type(event) is Answers for event in server.events(buffer[: last - first], inline)
        )
    reply = server.data_to_send()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reply.count(bytes(range(256))) == SIZE // 256
    # The slice of `request` is the test's own; two whole copies, and what a growing bytearray
    # reserves (an eighth), are the message's. A third copy would be over this.
    assert (peak - before) < 2.5 * SIZE


def test_reading_a_mebibyte_allocates_next_to_nothing() -> None:
    codec = DESCRIBE.params
    body = codec.write({"tensor": {"data": bytes(SIZE)}})
    words = body.words + 1
    frame = b"".join(
        [(words << 32).to_bytes(8, "little"), (body.sizes << 32).to_bytes(8, "little"), *body.parts]
    )
    assert len(codec.from_bytes(frame).tensor.data) == SIZE
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    data = codec.from_bytes(frame).tensor.data
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - before < 4096
    assert data.obj is frame


def test_a_list_of_structs_is_read_where_it_lies() -> None:
    schema = load_schema("records.capnp").Records.schema
    codec = compile_struct(schema)
    keys = [bytes([number % 256]) * 1000 for number in range(500)]
    frame = codec.to_bytes({"records": [{"key": key} for key in keys]})
    assert codec.from_bytes(frame).records[499].key == keys[499]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    records = codec.from_bytes(frame).records
    found = records[::-1][250].key
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 500 kB of keys, and views of a few.
    assert peak - before < len(frame) / 20
    assert (found.obj, len(records)) == (frame, 500)
    assert found == keys[249]


def test_a_list_of_structs_is_copied_once_into_the_frame() -> None:
    codec = compile_struct(load_schema("records.capnp").Records.schema)
    values = {"records": [{"key": bytes(10_000)} for _ in range(100)]}
    size = len(codec.to_bytes(values))
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    frame = codec.to_bytes(values)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(frame) == size > SIZE * 0.9
    # The keys are no part of what is allocated on the way.
    assert peak - before < 1.1 * size


def test_a_buffer_that_its_owner_fills_again_is_no_part_of_the_message() -> None:
    codec = compile_struct(load_schema("tensor.capnp").TensorService.Tensor.schema)
    for fixed in (False, True):
        data = bytearray(b"first")
        values = memoryview(data).toreadonly() if fixed else data
        parts = codec.pack({"data": values})[1]
        data[:] = b"later"
        # One that says that it cannot change is taken at its word, and not copied.
        assert (b"later" if fixed else b"first") in b"".join(parts)


def connected() -> tuple[ClientConnection, ServerConnection]:
    client, server = ClientConnection(), ServerConnection()
    server.receive_data(client.data_to_send())
    server.data_to_send()
    client.receive_data(encode_bootstrap_results(0, 0))
    server.receive_data(client.data_to_send())
    return client, server


def peak_of(work: Callable[[], object]) -> int:
    """Return how many bytes are allocated at a time while `work` runs."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    work()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak - before


LISTS = compile_struct(load_schema(DATA / "kinds.capnp").Kinds.schema).compile()
NUMBERS = array("d", bytes(SIZE))
READ_ONLY = np.zeros(SIZE // 8)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data", bytes(SIZE)),
        ("data", memoryview(NUMBERS).toreadonly()),
        ("data", READ_ONLY),
        ("doubles", memoryview(NUMBERS).toreadonly()),
        ("doubles", READ_ONLY),
        ("longs", np.frombuffer(bytes(SIZE), "<i8")),
        ("bytes", bytes(SIZE)),
    ],
)
def test_what_cannot_change_leaves_without_a_copy(field: str, value: Any) -> None:
    client, server = connected()
    size = len(bytes(value))
    sent: list[Buffer] = []
    # Coverage takes memory where a line runs for the first time.
    LISTS.pack({field: value, "text": "x"})

    def call() -> None:
        client.call(1, 2, LISTS.pack({field: value, "text": "x"}))
        assert client.has_large
        sent.extend(client.buffers_to_send())
        assert not client.has_large

    assert peak_of(call) < 10_000
    (called,) = server.receive_data(b"".join(sent))
    assert isinstance(called, Called)
    results = LISTS.pack({field: value, "text": "x"})
    answer: list[Buffer] = []

    def respond() -> None:
        server.send_results(called.question_id, results)
        answer.extend(server.buffers_to_send())

    assert peak_of(respond) < 10_000
    (answered,) = client.receive_data(b"".join(answer))
    assert isinstance(answered, Answered)
    view = LISTS.open(answered.content)
    assert (getattr(view, field).nbytes, view.text) == (size, "x")
    # And the buffer is the caller's own.
    given = np.frombuffer(value, "u1")
    assert sum(np.shares_memory(given, np.frombuffer(part, "u1")) for part in sent) == 1


def test_small_parts_are_joined() -> None:
    client, _ = connected()
    many = [{"number": at} for at in range(20_000)]
    client.call(1, 2, LISTS.pack({"inners": many, "data": bytes(SIZE)}))
    assert [len(buffer) >= SIZE for buffer in client.buffers_to_send()] == [False, True, False]
    assert client.buffers_to_send() == []


def test_structs_from_columns_are_written_once() -> None:
    codec = compile_struct(load_schema("records.capnp").Records.schema)
    table = codec.from_bytes(codec.to_bytes({"records": [{"id": 1}] * 20_000})).records.to_numpy()
    size = len(codec.to_bytes({"records": table}))
    # The words themselves, and a little for a column at a time; nothing per record.
    assert size < peak_of(lambda: codec.pack({"records": table})) < 1.2 * size


def test_reading_a_column_allocates_nothing() -> None:
    codec = compile_struct(load_schema("records.capnp").Records.schema)
    frame = codec.to_bytes({"records": [{"id": at} for at in range(20_000)]})
    assert codec.from_bytes(frame).records.column("id").sum() == sum(range(20_000))
    assert peak_of(lambda: codec.from_bytes(frame).records.column("id")) < 4096

"""What the Python of `wire` costs without sockets: one process, one JSON object of ns per case.

`served call` is the server's half: received bytes in, bytes to send out, the text reversed in
between. `open+read one field` opens a message and reads its Data, to its first and last byte.
"""

import json
import statistics
import sys
import timeit
from collections.abc import Callable
from typing import Any

import orjson
import pybase64

from capnp_rig.loadtest.peers.tutorial_call import INLINE, READ, TEXT, params_of
from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.structs import compile_struct
from capnp_rig.wire.rpc.client_connection import ClientConnection
from capnp_rig.wire.rpc.message_encoder import encode_bootstrap_results
from capnp_rig.wire.rpc.server_connection import ServerConnection

_REPEATS = 7
_LEAST_S = 0.02
_TENSOR = load_schema("tensor.capnp").TensorService.Tensor


def _serving(batch: int) -> Callable[[], object]:
    """Return a function that serves `batch` calls that came in one read."""
    client, server = ClientConnection(), ServerConnection()
    server.receive_data(client.data_to_send())
    server.data_to_send()
    client.receive_data(encode_bootstrap_results(0, 0))
    server.receive_data(client.data_to_send())
    for _ in range(batch):
        client.call(READ.interface_id, READ.method_id, params_of(TEXT))
    received = memoryview(bytearray(client.data_to_send()))

    def serve() -> bytes:
        for event in server.events(received, INLINE):
            raise AssertionError(event)
        return server.data_to_send()

    assert serve().count(TEXT[::-1].encode()) == batch
    return serve


def _opening(size: int) -> dict[str, Callable[[], object]]:
    """Return, by codec, a function that opens a tensor of `size` bytes and reads its data."""
    data = bytes(range(256)) * (size // 256) or bytes(size)
    values = {"name": "t", "shape": [size // 4], "data": data}
    frame = _TENSOR.new_message(num_first_segment_words=size // 8 + 64, **values).to_bytes()
    text = orjson.dumps({**values, "data": pybase64.b64encode_as_string(data)})
    codec = compile_struct(_TENSOR.schema)

    def wire() -> Any:
        return codec.from_bytes(frame).data

    def pycapnp() -> Any:
        with _TENSOR.from_bytes(frame) as reader:
            return reader.data

    def json_base64() -> Any:
        return pybase64.b64decode(orjson.loads(text)["data"], validate=True)

    cases = {"wire": wire, "pycapnp": pycapnp, "orjson and base64": json_base64}
    for name, read in cases.items():
        assert bytes(read()) == data, name
    return cases


def _time_ns(call: Callable[[], object]) -> float:
    timer = timeit.Timer(call)
    count = max(1, round(_LEAST_S / max(timer.timeit(3) / 3, 1e-9)))
    return statistics.median(timer.repeat(_REPEATS, count)) / count * 1e9


def main() -> None:
    """Time every case and print the medians."""
    times_ns = {
        "served call, alone in its read": _time_ns(_serving(1)),
        "served call, 16 in a read": _time_ns(_serving(16)) / 16,
    }
    for size, label in ((64, "64 B"), (1 << 20, "1 MiB")):
        for name, read in _opening(size).items():
            times_ns[f"open+read one field, {label}, {name}"] = _time_ns(read)
    sys.stdout.write(json.dumps(times_ns) + "\n")


if __name__ == "__main__":
    main()

"""What a call costs the generator in memory.

``python -m capnp_rig.loadtest.benchmarks.generator_cost``

Prints a JSON object: by kind of request and what is checked of the replies, the µs to encode and
to take one of 64 calls in a batch, each the least of 100 batches, without a socket.
"""

import json
import sys
import time

from capnp_rig.loadtest.protocols.capnp_exchange import Exchange
from capnp_rig.loadtest.workload import WorkloadConfig, load_workload
from capnp_rig.schema import message
from capnp_rig.wire.rpc.connection import Called
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.server_connection import ServerConnection

_READ = compile_interface(message.MessageStream).methods["read"]
_CALLS, _BATCHES = 64, 100
_TEMPLATE = '{"request": {"content": "call number {{i}} of 32 bytes"}}'
_KINDS = {
    "text of 32 B": WorkloadConfig(),
    "text of 4 KiB": WorkloadConfig(payload_bytes=4000),
    "template of 32 B": WorkloadConfig(params=_TEMPLATE),
}


def measure(config: WorkloadConfig, *, checks_content: bool) -> dict[str, float]:
    """Return the µs to encode and to take one call."""
    exchange = Exchange(
        load_workload(config),
        0,
        _CALLS,
        answered=lambda _due, _sent, _received: None,
        failed=_fail,
        checks_content=checks_content,
    )
    server = ServerConnection()
    server.receive_data(exchange.output())
    exchange.receive(server.data_to_send(), 0)
    encode_s: list[float] = []
    take_s: list[float] = []
    for _ in range(_BATCHES):
        started_s = time.perf_counter()
        for _ in range(_CALLS):
            exchange.send(0, 0)
        calls = exchange.output()
        encode_s.append(time.perf_counter() - started_s)
        replies = _answer(server, calls)
        started_s = time.perf_counter()
        exchange.receive(replies, 0)
        take_s.append(time.perf_counter() - started_s)
    return {
        name: round(min(seconds) / _CALLS * 1e6, 2)
        for name, seconds in (("encode_us", encode_s), ("take_us", take_s))
    }


def _fail(error: Exception, _sent_ns: int, _now_ns: int) -> None:
    raise error


def _answer(server: ServerConnection, calls: bytes) -> bytes:
    for event in server.receive_data(calls):
        assert isinstance(event, Called)
        text: str = _READ.params.open(event.params).request.content
        server.send_results(event.question_id, _READ.results.pack({"chunk": text[::-1].encode()}))
    return server.data_to_send()


def main() -> None:
    """Print the figures."""
    costs_us = {
        f"{kind}, {check}": measure(config, checks_content=check == "content")
        for kind, config in _KINDS.items()
        for check in ("content", "id")
    }
    sys.stdout.write(json.dumps(costs_us, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

"""The requests of ``Binary.reverse``, and what is said of its replies."""

from collections.abc import Callable
from itertools import islice

import pytest

from capnp_rig.loadtest.protocols.capnp_exchange import Exchange
from capnp_rig.loadtest.stats.failures import WrongReply
from capnp_rig.loadtest.workload import BINARY, WorkloadConfig, WorkloadError, load_workload
from capnp_rig.objects.errors import ClientError
from capnp_rig.schema import load_schema
from capnp_rig.wire.rpc.connection import Called
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.server_connection import ServerConnection

REVERSE = compile_interface(load_schema("binary.capnp").Binary).methods["reverse"]


class Joined:
    """An exchange and a server, and what was counted."""

    def __init__(self, payload_bytes: int) -> None:
        self.answered = 0
        self.failed: list[type[Exception]] = []
        self.sent: list[bytes] = []
        config = WorkloadConfig(payload_kind=BINARY, payload_bytes=payload_bytes)
        self.exchange = Exchange(
            load_workload(config), 3, 1, answered=self._answered, failed=self._failed
        )
        self.server = ServerConnection()
        self.server.receive_data(self.exchange.output())
        self.exchange.receive(self.server.data_to_send(), 0)

    def _answered(self, *_times: int) -> None:
        self.answered += 1

    def _failed(self, error: Exception, *_times: int) -> None:
        self.failed.append(type(error))

    def call(self, reply: Callable[[bytes], bytes] = lambda data: data[::-1]) -> None:
        self.exchange.send(0, 0)
        for event in self.server.receive_data(self.exchange.output()):
            if isinstance(event, Called):
                data = bytes(REVERSE.params.open(event.params).data)
                self.sent.append(data)
                results = REVERSE.results.pack({"data": reply(data)})
                self.server.send_results(event.question_id, results)
        self.exchange.receive(self.server.data_to_send(), 0)


@pytest.mark.parametrize("size", [1, 15, 16, 17, 32, 4000, 100_000])
def test_bytes_of_the_size_asked_for_are_sent_and_right_answers_counted(size: int) -> None:
    joined = Joined(size)
    for _ in range(7):
        joined.call()
    assert (joined.answered, joined.failed) == (7, [])
    assert {len(data) for data in joined.sent} == {max(size, 4)}
    assert len(set(joined.sent)) >= 3


@pytest.mark.parametrize("size", [32, 100_000])
def test_one_wrong_byte_or_another_length_is_noticed(size: int) -> None:
    joined = Joined(size)
    joined.call()
    for reply in (
        lambda data: b"#" + data[::-1][1:],
        lambda data: data[::-1][:-1] + b"#",
        lambda data: data[::-1][:-1],
        lambda data: data[::-1] + b"x",
        lambda data: data[:15:-1] + b"x" + data[15::-1],
    ):
        joined.call(reply)
    joined.call()
    assert (joined.answered, joined.failed) == (2, [WrongReply] * 5)
    assert not issubclass(WrongReply, ClientError)


def test_connections_and_requests_send_different_bytes() -> None:
    workload = load_workload(WorkloadConfig(payload_kind=BINARY, payload_bytes=32))
    sent = {
        b"".join(request.params[1])
        for user in range(4)
        for request in islice(workload.requests(user, 2), 5)
    }
    assert len(sent) == 20


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"text": "x"}, "text does not go with a binary payload"),
        ({"schema": "message.capnp"}, "schema does not go with a binary payload"),
        ({"payload_bytes": 0}, "at least 1 byte"),
        ({"payload_bytes": 1 << 40}, "more than a message holds"),
    ],
)
def test_a_mistake_is_told(config: dict[str, object], said: str) -> None:
    with pytest.raises(WorkloadError, match=said):
        load_workload(WorkloadConfig(payload_kind=BINARY, **config))  # type: ignore[arg-type]

"""What an exchange makes of replies to constant params: the first one is the right one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capnp_rig.loadtest.protocols.capnp_exchange import Exchange
from capnp_rig.loadtest.stats.tally import Tally
from capnp_rig.loadtest.workload import Workload, WorkloadConfig, load_workload
from capnp_rig.objects.errors import ProtocolError
from capnp_rig.schema import load_rpc, load_schema
from capnp_rig.wire.rpc.connection import Called
from capnp_rig.wire.rpc.messages import RemoteError as WireError
from capnp_rig.wire.rpc.server_connection import ServerConnection

SCHEMA = str(Path(__file__).parents[3] / "data" / "workload.capnp")
NOT_FIRST = (
    "WrongReply: wrong reply: not the first one to these params; "
    "one that varies needs --expect or --check id"
)


def move(**config: Any) -> Workload:
    asked = WorkloadConfig(schema=SCHEMA, interface="Geometry", method="move", **config)
    return load_workload(asked)


class Loaded:
    """Connections that share a workload and a tally; `answer` makes an x, or an error."""

    def __init__(
        self,
        workload: Workload,
        answer: Callable[[int], int | WireError],
        *,
        checks_content: bool = True,
    ) -> None:
        self.tally = Tally(open_ns=0)
        self._workload, self._answer, self._checks = workload, answer, checks_content
        self._calls = 0

    def run(self, calls: int, *, connections: int = 3) -> "Loaded":
        for user in range(connections):
            server = ServerConnection()
            exchange = Exchange(
                self._workload,
                user,
                4,
                answered=self.tally.timer("move").record,
                failed=lambda *what: self.tally.failed("move", what[1], what[2], what[0]),
                checks_content=self._checks,
            )
            server.receive_data(exchange.output())
            exchange.receive(server.data_to_send(), 0)
            for _ in range(calls):
                while exchange.free:
                    exchange.send(1, 1)
                for event in server.receive_data(exchange.output()):
                    assert isinstance(event, Called)
                    self._reply(server, event.question_id)
                exchange.receive(server.data_to_send(), 2)
        return self

    def _reply(self, server: ServerConnection, question_id: int) -> None:
        x = self._answer(self._calls)
        self._calls += 1
        if isinstance(x, WireError):
            server.send_exception(question_id, x)
            return
        results = self._workload.method.results.pack({"point": {"x": x, "z": 4}})
        server.send_results(question_id, results)


@pytest.mark.parametrize("params", ['{"by": 0}', '{"by": 0}\n{"by": 1}'])
def test_one_wrong_reply_in_so_many_is_counted_exactly(params: str) -> None:
    workload = move(params=params)
    loaded = Loaded(workload, lambda number: 7 if number % 50 == 25 else 3).run(100)
    report = loaded.tally.take()
    assert (report.calls, report.total.failures) == (1176, {NOT_FIRST: 24})
    assert [(each.expected, each.came) for each in report.examples] == [
        ('{"point": {"x": 3, "z": 4}}', '{"point": {"x": 7, "z": 4}}')
    ] * 3
    assert all(each.request.startswith('{"by": ') for each in report.examples)


def test_a_reply_that_varies_is_wrong_unless_only_ids_are_checked() -> None:
    report = Loaded(move(), lambda number: number).run(5).tally.take()
    assert (report.calls, report.total.failures) == (1, {NOT_FIRST: 59})
    report = Loaded(move(), lambda number: number, checks_content=False).run(5).tally.take()
    assert (report.calls, report.total.failures) == (60, {})


def test_params_that_are_not_kept_are_answered_alike_too() -> None:
    lines = "\n".join(f'{{"by": {number % 100}, "far": {number}}}' for number in range(300))
    workload = move(params=lines)
    assert not workload.is_repeating
    loaded = Loaded(workload, lambda _number: 3).run(200, connections=1)
    assert loaded.tally.take().total.failures == {}
    # Every line is answered twice: the second time with other values.
    loaded = Loaded(move(params=lines), lambda number: number // 300).run(150, connections=1)
    assert loaded.tally.take().total.failures == {NOT_FIRST: 300}


def test_templates_without_expectation_are_taken_as_they_come() -> None:
    workload = move(params='{"name": "{{i}}"}')
    assert Loaded(workload, lambda number: number).run(5).tally.take().total.failures == {}


def test_a_reply_that_cannot_be_read_is_no_first_reply() -> None:
    workload = move()
    failures: list[Exception] = []
    exchange = Exchange(
        workload, 0, 1, answered=lambda *_: None, failed=lambda *what: failures.append(what[0])
    )
    server = ServerConnection()
    server.receive_data(exchange.output())
    exchange.receive(server.data_to_send(), 0)
    for wrong in (True, True, False, True):
        exchange.send(1, 1)
        for event in server.receive_data(exchange.output()):
            assert isinstance(event, Called)
            results = workload.method.results.pack({"point": {"x": 3}})
            server.send_results(event.question_id, results)
        data = bytearray(server.data_to_send())
        if wrong:
            # The pointer to the point, the last but one word, leads out of the message.
            data[-16:-12] = (1000 << 2).to_bytes(4, "little")
        exchange.receive(bytes(data), 2)
    assert [type(error) for error in failures] == [ProtocolError] * 3
    assert workload.firsts["params"][2] == '{"point": {"x": 3, "z": 0}}'


def test_a_call_that_fails_tells_its_request() -> None:
    loaded = Loaded(move(params='{"by": 5}'), lambda number: WireError(f"no [id {number}]"))
    report = loaded.run(1, connections=1).tally.take()
    assert report.total.failures == {"RemoteError: no": 4}
    (example,) = report.examples
    assert (example.text, example.came) == ("RemoteError: no [id 0]", "no [id 0]")
    assert example.request.startswith('{"by": 5')
    assert not example.is_wrong


@pytest.mark.parametrize("segment_words", [1, 1024])
def test_a_foreign_layout_of_every_reply_is_compared_by_its_fields(segment_words: int) -> None:
    """As of Rust's server: pycapnp builds the Return, its capability table an empty list."""
    workload = move()
    tally = Tally(open_ns=0)
    exchange = Exchange(
        workload,
        0,
        3,
        answered=tally.timer("move").record,
        failed=lambda *what: tally.failed("move", what[1], what[2], what[0]),
    )
    server = ServerConnection()
    server.receive_data(exchange.output())
    exchange.receive(server.data_to_send(), 0)
    results = load_schema(SCHEMA).Geometry.schema.methods["move"].result_type
    for turn in range(300):
        exchange.send(1, 1)
        # A Finish, too.
        events = server.receive_data(exchange.output())
        (called,) = (event for event in events if isinstance(event, Called))
        server.send_results(called.question_id, workload.method.results.pack({}))
        server.data_to_send()
        built = load_rpc().Message.new_message(num_first_segment_words=segment_words)
        answer = built.init("return")
        answer.answerId = called.question_id
        answer.init("results").init("capTable", 0)
        content = answer.results.content.as_struct(results)
        if turn % 2:
            # Leaves a gap: the same values lie elsewhere.
            content.init("point")
        content.init("point").x = 4 if turn % 50 == 25 else 3
        exchange.receive(built.to_bytes(), 2)
    report = tally.take()
    assert (report.calls, report.total.failures) == (294, {NOT_FIRST: 6})

"""Chains of calls, walked and pipelined, joined without sockets with `wire` as the server.

The server hands out sessions, each an export of its own, and counts what it holds for its peer.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capnp_rig.client.via import BrokenChainError
from capnp_rig.loadtest.protocols import make_exchange
from capnp_rig.loadtest.workload import WorkloadConfig, load_workload
from capnp_rig.objects.errors import ClientError, Overloaded, ProtocolError, RemoteError
from capnp_rig.schema import load_schema
from capnp_rig.wire.rpc.capability_encoder import encode_release, encode_results_with
from capnp_rig.wire.rpc.connection import Called, Connection, Released
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.messages import CapKind, Descriptor, ExceptionType
from capnp_rig.wire.rpc.messages import RemoteError as WireRemoteError

FILE = str(Path(__file__).parents[3] / "data" / "chains.capnp")
FILES = compile_interface(load_schema(FILE).Files)
SESSION = compile_interface(load_schema(FILE).Files.Session)
LOGIN, READ, NESTED = FILES.methods["login"], SESSION.methods["read"], SESSION.methods["nested"]
FAIL = WireRemoteError("wrong password")


class Session:
    def __init__(self, name: str) -> None:
        self.name = name


class Server:
    """Answers `login`, `nested` and `read`; `live` are the sessions that its peer holds."""

    def __init__(self) -> None:
        self.connection = Connection(None, "files")
        self.live: list[Session] = []
        self.logins = 0
        self.written: list[int] = []
        # What a login of that name does, instead of returning a session.
        self.login: dict[str, Callable[[Called], None]] = {
            "nobody": lambda call: self.connection.send_exception(call.question_id, FAIL),
            "null": lambda call: self.send(call, LOGIN, {}),
            "late": self.promise,
            "lost": self.lose,
        }

    def answers(self, data: bytes) -> bytes:
        self.written.append(len(data))
        events = self.connection.receive_data(data)
        while events:
            for event in events:
                if isinstance(event, Called):
                    self.answer(event)
                elif isinstance(event, Released):
                    self.live.remove(event.target)
            # Calls that waited for the answers.
            events = self.connection.receive_data(b"")
        return self.connection.data_to_send()

    def answer(self, call: Called) -> None:
        if call.target == "files":
            params = LOGIN.params.open(call.params)
            self.logins += 1
            usual = lambda call: self.give(call, LOGIN, params.user)  # noqa: E731
            self.login.get(params.user, usual)(call)
        elif call.method_id == READ.method_id:
            number = READ.params.open(call.params).number
            self.send(call, READ, {"text": f"{call.target.name} {number}"})
        else:
            self.give(call, NESTED, f"{call.target.name}.")

    def session(self, name: str) -> Any:
        self.live.append(Session(name))
        return self.connection.host(self.live[-1])

    def give(self, call: Called, method: Any, name: str) -> None:
        values: dict[str, Any] = {"session": self.session(name)}
        if method is LOGIN:
            values["pair"] = {"session": self.session(f"{name}'s other")}
        self.send(call, method, values)
        values["session"].release()
        if method is LOGIN:
            values["pair"]["session"].release()

    def promise(self, call: Called) -> None:
        promise = self.connection.promise()
        self.send(call, LOGIN, {"session": promise})
        session = self.session("late")
        promise.resolve(session)
        session.release()
        promise.release()

    def lose(self, call: Called) -> None:
        error = WireRemoteError("busy", ExceptionType.OVERLOADED)
        self.connection.send_exception(call.question_id, error)

    def send(self, call: Called, method: Any, values: Any) -> None:
        encoded, capabilities = method.results.pack_with_capabilities(values)
        self.connection.send_results(call.question_id, encoded, capabilities)


class Joined:
    """An exchange and a server, and what was counted; `cut` is how many bytes come in a read."""

    def __init__(self, in_flight: int = 2, cut: int = 1 << 20, **config: Any) -> None:
        self.answered: list[tuple[int, int, int]] = []
        self.failed: list[Exception] = []
        self.server, self.cut, self.now_ns = Server(), cut, 0
        plain = {"schema": FILE, "method": "read", "params": '{"number": 5}', **config}
        self.exchange: Any = make_exchange(
            load_workload(WorkloadConfig(**plain)),
            3,
            in_flight,
            answered=lambda *times: self.answered.append(times),
            failed=lambda error, *_: self.failed.append(error),
        )

    def turn(self) -> int:
        data, freed = self.server.answers(self.exchange.output()), 0
        for at in range(0, len(data), self.cut):
            self.now_ns += 1000
            freed += self.exchange.receive(data[at : at + self.cut], self.now_ns)
        return freed

    def begin(self) -> "Joined":
        while not self.exchange.is_ready:
            self.turn()
        return self

    def call(self, calls: int) -> "Joined":
        for _ in range(calls):
            while self.exchange.free:
                self.exchange.send(self.now_ns, self.now_ns)
            assert self.turn() > 0
        return self

    @property
    def texts(self) -> list[str]:
        return [str(error) for error in self.failed]


LOGIN_U = 'login({"user": "u"}).session'


@pytest.mark.parametrize("cut", [1 << 20, 50])
@pytest.mark.parametrize("via", [LOGIN_U, f"{LOGIN_U}.nested().session.nested().session"])
def test_a_chain_is_walked_once_and_what_lay_on_the_way_is_given_back(via: str, cut: int) -> None:
    name = "u" + "." * via.count("nested")
    joined = Joined(via=via, expect=f'{{"text": "{name} 5"}}', cut=cut).begin()
    joined.call(20)
    assert [each.name for each in joined.server.live] == [name]
    assert (len(joined.answered), joined.failed, joined.server.logins) == (40, [], 1)
    # From the server's interface to the last answer; each read came 1 µs after the one before.
    assert joined.exchange.walk_ns == 1000 * (1 + via.count("nested")) or cut == 50


def test_templates_in_a_chain_have_the_values_of_its_connection() -> None:
    joined = Joined(
        via='login({"user": "u{{user}}"}).session', expect='{"text": "u{{user}} 5"}'
    ).begin()
    assert (len(joined.call(5).answered), joined.failed) == (10, [])


@pytest.mark.parametrize("cut", [1 << 20, 50])
@pytest.mark.parametrize(
    ("chain", "name"), [("", "u"), (".nested().session", "u."), (".nested().session" * 2, "u..")]
)
def test_a_pipelined_chain_is_part_of_each_call_in_one_write(
    chain: str, name: str, cut: int
) -> None:
    expect = f'{{"text": "{name} 5"}}'
    joined = Joined(via=LOGIN_U + chain, pipeline=True, expect=expect, cut=cut, in_flight=3)
    joined.begin().server.written.clear()
    joined.call(100)
    assert (len(joined.answered), joined.failed, joined.server.logins) == (300, [], 300)
    assert (len(joined.server.written), joined.exchange.walk_ns) == (100, None)
    # The last answers are finished when nothing is in flight any more.
    joined.turn()
    assert joined.server.live == []
    tables = joined.server.connection
    assert (len(tables._answers), len(tables._exports)) == (0, 1)
    assert len(joined.exchange._free_ids) == joined.exchange._next_id - 4


def test_templates_in_a_pipelined_chain_have_the_values_of_its_call() -> None:
    joined = Joined(
        via='login({"user": "u{{i}}"}).session',
        pipeline=True,
        params='{"number": "{{i}}"}',
        expect='{"text": "u{{i}} {{i}}"}',
    )
    assert (len(joined.begin().call(20).answered), joined.failed) == (40, [])
    # Without, nobody can know what the replies must be.
    plain = {"schema": FILE, "method": "read", "via": 'login({"user": "u{{i}}"}).session'}
    for pipeline in (False, True):
        workload = load_workload(WorkloadConfig(**plain, pipeline=pipeline))
        (reason,) = workload.unchecked
        assert "no --expect for calls behind a --via with templates" in reason.text
        assert not workload.is_compared


@pytest.mark.parametrize("pipeline", [False, True])
def test_a_promise_is_called_and_what_it_becomes_is_given_back(pipeline: bool) -> None:
    via = 'login({"user": "late"}).session'
    joined = Joined(via=via, pipeline=pipeline, expect='{"text": "late 5"}').begin().call(10)
    assert (len(joined.answered), joined.failed) == (20, [])
    joined.turn()
    assert len(joined.server.live) == (0 if pipeline else 1)


@pytest.mark.parametrize(
    ("via", "kind", "text"),
    [
        ('login({"user": "nobody"}).session', RemoteError, "via login: wrong password"),
        ('login({"user": "lost"}).session', Overloaded, "via login: busy"),
        (
            'login({"user": "null"}).session',
            BrokenChainError,
            "there is no session in the results of login: it is null",
        ),
    ],
)
def test_a_walk_that_leads_nowhere_ends_the_connection(
    via: str, kind: type[ClientError], text: str
) -> None:
    with pytest.raises(kind) as caught:
        Joined(via=via).begin()
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("user", "text"),
    [
        ("nobody", "via login: wrong password"),
        ("lost", "via login: busy"),
        ("null", "no capability"),
    ],
)
def test_a_pipelined_chain_that_fails_fails_its_call_alone(user: str, text: str) -> None:
    via = f'login({{"user": "{user}"}}).session'
    joined = Joined(via=via, pipeline=True).begin().call(10)
    assert len(joined.failed) == 20
    assert all(text in each for each in joined.texts), joined.texts
    # Once more, with a chain that leads somewhere.
    joined.server.login.pop(user)
    joined.call(10).turn()
    assert (len(joined.answered), joined.server.live) == (20, [])


def test_a_wrong_reply_behind_a_pipelined_chain_is_noticed() -> None:
    joined = Joined(via=LOGIN_U, pipeline=True).begin().call(5)
    joined.server.login["u"] = lambda call: joined.server.give(call, LOGIN, "other")
    joined.call(1)
    assert len(joined.failed) == 2
    assert "not the first one" in joined.texts[0]


@pytest.mark.parametrize("pipeline", [False, True])
def test_results_that_need_no_finish_have_their_capabilities_given_back(pipeline: bool) -> None:
    joined = Joined(via=LOGIN_U, pipeline=pipeline, in_flight=1).begin()
    joined.exchange.output()
    joined.exchange.send(0, 0)
    joined.exchange.output()
    # The chain's first question, or that of the only slot.
    question_id = 2 if pipeline else 1
    table = [Descriptor(CapKind.SENDER_HOSTED, 7), Descriptor(CapKind.SENDER_PROMISE, 8)]
    results = READ.results.pack({"text": "u 5"})
    answer = encode_results_with(
        question_id, results, table, keeps_params=False, needs_finish=False
    )
    joined.exchange.receive(b"".join(answer), 0)
    joined.exchange._flight.clear()
    assert joined.exchange.output() == encode_release(7, 1) + encode_release(8, 1)


def test_a_call_of_a_chain_that_is_not_answered_is_named() -> None:
    joined = Joined(via=LOGIN_U)
    assert joined.exchange.awaited == ""
    joined.turn()
    assert joined.exchange.awaited == "via login"
    joined.begin()
    assert joined.exchange.awaited == ""


def test_an_answer_to_a_chain_that_comes_twice_breaks_the_protocol() -> None:
    joined = Joined(via=LOGIN_U, pipeline=True, in_flight=1).begin()
    joined.exchange.send(0, 0)
    data = joined.server.answers(joined.exchange.output())
    with pytest.raises(ProtocolError, match="not made, or twice"):
        joined.exchange.receive(data + data, 0)

"""What a channel does when servers fail: F-2, F-5, F-6 and F-8 of faults.md.

Each text that is sent is a nonce: its answer is checked, and the server's ledger says how often it
ran.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from callers import Connected, both_channels, each_channel, reverse
from deadline import eventually
from fake_server import black_hole
from ledger_server import Does, LedgerServer, ledger_server
from proxy import proxy

from capnp_rig.client import (
    Channel,
    Client,
    ClientError,
    ConnectError,
    DeadlineExceeded,
    Disconnected,
    Overloaded,
    RemoteError,
)
from capnp_rig.client.policies import Call, Deadline, Hedge, Retry, RetryBudget
from capnp_rig.schema import message

IDEMPOTENT = {"read"}
# Of a busy machine; what is asserted is that nothing waits for anything else.
SOON_S = 8.0


@pytest.fixture(autouse=True)
def budget(monkeypatch: pytest.MonkeyPatch) -> RetryBudget:
    """The budget of the process, which no other test has used."""
    budget = RetryBudget()
    monkeypatch.setattr("capnp_rig.client.policies.retry.PROCESS_BUDGET", budget)
    return budget


def outcome(channel: Any, text: str, timeout_s: float = 10.0) -> type[ClientError] | None:
    """Call; return what it ended in, None for the right answer."""
    try:
        assert reverse(channel, text, timeout_s) == text[::-1]
    except ClientError as error:
        return type(error)
    return None


def outcomes(channel: Any, texts: Sequence[str], threads: int = 4) -> Counter[Any]:
    with ThreadPoolExecutor(threads) as pool:
        return Counter(pool.map(lambda text: outcome(channel, text), texts))


def nonces(count: int) -> list[str]:
    return [f"nonce {number} {random.getrandbits(40)}" for number in range(count)]


# --- F-2: one deadline --------------------------------------------------------------------


@each_channel
def test_f2_a_connect_does_not_outlast_the_deadline(channel: Connected) -> None:
    with black_hole() as (host, port), channel(f"{host}:{port}", connect_timeout_s=30) as caller:
        began_s = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="no connection within the deadline") as raised:
            reverse(caller, "abc", timeout_s=0.2)
        assert raised.value.did_not_run
        assert 0.2 <= time.monotonic() - began_s < SOON_S


@each_channel
def test_f2_f8_the_wait_for_a_place_ends_at_the_deadline(channel: Connected) -> None:
    with (
        ledger_server(lambda text: Does.KEEP_SILENT if "silent" in text else Does.ANSWER) as server,
        channel(server.address, size=1, calls_per_connection=1) as caller,
        ThreadPoolExecutor(1) as pool,
    ):
        holder = pool.submit(outcome, caller, "silent", 0.5)
        eventually(lambda: server.runs["silent"])
        with pytest.raises(DeadlineExceeded, match="all are busy") as raised:
            reverse(caller, "late", timeout_s=0.1)
        assert raised.value.did_not_run
        assert holder.result() is DeadlineExceeded
        # The place is free again.
        assert outcome(caller, "after") is None
        assert server.runs == {"silent": 1, "after": 1}


@each_channel
def test_f2_the_deadline_is_over_all_attempts_and_pauses(channel: Connected) -> None:
    """Each attempt is refused; only the deadline ends them."""
    policies = [Deadline(0.5), Retry(1000)]
    with ledger_server(Does.OVERLOADED) as server:
        with channel(server.address, policies=policies) as caller:
            began_s = time.monotonic()
            with pytest.raises(ClientError) as raised:
                reverse(caller, "abc", None)
            assert time.monotonic() - began_s < 0.5 + SOON_S
        assert raised.value.attempts > 1


class HedgeAfter(Hedge):
    """Makes the second attempt after a time that it is given."""

    def __init__(self, after_s: float) -> None:
        super().__init__()
        self.after_s = after_s

    def hedge_s(self, call: Call) -> float | None:
        return self.after_s


@both_channels
def test_f2_a_hedge_that_would_come_later_does_not_outlast_the_deadline(channel: Connected) -> None:
    policies = [Deadline(0.2), HedgeAfter(SOON_S)]
    with ledger_server(Does.KEEP_SILENT) as server:
        with channel(server.address, idempotent=IDEMPOTENT, policies=policies) as caller:
            began_s = time.monotonic()
            with pytest.raises(DeadlineExceeded) as raised:
                reverse(caller, "abc", None)
            assert time.monotonic() - began_s < SOON_S
        assert raised.value.attempts == 1


def test_a_hedge_that_cannot_be_sent_does_not_end_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[str] = []
    submit_by = Client.submit_by

    def submit_once(client: Any, deadline_s: float, method: str, params: Any) -> Any:
        sent.append(method)
        if len(sent) > 1:
            raise Disconnected("that one has ended")
        return submit_by(client, deadline_s, method, params)

    with ledger_server(Does.BE_LATE) as server:
        options: Any = {"idempotent": IDEMPOTENT, "policies": [HedgeAfter(0.0)], "eager": True}
        with Channel(server.address, interface=message.MessageStream, size=2, **options) as channel:
            eventually(lambda: channel.endpoints[0].connections == 2)
            monkeypatch.setattr(Client, "submit_by", submit_once)
            assert reverse(channel, "abc") == "cba"
            assert len(sent) == 2
            assert channel.endpoints[0].in_flight == 0


# --- F-5: the budget ----------------------------------------------------------------------


@both_channels
def test_f5_half_of_the_answers_are_refusals_and_the_load_stays(
    channel: Connected, budget: RetryBudget
) -> None:
    calls, came, source = 600, Counter[bool](), random.Random(5)

    def does(_: str) -> Does:
        refuses = source.random() < 0.5
        came[refuses] += 1
        return Does.OVERLOADED if refuses else Does.ANSWER

    with ledger_server(does) as server, channel(server.address) as caller:
        began_s = time.monotonic()
        ended = outcomes(caller, nonces(calls), 32)
        seconds = time.monotonic() - began_s
    assert set(ended) == {None, Overloaded}
    assert ended[None] == came[False]
    # The part per second may be used at once, for the ten seconds of its window.
    assert calls < came.total() <= calls * 1.2 + 10 * max(seconds, 10)


@both_channels
def test_f5_one_of_three_dies_in_each_answer_and_no_call_fails(channel: Connected) -> None:
    with ledger_server(Does.DIE_IN_REPLY) as dying, ledger_server() as one, ledger_server() as two:
        servers = [dying, one, two]
        addresses = [server.address for server in servers]
        with channel(addresses, idempotent=IDEMPOTENT) as caller:
            assert outcomes(caller, nonces(500), 8) == {None: 500}
        assert dying.attempts
        assert sum(server.attempts for server in servers) <= 500 * 1.2


@each_channel
def test_f5_what_is_not_idempotent_runs_at_most_once(channel: Connected) -> None:
    source = random.Random(5)
    kinds = [kind for kind in Does if kind not in {Does.KEEP_SILENT, Does.BE_LATE}]
    with ledger_server(lambda _: source.choice(kinds)) as server:
        with channel(server.address) as caller:
            ended = outcomes(caller, nonces(40))
        assert set(server.runs.values()) <= {0, 1}
    assert ended[None] > 0
    assert ended[Disconnected] > 0
    assert ended[RemoteError] > 0


@both_channels
def test_f5_a_server_that_flaps_is_called_when_it_is_there(
    channel: Connected, budget: RetryBudget
) -> None:
    with ledger_server() as server, proxy("127.0.0.1", server.port) as network:
        with channel(network.address, idempotent=IDEMPOTENT) as caller:
            assert outcome(caller, "warm") is None
            network.down()
            assert set(outcomes(caller, nonces(4))) <= {Disconnected, ConnectError}
            network.up()
            eventually(lambda: outcome(caller, "up") is None)
            # Again and again, for less than its calls wait.
            with ThreadPoolExecutor(4) as pool:
                ended = [pool.submit(outcome, caller, text) for text in nonces(12)]
                for _ in range(3):
                    network.down()
                    time.sleep(0.02)
                    network.up()
                    time.sleep(0.1)
            assert {each.result() for each in ended} <= {None, Disconnected, ConnectError}
            eventually(lambda: outcome(caller, "settled") is None)
        assert server.runs["warm"] == 1


@both_channels
def test_f5_a_server_that_is_down_is_not_hammered(
    channel: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls fail by the typed error, and connects are 0.1 s and more apart."""
    with ledger_server(Does.ANSWER) as server:
        with proxy("127.0.0.1", server.port) as network:
            server.does = lambda _: Does.DIE_BEFORE_REPLY
            with channel(network.address, size=1) as caller:
                until_s = time.monotonic() + 0.7
                calls = 0
                while time.monotonic() < until_s:
                    assert outcome(caller, f"call {calls}", 5) in {Disconnected, ConnectError}
                    calls += 1
        pauses = [b - a for a, b in zip(network.accepted_s, network.accepted_s[1:], strict=False)]
        assert 2 <= len(pauses) <= 16
        assert min(pauses) > 0.07
        assert len({round(pause, 4) for pause in pauses}) > 1


@both_channels
def test_f5_one_budget_for_all_channels_of_a_process(
    channel: Connected, budget: RetryBudget
) -> None:
    calls = 150
    with ledger_server(Does.OVERLOADED) as server:
        attempts = Counter[str]()
        inner = server.does

        def count(text: str) -> Does:
            attempts["all"] += 1
            return inner(text)

        server.does = count
        with channel(server.address) as one, channel(server.address) as other:
            began_s = time.monotonic()
            with ThreadPoolExecutor(16) as pool:
                for caller in (one, other):
                    for text in nonces(calls):
                        pool.submit(outcome, caller, text)
            seconds = time.monotonic() - began_s
    assert 2 * calls < attempts["all"] <= 2 * calls * 1.2 + 10 * max(seconds, 10)


# --- F-6: what may be tried again ---------------------------------------------------------


DEATHS = [
    Does.DIE_IN_REPLY,
    pytest.param(Does.DIE_BEFORE_REPLY, marks=pytest.mark.nightly),
    pytest.param(Does.CLOSE_IN_REPLY, marks=pytest.mark.nightly),
]


@each_channel
@pytest.mark.parametrize("death", DEATHS)
def test_f6_a_lost_answer_is_asked_for_again_only_if_idempotent(
    channel: Connected, death: Does
) -> None:
    def first_dies(server: LedgerServer) -> Callable[[str], Does]:
        return lambda text: Does.ANSWER if server.runs[text] else death

    with ledger_server() as server:
        server.does = first_dies(server)
        with channel(server.address, idempotent=IDEMPOTENT) as caller:
            assert [outcome(caller, f"again {n}") for n in range(3)] == [None] * 3
        with channel(server.address) as caller:
            assert [outcome(caller, f"once {n}") for n in range(3)] == [Disconnected] * 3
            assert outcome(caller, "again 0") is None
        assert server.runs == {
            **{f"again {n}": 2 for n in (1, 2)},
            **{f"once {n}": 1 for n in range(3)},
            "again 0": 3,
        }


@both_channels
def test_f6_a_refusal_after_a_lost_attempt_does_not_say_that_the_call_did_not_run(
    channel: Connected,
) -> None:
    with ledger_server() as server:
        server.does = lambda text: Does.OVERLOADED if server.runs[text] else Does.DIE_BEFORE_REPLY
        with channel(server.address, idempotent=IDEMPOTENT) as caller:
            with pytest.raises(Overloaded) as raised:
                reverse(caller, "abc")
            assert raised.value.attempts == 3
            assert not raised.value.did_not_run


@each_channel
def test_f6_overloaded_is_tried_elsewhere_and_an_answer_never(channel: Connected) -> None:
    with ledger_server(Does.OVERLOADED) as busy, ledger_server() as idle:
        with channel([busy.address, idle.address]) as caller:
            assert outcomes(caller, nonces(30)) == {None: 30}
        assert set(idle.runs.values()) == {1}
    for does in (Does.FAIL, Does.UNIMPLEMENTED):
        with ledger_server(does) as server:
            with channel(server.address, idempotent=IDEMPOTENT) as caller:
                assert outcomes(caller, nonces(10)) == {RemoteError: 10}
            assert set(server.runs.values()) == {1}


# --- F-8: connections that are dead -------------------------------------------------------


@each_channel
@pytest.mark.parametrize("with_reset", [False, True], ids=["closed", "reset"])
def test_f8_a_call_moves_on_from_an_idle_connection_that_is_dead(
    channel: Connected, *, with_reset: bool
) -> None:
    """None of them is idempotent."""
    with ledger_server() as server, channel(server.address) as caller:
        for turn in range(10):
            text = f"turn {turn}"
            assert outcome(caller, text) is None
            dead = server.end_all(with_reset=with_reset)
            eventually(lambda: not dead & server.standing)
            # A connection is looked at before a call is sent only if it was idle for 10 ms.
            time.sleep(0.02)
        assert server.runs == {f"turn {turn}": 1 for turn in range(10)}


@both_channels
def test_f8_connections_that_were_dead_are_no_attempts(channel: Connected) -> None:
    with ledger_server() as server, channel(server.address, size=4, eager=True) as caller:
        eventually(lambda: caller.endpoints[0].connections == 4)
        dead = server.end_all(with_reset=False)
        eventually(lambda: not dead & server.standing)
        server.does = lambda text: Does.FAIL
        time.sleep(0.02)
        with pytest.raises(RemoteError) as raised:
            reverse(caller, "abc")
        assert raised.value.attempts == 1

"""Real loss: packets that vanish between a client and our server (faults.md, B4, B14, B15).

It needs a network namespace and a tunnel device; where these are refused, the tests are skipped.
The same faults without them are in `test_network.py`, where TCP loses nothing.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from callers import Connected, both_channels, both_clients, reverse
from deadline import eventually
from lossy_network import CUT, FAR, NEAR, Air, Conditions, lossy_network
from running_server import running_server

from capnp_rig.client import ClientError, ConnectError, DeadlineExceeded, Disconnected
from capnp_rig.client.policies import Deadline, Retry, RetryBudget

pytestmark = pytest.mark.nightly
SEED = 15
BUDGET = RetryBudget(per_s=0)


@pytest.fixture
def air() -> Iterator[Air]:
    with lossy_network(SEED) as network:
        yield network


@pytest.fixture
def far(air: Air) -> Iterator[str]:
    """The address of a server beyond the network."""
    with running_server("--workers", "1", "--insecure", address=f"{NEAR}:0") as server:
        yield f"{FAR}:{server.port}"


@both_clients
def test_b14_what_is_lost_and_overtaken_is_answered_right(
    air: Air, far: str, client: Connected
) -> None:
    with client(far) as caller:
        air.conditions = Conditions(loss=0.01, latency_s=0.1, jitter_s=0.02, bytes_per_s=64_000)
        for number in range(12):
            text = f"{number} of 12 " * 700
            assert reverse(caller, text, timeout_s=30) == text[::-1]
        with pytest.raises(DeadlineExceeded):
            reverse(caller, "too slow", timeout_s=0.1)
        assert reverse(caller, "after") == "retfa"
    assert air.lost


@both_clients
def test_b15_calls_end_in_time_in_a_real_partition_and_go_on_after_it(
    air: Air, far: str, client: Connected
) -> None:
    with client(far) as caller:
        assert reverse(caller, "before") == "erofeb"
        air.conditions = CUT
        until_s = time.monotonic() + 5
        while time.monotonic() < until_s:
            with pytest.raises(DeadlineExceeded):
                reverse(caller, "lost", timeout_s=0.5)
        with (
            pytest.raises(ConnectError, match="no answer in time"),
            client(far, connect_timeout_s=0.5),
        ):
            pass
        air.conditions = Conditions()
        assert reverse(caller, "after", timeout_s=30) == "retfa"
        # A connection that is new is there at once.
        with client(far) as other:
            assert reverse(other, "new") == "wen"


@both_clients
def test_b4_a_server_that_vanished_ends_its_connection(
    air: Air, far: str, client: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is the kernel's; 90 s are 2 s here."""
    monkeypatch.setattr("capnp_rig.client.connecting.CLIENT_TIMEOUT_S", 2)
    with client(far) as caller:
        assert reverse(caller, "before") == "erofeb"
        air.conditions = CUT
        with pytest.raises(Disconnected, match="timed out"):
            reverse(caller, "lost", timeout_s=60)
        with pytest.raises(Disconnected):
            reverse(caller, "more")


@both_channels
def test_b14_a_channel_is_right_within_its_budget_where_packets_are_lost(
    air: Air, far: str, channel: Connected
) -> None:
    with channel(far, idempotent={"read"}, policies=[Deadline(), Retry(budget=BUDGET)]) as caller:
        assert reverse(caller, "before") == "erofeb"
        air.conditions = Conditions(loss=0.01, latency_s=0.1, jitter_s=0.02, bytes_per_s=64_000)
        with ThreadPoolExecutor(4) as pool:
            texts = [f"nonce {number} " * 100 for number in range(40)]
            answers = pool.map(lambda text: reverse(caller, text, timeout_s=30), texts)
            assert list(answers) == [text[::-1] for text in texts]
        assert air.lost
        assert caller.endpoints[0].calls <= 41 * 1.2 + 1


@both_channels
def test_b15_a_channel_recovers_from_a_real_partition(
    air: Air, far: str, channel: Connected
) -> None:
    """Its SYNs vanish, too. What TCP sends again comes seconds after the network has healed."""
    with channel(far, idempotent={"read"}) as caller:
        assert reverse(caller, "before") == "erofeb"
        air.conditions = CUT
        until_s = time.monotonic() + 5
        while time.monotonic() < until_s:
            with pytest.raises(ClientError):
                reverse(caller, "lost", timeout_s=0.5)
        air.conditions = Conditions()
        healed_s = time.monotonic()
        eventually(lambda: is_answered(caller, "after", timeout_s=0.5))
        # A second and a connect timeout; the rest is for a busy machine.
        assert time.monotonic() - healed_s < 2 + 2


@both_channels
def test_b4_a_channel_calls_the_other_server_where_one_vanished(
    air: Air, far: str, channel: Connected
) -> None:
    with (
        running_server("--workers", "1") as here,
        channel([far, f"{here.host}:{here.port}"], idempotent={"read"}) as caller,
    ):
        eventually(lambda: all(each.state == "ready" for each in used(caller).endpoints))
        air.conditions = CUT
        # One call may be lost with each connection that it has there.
        lost = sum(not is_answered(caller, f"nonce {n}", timeout_s=1.2) for n in range(40))
        assert lost <= 6
        assert all(is_answered(caller, f"after {number}", timeout_s=1.2) for number in range(20))


def is_answered(caller: Any, text: str, timeout_s: float) -> bool:
    try:
        assert reverse(caller, text, timeout_s) == text[::-1]
    except ClientError:
        return False
    return True


def used(caller: Any) -> Any:
    assert is_answered(caller, "warm", timeout_s=10)
    return caller

"""Real loss: packets that vanish between a client and our server (faults.md, B4, B14, B15).

It needs a network namespace and a tunnel device; where these are refused, the tests are skipped.
The same faults without them are in `test_network.py`, where TCP loses nothing.
"""

import time
from collections.abc import Iterator

import pytest
from callers import Connected, both_clients, reverse
from lossy_network import CUT, FAR, NEAR, Air, Conditions, lossy_network
from running_server import running_server

from capnp_rig.client import ConnectError, DeadlineExceeded, Disconnected

pytestmark = pytest.mark.nightly
SEED = 15


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

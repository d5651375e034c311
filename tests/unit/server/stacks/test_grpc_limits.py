"""The time limits that gRPC's core keeps for us."""

import pytest

from capnp_rig.server.config import ConnectionLimits

pytest.importorskip("grpc")

from capnp_rig.server.stacks.grpc_server import _time_limits


def test_b16_calls_without_their_message_do_not_outlive_the_age_of_a_connection() -> None:
    aging = dict(_time_limits(ConnectionLimits(max_age_s=60)))
    assert aging["grpc.max_connection_age_ms"] == 60_000
    assert aging["grpc.max_connection_age_grace_ms"] == 10_000
    assert "grpc.max_connection_age_grace_ms" not in dict(_time_limits(ConnectionLimits()))

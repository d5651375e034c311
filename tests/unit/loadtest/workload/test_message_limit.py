"""`max_message_bytes` of a load: what it may send, and what its connections take."""

import struct

import pytest

from capnp_rig.loadtest.compare import _load
from capnp_rig.loadtest.protocols import ECHO, load_any_workload
from capnp_rig.loadtest.protocols.capnp_calls import CallExchange
from capnp_rig.loadtest.protocols.capnp_exchange import Exchange
from capnp_rig.loadtest.workload import (
    Workload,
    WorkloadConfig,
    WorkloadError,
    load_workload,
    message_limits,
)
from capnp_rig.objects.errors import ProtocolError
from capnp_rig.wire.encoding.encoded import EncodedStruct
from capnp_rig.wire.errors import EncodeError

FIVE_MIB = "x" * (5 << 20)


def loaded(max_message_bytes: int) -> Workload:
    return load_workload(WorkloadConfig(text=FIVE_MIB, max_message_bytes=max_message_bytes))


def test_a_text_over_the_limit_is_refused_and_names_the_option() -> None:
    with pytest.raises(WorkloadError, match=r"more than a message holds, 4194176 \(--max-message"):
        load_workload(WorkloadConfig(text=FIVE_MIB))
    assert loaded(8 << 20).frame_limits == message_limits(8 << 20)


def test_params_over_the_limit_are_refused() -> None:
    params = '{"request": {"content": "' + FIVE_MIB + '"}}'
    with pytest.raises(WorkloadError, match=r"--max-message"):
        load_workload(WorkloadConfig(params=params))
    load_workload(WorkloadConfig(params=params, max_message_bytes=8 << 20))


@pytest.mark.parametrize(("limit_bytes", "is_taken"), [(4 << 20, False), (8 << 20, True)])
def test_a_connection_takes_replies_up_to_the_limit(limit_bytes: int, *, is_taken: bool) -> None:
    config = WorkloadConfig(max_message_bytes=limit_bytes)
    exchange = Exchange(load_workload(config), 0, 1, answered=print, failed=print)
    announced = struct.pack("<II", 0, 5 << 17)
    if is_taken:
        assert exchange.receive(announced, 0) == 0
        return
    with pytest.raises(ProtocolError, match=r"the limit is 4194304 \(--max-message of the load\)"):
        exchange.receive(announced, 0)


def test_single_calls_have_the_limit_too() -> None:
    method = load_workload(WorkloadConfig()).method
    params = EncodedStruct(0, [bytes(5 << 20)], 5 << 17)
    with pytest.raises(EncodeError, match="too large"):
        CallExchange().call(method, params, 0)
    CallExchange(limits=message_limits(8 << 20)).call(method, params, 0)


def test_it_is_for_the_capnp_stack() -> None:
    with pytest.raises(WorkloadError, match=r"--max-message is for the stack capnp"):
        load_any_workload(ECHO, WorkloadConfig(max_message_bytes=8 << 20))


def test_loads_that_differ_in_it_alone_are_the_same_load() -> None:
    config = {"workload": {"text": "x", "seed": 1, "max_message_bytes": 8 << 20}}
    assert _load(config, "run") == {"workload.text": "x"}

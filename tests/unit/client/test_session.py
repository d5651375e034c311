"""Timeouts, and what the end of a session is called."""

import math
import sys
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from capnp_rig.client import (
    ClientError,
    Disconnected,
    Overloaded,
    ProtocolError,
    RemoteError,
    UsageError,
)
from capnp_rig.client.errors import fresh
from capnp_rig.client.reverse import MESSAGE_STREAM
from capnp_rig.client.session import Session
from capnp_rig.client.timeouts import MAX_TIMEOUT_S, check_timeout
from capnp_rig.wire.rpc.message_encoder import encode_abort, encode_bootstrap, encode_exception
from capnp_rig.wire.rpc.messages import ExceptionType
from capnp_rig.wire.rpc.messages import RemoteError as WireRemoteError
from capnp_rig.wire.rpc.server_connection import ServerConnection

FULL = encode_abort(WireRemoteError("full", ExceptionType.OVERLOADED))
PARAMS = {"request": {"content": "x"}}


@pytest.mark.parametrize(
    "timeout_s", [0, 0.0, 1, 0.001, 15.0, MAX_TIMEOUT_S, Fraction(1, 2), np.float32(0.5), True]
)
def test_a_timeout_is_a_number_of_seconds(timeout_s: Any) -> None:
    checked = check_timeout(timeout_s)
    assert type(checked) is float
    assert checked == float(timeout_s)


@pytest.mark.parametrize(
    "timeout_s",
    [
        *(math.inf, -math.inf, math.nan, -1, -1e-9, 1e300, 10**400, MAX_TIMEOUT_S * 1.01),
        *("1", b"1", None, [], 1j, Decimal(1), np.float64("nan")),
    ],
    ids=repr,
)
def test_what_is_no_timeout_is_a_usage_error(timeout_s: Any) -> None:
    with pytest.raises(UsageError, match="a timeout is 0 to 31536000 seconds, not ") as error:
        check_timeout(timeout_s)
    assert isinstance(error.value, ValueError)
    assert not isinstance(error.value, ClientError)


def ended(*received: bytes, eof: bool = False) -> ClientError:
    session = Session(MESSAGE_STREAM)
    session.start("read", PARAMS)
    for data in received:
        list(session.receive_data(data))
    if eof:
        session.receive_eof()
    error = session.error
    assert error is not None
    return error


def bootstrap_answer() -> bytes:
    server = ServerConnection()
    server.receive_data(encode_bootstrap(0))
    return server.data_to_send()


TOO_LARGE = bytes.fromhex("00000000 00000800")
SAID_TOO_LARGE = "message is too large: 4194312 bytes, the limit is 4194304"
SAID_NO_FRAME = "message has 4294967296 segments, the limit is 511"


@pytest.mark.parametrize(
    ("received", "kind", "text"),
    [
        # Before it has given us anything to call, no call can have run.
        ([FULL], Overloaded, "full"),
        ([bootstrap_answer(), FULL], Disconnected, "the server ended the connection: full"),
        ([bootstrap_answer() + FULL], Disconnected, "the server ended the connection: full"),
        (
            [encode_abort(WireRemoteError("no"))],
            Disconnected,
            "the server ended the connection: no",
        ),
        ([b"HTTP/1.1 400 Bad"], ProtocolError, "not a Cap'n Proto server: it speaks HTTP"),
        ([b"HTTP"], ProtocolError, "not a Cap'n Proto server: it speaks HTTP"),
        (
            [bytes.fromhex("000006 04 00 00000000")],
            ProtocolError,
            "not a Cap'n Proto server: it speaks HTTP",
        ),
        (
            [bytes.fromhex("15 0303 0002 0228")],
            ProtocolError,
            "not a Cap'n Proto server: it speaks TLS",
        ),
        (
            [b"\xff" * 8],
            ProtocolError,
            f"not a Cap'n Proto server, or a broken one: {SAID_NO_FRAME}",
        ),
        (
            [TOO_LARGE],
            ProtocolError,
            f"not a Cap'n Proto server, or a broken one: {SAID_TOO_LARGE}",
        ),
        (
            [bootstrap_answer() + TOO_LARGE],
            ProtocolError,
            f"a message of the server is over our own limit: {SAID_TOO_LARGE}",
        ),
        (
            [bootstrap_answer() + b"\xff" * 8],
            ProtocolError,
            f"the server broke the protocol: {SAID_NO_FRAME}",
        ),
        ([b"".join(encode_exception(0, WireRemoteError("none")))], RemoteError, "none"),
    ],
)
def test_the_end_is_called_what_it_is(
    received: list[bytes], kind: type[ClientError], text: str
) -> None:
    error = ended(*received)
    assert (type(error), str(error)) == (kind, text)


def test_an_end_of_the_stream_inside_a_message_is_no_clean_one() -> None:
    assert type(ended(eof=True)) is Disconnected
    error = ended(bootstrap_answer()[:-1], eof=True)
    assert type(error) is Disconnected
    assert "the server closed the connection within a message" in str(error)


def test_each_caller_gets_an_exception_of_its_own() -> None:
    session = Session(MESSAGE_STREAM)
    list(session.receive_data(FULL))
    raised = []
    for _ in range(10_000):
        try:
            session.start("read", PARAMS)
        except Overloaded as error:
            raised.append(error)
    assert len({id(error) for error in raised}) == 10_000
    for error in raised:
        trace = error.__traceback__
        assert trace is not None
        assert trace.tb_next is not None
        assert trace.tb_next.tb_next is None
        assert (str(error), error.type) == ("full", ExceptionType.OVERLOADED)


def test_a_fresh_error_holds_nothing_of_the_first_caller() -> None:
    first = RemoteError("why", ExceptionType.UNIMPLEMENTED)
    try:
        raise first
    except RemoteError:
        second = fresh(first)
    assert isinstance(second, RemoteError)
    assert (second.type, second.args) == (first.type, first.args)
    assert (second.__traceback__, second.__cause__, second.__context__) == (None, None, None)
    assert sys.getrefcount(first) < 4


def test_no_tables_are_kept_after_the_end() -> None:
    session = Session(MESSAGE_STREAM)
    question_id = session.start("read", PARAMS)
    session.lose(Disconnected("gone"))
    session.data_to_send()
    session.cancel(question_id)
    assert session._methods == {}
    assert session.data_to_send() == b""
    # What still comes is nobody's.
    server = ServerConnection()
    server.receive_data(encode_bootstrap(0))
    assert list(session.receive_data(server.data_to_send())) == []

import pytest

from capnp_rig.client.bootstrap_ping import Reply
from capnp_rig.client.ping_log import PingLog
from capnp_rig.client.stacks.registry import LibraryMissingError
from capnp_rig.client.statuses import Status, status_of
from capnp_rig.objects.errors import (
    ClientError,
    ConnectError,
    DeadlineExceeded,
    Disconnected,
    Overloaded,
    ProtocolError,
    RemoteError,
    UsedAfterFork,
)


def test_each_answer_has_a_line_and_all_have_a_summary() -> None:
    log = PingLog()
    assert log.replied(Reply(1_234_567, None)) == "reply 1 in 1235 µs"
    assert log.summary() == "1 of 1 answered: min 1235, median 1235, p99 1235, max 1235 µs"
    assert log.missed(0.5) == "no reply 2 within 0.5 s"
    assert log.replied(Reply(2_000_000, None)) == "reply 3 in 2000 µs"
    assert log.summary() == "2 of 3 answered: min 1235, median 1617, p99 2000, max 2000 µs"
    assert (log.sent, log.late, log.error) == (3, 1, None)


def test_a_hundredth_is_beyond_p99() -> None:
    log = PingLog()
    for number in range(200, 0, -1):
        log.replied(Reply(number * 1000, None))
    assert log.summary() == "200 of 200 answered: min 1, median 100, p99 198, max 200 µs"


def test_an_error_is_an_answer() -> None:
    log, error = PingLog(), RemoteError("there is none")
    assert log.replied(Reply(5_000, error)) == "reply 1 in 5 µs, an error"
    assert log.error is error
    assert log.summary().startswith("1 of 1 answered")


def test_without_an_answer_there_are_no_times() -> None:
    log = PingLog()
    log.missed(15.0)
    assert log.summary() == "0 of 1 answered"


# Types: another test looks for exceptions that are left over.
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RemoteError, 1),
        (Overloaded, 1),
        (LibraryMissingError, 2),
        (ConnectError, 3),
        (DeadlineExceeded, 4),
        (Disconnected, 5),
        (ProtocolError, 5),
        (UsedAfterFork, 5),
    ],
)
def test_each_error_has_its_status(
    error: type[ClientError | LibraryMissingError], status: int
) -> None:
    assert status_of(error("x")) is Status(status)

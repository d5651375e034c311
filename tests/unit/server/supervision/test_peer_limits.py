"""How many connections a peer may have, and how fast it may make them."""

from capnp_rig.server.config import ConnectionLimits
from capnp_rig.server.supervision.peer_limits import _MOST_BUCKETS, PeerLimits, RateLimit


def test_b16_a_peer_has_no_more_connections_than_it_may() -> None:
    limits = PeerLimits(ConnectionLimits(max_connections_per_peer=2))
    assert limits.refusal("10.0.0.1", 1, 0.0) is None
    reason = limits.refusal("10.0.0.1", 2, 0.0)
    assert reason == "2 connections of 10.0.0.1 are open (--max-connections-per-peer)"
    assert limits.refusal("10.0.0.2", 0, 0.0) is None


def test_b16_a_peer_connects_no_faster_than_it_may() -> None:
    limits = PeerLimits(ConnectionLimits(max_connect_rate_per_peer=2))
    at_once = [limits.refusal("uid 7", 0, 5.0) for _ in range(3)]
    assert at_once[:2] == [None, None]
    assert at_once[2] is not None
    assert at_once[2].startswith("more than 2 connections a second of uid 7")
    assert limits.refusal("uid 8", 0, 5.0) is None
    # What was refused does not count.
    later = [limits.refusal("uid 7", 0, 5.5), limits.refusal("uid 7", 0, 5.6)]
    assert later[0] is None
    assert later[1] is not None


def test_there_is_no_limit_by_default() -> None:
    limits = PeerLimits(ConnectionLimits())
    assert {limits.refusal("x", count, 0.0) for count in range(10_000)} == {None}
    assert not limits.counts


def test_a_rate_below_one_allows_one_at_once() -> None:
    rate = RateLimit(0.1)
    assert [rate.take("x", now_s) for now_s in (0.0, 9.0, 10.0, 10.1)] == [True, False, True, False]


def test_b16_peers_without_number_do_not_fill_the_memory() -> None:
    # Slow enough that no bucket is full again.
    rate = RateLimit(1e-6)
    rate.take("first", 0.0)
    for number in range(2 * _MOST_BUCKETS):
        assert rate.take(str(number), number / 1000)
        if not number % 1000:
            # Who comes again is kept.
            assert not rate.take("first", number / 1000)
    assert len(rate._buckets) == _MOST_BUCKETS

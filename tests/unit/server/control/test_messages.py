import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from capnp_rig.rigcli.address import Address
from capnp_rig.server.config import ConnectionLimits, ServerConfig
from capnp_rig.server.control.channel import Channel, ChannelClosedError
from capnp_rig.server.control.messages import (
    Drain,
    Drop,
    Ended,
    Failed,
    Hand,
    Left,
    Message,
    Ping,
    Pong,
    Ready,
    Refused,
    Setup,
    Stop,
    Taken,
    decode,
    encode,
)

CONFIG = ServerConfig(Address(path="/run/ü"), 2, limits=ConnectionLimits(max_connections=7))
MESSAGES: list[Message] = [
    Setup(CONFIG, 0, None, "/home/ü"),
    Setup(replace(CONFIG, stack="grpc"), 0, 1, "/", "[::1]:80", 5),
    Hand(7, "[::1]:80"),
    Drop(7),
    Ping(1),
    Drain(),
    Stop(),
    Ready(None),
    Ready("no"),
    Failed("because"),
    Taken(7),
    Refused(7),
    Ended(7),
    Pong(1),
    Left(3),
]


@pytest.mark.parametrize("message", MESSAGES, ids=repr)
def test_a_message_survives_its_packet(message: Message) -> None:
    assert decode(encode(message)) == message


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = Channel.pair()
    other = Channel(theirs)
    yield ours, other
    ours.close()
    other.close()


def test_messages_and_descriptors_arrive_in_order(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    assert theirs.receive() is None
    left, right = socket.socketpair()
    assert ours.send(Hand(1, "x"), left.fileno())
    assert ours.send(Ping(2))
    left.close()
    received = theirs.receive()
    assert received is not None
    message, fd = received
    assert fd is not None
    assert message == Hand(1, "x")
    with socket.socket(fileno=fd) as copy:
        copy.send(b"through")
    assert right.recv(10) == b"through"
    right.close()
    assert theirs.receive() == (Ping(2), None)


def test_a12_a_full_channel_says_so_at_once(ends: tuple[Channel, Channel]) -> None:
    ours, _ = ends
    sent = 0
    while ours.send(Ping(sent)):
        sent += 1
    assert sent > 100
    assert not ours.send(Ping(0))


def test_the_end_of_the_other_side_is_told(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    theirs.close()
    with pytest.raises(ChannelClosedError):
        ours.receive()
    with pytest.raises(ChannelClosedError):
        ours.send(Drain())

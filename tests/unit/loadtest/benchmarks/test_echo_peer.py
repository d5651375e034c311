import socket
from collections.abc import Iterator

import pytest

from capnp_rig.loadtest.benchmarks.echo_peer import receive_frame, send_frame


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        one.settimeout(5)
        other.settimeout(5)
        yield one, other


@pytest.mark.parametrize("frame", [b"", b"x", bytearray(b"abc"), memoryview(bytes(1000))])
def test_frames_arrive_one_by_one(
    pair: tuple[socket.socket, socket.socket], frame: bytes | bytearray | memoryview
) -> None:
    send_frame(pair[0], frame)
    send_frame(pair[0], b"next")
    assert receive_frame(pair[1]) == frame
    assert receive_frame(pair[1]) == b"next"


@pytest.mark.parametrize("sent", [b"", b"\x05\0\0", b"\x05\0\0\0\0\0\0\0ab"])
def test_an_end_within_a_frame_is_one(
    pair: tuple[socket.socket, socket.socket], sent: bytes
) -> None:
    pair[0].sendall(sent)
    pair[0].close()
    with pytest.raises(EOFError, match="the peer has ended"):
        receive_frame(pair[1])


class Interrupted(socket.socket):
    """Takes the length and three bytes at first, as when a signal comes."""

    def sendmsg(self, buffers: object, *_: object) -> int:  # type: ignore[override]
        head, frame = buffers  # type: ignore[misc]
        self.sendall(bytes(head) + bytes(frame[:3]))
        return len(head) + 3


def test_what_a_signal_cut_off_is_sent_too(pair: tuple[socket.socket, socket.socket]) -> None:
    with Interrupted(fileno=pair[0].detach()) as sock:
        send_frame(sock, b"all of it")
        assert receive_frame(pair[1]) == b"all of it"

"""An HTTP/2 client made of h2 and a socket: it can leave a request half sent."""

import socket
from collections.abc import Iterator
from typing import NamedTuple

import h2.config
import h2.connection
import h2.events
from running_stack import read_exactly


class H2Peer:
    """One connection; `responses` has what came on each stream: headers of all kinds, and data."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(10)
        self._sock = sock
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        )
        self._h2.initiate_connection()
        self.headers: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.is_over = False

    def request(self, method: str, path: str, *headers: tuple[str, str], end: bool = True) -> int:
        """Send a head; return its stream."""
        stream = self._h2.get_next_available_stream_id()
        pseudo = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "x")]
        self._h2.send_headers(stream, [*pseudo, *headers], end_stream=end)
        self.headers[stream], self.bodies[stream] = {}, bytearray()
        self._flush()
        return stream

    def send(self, stream: int, data: bytes, *, end: bool) -> None:
        """Send a body, or a part of one."""
        while data or end:
            window = self._h2.local_flow_control_window(stream)
            part = data[: min(window, self._h2.max_outbound_frame_size)]
            data = data[len(part) :]
            if not part and data:
                self.receive()
                continue
            self._h2.send_data(stream, part, end_stream=end and not data)
            self._flush()
            if not data:
                return

    def receive(self) -> None:
        """Read once and note what came."""
        data = self._sock.recv(1 << 16)
        self.is_over = not data
        for event in self._h2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                self.headers[event.stream_id] |= dict(event.headers)  # type: ignore[arg-type]
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)
        self._flush()

    def finish(self, stream: int) -> tuple[dict[str, str], bytes]:
        """Return the headers and trailers of a response, and its body, when it has ended."""
        while stream not in self.ended:
            assert not self.is_over, "the connection ended first"
            self.receive()
        return self.headers[stream], bytes(self.bodies[stream])

    def _flush(self) -> None:
        self._sock.sendall(self._h2.data_to_send())


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


def read_frames(sock: socket.socket) -> Iterator[Frame]:
    """Yield the frames that come, for what h2 does not put up with: it reads no answers after the
    GOAWAY of a server that still finishes them.
    """
    while head := read_exactly(sock, 9):
        payload = read_exactly(sock, int.from_bytes(head[:3], "big"))
        yield Frame(head[3], head[4], int.from_bytes(head[5:], "big"), payload)

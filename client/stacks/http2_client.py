"""The client of the stack ``http`` over HTTP/2 with prior knowledge, by the library h2."""

import socket
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import ProtocolError as H2ProtocolError

from capnp_rig.client.stacks.http_messages import JsonOverHttp
from capnp_rig.objects.errors import Disconnected, ProtocolError
from capnp_rig.rigcli.address import Address


class Http2Client(JsonOverHttp):
    """The client over HTTP/2; each request is a stream of its own."""

    def __init__(self, sock: socket.socket, address: Address, timeout_s: float) -> None:
        super().__init__(sock, address, timeout_s)
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._h2.initiate_connection()

    def _request(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        self._socket.start()
        try:
            stream = self._h2.get_next_available_stream_id()
            headers = [
                (":method", method),
                (":path", path),
                (":scheme", "http"),
                (":authority", self._host),
            ]
            if body:
                headers += [
                    ("content-type", "application/json"),
                    ("content-length", str(len(body))),
                ]
            self._h2.send_headers(stream, headers, end_stream=not body)
            answer = self._exchange(_Answer(stream), memoryview(body))
        except H2ProtocolError as error:
            raise ProtocolError(f"not an HTTP/2 server, or a broken one: {error}") from error
        self._socket.finish()
        return answer

    def _exchange(self, answer: "_Answer", body: memoryview) -> tuple[int, bytes]:
        """Send the body as far as the server's window lets us, until it has answered."""
        while True:
            body = self._send_body(answer.stream, body)
            self._socket.queue(self._h2.data_to_send())
            for event in self._h2.receive_data(self._receive()):
                if isinstance(event, DataReceived):
                    self._h2.acknowledge_received_data(event.flow_controlled_length, answer.stream)
                answer.note(event)
            if answer.is_complete:
                # The last acknowledgements leave with the next request.
                return answer.status, bytes(answer.body)

    def _send_body(self, stream: int, body: memoryview) -> memoryview:
        while body:
            size = min(
                self._h2.local_flow_control_window(stream),
                self._h2.max_outbound_frame_size,
                len(body),
            )
            if size <= 0:
                break
            self._h2.send_data(stream, bytes(body[:size]), end_stream=size == len(body))
            body = body[size:]
        return body


class _Answer:
    """What came of the answer on `stream`."""

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self.status = 0
        self.body = bytearray()
        self.is_complete = False

    def note(self, event: Event) -> None:
        if isinstance(event, ConnectionTerminated):
            raise Disconnected(f"the server ended the connection: {_name(event.error_code)}")
        if getattr(event, "stream_id", None) != self.stream:
            return
        if isinstance(event, ResponseReceived):
            self.status = int(dict(event.headers)[b":status"])
        elif isinstance(event, DataReceived):
            self.body += event.data
        elif isinstance(event, StreamReset):
            raise Disconnected(f"the server cancelled the request: {_name(event.error_code)}")
        elif isinstance(event, StreamEnded):
            self.is_complete = True


def _name(code: Any) -> str:
    return str(getattr(code, "name", code))

"""Clients of the stack ``http``: requests and answers are the same over HTTP/1.1 and HTTP/2."""

import json
import socket
from typing import Any

from capnp_rig.client.stacks.stack_socket import SocketClient
from capnp_rig.client.stacks.texts import read_text, utf8
from capnp_rig.objects.errors import Overloaded, ProtocolError, RemoteError
from capnp_rig.rigcli.address import Address


class JsonOverHttp(SocketClient):
    """One connection that stays open between its requests; a subclass makes a request."""

    def __init__(self, sock: socket.socket, address: Address, timeout_s: float) -> None:
        super().__init__(sock, address, timeout_s)
        # What to call the server in its own protocol.
        self._host = "localhost" if address.path is not None else str(address)

    def read(self, text: str) -> bytes:
        """Return the text reversed."""
        utf8(text)
        body = json.dumps({"content": text}, ensure_ascii=False).encode()
        answer = _checked(*self._request("POST", "/reverse", body))
        return read_text(answer.get("chunk"), "chunk")

    def ping(self) -> None:
        """Ask for the server's health."""
        _checked(*self._request("GET", "/health", b""))

    def _request(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Return the status and the body of an answer."""
        raise NotImplementedError


def _checked(status: int, body: bytes) -> dict[str, Any]:
    """Return the object in the body of an answer with status 200."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if status != 200:
        reason = answer.get("error") if isinstance(answer, dict) else None
        kind = Overloaded if status == 503 else RemoteError
        raise kind(f"HTTP status {status}: {reason or 'no reason given'}")
    if not isinstance(answer, dict):
        raise ProtocolError("the server's answer is no JSON object")
    return answer

"""Requests and answers of the stack ``http``, the same over HTTP/1.1 and HTTP/2."""

import json
from typing import Any

from capnp_rig.client.errors import ClientError, Overloaded, ProtocolError, RemoteError
from capnp_rig.client.stacks.texts import read_text, utf8
from capnp_rig.rigcli.address import Address


def host_name(address: Address) -> str:
    """Return what to call the server in its own protocol."""
    return "localhost" if address.path is not None else str(address)


def request_body(text: str) -> bytes:
    """Return the body that asks for `text` reversed.

    Raises:
        EncodeError: The text holds a lone surrogate.
    """
    utf8(text)
    return json.dumps({"content": text}, ensure_ascii=False).encode()


def read_answer(status: int, body: bytes) -> bytes:
    """Return the reversed text in an answer.

    Raises:
        ClientError: It is an error, or none of this server's.
    """
    return read_text(check_status(status, body).get("chunk"), "chunk")


def check_status(status: int, body: bytes) -> dict[str, Any]:
    """Return the object in the body of an answer with status 200.

    Raises:
        ClientError: The status is another, or there is no object.
    """
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if status != 200:
        raise _error(status, answer)
    if not isinstance(answer, dict):
        raise ProtocolError("the server's answer is no JSON object")
    return answer


def _error(status: int, answer: Any) -> ClientError:
    reason = answer.get("error") if isinstance(answer, dict) else None
    kind = Overloaded if status == 503 else RemoteError
    return kind(f"HTTP status {status}: {reason or 'no reason given'}")

"""``loadtest run --show``: some calls, one after the other, to look at before a load."""

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, count, islice, repeat
from typing import Any

from capnp_rig.client.connecting import connect_socket, secured
from capnp_rig.loadtest.engine.run import RunConfig
from capnp_rig.loadtest.protocols import (
    HTTP1,
    HTTP2,
    JSON,
    StackWorkload,
    alpn_of,
    load_any_workload,
    make_exchange,
)
from capnp_rig.loadtest.protocols.exchange import AnyExchange
from capnp_rig.loadtest.stats.failures import FailedCall, kind_of
from capnp_rig.loadtest.workload.checks import json_text, readable
from capnp_rig.objects.errors import DeadlineExceeded, Disconnected
from capnp_rig.wire.json_values.writing import escaped

_RECEIVE_BYTES = 65_536
_INDENT = 2
# Their payloads are the inside of a string.
_IN_JSON = {JSON, HTTP1, HTTP2}


@dataclass(frozen=True, slots=True)
class Seen:
    """One call: its reply as JSON, empty without one, and how it failed.

    `text` is the reply in one line, with the text that Data holds, empty where that is no news.
    """

    reply: str
    text: str = ""
    failure: FailedCall | None = None


def look(config: RunConfig, calls: int) -> Iterator[Seen]:
    """Make calls, one after the other, and yield each.

    Raises:
        ClientError: The server cannot be reached, or broke the connection.
    """
    workload = load_any_workload(config.stack, config.workload, authority=config.address)
    replies: list[tuple[str, str]] = []
    ended: list[Exception | None] = []
    if isinstance(workload, StackWorkload):
        right_replies = _right_replies(config.stack, workload)
    else:
        right_replies = repeat("")
        workload = workload.watched(
            lambda results: replies.append(_texts(results)), calls, compares=config.checks_content
        )
    exchange = make_exchange(
        workload,
        0,
        1,
        answered=lambda *_times: ended.append(None),
        failed=lambda error, *_times: ended.append(error),
    )
    security = secured(config.tls, alpn_of(config.stack))
    with connect_socket(config.addresses[0], config.timeout_s, security) as sock:
        sock.settimeout(config.timeout_s)
        while not exchange.is_ready:
            _turn(sock, exchange)
        for right_reply in islice(right_replies, calls):
            exchange.send(0, 0)
            while not ended:
                _turn(sock, exchange)
            error = ended.pop()
            reply, text = replies.pop() if replies else ("" if error else right_reply, "")
            failure = None if error is None else FailedCall.of(kind_of(error), error)
            yield Seen(reply, text, failure)


def _texts(results: Any) -> tuple[str, str]:
    """Return the two texts of `Seen`."""
    reply, text = escaped(json_text(results, indent=_INDENT)), readable(results)
    return reply, "" if json.loads(text) == json.loads(reply) else text


def _right_replies(stack: str, workload: StackWorkload) -> Iterator[str]:
    """Yield the replies to calls of a stack beside capnp: each is compared with all of it."""
    laps = chain.from_iterable(workload.payloads.lap(0, 1) for _ in count())
    for payload in laps:
        data = b"".join(payload.reply)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = base64.b64encode(data).decode()
        yield f'"{text}"' if stack in _IN_JSON else json.dumps(text, ensure_ascii=False)


def _turn(sock: Any, exchange: AnyExchange) -> None:
    """Send what is queued, and read once."""
    try:
        sock.sendall(exchange.output())
        data = sock.recv(_RECEIVE_BYTES)
    except TimeoutError as error:
        raise DeadlineExceeded("no answer within the deadline") from error
    except OSError as error:
        raise Disconnected(f"the connection was lost: {error.strerror}") from error
    if not data:
        raise Disconnected("the connection was lost: the server closed it")
    exchange.receive(data, time.monotonic_ns())

"""A closed loop in the layout of another implementation, with the Finish that it sends.

Run as ``python -m capnp_rig.loadtest.peers.load CONFIG``, a JSON object of `LoadConfig`.
Each call has a question id that its connection has not used before. Of every reply the id is
looked up, and the rest compared with the first reply, which is decoded and its text compared.
Prints what it did, and what the server used meanwhile, as a JSON object.
"""

import json
import select
import socket
import struct
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from capnp_rig.loadtest.engine.window_meter import WindowMeter
from capnp_rig.loadtest.peers.frames import (
    BEHIND_ID,
    BOOTSTRAP_QUESTION,
    ID_AT,
    LAYOUTS,
    Peer,
    bootstrap,
)
from capnp_rig.loadtest.peers.tutorial_call import READ, TEXT, params_of
from capnp_rig.rigcli.address import parse_address
from capnp_rig.wire.encoding.frames import FrameDecoder
from capnp_rig.wire.rpc.messages import Results, Return, content_of, decode

# More than all calls in flight of a connection are answered with; more costs fresh pages.
_RECEIVE_BYTES = 1 << 14
_PATIENCE_S = 10.0
_id_at = struct.Struct(f"<{ID_AT}xI").unpack_from
_id = struct.Struct("<I").pack
_words_at = struct.Struct("<4xI").unpack_from


@dataclass(frozen=True, slots=True)
class LoadConfig:
    """What to send where: `peer` is a name of `LAYOUTS`, `server_pids` are those to watch."""

    address: str
    peer: str
    connections: int
    in_flight: int
    warmup_s: float
    seconds: float
    server_pids: tuple[int, ...]


class WrongReplyError(Exception):
    """The server did not answer a call rightly; the message says how."""


class Replies:
    """Takes the replies of one server apart; all connections share what a right one is."""

    def __init__(self) -> None:
        self._head, self._tail, self._size = b"", b"", 0

    def ids(self, data: bytes) -> tuple[list[int], int]:
        """Return the answer ids of the whole frames in `data`, and where these end.

        Raises:
            WrongReplyError: One has no results, or other ones than the reversed text.
        """
        ids, at, end = [], 0, len(data)
        while at + BEHIND_ID <= end:
            size = 8 + 8 * _words_at(data, at)[0]
            if at + size > end:
                break
            if (
                size != self._size
                or not data.startswith(self._head, at)
                or not data.startswith(self._tail, at + BEHIND_ID)
            ):
                self._learn(data[at : at + size])
            ids.append(_id_at(data, at)[0])
            at += size
        return ids, at

    def _learn(self, frame: bytes) -> None:
        message = FrameDecoder().cut(frame, 0, len(frame))
        answer = None if message is None else decode(message)
        if not isinstance(answer, Return) or not isinstance(answer.outcome, Results):
            raise WrongReplyError(f"no results: {answer}")
        chunk = bytes(READ.results.open(content_of(answer.outcome.content)).chunk)
        if chunk != TEXT[::-1].encode():
            raise WrongReplyError(f"the reversal of {TEXT!r} came as {chunk!r}")
        if _id_at(frame)[0] != answer.answer_id:
            raise WrongReplyError("the server puts the id elsewhere than all others do")
        self._head, self._tail, self._size = frame[:ID_AT], frame[BEHIND_ID:], len(frame)


class Caller:
    """The calls of one connection, without its socket."""

    def __init__(self, peer: Peer, replies: Replies) -> None:
        call = peer.call(0, READ, params_of(TEXT))
        finish = peer.finish(0) if peer.finishes else b""
        self._call = call[:ID_AT], call[BEHIND_ID:]
        self._finish = finish[:ID_AT], finish[BEHIND_ID:]
        self._finishes = peer.finishes
        self._replies = replies
        self._waiting: set[int] = set()
        self._next, self._rest = BOOTSTRAP_QUESTION + 1, b""

    def calls(self, count: int) -> list[bytes]:
        """Return the parts of so many new calls."""
        ids = range(self._next, self._next + count)
        self._next += count
        self._waiting.update(ids)
        head, tail = self._call
        return [part for number in ids for part in (head, _id(number), tail)]

    def take(self, data: bytes) -> tuple[int, bytes]:
        """Return how many calls were answered, and what to send: their Finishes, and new calls.

        Raises:
            WrongReplyError: A reply is wrong, or to a call that does not wait.
        """
        data = self._rest + data if self._rest else data
        ids, end = self._replies.ids(data)
        self._rest = data[end:]
        parts: list[bytes] = []
        for number in ids:
            if number not in self._waiting:
                raise WrongReplyError(f"call {number} was answered, which does not wait")
            self._waiting.remove(number)
            if self._finishes:
                parts += (self._finish[0], _id(number), self._finish[1])
        return len(ids), b"".join(parts + self.calls(len(ids)))


# By file descriptor.
_Connections = dict[int, tuple[socket.socket, Caller]]


def _connect(address: str, peer: Peer) -> socket.socket:
    """Return a connection whose bootstrap is answered.

    Raises:
        OSError, WrongReplyError: The server does not answer it.
    """
    where = parse_address(address)
    sock = socket.create_connection((where.host, where.port), timeout=_PATIENCE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(bootstrap())
    decoder, data = FrameDecoder(), b""
    while (message := decoder.cut(data, 0, len(data))) is None:
        received = sock.recv(_RECEIVE_BYTES)
        if not received:
            raise WrongReplyError("the server closed the connection")
        data += received
    answer = decode(message)
    if not isinstance(answer, Return) or not isinstance(answer.outcome, Results):
        raise WrongReplyError(f"no interface: {answer}")
    sock.sendall(peer.settled())
    return sock


def run(config: LoadConfig) -> dict[str, Any]:
    """Load the server, and return what was done in the window.

    Raises:
        OSError, WrongReplyError: The server failed.
    """
    peer, replies = LAYOUTS[config.peer], Replies()
    meter = WindowMeter("load", config.server_pids)
    with ExitStack() as stack, select.epoll() as poll:
        connections: _Connections = {}
        for _ in range(config.connections):
            sock = stack.enter_context(_connect(config.address, peer))
            connections[sock.fileno()] = sock, Caller(peer, replies)
            poll.register(sock, select.EPOLLIN)
        for sock, caller in connections.values():
            sock.sendall(b"".join(caller.calls(config.in_flight)))
        _turn(poll, connections, config.warmup_s)
        meter.open()
        calls = _turn(poll, connections, config.seconds)
        return {**meter.close(), "calls": calls}


def _turn(poll: select.epoll, connections: _Connections, seconds: float) -> int:
    """Answer replies with new calls for so long; return how many came."""
    count, clock = 0, time.monotonic
    until_s = clock() + seconds
    while clock() < until_s:
        ready = poll.poll(_PATIENCE_S)
        if not ready:
            raise WrongReplyError(f"no reply for {_PATIENCE_S:g} s")
        for number, _ in ready:
            sock, caller = connections[number]
            data = sock.recv(_RECEIVE_BYTES)
            if not data:
                raise WrongReplyError("the server closed the connection")
            answered, out = caller.take(data)
            count += answered
            if out:
                sock.sendall(out)
    return count


if __name__ == "__main__":
    try:
        done = run(LoadConfig(**json.loads(sys.argv[1])))
    except (OSError, WrongReplyError) as error:
        sys.exit(str(error))
    sys.stdout.write(json.dumps(done) + "\n")

"""A minimal HTTP/1.1 server on uvloop: answers each POST with its text reversed.

As fast as Python gets, so that it is not what limits a client: it looks for the end of the head
and for the length that it announces, and has seen most heads before. Run as
``python -m capnp_rig.loadtest.benchmarks.http_reverse FD``, with a listening socket.
"""

import asyncio
import re
import socket
import sys
from typing import cast

import uvloop

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
_MOST_HEADS = 1000


class _Connection(asyncio.Protocol):
    """Answers one connection's requests, kept alive."""

    # By head: the length of its body. Clients send the same few again and again.
    _lengths: dict[bytes, int] = {}  # noqa: RUF012 - shared on purpose

    def __init__(self) -> None:
        self._data = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        data = self._data + data if self._data else data
        replies = []
        while (end := data.find(_HEAD_END)) >= 0:
            start = end + len(_HEAD_END)
            stop = start + self._length(data[:end])
            if len(data) < stop:
                break
            body = data[start:stop].decode()[::-1].encode()
            replies.append(_REPLY % len(body) + body)
            data = data[stop:]
        self._data = data
        if replies:
            self._transport.write(b"".join(replies))

    def _length(self, head: bytes) -> int:
        length = self._lengths.get(head)
        if length is None:
            match = _LENGTH.search(head)
            length = int(match[1]) if match else 0
            if len(self._lengths) < _MOST_HEADS:
                self._lengths[head] = length
        return length


async def _serve(fd: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, sock=socket.socket(fileno=fd))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))

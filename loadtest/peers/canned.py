"""A server that answers each call with one prepared Return: what the event loop alone costs.

Run as ``python -m capnp_rig.loadtest.peers.canned FD PEER TEXT``, with a listening socket
and a name of `peers.frames.LAYOUTS`, in whose layout it answers that the reversal is TEXT. It
decodes nothing but sizes, kinds and question ids. On uvloop, as the workers of the server.
"""

import asyncio
import socket
import struct
import sys
from typing import cast

import uvloop

from capnp_rig.loadtest.peers.frames import BEHIND_ID, ID_AT, LAYOUTS, Peer
from capnp_rig.loadtest.peers.tutorial_call import results_of
from capnp_rig.wire.rpc.messages import Tag

_words_at = struct.Struct("<4xI").unpack_from
# Where all of these messages have their kind.
_KIND_AT = 16
_CALL, _BOOTSTRAP = int(Tag.CALL), int(Tag.BOOTSTRAP)


class Canned(asyncio.Protocol):
    """Answers one connection's calls; only frames of one segment are expected."""

    def __init__(self, bootstrap: bytes, results: bytes) -> None:
        self._bootstrap = bootstrap
        self._head, self._tail = results[:ID_AT], results[BEHIND_ID:]
        self._rest = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, to answer on it."""
        # Not asserted: uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer the calls, and the bootstrap; all else needs no answer."""
        if self._rest:
            data = self._rest + data
        out: list[bytes] = []
        at, size = 0, len(data)
        while at + 8 <= size:
            end = at + 8 + 8 * _words_at(data, at)[0]
            if end > size:
                break
            kind = data[at + _KIND_AT]
            if kind == _CALL:
                out += (self._head, data[at + ID_AT : at + BEHIND_ID], self._tail)
            elif kind == _BOOTSTRAP:
                out.append(self._bootstrap)
            at = end
        self._rest = data[at:]
        if out:
            self._transport.write(b"".join(out))


async def _serve(fd: int, peer: Peer, text: str) -> None:
    results = peer.results(0, results_of(text))
    bootstrap = peer.bootstrap_results()
    loop = asyncio.get_running_loop()
    listener = socket.socket(fileno=fd)
    server = await loop.create_server(lambda: Canned(bootstrap, results), sock=listener)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), LAYOUTS[sys.argv[2]], sys.argv[3]))

"""Servers and clients of the stacks beside capnp, for tests that run over all of them."""

import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
from deadline import eventually
from running_server import Running, running_server

from capnp_rig.client.stacks.registry import StackClient, connect_stack
from capnp_rig.rigcli.address import Address
from capnp_rig.server.stacks.registry import missing_library

# Each with what its client is told besides; HTTP/2 is served by the stack http.
STACKS = ["echo", "json", "http", "http2", "grpc", "selectors"]
HANDED = [name for name in STACKS if name != "grpc"]


def served_by(name: str) -> str:
    """Return the stack behind a name, or skip the test if its libraries are missing."""
    stack = "http" if name == "http2" else name
    missing = missing_library(stack)
    if missing is not None:
        pytest.skip(f"needs the extra stacks: {missing}")
    return stack


def stack_server(
    name: str, *args: str, address: str = "127.0.0.1:0", cwd: Path | None = None
) -> AbstractContextManager[Running]:
    return running_server("--stack", served_by(name), *args, address=address, cwd=cwd)


@contextmanager
def stack_client(server: Running, name: str, *, timeout_s: float = 10.0) -> Iterator[StackClient]:
    address = Address(host=server.host, port=server.port, path=server.path)
    client = connect_stack(
        served_by(name), address, timeout_s=timeout_s, connect_timeout_s=5, http2=name == "http2"
    )
    with closing(client):
        yield client


def answer_to(name: str, text: str) -> bytes:
    """Return what a stack has to answer."""
    return (text if name == "echo" else text[::-1]).encode()


def serves(server: Running, name: str, text: str = "Grüße") -> bool:
    """Return whether a new connection gets the right answer."""
    with stack_client(server, name) as client:
        return client.read(text) == answer_to(name, text)


def connect(server: Running, *, receive_bytes: int = 0) -> socket.socket:
    """Return a connected socket, with a small receive buffer if that is asked for."""
    assert server.port is not None
    sock = socket.socket()
    sock.settimeout(10)
    if receive_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    try:
        sock.connect((server.host, server.port))
    except BaseException:
        sock.close()
        raise
    return sock


def await_read(sock: socket.socket) -> None:
    """Wait until the server has read all that was sent: its end of the connection has no more."""
    host, port = sock.getpeername()
    ends = (_hexadecimal(host, port), _hexadecimal(*sock.getsockname()))

    def is_read() -> bool:
        # Of each end: what is not acknowledged, and what is not read. A server that listens on
        # IPv6 too has its end there; the last 8 digits are those of IPv4.
        queues = {
            (fields[1][-13:], fields[2][-13:]): fields[4].split(":")
            for table in Path("/proc/net").glob("tcp*")
            for line in table.read_text(encoding="ascii").splitlines()[1:]
            for fields in [line.split()]
        }
        theirs, ours = queues[ends], queues[ends[::-1]]
        return int(ours[0], 16) == int(theirs[1], 16) == 0

    eventually(is_read, what=f"all read of {ends}")


def _hexadecimal(host: str, port: int) -> str:
    """Return an IPv4 address as /proc shows it."""
    number = int.from_bytes(socket.inet_aton(host), sys.byteorder)
    return f"{number:08X}:{port:04X}"


def read_all(sock: socket.socket) -> bytes:
    """Return what comes until the end of the stream."""
    return b"".join(iter(lambda: sock.recv(1 << 20), b""))


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = sock.recv(size - len(data))
        assert part, f"the end after {len(data)} of {size} bytes"
        data += part
    return bytes(data)

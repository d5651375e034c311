"""What supervisor and worker tell each other, as bytes: one message is one packet.

The supervisor sends `Setup`, then `Hand` with a file descriptor for every connection, `Ping`,
`Drop` for a connection of a peer that is refused, and at the end `Drain` or `Stop`. The worker
answers with `Ready` or `Failed`; `Taken` or `Refused` for each `Hand`; `Ended` when that connection
is over; `Pong`; and `Left` before it exits.

Packets keep their order, so a worker has adopted everything sent before `Drain` when it reads it.
"""

import json
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, get_origin, get_type_hints

from capnp_rig.server.config import ServerConfig

# One packet holds the longest message: a Setup with two paths, or a Failed with its cause.
MAX_MESSAGE_BYTES = 65_536


@dataclass(frozen=True)
class Message:
    """The base of all. Without slots, for which every class would be made a second time."""


@dataclass(frozen=True)
class Setup(Message):
    """The first message: who the worker is and how it serves. `core` None means unpinned.

    `folder` is searched for the service; None where the server was started in none that exists.
    `listen` is the address of a worker that listens by itself, for at most `max_connections`;
    None where connections are handed over.
    """

    config: ServerConfig
    worker: int
    core: int | None
    folder: str | None
    listen: str | None = None
    max_connections: int = 0


@dataclass(frozen=True)
class Hand(Message):
    """A connection, its descriptor travelling with the packet."""

    connection: int
    peer: str


@dataclass(frozen=True)
class Drop(Message):
    """End a connection at once."""

    connection: int


@dataclass(frozen=True)
class Ping(Message):
    """Asks for a `Pong`, answered through the worker's engine."""

    beat: int


@dataclass(frozen=True)
class Drain(Message):
    """Finish the calls in flight, then exit."""


@dataclass(frozen=True)
class Stop(Message):
    """Cancel the calls in flight, say how many, and exit."""


@dataclass(frozen=True)
class Ready(Message):
    """The worker serves; `pin_error` says why it is not pinned to its core."""

    pin_error: str | None


@dataclass(frozen=True)
class Failed(Message):
    """The worker cannot start, in one line; `trace` are the user's own frames if it is their code.

    Both are cut: a packet holds them.
    """

    cause: str
    trace: str | None = None


@dataclass(frozen=True)
class Taken(Message):
    """The worker owns this connection now; the supervisor closes its copy."""

    connection: int


@dataclass(frozen=True)
class Refused(Message):
    """The descriptor did not arrive: the worker is out of open files."""

    connection: int


@dataclass(frozen=True)
class Ended(Message):
    """A taken connection is over."""

    connection: int


@dataclass(frozen=True)
class Pong(Message):
    """The answer to the `Ping` of the same number."""

    beat: int


@dataclass(frozen=True)
class Left(Message):
    """The worker is about to exit; `cancelled` calls were given up."""

    cancelled: int


_KINDS = {kind.__name__: kind for kind in Message.__subclasses__()}


def encode(message: Message) -> bytes:
    """Return the packet of one message."""
    return json.dumps([type(message).__name__, asdict(message)]).encode()


def decode(packet: bytes) -> Message:
    """Return the message of one packet, as `encode` made it."""
    kind, values = json.loads(packet)
    message: Message = _build(_KINDS[kind], values)
    return message


def _build(kind: Any, values: Any) -> Any:
    if isinstance(values, list) and get_origin(kind) is tuple:
        return tuple(values)
    if not isinstance(values, dict) or not (isinstance(kind, type) and is_dataclass(kind)):
        return values
    kinds = get_type_hints(kind)
    return kind(**{name: _build(kinds[name], value) for name, value in values.items()})

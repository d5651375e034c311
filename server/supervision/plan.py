"""What a configuration comes to: the setups of its workers."""

from collections.abc import Sequence
from dataclasses import dataclass

from capnp_rig.server.config import ServerConfig
from capnp_rig.server.control.messages import Setup


@dataclass(frozen=True, slots=True)
class Plan:
    """What a configuration comes to on this machine, now."""

    config: ServerConfig
    setups: Sequence[Setup]
    max_connections: int

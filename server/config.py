"""What `server run` was asked to do, parsed once and passed down."""

from dataclasses import dataclass

from capnp_rig.rigcli.address import Address

LOOPS = ("asyncio", "uvloop")
ENGINES = ("wire", "pycapnp")
STACKS = ("capnp", "echo", "json", "http", "grpc", "selectors")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")
REVERSE_SERVICE = "capnp_rig.server.services.reverse:Reverse"


def names_a_service(text: str) -> bool:
    """Return whether the text has the form ``package.module:Name``."""
    module, _, name = text.partition(":")
    return all(part.isidentifier() for part in (name, *module.split(".")))


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The options of one server; `service` is ``package.module:Name``.

    `engine` and `service` are those of the capnp stack; the others have one job.
    """

    address: Address
    workers: int
    stack: str = "capnp"
    engine: str = "wire"
    loop: str = "uvloop"
    service: str = REVERSE_SERVICE
    log_level: str = "info"
    log_format: str = "text"
    drain_timeout_s: float = 30.0
    max_connections: int = 10_000
    backlog: int = 2048
    insecure: bool = False

    @property
    def workers_listen(self) -> bool:
        """Whether each worker listens by itself: gRPC cannot be handed a connection."""
        return self.stack == "grpc"

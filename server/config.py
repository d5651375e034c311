"""What `server run` was asked to do, parsed once and passed down."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Self, get_type_hints

from capnp_rig.rigcli.address import Address
from capnp_rig.rigcli.quantities import DEFAULT_IN_FLIGHT

LOOPS = ("asyncio", "uvloop")
ENGINES = ("wire", "pycapnp")
STACKS = ("capnp", "echo", "json", "http", "grpc", "selectors")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")
DISPATCHES = ("round-robin", "least-connections")
# What only a restart changes: the supervisor itself works with these.
FIXED = (
    "address",
    "stack",
    "backlog",
    "insecure",
    "user",
    "log_level",
    "log_format",
    "reload",
    "reload_dir",
    "metrics",
)
# By default, over TLS. asyncio has 257 KiB for an idle one (docs/guides/tls.md): half a GiB in all.
TLS_CONNECTIONS = 2_000
REVERSE_SERVICE = "capnp_rig.server.services.reverse:Reverse"


class ConfigError(Exception):
    """A running server cannot take this configuration; the message says why, in one line."""


def names_a_service(text: str) -> bool:
    """Return whether the text has the form ``package.module:Name``."""
    module, _, name = text.partition(":")
    return all(part.isidentifier() for part in (name, *module.split(".")))


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a connection may hold, and for how long; each is set by the option of its name.

    Of times, rates and what a peer may have, 0 sets no limit.
    """

    max_connections: int = 10_000
    max_message_bytes: int = 4_194_304
    max_in_flight: int = DEFAULT_IN_FLIGHT
    max_worker_calls: int = 4_096
    first_frame_timeout_s: float = 10.0
    min_rate: int = 500
    idle_timeout_s: float = 600.0
    max_age_s: float = 0.0
    max_connections_per_peer: int = 0
    max_connect_rate_per_peer: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """When a worker that serves is replaced by a fresh one; 0: for no such reason."""

    max_requests: int = 0
    max_requests_jitter: int = 0
    # In bytes.
    max_worker_rss: int = 0


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """Where the certificates are, as PEM files; without `tls_cert` nothing is encrypted.

    `tls_key` None means that the key is in the file of the certificate. With `tls_client_ca`,
    clients must have a certificate from there.
    """

    tls_cert: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    tls_handshake_timeout_s: float = 5.0


@dataclass(frozen=True, slots=True)
class UnixOptions:
    """Who may connect to a Unix socket: by the mode of its file, and by user where some are named.

    `allow_uid` is empty for all that the mode lets in.
    """

    socket_mode: int = 0o600
    allow_uid: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The options of one server, some in groups; `service` is ``package.module:Name``.

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
    worker_timeout_s: float = 30.0
    dispatch: str = "round-robin"
    backlog: int = 2048
    insecure: bool = False
    user: str | None = None
    reload: bool = False
    reload_dir: tuple[str, ...] = ()
    metrics: Address | None = None
    traces: bool = False
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    recycling: WorkerLimits = field(default_factory=WorkerLimits)
    tls: TlsOptions = field(default_factory=TlsOptions)
    unix: UnixOptions = field(default_factory=UnixOptions)

    @classmethod
    def of_options(cls, options: Mapping[str, Any]) -> Self:
        """Return the configuration of flat options, each named as its field, or one in a group."""
        rest: dict[str, Any] = dict(options)
        groups: dict[str, Any] = {}
        for name, kind in get_type_hints(cls).items():
            if name not in rest and isinstance(kind, type) and is_dataclass(kind):
                own = {each.name for each in fields(kind)} & rest.keys()
                groups[name] = kind(**{each: rest.pop(each) for each in own})
        return cls(**rest, **groups)

    @property
    def may_be_reached(self) -> bool:
        """Whether other machines may connect: nothing is in the clear, or that was asked for."""
        return self.insecure or self.tls.tls_cert is not None

    @property
    def workers_listen(self) -> bool:
        """Whether each worker listens by itself: gRPC cannot be handed a connection."""
        return self.stack == "grpc"

"""A server as its metrics show it, at one moment (no I/O)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from capnp_rig.rigcli.gc_page import GcUse
from capnp_rig.server.control.counts import WorkerCounts


@dataclass(frozen=True, slots=True)
class WorkerUse:
    """One worker; what its stack, or the system, does not tell is None.

    `worker` is its place, which its successor takes over.
    """

    worker: int
    pid: int
    connections: int | None
    running: int | None
    rss_bytes: int | None = None
    cpu_s: float | None = None
    gc: GcUse | None = None


@dataclass(frozen=True, slots=True)
class ServerState:
    """The server; `counts` are those of all workers, of those that are gone too.

    `counts` is None for stacks that count no calls. `refused` has the connections that were
    refused, by limit, and `ends` how workers ended, by how.
    """

    info: Mapping[str, str] = field(default_factory=dict)
    uptime_s: float = 0.0
    is_ready: bool = False
    counts: WorkerCounts | None = None
    workers: Sequence[WorkerUse] = ()
    phases: Mapping[str, int] = field(default_factory=dict)
    accepted: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    ends: Mapping[str, int] = field(default_factory=dict)

"""What SIGUSR1 logs: a line for the server and one for each worker."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from capnp_rig.server.logs.log import Log

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ServerState:
    """The server as a whole."""

    address: str
    workers: int
    age_s: float


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One worker; what its stack does not tell is None.

    `method` is the one that it is in now, None for none; `blocked_s` is since when its event loop
    has not answered in it.
    """

    name: str
    worker: int
    pid: int
    phase: str
    core: int | None
    connections: int
    calls: int | None
    running: int | None
    method: str | None
    blocked_s: float
    age_s: float
    missed_beats: int
    rss_bytes: int


def log_state(server: ServerState, workers: Sequence[WorkerState], log: Log) -> None:
    """Log both; the fields show in the JSON format."""
    connections = sum(worker.connections for worker in workers)
    log.info(
        f"State: {server.address}, {server.workers} workers, {connections} connections, "
        f"up {server.age_s:.0f} s",
        **asdict(server),
        connections=connections,
    )
    for worker in workers:
        fields = asdict(worker)
        del fields["name"]
        log.info(f"State: {worker_text(worker)}", **fields)


def worker_text(worker: WorkerState) -> str:
    """Return the state of a worker in one line."""
    calls = "" if worker.calls is None else f", {worker.calls} calls served"
    running = f", {worker.running} running" if worker.running else ""
    method = "" if worker.method is None else f", in {worker.method}"
    blocked = f" for {worker.blocked_s:g} s" if worker.method and worker.blocked_s else ""
    core = "" if worker.core is None else f", core {worker.core}"
    return (
        f"{worker.name} {worker.phase}: {worker.connections} connections{calls}{running}"
        f"{method}{blocked}, up {worker.age_s:.0f} s, {worker.missed_beats} missed beats, "
        f"{worker.rss_bytes / _MIB:.0f} MiB{core}"
    )

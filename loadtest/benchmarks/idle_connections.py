"""What idle connections cost: memory, CPU, and the time of the calls beside them.

``python -m capnp_rig.loadtest.benchmarks.idle_connections [--idle 9900] [--rounds 60]``

Two servers of one worker each. One has so many idle connections, which have made one call each. A
round is a turn at each server, in shuffled order, of calls over eight connections, one call after
the other. So what else disturbs the machine disturbs both. A third turn, at the server
without idle connections once more, shows what two turns of the same differ by.
"""

import os
import random
import resource
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from capnp_rig.client import ReverseClient
from capnp_rig.client.reverse import MESSAGE_STREAM
from capnp_rig.loadtest.cli.terminal import stdout
from capnp_rig.loadtest.engine.server_process import ServerProcess, running_server
from capnp_rig.loadtest.report.document import Cell, Row, Table
from capnp_rig.loadtest.report.terminal import show
from capnp_rig.wire.rpc.client_connection import ClientConnection

_ACTIVE = 8
_TURN_S = 0.4
_TEXT = "a text of thirty-two characters!"
_READ = MESSAGE_STREAM.methods["read"]
_RECEIVE_BYTES = 4096
_SHARES = (0.5, 0.9, 0.99)
_SPARE_FILES = 100


def _idle_connection(host: str, port: int) -> socket.socket:
    """Connect, and make one call."""
    wire = ClientConnection()
    params = _READ.params.pack({"request": {"content": _TEXT}})
    wire.call(_READ.interface_id, _READ.method_id, params)
    sock = socket.create_connection((host, port))
    sock.sendall(wire.data_to_send())
    while wire.calls_in_flight:
        wire.receive_data(sock.recv(_RECEIVE_BYTES))
    sock.sendall(wire.data_to_send())
    return sock


@contextmanager
def _idle_connections(address: str, count: int) -> Iterator[None]:
    host, _, port = address.rpartition(":")
    with ExitStack() as opened:
        for _ in range(count):
            opened.enter_context(_idle_connection(host, int(port)))
        yield


def _cpu_percent(servers: Sequence[ServerProcess], seconds: float) -> list[float]:
    """Return the CPU of each server's workers while nobody calls."""
    began_s = [server.worker_cpu_s() for server in servers]
    time.sleep(seconds)
    return [
        100 * (server.worker_cpu_s() - before_s) / seconds
        for server, before_s in zip(servers, began_s, strict=True)
    ]


def _turn(clients: list[ReverseClient], times_s: list[float]) -> None:
    end_s = time.perf_counter() + _TURN_S
    while time.perf_counter() < end_s:
        for client in clients:
            began_s = time.perf_counter()
            client.read(_TEXT)
            times_s.append(time.perf_counter() - began_s)


@contextmanager
def _clients(address: str) -> Iterator[list[ReverseClient]]:
    with ExitStack() as opened:
        yield [opened.enter_context(ReverseClient.connect(address)) for _ in range(_ACTIVE)]


def _row(name: str, times_s: list[float]) -> Row:
    ordered = sorted(times_s)
    cells = [Cell(f"{1e6 * ordered[int(share * len(ordered))]:.0f}") for share in _SHARES]
    return Row((Cell(name), Cell(f"{len(ordered):,}"), *cells))


@click.command()
@click.option("--idle", type=click.IntRange(min=1), default=9_900, show_default=True)
@click.option("--rounds", type=click.IntRange(min=6), default=60, show_default=True)
@click.option("--rest", "rest_s", type=click.IntRange(min=1), default=30, show_default=True)
def main(idle: int, rounds: int, rest_s: int) -> None:
    """Measure, and print a table; CPU is measured over --rest seconds without calls."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < idle + _SPARE_FILES:
        raise click.ClickException(f"{idle} connections take more open files than {most}: ulimit")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    cpus = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        options = {"workers": 1, "cpus": cpus[:1]}
        crowded, quiet = (
            opened.enter_context(running_server(log=Path(folder) / name, **options))  # type: ignore[arg-type]
            for name in ("crowded.log", "quiet.log")
        )
        os.sched_setaffinity(0, cpus[-1:])
        callers = {
            "beside idle connections": opened.enter_context(_clients(crowded.address)),
            "alone": opened.enter_context(_clients(quiet.address)),
            "alone, again": opened.enter_context(_clients(quiet.address)),
        }
        times_s: dict[str, list[float]] = {name: [] for name in callers}
        before_bytes = crowded.worker_rss_bytes()
        with _idle_connections(crowded.address, idle):
            each_kb = (crowded.worker_rss_bytes() - before_bytes) / idle / 1e3
            cpu, base_cpu = _cpu_percent((crowded, quiet), rest_s)
            for _ in range(rounds):
                for name in random.sample(sorted(callers), len(callers)):
                    _turn(callers[name], times_s[name])
    caption = (
        f"{idle:,} idle connections: {each_kb:.1f} kB each; {cpu:.2f} % of a CPU without calls, "
        f"{base_cpu:.2f} % without them. µs of a call:"
    )
    rows = [_row(name, times) for name, times in times_s.items()]
    show(stdout(), Table("", caption, ("", "calls", "p50", "p90", "p99"), rows))


if __name__ == "__main__":
    main()

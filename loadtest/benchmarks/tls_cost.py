"""What TLS costs: per call, per connect, and in memory per connection that stands idle.

``python -m capnp_rig.loadtest.benchmarks.tls_cost --ca ca.pem --cert server.pem --key server.key``

Two servers of a worker each, one over TLS, share a CPU; this process has another. A round is one
turn of each server, in shuffled order, of calls or of connects; what is printed are medians over
the rounds. The difference of a round is that of neighbours in time, and its interval is that of
its median. CPU is user and system time of this process, and of the worker. For the memory, a
worker's RSS is read before and after `--idle` connections have made a call each.
"""

import asyncio
import os
import random
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import psutil
import uvloop

from capnp_rig.client import AsyncClient
from capnp_rig.client.tls import Security, Tls, secure
from capnp_rig.loadtest.cli.terminal import stdout
from capnp_rig.loadtest.engine.server_process import ServerProcess, running_server
from capnp_rig.loadtest.report.document import Cell, Row, Table
from capnp_rig.loadtest.report.terminal import show
from capnp_rig.loadtest.stats.pair_statistics import Interval, interval_of_median
from capnp_rig.schema import message

_TEXT = "a text of thirty-two characters!"
_PARAMS = {"request": {"content": _TEXT}}
_ANSWER = _TEXT[::-1].encode()
_IN_FLIGHT = (1, 16)
_LOOPS = ("uvloop", "asyncio")
# What is measured of a turn, per call or connect, in µs.
_MEASURES = ("time", "client CPU", "server CPU")

Turn = tuple[float, float, float]
Round = dict[str, Turn]


class Side:
    """A server, and how it is connected to."""

    def __init__(self, server: ServerProcess, security: Security | None) -> None:
        self.address = server.address
        self.security = security
        self.worker = psutil.Process(server.parts()[1].process.pid)

    async def connect(self) -> AsyncClient[Any]:
        """Return a new connection."""
        return await AsyncClient.connect(
            self.address, interface=message.MessageStream, tls=self.security
        )

    def cpu_ns(self) -> int:
        """Return the CPU time of the worker's thread so far, finer than in ticks of the clock."""
        return int(Path(f"/proc/{self.worker.pid}/schedstat").read_text("ascii").split()[0])


async def _turn(side: Side, count: int, work: Callable[[], Any]) -> Turn:
    """Do something `count` times; return the µs that each took."""
    server_ns, own_ns, began_ns = side.cpu_ns(), time.process_time_ns(), time.perf_counter_ns()
    await work()
    took_ns = time.perf_counter_ns() - began_ns
    client_ns = time.process_time_ns() - own_ns
    return (
        took_ns / 1e3 / count,
        client_ns / 1e3 / count,
        (side.cpu_ns() - server_ns) / 1e3 / count,
    )


async def _calls(client: AsyncClient[Any], count: int) -> None:
    for _ in range(count):
        results = await client.call("read", _PARAMS)
        if results.chunk != _ANSWER:
            raise click.ClickException(f"wrong reply: {bytes(results.chunk)!r}")


async def _connects(side: Side, count: int) -> None:
    for _ in range(count):
        async with await side.connect() as client:
            await _calls(client, 1)


async def _rounds(rounds: int, sides: dict[str, Side], turn: Callable[[str], Any]) -> list[Round]:
    return [
        {name: await turn(name) for name in random.sample(sorted(sides), len(sides))}
        for _ in range(rounds)
    ]


async def _measure(
    sides: dict[str, Side], rounds: int, calls: int, connects: int
) -> dict[str, list[Round]]:
    clients = {name: await side.connect() for name, side in sides.items()}
    for client in clients.values():
        await _calls(client, calls)
    measured = {}
    for in_flight in _IN_FLIGHT:
        each = calls // in_flight

        async def call(name: str, each: int = each, in_flight: int = in_flight) -> Turn:
            async def work() -> None:
                await asyncio.gather(*(_calls(clients[name], each) for _ in range(in_flight)))

            return await _turn(sides[name], each * in_flight, work)

        measured[f"call, {in_flight} in flight"] = await _rounds(rounds, sides, call)

    async def connect(name: str) -> Turn:
        return await _turn(sides[name], connects, lambda: _connects(sides[name], connects))

    measured["connect, call, close"] = await _rounds(rounds, sides, connect)
    for client in clients.values():
        await client.close()
    return measured


async def _idle_kib(side: Side, count: int) -> float:
    """Return how much the worker grows by a connection."""
    await _connects(side, 20)
    before = side.worker.memory_info().rss
    clients = [await side.connect() for _ in range(count)]
    for client in clients:
        await _calls(client, 1)
    after = side.worker.memory_info().rss
    for client in clients:
        await client.close()
    return float(after - before) / 1024 / count


def _rows(name: str, rounds: list[Round]) -> list[Row]:
    def median(value: Callable[[Round], float]) -> Interval:
        return interval_of_median([value(each) for each in rounds])

    rows = []
    for number, measure in enumerate(_MEASURES):
        plain = median(lambda each: each["plain"][number])  # noqa: B023 - called at once
        tls = median(lambda each: each["tls"][number])  # noqa: B023
        more = median(lambda each: each["tls"][number] - each["plain"][number])  # noqa: B023
        difference = f"{more.value:+.1f} ({more.low:+.1f} to {more.high:+.1f})"
        cells = [f"{name}: {measure}", f"{plain.value:.1f}", f"{tls.value:.1f}", difference]
        rows.append(Row(tuple(map(Cell, cells))))
    return rows


@click.command()
@click.option("--ca", required=True, help="Of the server's certificate, for localhost.")
@click.option("--cert", required=True)
@click.option("--key", required=True)
@click.option("--rounds", type=click.IntRange(min=6), default=40, show_default=True)
@click.option("--calls", type=click.IntRange(min=64), default=1280, show_default=True)
@click.option("--connects", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--idle", type=click.IntRange(min=1), default=500, show_default=True)
def main(ca: str, cert: str, key: str, rounds: int, calls: int, connects: int, idle: int) -> None:
    """Measure, and print a table for each loop of the server."""
    cpus = sorted(os.sched_getaffinity(0))
    security = secure(Tls(ca=ca))
    options = {"plain": [], "tls": ["--tls-cert", cert, "--tls-key", key]}
    for loop in _LOOPS:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            sides = {}
            for name, more in options.items():
                server = stack.enter_context(
                    running_server(
                        workers=1,
                        log=Path(folder) / f"{name}.log",
                        options=["--loop", loop, *more],
                        cpus=cpus[:1],
                    )
                )
                sides[name] = Side(server, security if name == "tls" else None)
            os.sched_setaffinity(0, cpus[-1:])
            measured = uvloop.run(_measure(sides, rounds, calls, connects))
            memory = {name: uvloop.run(_idle_kib(side, idle)) for name, side in sides.items()}
            os.sched_setaffinity(0, cpus)
        rows = [row for name, each in measured.items() for row in _rows(name, each)]
        kib = [f"{memory['plain']:.0f}", f"{memory['tls']:.0f}"]
        more_kib = f"{memory['tls'] - memory['plain']:+.0f}"
        rows.append(Row(tuple(map(Cell, ["an idle connection: KiB", *kib, more_kib]))))
        columns = ("µs per ...", "plain", "TLS", "TLS - plain")
        show(stdout(), Table("", f"server on {loop}, medians", columns, rows))


if __name__ == "__main__":
    main()

"""What a call through a channel costs its process beyond the same call on a bare client.

``python -m capnp_rig.loadtest.benchmarks.channel_cost [--rounds 60] [--calls 1280]``

One server, one process on a CPU of its own. A round is three turns in shuffled order: a bare
`AsyncClient`, an `AsyncChannel` with its default stack, and the bare client once more, which shows
what two turns of the same differ by. The difference of a round is that of neighbours in time; the
interval is that of its median over the rounds. CPU time of the process, per call; a wrong reply
ends the benchmark.
"""

import asyncio
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import uvloop

from capnp_rig.client import AsyncChannel, AsyncClient
from capnp_rig.loadtest.cli.terminal import stdout
from capnp_rig.loadtest.engine.server_process import running_server
from capnp_rig.loadtest.report.document import Cell, Row, Table
from capnp_rig.loadtest.report.terminal import show
from capnp_rig.loadtest.stats.pair_statistics import Interval, interval_of_median
from capnp_rig.schema import message

_TEXT = "a text of thirty-two characters!"
_PARAMS = {"request": {"content": _TEXT}}
_ANSWER = _TEXT[::-1].encode()
_IN_FLIGHT = (1, 16, 64)
_CAPTION = "CPU µs per call, medians and their 95 % intervals"

Turn = dict[str, float]


async def _calls(caller: Any, count: int) -> None:
    for _ in range(count):
        results = await caller.call("read", _PARAMS)
        if results.chunk != _ANSWER:
            raise click.ClickException(f"wrong reply: {bytes(results.chunk)!r}")


async def _cpu_us(caller: Any, calls: int, in_flight: int) -> float:
    """Return the CPU time of a call in µs."""
    began_ns = time.process_time_ns()
    await asyncio.gather(*(_calls(caller, calls // in_flight) for _ in range(in_flight)))
    return (time.process_time_ns() - began_ns) / 1000 / (calls // in_flight * in_flight)


async def measure(address: str, in_flight: int, rounds: int, calls: int) -> list[Turn]:
    """Return the µs per call of each round's turns."""
    interface = message.MessageStream
    bare = await AsyncClient.connect(address, interface=interface)
    # One connection, as the client has.
    async with (
        bare,
        AsyncChannel(address, interface=interface, idempotent={"read"}, size=1) as channel,
    ):
        callers = {"bare": bare, "channel": channel, "again": bare}
        for caller in callers.values():
            await _calls(caller, calls)
        measured = []
        for _ in range(rounds):
            order = random.sample(sorted(callers), len(callers))
            turns = {name: await _cpu_us(callers[name], calls, in_flight) for name in order}
            measured.append(turns)
    return measured


def _row(in_flight: int, rounds: list[Turn]) -> Row:
    def median(value: Callable[[Turn], float]) -> Interval:
        return interval_of_median([value(turns) for turns in rounds])

    return Row(
        (
            Cell(f"{in_flight}", in_flight),
            Cell(f"{median(lambda turns: turns['bare']).value:.1f}"),
            Cell(f"{median(lambda turns: turns['channel']).value:.1f}"),
            _difference(median(lambda turns: turns["channel"] - turns["bare"])),
            _difference(median(lambda turns: turns["again"] - turns["bare"])),
        )
    )


def _difference(us: Interval) -> Cell:
    return Cell(f"{us.value:+.1f} ({us.low:+.1f} to {us.high:+.1f})")


@click.command()
@click.option("--rounds", type=click.IntRange(min=6), default=60, show_default=True)
@click.option(
    "--calls", type=click.IntRange(min=64), default=1280, show_default=True, help="A turn."
)
def main(rounds: int, calls: int) -> None:
    """Measure, and print a table."""
    cpus = sorted(os.sched_getaffinity(0))
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(workers=1, log=Path(folder) / "server.log", cpus=cpus[:1]) as server,
    ):
        os.sched_setaffinity(0, cpus[-1:])
        rows = [
            _row(each, uvloop.run(measure(server.address, each, rounds, calls)))
            for each in _IN_FLIGHT
        ]
    columns = ("in flight", "client", "channel", "channel - client", "client - client")
    show(stdout(), Table("", _CAPTION, columns, rows))


if __name__ == "__main__":
    main()

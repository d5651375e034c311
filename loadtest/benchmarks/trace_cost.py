"""What traces cost a call: at the client, at the server, and where they are off.

``python -m capnp_rig.loadtest.benchmarks.trace_cost [--rounds 40] [--calls 640]``

Two servers, without and with `--traces`, whose exporters are `none`: spans are made, sampled and
dropped, so what an exporter costs is not in here. A round is four turns in shuffled order: both
off, off again (which shows what two turns of the same differ by), the server's on, and both on.
The difference of a round is that of neighbours in time; the interval is that of its median over
the rounds. CPU time per call of this process and of the server's worker; a wrong reply ends the
benchmark.
"""

import asyncio
import os
import random
import tempfile
import time
from pathlib import Path

import click
import uvloop
from opentelemetry.sdk.trace import TracerProvider

from capnp_rig.client import AsyncClient
from capnp_rig.client.tracing import trace_calls, trace_no_calls
from capnp_rig.loadtest.cli.terminal import stdout
from capnp_rig.loadtest.engine.server_process import ServerProcess, running_server
from capnp_rig.loadtest.report.document import Cell, Row, Table
from capnp_rig.loadtest.report.terminal import show
from capnp_rig.loadtest.stats.pair_statistics import interval_of_median
from capnp_rig.schema import message

_TEXT = "a text of thirty-two characters!"
_PARAMS = {"request": {"content": _TEXT}}
_ANSWER = _TEXT[::-1].encode()
_IN_FLIGHT = 16
_CAPTION = "CPU µs per call, medians and their 95 % intervals"
# Whether the server traces, and the client.
_TURNS = {
    "off": (False, False),
    "off again": (False, False),
    "server": (True, False),
    "server and client": (True, True),
}

# CPU µs per call of the client and of the server.
Turn = tuple[float, float]


async def _calls(client: AsyncClient, count: int) -> None:
    for _ in range(count):
        results = await client.call("read", _PARAMS)
        if results.chunk != _ANSWER:
            raise click.ClickException(f"wrong reply: {bytes(results.chunk)!r}")


async def _turn(client: AsyncClient, worker: int, calls: int) -> Turn:
    before_ns = _cpu_ns(worker)
    began_ns = time.process_time_ns()
    each = calls // _IN_FLIGHT
    await asyncio.gather(*(_calls(client, each) for _ in range(_IN_FLIGHT)))
    ours_ns = time.process_time_ns() - began_ns
    count = each * _IN_FLIGHT
    return ours_ns / 1000 / count, (_cpu_ns(worker) - before_ns) / 1000 / count


def _cpu_ns(pid: int) -> int:
    # In ns, where the times of a process are in ticks of 10 ms.
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


async def measure(
    plain: ServerProcess, tracing: ServerProcess, rounds: int, calls: int
) -> list[dict[str, Turn]]:
    """Return the turns of each round."""
    workers = {False: _worker_of(plain), True: _worker_of(tracing)}
    provider = TracerProvider(shutdown_on_exit=False)
    async with (
        await AsyncClient.connect(plain.address, interface=message.MessageStream) as off,
        await AsyncClient.connect(tracing.address, interface=message.MessageStream) as on,
    ):
        measured = []
        # The first warms up.
        for _ in range(rounds + 1):
            turns = {}
            for name in random.sample(sorted(_TURNS), len(_TURNS)):
                server_is_on, client_is_on = _TURNS[name]
                if client_is_on:
                    trace_calls(provider)
                client = on if server_is_on else off
                turns[name] = await _turn(client, workers[server_is_on], calls)
                trace_no_calls()
            measured.append(turns)
        return measured[1:]


def _worker_of(server: ServerProcess) -> int:
    _, worker = server.parts()
    pid: int = worker.process.pid
    return pid


def _row(name: str, rounds: list[dict[str, Turn]]) -> Row:
    cells = [Cell(name)]
    for side in (0, 1):
        us = interval_of_median([turns[name][side] for turns in rounds])
        cells.append(Cell(f"{us.value:.1f}"))
        us = interval_of_median([turns[name][side] - turns["off"][side] for turns in rounds])
        difference = f"{us.value:+.1f} ({us.low:+.1f} to {us.high:+.1f})"
        cells.append(Cell("" if name == "off" else difference))
    return Row(tuple(cells))


@click.command()
@click.option("--rounds", type=click.IntRange(min=6), default=40, show_default=True)
@click.option(
    "--calls", type=click.IntRange(min=64), default=640, show_default=True, help="A turn."
)
def main(rounds: int, calls: int) -> None:
    """Measure, and print a table."""
    cpus = sorted(os.sched_getaffinity(0))
    os.environ["OTEL_TRACES_EXPORTER"] = "none"
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        with (
            running_server(workers=1, log=log, cpus=cpus[:1]) as plain,
            running_server(workers=1, log=log, cpus=cpus[:1], options=["--traces"]) as tracing,
        ):
            os.sched_setaffinity(0, cpus[-1:])
            measured = uvloop.run(measure(plain, tracing, rounds, calls))
    rows = [_row(name, measured) for name in _TURNS]
    columns = ("traces", "client", "more than off", "server", "more than off")
    show(stdout(), Table("", _CAPTION, columns, rows))


if __name__ == "__main__":
    main()

"""A load engine for several servers by turns: it stays connected, and loads one at a time.

Run as ``python -m capnp_rig.loadtest.engine.round_engine``. Each line of stdin is an order, a JSON
object, and is answered by a line:

- ``{"connect": config}`` makes the connections of one more config;
- ``{"load": at, "seconds": s}`` loads the server of config number `at` for so long, from idle to
  idle: the answer comes when the last call is answered, with their number, the seconds from the
  first sending to the last answer, and the share of them for which this process worked;
- ``{"report": at}`` is answered with what is new of that server's calls;
- ``{"leave": true}`` ends all connections.

To start a process takes 0.3 s and to make 64 connections 50 ms. A turn that needs neither may be
as short as 10 ms, so that servers which take turns meet the same disturbances.
"""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

import uvloop

from capnp_rig.loadtest.engine.child_process import child_environment, kept_alive, module_command
from capnp_rig.loadtest.engine.engine_runs import EngineFailed
from capnp_rig.loadtest.engine.pacer import Pacer
from capnp_rig.loadtest.engine.process import EngineConfig, Load, line_writer, settle
from capnp_rig.loadtest.engine.schedule import Arrivals, Pace
from capnp_rig.loadtest.stats.tally import Report
from capnp_rig.loadtest.workload import WorkloadError
from capnp_rig.objects.errors import ClientError
from capnp_rig.rigcli.malloc_settings import with_malloc_settings

# Beside what an order is asked to take.
_GRACE_S = 20.0


@dataclass(frozen=True, slots=True)
class EngineTurn:
    """What the generator saw of one turn: `calls` answered rightly within `seconds`.

    `busy` is the share of them for which it worked.
    """

    calls: int
    seconds: float
    busy: float


class RoundEngine:
    """The process as its parent sees it.

    Every method raises `EngineFailed` where the process ends, or does not answer in time.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", timeout_s: float) -> None:
        self._process = process
        self._timeout_s = timeout_s

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def connect(self, config: EngineConfig) -> None:
        """Connect to one more server."""
        self._tell({"connect": asdict(config)})
        self._answer()

    def begin(self, at: int, seconds: float) -> None:
        """Let a turn of the server begin that was connected as number `at`."""
        self._tell({"load": at, "seconds": seconds})

    def turn(self, seconds: float) -> EngineTurn:
        """Return what the turn of so many seconds came to, when it is over."""
        return EngineTurn(**self._answer(seconds))

    def report(self, at: int) -> Report:
        """Return what is new of a server's calls."""
        self._tell({"report": at})
        return Report.from_json(self._answer())

    def leave(self) -> None:
        """End all connections, so that the servers may end."""
        self._tell({"leave": True})
        self._answer()

    def _tell(self, order: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        # One that has ended does not listen; the missing answer tells why.
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()

    def _answer(self, within_s: float = 0.0) -> Any:
        assert self._process.stdout is not None
        # A line is waited for by a timer that ends the process: reading then meets the end.
        timer = threading.Timer(within_s + self._timeout_s + _GRACE_S, self._process.kill)
        try:
            # Within: a signal that raises while the thread starts would leave it behind, and the
            # interpreter would wait for it in the end.
            timer.start()
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if line:
            return json.loads(line)
        raise EngineFailed(self._last_words())

    def _last_words(self) -> str:
        assert self._process.stderr is not None
        lines = self._process.stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "an engine process ended too early, or was not done in time"


@contextmanager
def round_engine(cpu: int | None, timeout_s: float) -> Iterator[RoundEngine]:
    """Start an engine, pinned to `cpu` or, with None, nowhere; it ends with the block.

    `timeout_s` is the deadline of a call.
    """
    module = "capnp_rig.loadtest.engine.round_engine"
    with kept_alive(
        module_command(module, cpus=None if cpu is None else [cpu]),
        env=with_malloc_settings(child_environment()),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        yield RoundEngine(process, timeout_s)


# --- in the process ---------------------------------------------------------------------------


class _Orders:
    """What the process does for each order."""

    def __init__(self) -> None:
        self._loads: list[Load] = []
        self._turns = 0

    async def obey(self, order: Mapping[str, Any]) -> object:
        if "connect" in order:
            return await self._connect(EngineConfig.from_json(order["connect"]))
        if "load" in order:
            return asdict(await self._load(self._loads[order["load"]], order["seconds"]))
        if "report" in order:
            return self._loads[order["report"]].tally.take(final=True).to_json()
        return self._leave()

    async def _connect(self, config: EngineConfig) -> object:
        load = Load(config)
        await asyncio.gather(*map(load.connect, range(config.connections)))
        load.tally.open(time.monotonic_ns())
        self._loads.append(load)
        return {}

    def _leave(self) -> object:
        for load in self._loads:
            load.running = False
            for connection in list(load.connections.values()):
                connection.close()
        self._loads.clear()
        return {}

    async def _load(self, load: Load, seconds: float) -> EngineTurn:
        config, tally = load.config, load.tally
        self._turns += 1
        tally.spun_ns = 0
        answered, cpu_ns, start_ns = tally.answered, time.process_time_ns(), time.monotonic_ns()
        load.close_ns = start_ns + round(seconds * 1e9)
        if config.rate_hz is not None:
            # No two turns have the same schedule.
            pace = Pace(Arrivals(config.arrivals), seed=config.seed + self._turns)
            pace.set_rate(config.rate_hz, start_ns)
            load.pacer = Pacer(load, pace, None)
        for connection in load.connections.values():
            connection.begin()
        await asyncio.sleep(seconds)
        if load.pacer is not None:
            load.pacer.close()
        await settle(load)
        tally.timer(load.workload.label).flush()
        # What was spun away is no work.
        work_ns = time.process_time_ns() - cpu_ns - tally.spun_ns
        calls = tally.answered - answered
        ended_ns = tally.last_ns if calls else None
        took_ns = (ended_ns or time.monotonic_ns()) - start_ns
        return EngineTurn(calls, took_ns / 1e9, max(work_ns, 0) / took_ns)


async def _obey_all() -> None:
    say, orders = line_writer(), _Orders()
    # Blocking on purpose: between two orders nothing is in flight.
    for line in iter(sys.stdin.readline, ""):
        say(await orders.obey(json.loads(line)))


def main() -> None:
    """Obey until stdin ends."""
    # The parent unwinds on Ctrl-C, and ends us by closing stdin or by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        uvloop.run(_obey_all())
    except (ClientError, OSError, WorkloadError) as error:
        sys.exit(f"cannot load the server: {error}")


if __name__ == "__main__":
    main()

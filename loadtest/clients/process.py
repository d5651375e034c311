"""A contender in a process of its own, which calls in an open loop.

``python -m capnp_rig.loadtest.clients.process CONFIG`` takes a `ClientConfig` as JSON. When it has
connected and called once it prints ``ready``, and reads from stdin when the window opens, in ns of
the monotonic clock. In the end it prints a `ClientReport` as JSON.

Each call carries a text of its own, and is right if that comes back reversed within the deadline,
which counts from when the call was due.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import uvloop

from capnp_rig.loadtest.clients.contenders import CONTENDERS, Call
from capnp_rig.loadtest.clients.fault_plan import DEADLINE_S
from capnp_rig.loadtest.clients.precise_timer import PreciseTimer
from capnp_rig.loadtest.engine.cpu_pin import pin_process
from capnp_rig.loadtest.engine.schedule import Arrivals, Pace
from capnp_rig.loadtest.engine.window_meter import WindowMeter
from capnp_rig.loadtest.stats.histogram import Recorder

READY = "ready"
# Calls in the first second of the load are not counted: connections are young.
WARMUP_S = 1.0
_MOST_AT_ONCE = 1_000
_WRONG, _LATE = "wrong reply", "after the deadline"
_CONNECT_S = 10.0


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """Which contender calls which servers, how often and how long.

    `server_pids` are those of the servers, of which it is told what kept them from a CPU.
    """

    contender: str
    addresses: Sequence[str]
    server_pids: Sequence[int]
    rate_hz: float
    seconds: float
    seed: int
    cpu: int


@dataclass(frozen=True, slots=True)
class SecondReport:
    """The calls that were due in one second of the window.

    `good` are response times of right replies within the deadline, `lateness` that of all calls,
    both histograms as JSON. `failures` counts the other calls by kind.
    """

    second: int
    due: int
    good: Mapping[str, Any]
    lateness: Mapping[str, Any]
    failures: Mapping[str, int]


class _Second:
    def __init__(self) -> None:
        self.good, self.lateness = Recorder(), Recorder()
        self.failures = Counter[str]()
        self.due = 0

    def report(self, number: int) -> SecondReport:
        good, lateness = self.good.take().to_json(), self.lateness.take().to_json()
        return SecondReport(number, self.due, good, lateness, dict(self.failures))


class _OpenLoop:
    """Sends the calls of a schedule when they are due, and waits for none of them."""

    def __init__(self, call: Call, config: ClientConfig, open_ns: int) -> None:
        self._call = call
        self._open_ns = open_ns
        self._end_ns = open_ns + round(config.seconds * 1e9)
        self._texts = random.Random(config.seed)
        self._pace = Pace(Arrivals.POISSON, seed=config.seed)
        self._pace.set_rate(config.rate_hz, open_ns - round(WARMUP_S * 1e9))
        self._loop = asyncio.get_running_loop()
        self._calls = set[asyncio.Task[None]]()
        self._is_sent = asyncio.Event()
        self.seconds: dict[int, _Second] = {}

    async def run(self) -> None:
        """Return when the last call has ended."""
        with PreciseTimer(self._turn) as self._timer:
            self._timer.set(self._pace.next_ns)
            await self._is_sent.wait()
        while self._calls:
            await asyncio.wait(self._calls)

    def _turn(self) -> None:
        now_ns = time.monotonic_ns()
        for due_ns in self._pace.take(_MOST_AT_ONCE, min(now_ns, self._end_ns - 1)):
            task = self._loop.create_task(self._measure(due_ns))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
        if self._pace.next_ns >= self._end_ns:
            self._is_sent.set()
            return
        self._timer.set(self._pace.next_ns)

    async def _measure(self, due_ns: int) -> None:
        text = f"{self._texts.getrandbits(64):016x}"
        sent_ns = time.monotonic_ns()
        failure = ""
        try:
            reply = await self._call(text)
        except Exception as error:  # noqa: BLE001 - a failed call is data, whatever it is
            failure = _kind(error)
        received_ns = time.monotonic_ns()
        if due_ns < self._open_ns:
            return
        second = self.seconds.setdefault(int((due_ns - self._open_ns) / 1e9), _Second())
        second.due += 1
        second.lateness.record(sent_ns - due_ns)
        if not failure and reply != text[::-1].encode():
            failure = _WRONG
        if not failure and received_ns - due_ns > DEADLINE_S * 1e9:
            failure = _LATE
        if failure:
            second.failures[failure] += 1
        else:
            second.good.record(received_ns - due_ns)


def _kind(error: Exception) -> str:
    """Return the type of a failure; of a gRPC call its status."""
    code = getattr(error, "code", None)
    name = getattr(code(), "name", "") if callable(code) else ""
    return name or type(error).__name__


async def _run(config: ClientConfig) -> None:
    meter = WindowMeter("client", config.server_pids)
    async with CONTENDERS[config.contender](config.addresses) as call:
        await asyncio.wait_for(_connect(call, len(config.addresses)), _CONNECT_S)
        print(READY, flush=True)  # noqa: T201 - the benchmark reads it
        load = _OpenLoop(call, config, int(sys.stdin.readline()))
        meter.open()
        await load.run()
        used = meter.close()
    seconds = [asdict(load.seconds[number].report(number)) for number in sorted(load.seconds)]
    print(json.dumps({**used, "per_second": seconds}))  # noqa: T201 - the result


async def _connect(call: Call, count: int) -> None:
    """Call once per server, so that all that is made at the first call is there."""
    await asyncio.gather(*(call("") for _ in range(count)))


def main() -> None:
    """Run as the command that the module describes."""
    config = ClientConfig(**json.loads(sys.argv[1]))
    pin_process(config.cpu)
    uvloop.run(_run(config))


if __name__ == "__main__":
    main()

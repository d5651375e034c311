"""Soak one running server, and judge what is left of it: ``python -m soak.drive ADDRESS``.

All kinds of calls run at the same time, round after round. The first rounds warm both sides up;
then everything is counted at rest, and counted again after the last round. What counts must be
where it was (faults.md, rules a to e): tables, counters, tasks, files, threads exactly, objects of
other types and memory within a margin. Totals are the exception, each with its reason.
"""

import argparse
import asyncio
import concurrent.futures
import contextlib
import json
import os
import statistics
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import capnp
import psutil
import uvloop
from soak.census import Census
from soak.channel_kinds import KINDS
from soak.kinds import Kind, full_house
from soak.stage import SOAK, Stage

from capnp_rig.client import Client, DeadlineExceeded, RemoteError

# Free lists, thread stacks and the heap take their time to be as large as they get.
WARM_UP_ROUNDS = 3
WARM_UP_SHARE = 0.2
_ROUND_LIMIT_S = 120.0
# faults.md, rule (d).
_REST_S = 10.0
_RESTING_LOOKS = 5
_RSS_MARGIN = 0.1
_FILES_MARGIN = 2
# A leak of one object a call is thousands; caches of the interpreter and of libraries breathe.
_OBJECTS_MARGIN = 200
_SLOPE_SAMPLES = 20

# What differs between two moments of rest, each with its reason.
TOTALS: Mapping[str, str] = {
    "wire.encoding.frames.FrameDecoder._need": "where the latest message of several segments ended",
    "rigcli.gc_page.GcPage._count": "collections since the start, a measurement",
    "rigcli.gc_page.GcPage._pause_ns": "as above",
    "rigcli.gc_page.GcPage._longest_ns": "as above",
    "rigcli.gc_page.GcPage._started_ns": "a moment",
    "server.control.messages.Hand.connection": "the number of the connection, one more for each",
    "server.logs.log_limits._Bucket.lines": "how many more lines of a kind fit in now",
    "server.engines.early_cancels.EarlyCancels._calls": "a share of the latest calls",
    "server.engines.early_cancels.EarlyCancels._cancels": "as above",
    "server.engines.wire_engine._Connection._counted": "calls of the connection, for that share",
    "server.engines.kj_meter.CallMeter._uncounted": "as above",
    "server.engines.wire_engine._WireEngine.lone_reads": "how many reads are served at once",
    "server.engines.wire_engine._WireEngine._preemptions": "those of the process, of the kernel",
    "server.engines.wire_engine._Connection._number": "the number of the connection",
    "server.engines.pycapnp_engine._Connection._number": "as above",
    "server.engines.wire_engine._Connection._reads": "reads, for the stamp of what runs",
    "server.engines.wire_engine._Connection._mark": "that stamp: the connection and its reads",
    "server.engines.pycapnp_engine._Connection._calls": "calls, for the same stamp",
    "server.engines.wire_engine._Connection._received_bytes": "bytes received so far",
    "server.engines.wire_engine._Connection._written_bytes": "bytes sent so far",
    "server.engines.kj_gate.MeteredGate._received_bytes": "bytes received so far",
    "server.engines.call_site.CallSite._connection": "the number of the connection",
    "objects.call_peer.CallPeer.port": "the port of the peer",
    "server.connections.sweeper.LoopSweeper._next_tick": "a moment",
    "len(server.connections.sweeper.LoopSweeper._due)": "in how many ticks the connections are due",
    "server.engines.kj_meter.CallMeter.has_cancelled": "whether a call ever was, on lasting ones",
    **{
        f"server.connections.time_limits.ConnectionClock.{name}": "what had come at the last look"
        for name in ("_begun_at", "_came_bytes", "_is_within", "_received_bytes", "_unread_bytes")
    },
    "server.engines.kj_gate.MeteredGate._written_bytes": "bytes sent over the connection",
    "client.channels.pooled.PooledEndpoint.calls": "attempts so far",
    "client.channels.pooled.PooledEndpoint.failures": "attempts that failed so far",
    "client.policies.budget.RetryBudget._calls": "calls of the last ten seconds",
    "client.policies.budget.RetryBudget._added": "retries of the last ten seconds",
    "len(client.policies.budget.RetryBudget._past)": "as above",
    "client.policies.hedge.Hedge._since_look": "answers since the quantile was looked at",
    "server.engines.kj_gate.Gate._written_bytes": "as above",
    "server.engines.kj_meter.CallMeter._frame_bytes": "the size of the latest frame",
    "len(server.engines.kj_meter.CallMeter._pieces)": "as above",
    "server.engines.kj_meter.CallMeter._reply_bytes": "the size of the latest reply",
    # Each call in flight has an id of its own; ids come back, and there are as many as there ever
    # were calls at once. So it is with exports.
    **{
        name.format(f"wire.rpc.{side.lower()}_connection.{side}Connection"): reason
        for side in ("Server", "Client")
        for name, reason in {
            "{}._next_id": "the most calls in flight at once",
            "len({}._free_ids)": "as above",
            "len({}._free_exports)": "the most exports at once",
            "{}._next_embargo": "the number of the next, one more for each",
            "{}.inline_calls": "calls of the connection, for the share of those that are cancelled",
        }.items()
    },
}

# A cache may grow up to its bound; what is in it, under the names that begin so, goes with it.
# A bound of a connection counts as often as there may be connections at rest.
CACHES: Mapping[str, int] = {
    "len(wire.rpc.layouts:_shared)": 4096,
    "len(wire.rpc.server_connection.ServerConnection._failures)": 16 * 256,
    "len(wire.rpc.client_connection.ClientConnection._failures)": 16 * 256,
}
# What comes with each layout that is learnt, up to the bound: an object of each type, and memory.
_LAYOUTS = "len(wire.rpc.layouts:_shared)"
_WITH_A_LAYOUT = {
    "_struct.Struct",
    "builtins.builtin_function_or_method",
    "weakref.KeyedRef",
    "wire.rpc.layouts.Layout",
}
_LAYOUT_BYTES = 4096
CACHED = ("wire.rpc.layouts.Layout", "len(wire.rpc.layouts.Layout", "wire.rpc.messages.RemoteError")


@dataclass
class Report:
    """What a soak did and found."""

    engine: str
    seed: int
    seconds: float
    calls: Counter[str] = field(default_factory=Counter)
    rss_bytes: dict[str, tuple[int, int]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


# --- judging -----------------------------------------------------------------------------


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return what one process holds more or less of than it did, in words."""
    found = [
        f"{name}: {before.get(name)} before, {after.get(name)} after"
        for name in ("tasks", "running", "sessions", "threads")
        if before.get(name) != after.get(name)
    ]
    if abs(after["files"] - before["files"]) > _FILES_MARGIN:
        found.append(f"open files: {before['files']} before, {after['files']} after")
    own_before, own = before["own"], after["own"]
    found += [
        f"{name}: {own_before.get(name, 0)} before, {own.get(name, 0)} after"
        for name in sorted(own_before.keys() | own.keys())
        if own_before.get(name, 0) != own.get(name, 0)
        and not (name in TOTALS or name in CACHES or name.startswith(CACHED))
    ]
    found += [
        f"{name}: {own[name]}, over its bound, {most}"
        for name, most in CACHES.items()
        if own.get(name, 0) > most
    ]
    objects_before, objects = before["objects"], after["objects"]
    learnt = _learnt(before, after)
    found += [
        f"objects of {name}: {objects_before.get(name, 0)} before, {count} after"
        for name, count in sorted(objects.items())
        if count > objects_before.get(name, 0) + _OBJECTS_MARGIN + learnt * (name in _WITH_A_LAYOUT)
    ]
    return found


def _learnt(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    """Return how many layouts one process has learnt meanwhile."""
    return max(after["own"].get(_LAYOUTS, 0) - before["own"].get(_LAYOUTS, 0), 0)


def growth(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """Return how much memory of a process has grown, in words, if that is over the margin."""
    before_bytes, after_bytes = before["rss_bytes"], after["rss_bytes"]
    learnt_bytes = _learnt(before, after) * _LAYOUT_BYTES
    if after_bytes <= before_bytes * (1 + _RSS_MARGIN) + learnt_bytes:
        return None
    return f"RSS: {before_bytes / 1e6:.1f} MB before, {after_bytes / 1e6:.1f} MB after"


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """Return the Theil-Sen slope: the median over all pairs of points."""
    return statistics.median(
        (y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(samples, 2)
    )


def rising(samples: Sequence[tuple[float, float]]) -> str | None:
    """Return the slope of memory over the second half, in words, if it is a leak.

    Its line may not rise by half of the margin within that half. Few samples show no slope.
    """
    half = samples[len(samples) // 2 :]
    if len(half) < _SLOPE_SAMPLES:
        return None
    rise_bytes = slope(half) * (half[-1][0] - half[0][0])
    if rise_bytes <= half[0][1] * _RSS_MARGIN / 2:
        return None
    return f"RSS rises by {rise_bytes / 1e6:.1f} MB over the second half ({len(half)} samples)"


# --- the server, from outside and inside -------------------------------------------------


class Watch:
    """Counts both sides at rest."""

    def __init__(self, stage: Stage, server_pid: int) -> None:
        self._stage = stage
        self._server = psutil.Process(server_pid)
        self._workers = {child.pid for child in self._server.children()}

    def look(self) -> dict[str, dict[str, Any]]:
        """Return the census of each process by its name."""
        self._catch_up()
        found = {f"worker {at}": each for at, each in enumerate(self._look_at_workers())}
        found["supervisor"] = {
            "pid": self._server.pid,
            "files": self._server.num_fds(),
            "threads": self._server.num_threads(),
            "rss_bytes": self._server.memory_info().rss,
            "own": {"children": len(self._server.children(recursive=True))},
            "objects": {},
        }
        found["client"] = asdict(Census.take())
        return found

    def _catch_up(self) -> None:
        """Let the lasting blocking clients do what they would do with their next call.

        They receive the answers of calls that they gave up, and send what is left to send.
        """
        for client in self._stage.lasting.values():
            if isinstance(client, Client):
                with contextlib.suppress(DeadlineExceeded):
                    while True:
                        now_s = time.monotonic()
                        client._in_turn(now_s, client._exchange, now_s)
                client._send()

    def memory(self) -> list[tuple[str, float]]:
        """Return the RSS of each process by its name, without a word to it."""
        workers = sorted(self._workers)
        named = [(f"worker {at}", psutil.Process(pid)) for at, pid in enumerate(workers)]
        named += [("supervisor", self._server), ("client", psutil.Process())]
        return [(name, process.memory_info().rss) for name, process in named]

    def _look_at_workers(self) -> list[dict[str, Any]]:
        """Ask each worker over a connection of its own, which is the only one it then has."""
        reports: dict[int, dict[str, Any]] = {}
        for _ in range(20 * len(self._workers)):
            with Client.connect(self._stage.address, interface=SOAK, connect_timeout_s=5) as client:
                # The Finish of the bootstrap goes with the second call.
                with contextlib.suppress(RemoteError):
                    client.call("fail", {"nonce": 0})
                report = json.loads(client.call("census", {}).report)
            reports[report["pid"]] = report
            if reports.keys() == self._workers:
                return [reports[pid] for pid in sorted(reports)]
        raise AssertionError(f"workers {self._workers} were, {set(reports)} answer")

    def at_rest(self, before: Mapping[str, Mapping[str, Any]] | None) -> dict[str, dict[str, Any]]:
        """Return the census that equals `before`, or that does not change if there is none.

        The end of a connection takes its moment on both sides, so one equal look is not yet rest.
        If none equals `before`, the last is returned.
        """
        # The first of all takes five looks, which a busy machine makes slow.
        end_s = time.monotonic() + (_REST_S if before else 3 * _REST_S)
        last = before or self.look()
        equal, latest = 0, list[str]()
        while True:
            time.sleep(0.1)
            found = self.look()
            changes = compare(last, found)
            equal = 0 if changes else equal + 1
            latest = changes or latest
            if equal == (1 if before else _RESTING_LOOKS):
                return found
            if time.monotonic() > end_s:
                assert before is not None, f"no rest before the first round: {latest}"
                return found
            last = before or found


def compare(
    before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Return everything that differs between two looks at all processes."""
    return [
        f"{name}: {difference}"
        for name in before
        for difference in [
            *differences(before[name], after[name]),
            growth(before[name], after[name]),
        ]
        if difference is not None
    ]


def capability_calls(calls: Mapping[str, int]) -> int:
    """Return how many of the calls were of kinds that pass capabilities."""
    return sum(calls[kind.name] for kind in KINDS if kind.passes_capabilities)


class KindFailed(Exception):
    """A batch of one kind did not end as it must; the cause says how."""


# --- rounds ------------------------------------------------------------------------------


class Soak:
    """Rounds of all kinds against one server."""

    def __init__(
        self, stage: Stage, watch: Watch, report: Report, limit: int, capability_calls: int
    ) -> None:
        self._stage = stage
        self._watch = watch
        self._report = report
        self._limit = limit
        self._capability_calls = capability_calls
        # All threads exist after the first round.
        self._threads = concurrent.futures.ThreadPoolExecutor(
            sum(not kind.is_async for kind in KINDS)
        )
        self._samples: dict[str, list[tuple[float, float]]] = {}

    async def run(self) -> None:
        """Warm up, count, soak, count again."""
        async with capnp.kj_loop(), self._stage.closing:
            warm_s = time.monotonic() + WARM_UP_SHARE * self._report.seconds
            rounds = 0
            while rounds < WARM_UP_ROUNDS or time.monotonic() < warm_s:
                await self._round()
                rounds += 1
            before = await asyncio.to_thread(self._watch.at_rest, None)
            self._report.calls.clear()
            start_s = time.monotonic()
            seconds = (1 - WARM_UP_SHARE) * self._report.seconds
            while time.monotonic() < start_s + seconds or not self._has_enough_calls():
                await self._round()
                self._sample(time.monotonic() - start_s)
            after = await asyncio.to_thread(self._watch.at_rest, before)
            self._judge(before, after)
            # Nothing that was soaked has become unable to answer.
            await self._round(batch=3)
        self._threads.shutdown()

    def _has_enough_calls(self) -> bool:
        calls = self._report.calls
        return all(calls[kind.name] >= kind.at_least for kind in KINDS) and (
            capability_calls(calls) >= self._capability_calls
        )

    async def _round(self, batch: int | None = None) -> None:
        async with asyncio.timeout(_ROUND_LIMIT_S):
            usual = [kind for kind in KINDS if not kind.when_full]
            await self._together(usual, batch)
            with contextlib.ExitStack() as stack:
                house = full_house(self._stage, self._limit)
                await asyncio.get_running_loop().run_in_executor(
                    self._threads, stack.enter_context, house
                )
                await self._together([kind for kind in KINDS if kind.when_full], batch)

    async def _together(self, kinds: Iterable[Kind], batch: int | None) -> None:
        async with asyncio.TaskGroup() as group:
            for kind in kinds:
                group.create_task(self._one(kind, batch or kind.batch))

    async def _one(self, kind: Kind, count: int) -> None:
        try:
            if kind.is_async:
                await kind.run(self._stage, count)  # type: ignore[misc]
            else:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._threads, kind.run, self._stage, count)
        except Exception as error:
            raise KindFailed(f"{kind.name} after {self._report.calls[kind.name]}") from error
        self._report.calls[kind.name] += count

    def _sample(self, elapsed_s: float) -> None:
        for name, rss_bytes in self._watch.memory():
            self._samples.setdefault(name, []).append((elapsed_s, rss_bytes))

    def _judge(self, before: Any, after: Any) -> None:
        report = self._report
        report.faults += compare(before, after)
        for name in before:
            report.rss_bytes[name] = (before[name]["rss_bytes"], after[name]["rss_bytes"])
        for name, samples in self._samples.items():
            rise = rising(samples)
            if rise is not None:
                report.faults.append(f"{name}: {rise}")
        self._judge_ledger([each for name, each in after.items() if name.startswith("worker")])

    def _judge_ledger(self, workers: Iterable[Mapping[str, Any]]) -> None:
        """Check the executions: each answered call ran, and none ran twice."""
        ran: Counter[str] = Counter()
        for worker in workers:
            ran.update(worker["ran"])
        stage = self._stage
        for method, sent in stage.sent.items():
            if not stage.answered[method] <= ran[method] <= sent:
                self._report.faults.append(
                    f"{method}: {sent} sent, {ran[method]} ran, {stage.answered[method]} answered"
                )


# --- the command -------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak the server at an address; print what was found, and return 1 if that is a fault."""
    parser = argparse.ArgumentParser(prog="soak.drive", description=__doc__)
    parser.add_argument("address", help="host:port of a server of soak.service:Soaked")
    parser.add_argument("--pid", type=int, required=True, help="of the server's supervisor")
    parser.add_argument("--engine", required=True, help="the server's")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    parser.add_argument("--max-connections", type=int, required=True, help="the server's")
    parser.add_argument("--capability-calls", type=int, default=0, help="so many at least")
    options = parser.parse_args(arguments)
    report = Report(options.engine, options.seed, options.seconds)
    soak(options, report)
    sys.stdout.write(text_of(report))
    return 1 if report.faults else 0


def soak(options: argparse.Namespace, report: Report) -> None:
    """Run the soak and fill in the report, the failure that ends it included."""
    stage = Stage(options.address, options.engine, options.seed)
    watch = Watch(stage, options.pid)
    body = Soak(stage, watch, report, options.max_connections, options.capability_calls)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(body.run())
    except Exception as error:
        report.faults += sorted({_in_short(leaf) for leaf in leaves(error)})


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield what went wrong first, of every part of a group."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from leaves(part)
    elif isinstance(error, KindFailed) and isinstance(error.__cause__, BaseExceptionGroup):
        for part in leaves(error.__cause__):
            part.add_note(str(error))
            yield part
            # One of many tasks that met the same fault is enough.
            return
    else:
        yield error


def _in_short(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, KindFailed) else error
    assert cause is not None
    where = traceback.extract_tb(cause.__traceback__)[-3:]
    path = " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in where)
    notes = [str(error)] if isinstance(error, KindFailed) else getattr(error, "__notes__", [])[:1]
    return f"{'; '.join(notes)}: {type(cause).__name__}: {cause} ({path})"


def text_of(report: Report) -> str:
    """Return the table of kinds, memory, and the faults."""
    lines = [f"soak of the {report.engine} engine: {report.seconds:g} s, seed {report.seed}"]
    lines += [f"  {kind.name:24} {report.calls[kind.name]}" for kind in KINDS]
    lines += [f"  {'with capabilities':24} {capability_calls(report.calls)}"]
    for name, (before, after) in report.rss_bytes.items():
        lines.append(f"  RSS of {name:17} {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB after")
    lines += [f"FAULT {fault}" for fault in report.faults] or ["everything is at its start"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

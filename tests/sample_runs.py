"""Load runs that nobody has made: seeded times, written and read as those of the engine."""

import copy
import math
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sample_surroundings import CALM

from capnp_rig.loadtest.results import run_document
from capnp_rig.loadtest.results.load_samples import (
    generator_entry,
    machine_sample,
    read_load,
    usage_sample,
    window_samples,
)
from capnp_rig.loadtest.results.writing import write_run, write_samples
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.process_use import MachineTime, ProcessUse, Usage
from capnp_rig.loadtest.stats.run_summary import LIMITS, figures
from capnp_rig.loadtest.stats.tally import WARMUP, Report, Times, Window
from capnp_rig.rigcli.gc_page import GcUse

LABEL = "MessageStream.read"
ENVIRONMENT: Mapping[str, Any] = {
    "commit": "0123456789",
    "dirty": False,
    "command": ["loadtest", "run", "127.0.0.1:1", "--text", "<b>&'\""],
    "python": "3.11.7",
    "implementation": "CPython",
    "packages": {"capnp-rig": "0.1.0", "pycapnp": "2.2.4", "uvloop": "0.23.0"},
    "platform": "Linux-6.18",
    "machine": {"cpu_model": "Some CPU", "cpus": 2},
}
CONFIG: Mapping[str, Any] = {
    "address": "127.0.0.1:1",
    "connections": 64,
    "in_flight": 1,
    "rate_hz": 2000.0,
    "workload": {"payload_bytes": 32, "text": "<script>alert(1)</script>", "seed": 1},
    "processes": 2,
}


@dataclass(frozen=True)
class Fake:
    """What a run that nobody made is like; `slowness` multiplies all times, `noise` a second's."""

    seconds: float = 30.0
    calls: int = 400
    processes: int = 2
    repeats: int = 1
    slowness: float = 1.0
    noise: float = 0.01
    seed: int = 1
    is_open_loop: bool = True
    failures: tuple[tuple[str, int], ...] = ()
    server: bool = True
    workers: int = 1
    gc_every_s: float | None = None


@dataclass(frozen=True)
class Written:
    """A run's document and samples, and the raw times in ns that they were made of."""

    document: dict[str, Any]
    samples: list[dict[str, Any]]
    raw: Mapping[str, list[int]]


def make_run(fake: Fake) -> Written:
    rng = random.Random(fake.seed)
    samples: list[dict[str, Any]] = []
    generators, observed = [], []
    raw: dict[str, list[int]] = {"service": [], "response": [], "lateness": []}
    for repeat in range(fake.repeats):
        levels = _levels(rng, int(-(-fake.seconds // 1)), fake.noise)
        for process in range(fake.processes):
            report = _report(fake, rng, levels, raw)
            entry = generator_entry(repeat, process, report, busy=0.3, seconds=fake.seconds)
            generators.append(entry)
            samples += window_samples(repeat, process, report)
        samples += _usage(fake, repeat, levels) if fake.server else []
        server_cpu_s = sum(levels) * fake.slowness * 0.5 if fake.server else None
        seen = {"server_cpu_s": server_cpu_s, "steal": 0.0, "server": _server(fake)}
        observed.append(seen | {"surroundings": CALM})
    document = run_document(
        *("run", {**CONFIG, "repeats": fake.repeats}, ENVIRONMENT, ()),
        started="2026-11-21T12:00:00+00:00",
        observed=observed,
        generators=generators,
        limits=dict(LIMITS),
    )
    summary = read_load(document, samples).summary()
    document |= run_document("run", document["config"], ENVIRONMENT, figures(summary))
    return Written(document | {"summary": summary.to_json()}, samples, raw)


def _levels(rng: random.Random, count: int, noise: float) -> list[float]:
    """Return how slow each second is: neighbours are alike."""
    levels, level = [], 0.0
    for _ in range(count):
        level = 0.5 * level + rng.gauss(0, noise)
        levels.append(1 + level)
    return levels


def _report(
    fake: Fake, rng: random.Random, levels: list[float], raw: dict[str, list[int]]
) -> Report:
    windows = {WARMUP: Window({LABEL: Times(service=Histogram.of([9_000_000] * 5))})}
    scheduled = 0
    for second, level in enumerate(levels):
        slowness = level * fake.slowness
        # In a closed loop a slower server is asked less.
        calls = round(fake.calls * min(1, fake.seconds - second))
        calls = calls if fake.is_open_loop else round(calls / slowness)
        service = [int(rng.lognormvariate(13, 0.3) * slowness) for _ in range(calls)]
        raw["service"] += service
        times = Times(service=Histogram.of(service))
        if fake.is_open_loop:
            lateness = [rng.randrange(100, 9_000) for _ in range(calls)]
            response = [one + late for one, late in zip(service, lateness, strict=True)]
            raw["lateness"] += lateness
            raw["response"] += response
            times = Times(times.service, Histogram.of(response), Histogram.of(lateness))
            scheduled += calls
        failures = dict(fake.failures) if not second else {}
        connects = Histogram.of([200_000] * (not second))
        windows[second] = Window({LABEL: times}, connects, failures=failures)
    return Report(
        windows,
        scheduled=scheduled if fake.is_open_loop else None,
        cpu_ns=10**9,
        first_ns=10**9,
        last_ns=10**9 + int(fake.seconds * 1e9),
        final=True,
    )


def _server(fake: Fake) -> list[dict[str, Any]]:
    """Return the server's processes; each worker answers twice as much as the one before it."""
    if not fake.server:
        return []
    workers = [
        ProcessUse(f"worker {at}", 11 + at, 1.0 + at, 1000 << at) for at in range(fake.workers)
    ]
    return [asdict(one) for one in (ProcessUse("supervisor", 10, 0.01, 0), *workers)]


def _gc(fake: Fake, at_s: float) -> GcUse | None:
    """Return collections of 2 ms each, the longest 3."""
    if fake.gc_every_s is None:
        return None
    count = int(at_s / fake.gc_every_s)
    return GcUse(count, 2_000_000 * count, 3_000_000 * bool(count))


def _usage(fake: Fake, repeat: int, levels: list[float]) -> list[dict[str, Any]]:
    found = []
    cpu_s = 0.0
    for half in range(2 * len(levels)):
        at_s = half / 2
        gc, used_s = _gc(fake, at_s), half * 0.2
        found += [
            usage_sample(repeat, at_s, "server", Usage("worker 0", 11, 7 + cpu_s, 50_000_000)),
            usage_sample(repeat, at_s, "server", Usage("supervisor", 10, 1.0, 20_000_000)),
            usage_sample(repeat, at_s, "generator", Usage("engine 0", 12, used_s, 30_000_000, gc)),
            machine_sample(repeat, at_s, MachineTime(half * 0.01, half * 1.0)),
        ]
        cpu_s += levels[half // 2] * fake.slowness * 0.25
    return found


def over_two_servers(written: Written, lost: tuple[float, float]) -> Written:
    """Return a run as one over ``127.0.0.1:1`` and ``<b>:2``, which is lost for a while."""
    samples = copy.deepcopy(written.samples)
    whole_seconds = range(math.ceil(lost[0]), int(lost[1]))
    for sample in samples:
        if sample["sample"] != "window":
            continue
        part = {name: sample[name] for name in ("calls", "connects", "reconnects", "failures")}
        second = part
        if sample["second"] in whole_seconds:
            second = Window().to_json()
        if sample["second"] == int(lost[0]):
            second = {**part, "ended": 1}
        sample["endpoints"] = {"127.0.0.1:1": part, "<b>:2": second}
    document = copy.deepcopy(written.document)
    for generator in document["generators"]:
        generator["changes"] = [
            {"endpoint": "<b>:2", "at_s": at_s, "is_lost": is_lost}
            for at_s, is_lost in zip(lost, (True, False), strict=True)
        ]
    for observed in document["observed"]:
        observed["endpoint_cpu_s"] = {"127.0.0.1:1": 2.0}
    del document["summary"]
    return Written(document, samples, written.raw)


def write_run_folder(folder: Path, written: Written) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_samples(folder, written.samples)
    write_run(folder, written.document)
    return folder

"""Results of every kind that nobody has measured; the load runs among them are `sample_runs`'."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sample_clients import client_sample
from sample_runs import ENVIRONMENT, Fake, make_run, write_run_folder

from capnp_rig.loadtest.bench.pair_figures import value_labels
from capnp_rig.loadtest.bench.peers_figures import (
    CANNED,
    GENERATOR,
    PYCAPNP,
    WIRE,
    PeerSample,
)
from capnp_rig.loadtest.bench.peers_figures import figures as peer_figures
from capnp_rig.loadtest.bench.rounds import AGAIN
from capnp_rig.loadtest.bench.sweep_figures import SweepStep
from capnp_rig.loadtest.bench.sweep_figures import figures as figures_of_sweep
from capnp_rig.loadtest.clients.client_figures import figures as client_figures
from capnp_rig.loadtest.clients.client_figures import timeline
from capnp_rig.loadtest.results import Figure, run_document
from capnp_rig.loadtest.results.writing import write_run
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.reasons import reasons_of_text

STARTED = "2026-11-21T12:00:00+00:00"
SIZES = (64, 1024, 16384, 262144, 4194304)
EVIL = "</script><script>alert('x')</script><b>\"&"
# What a codec's time is: so many ns, and so many per byte.
_COSTS: Mapping[str, tuple[float, float]] = {
    "wire": (1000.0, 0.0),
    "pycapnp": (1500.0, 0.1),
    "orjson": (400.0, 1.0),
    "json": (900.0, 5.0),
    "other": (700.0, 0.5),
}


def ratio(
    value: float,
    *,
    low: float | None = None,
    high: float | None = None,
    verdict: str = "",
    reason: str = "",
    floor: float | None = 0.01,
    **labels: Any,
) -> Figure:
    """Return a ratio of wire to orjson; its interval is 5 % either way where none is given."""
    known = {"codec": "wire", "baseline": "orjson", "message": "text", "size_bytes": 64}
    contract = labels.get("contract", "open+read 100%")
    plain = {**known, "contract": contract, "floor": floor, "kind": "ratio", **labels}
    name = f"ratio: {plain['message']}, {contract}, {plain['size_bytes']} B, {plain['codec']}"
    return Figure(
        *(f"{name}, against {plain['baseline']}", value, "times as fast", contract, 12),
        low=value / 1.05 if low is None else low,
        high=value * 1.05 if high is None else high,
        verdict=Verdict(verdict or ("faster" if value > 1 else "slower")),
        reasons=reasons_of_text(reason),
        labels=plain,
    )


def crossover(
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    reason: str = "",
    kind: str = "crossover",
    **labels: Any,
) -> Figure:
    known = {"codec": "wire", "baseline": "orjson", "message": "text", "kind": kind}
    contract = labels.get("contract", "open+read 100%")
    unit = "B" if kind == "crossover" else "%"
    plain = {**known, "contract": contract, **labels}
    name = f"{kind}: {plain['message']}, {contract}, wire over orjson"
    return Figure(
        *(name, value, unit, contract, 12),
        low=low,
        high=high,
        reasons=reasons_of_text(reason),
        labels=plain,
    )


def time(codec: str, message: str, contract: str, size: int, value: float, **labels: Any) -> Figure:
    known = {"kind": "time", "codec": codec, "subject": codec, "message": message}
    known["contract"] = contract
    return Figure(
        *(f"time: {message}, {contract}, {size} B, {codec}", value, "ns", contract, 12),
        low=value * 0.97,
        high=value * 1.04,
        labels={**known, "size_bytes": size, "k": None, "gc": False, **labels},
    )


def bench_figures() -> list[Figure]:
    """Return a sweep by size, one by shares, memory and sizes; wire costs the same at all sizes."""
    found = []
    for size in SIZES:
        for codec, (fixed, each) in _COSTS.items():
            found.append(time(codec, "text", "open+read 100%", size, fixed + each * size, k=100))
            found.append(time(codec, "text", "build", size, fixed + each * size / 2))
        found.append(time("memcpy", "", "floor", size, 100 + 0.05 * size))
        cost = (400 + size) / 1000
        void = {"verdict": "void", "reason": "under 6 pairs"} if size == SIZES[2] else {}
        found.append(ratio(cost, size_bytes=size, **void))
        found.append(ratio((400 + size) / (1500 + size / 10), size_bytes=size, codec="pycapnp"))
    found.append(crossover(600.0, 550.0, 700.0))
    for share in (0, 1, 10, 50, 100):
        contract = f"open+read {share}%" if share else "open"
        for codec in ("wire", "orjson"):
            value = 1000.0 + (90 * share if codec == "wire" else 2000)
            found.append(time(codec, "records", contract, 136000, value, k=share))
    found.append(
        crossover(22.0, 20.0, 25.0, kind="break-even", message="records", size_bytes=136000)
    )
    for codec, taken in (("wire", 0), ("orjson", 3 << 20)):
        labels = {
            "codec": codec,
            "message": "tensor",
            "contract": "round trip",
            "size_bytes": 1 << 20,
        }
        name = f"tensor, round trip, {1 << 20} B, {codec}"
        for kind in ("memory", "allocated"):
            plain = {"kind": kind, **labels}
            found.append(Figure(f"{kind}: {name}", taken, "B", "round trip", 3, labels=plain))
        for method, encoded in (("raw", 70000), ("zstd 3", 30000)):
            labels = {"codec": codec, "message": "text", "size_bytes": 65536, "method": method}
            took = None if method == "raw" else 90000
            found.append(
                Figure(
                    *(f"size: text, 65536 B, {codec}, {method}", encoded, "B", "encoded size", 1),
                    labels={"kind": "size", **labels, "compress_ns": took},
                )
            )
    return found


def pair_figures(
    subject: str, baseline: str, load: str, what: str = "server CPU per call"
) -> list[Figure]:
    """Return the figures of a bench-server, or bench-locust, at one load."""
    found = []
    for name, rate, cpu in ((subject, 100_000.0, 9.0), (baseline, 50_000.0, 20.0)):
        for measured, value, unit in (("calls/s", rate, "calls/s"), (what, cpu, "µs")):
            found.append(
                Figure(
                    *(f"{load}: {name} {measured}", value, unit, "round trip", 12),
                    *(value * 0.98, value * 1.02),
                    labels=value_labels(load, name, measured),
                )
            )
    for measured, value in (("calls/s", 2.0), (what, 2.2)):
        place = {"load": load, "what": measured, "baseline": baseline}
        over = f"{load}: {subject} over {baseline}, {measured}"
        found.append(
            Figure(
                *(
                    f"{load}: A/A, {measured}",
                    1.0,
                    "ratio",
                    "round trip",
                    12,
                    0.99,
                    1.01,
                    Verdict.FLOOR,
                ),
                labels={"kind": "A/A", "subject": baseline, **place},
            )
        )
        found.append(
            Figure(
                *(
                    over,
                    value,
                    "ratio",
                    "round trip",
                    12,
                    value * 0.97,
                    value * 1.03,
                    Verdict.FASTER,
                ),
                labels={"kind": "ratio", "subject": subject, **place, "floor": 1 / 0.99 - 1},
            )
        )
    return found


def server_figures() -> list[Figure]:
    found = pair_figures("wire", "pycapnp", "64 x 1") + pair_figures("wire", "pycapnp", "8 x 16")
    for case in ("served call, alone in its read", "served call, 16 in a read"):
        found.append(
            Figure(
                *(f"in memory: {case}", 3.6, "µs", "round trip", 6, 3.5, 3.7),
                labels={"kind": "in memory", "case": case},
            )
        )
    found.append(
        Figure(
            *("wire: memory of 10,000 idle connections", 3.2, "kB each", "idle", 10_000),
            labels={"kind": "idle", "subject": "wire", "connections": 10_000},
        )
    )
    return found


def stack_figures() -> list[Figure]:
    found = []
    for stack, rate in (("capnp", 100_000.0), ("http1", 20_000.0), ("grpc", 2_500.0)):
        for size in (32, 262144):
            rate_here = rate / (1 + size / 5000)
            labels = {
                "stack": stack,
                "payload_kind": "text",
                "payload_bytes": size,
                "loop": "closed",
            }
            is_void = (stack, size) == ("grpc", 262144)
            found.append(
                Figure(
                    *(f"{stack}, {size} B: calls/s", rate_here, "calls/s", "round trip", 12),
                    *(rate_here * 0.97, rate_here * 1.03),
                    *((Verdict.VOID, reasons_of_text("a worker died")) if is_void else ()),
                    labels={**labels, "figure": "calls_per_s"},
                )
            )
            cpu = 9e5 / rate_here
            found.append(
                Figure(
                    *(f"{stack}, {size} B: CPU", cpu, "µs", "round trip", 12, cpu * 0.9, cpu * 1.1),
                    labels={**labels, "figure": "cpu_us_per_call"},
                )
            )
        if stack != "capnp":
            more = {
                "stack": "capnp",
                "baseline": stack,
                "payload_kind": "text",
                "payload_bytes": 32,
            }
            found.append(
                Figure(
                    *(
                        f"capnp over {stack}",
                        5.0,
                        "ratio",
                        "round trip",
                        12,
                        4.8,
                        5.2,
                        Verdict.FASTER,
                    ),
                    labels={**more, "loop": "closed", "figure": "ratio_calls_per_s", "floor": 0.02},
                )
            )
    return found


def write_figures(
    folder: Path,
    kind: str,
    figures: Iterable[Figure],
    *,
    started: str = STARTED,
    config: Mapping[str, Any] | None = None,
    **more: object,
) -> Path:
    """Write a result of figures alone."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**ENVIRONMENT, "command": ["loadtest", kind]}
    document = run_document(kind, config or {}, environment, figures, started=started, **more)
    write_run(folder, document)
    return folder


COPIES: Sequence[Mapping[str, Any]] = (
    {
        "codec": "wire",
        "path": "frame to array",
        "copies": 0,
        "allocated": 0,
        "is_view": True,
        "note": "",
    },
    {
        "codec": "orjson",
        "path": "frame to array",
        "copies": 3,
        "allocated": None,
        "is_view": False,
        "note": EVIL,
    },
)
CURVE: Sequence[Mapping[str, Any]] = tuple(
    {
        "rate_hz": rate,
        "calls_per_s": rate * 0.99,
        "p50": 100.0,
        "p99": p99,
        "p999": p99 * 2,
        "lateness_p99": 20.0,
        "held": held,
        "probes": 3,
        "note": note,
    }
    for rate, p99, held, note in (
        (10_000.0, 300.0, 3, ""),
        (20_000.0, 700.0, 3, ""),
        (30_000.0, 1500.0, 3, ""),
        (40_000.0, 90_000.0, 0, "the generator was late or busy"),
    )
)
FOUND: Mapping[str, Any] = {
    "rate_hz": 30_000.0,
    "failing_hz": 40_000.0,
    "limit": "server",
    "verified": 5,
    "outcomes": [[30_000.0, ["held"] * 8], [40_000.0, ["failed"] * 3]],
}


def write_search(folder: Path) -> Path:
    load = {"connections": 16, "in_flight": 1, "workload": {"payload_bytes": 32}}
    config = {"load": load, "slo": "p99<2ms and errors<0.1%"}
    found = [Figure("highest verified rate", 30_000.0, "calls/s", "round trip", 5)]
    more = {"found": FOUND, "curve": list(CURVE)}
    return write_figures(folder, "search", found, config=config, **more)


def sweep_figures(**more: Any) -> list[Figure]:
    """Return the figures of a sweep on 4 connections whose rate rises up to 8 calls in flight."""
    steps = []
    for in_flight, calls in ((1, 3000), (2, 11_800), (4, 12_000)):
        mean_ns = 4 * in_flight * 1_500_000_000 // calls
        plain = {
            "calls": calls,
            "seconds": 1.5,
            "busy": 0.5,
            "server_cpu_s": 0.6,
            "steal": 0.0,
            "failures": {},
            "service": Histogram.of([mean_ns] * calls).to_json(),
        }
        steps += [SweepStep(number, 0, 4, in_flight, **{**plain, **more}) for number in range(6)]
    return figures_of_sweep(steps)


def write_sweep(folder: Path, **more: Any) -> Path:
    load = {"connections": 4, "workload": {"payload_bytes": 32}}
    config = {"load": load, "in_flight": [1, 2, 4], "rounds": 6}
    return write_figures(folder, "sweep", sweep_figures(**more), config=config)


def write_ab(folder: Path) -> Path:
    """Write what `loadtest compare` of two servers does, with two blocks."""
    cpu = {"baseline": [20.0, 22.0], "candidate": [21.0, 23.1], "again": [20.0, 22.0]}
    return write_figures(
        folder,
        "ab",
        pair_figures("candidate", "baseline", "64 x 1"),
        values={"server CPU per call": cpu, "calls/s": {}},
        comparison={"notes": ["2 of 2 planned blocks."]},
    )


def peer_samples(count: int, slow: Mapping[str, float]) -> list[PeerSample]:
    """Return rounds of a bench-peers in which a call of some peers takes so many times the CPU.

    In our layout it takes 10 µs, twice, on pycapnp's engine 30, of canned answers 8, and of the
    generator 5.
    """
    cpu_us = {WIRE: 10.0, AGAIN: 10.0, PYCAPNP: 30.0, CANNED: 8.0}
    units = [(load, subject) for load in ((64, 1), (8, 16)) for subject in cpu_us]
    return [
        PeerSample(
            number,
            order=0,
            peer=peer,
            subject=WIRE if subject == AGAIN else subject,
            again=subject == AGAIN,
            connections=load[0],
            in_flight=load[1],
            calls=1000,
            seconds=0.1,
            cpu_s=5.0 * slow.get(peer, 1) / 1000,
            server_cpu_s=cpu_us.get(subject, 1.0) * slow.get(peer, 1) / 1000,
        )
        for number in range(count)
        for peer in ("ours", "Rust")
        for load, subject in [*units, ((1, 64), GENERATOR)]
    ]


def write_clients(folder: Path) -> Path:
    """Write what a bench-clients does, with a second of each phase."""
    samples = [client_sample(), client_sample("bare", failed=300, executions=9700)]
    return write_figures(
        folder,
        "bench-clients",
        client_figures(samples),
        config={"healthy_s": 1.0, "faults_s": 1.0},
        timeline=list(timeline(samples)),
    )


def write_results(parent: Path) -> Path:
    """Write a result of every kind, and return their folder."""
    write_figures(parent / "bench", "bench", bench_figures(), copies=list(COPIES))
    write_figures(parent / "bench-server", "bench-server", server_figures())
    peers = peer_figures(peer_samples(6, {"Rust": 1.2}), [{"call: ours": 5000.0}] * 6)
    write_figures(parent / "bench-peers", "bench-peers", peers)
    write_figures(parent / "bench-servers", "bench-servers", pair_figures("go", "rust", "8 x 16"))
    write_clients(parent / "bench-clients")
    write_figures(parent / "bench-stacks", "bench-stacks", stack_figures())
    users = pair_figures("ReverseUser", "FastHttpUser", "16 x 1", "generator CPU per call")
    write_figures(parent / "bench-locust", "bench-locust", users)
    write_search(parent / "search")
    write_sweep(parent / "sweep")
    write_ab(parent / "ab")
    write_run_folder(parent / "run", make_run(Fake(seconds=12, calls=900, failures=((EVIL, 2),))))
    closed = make_run(Fake(seconds=12, calls=900, is_open_loop=False))
    closed.document["kind"] = "locust"
    write_run_folder(parent / "locust", closed)
    return parent

"""The metrics of a ``bench`` and a ``bench-server``, by process and by round (no I/O)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from capnp_rig.loadtest.results.load_samples import SAMPLES, check_histogram, damage, read_figures
from capnp_rig.loadtest.stats.histogram import Histogram, merge, us_of
from capnp_rig.loadtest.stats.metric import Metric, metric_of_values, tail_problem

# A second timing of the baseline in a bench, which only serves its own A/A rows.
_AGAIN = " again"
# Who plays which role in a round; likewise without the baseline's second time.
_ENGINES = {"baseline": "pycapnp", "candidate": "wire"}
_T = TypeVar("_T")


def bench_metrics(samples: Iterable[Mapping[str, Any]], *, seed: int) -> list[Metric]:
    """Return the time of each case of a ``bench``, by process.

    Raises:
        ResultError: A sample is damaged.
    """
    medians: dict[str, dict[int, float]] = {}
    for line, sample in enumerate(samples, start=1):
        with damage(SAMPLES, line):
            if not sample["subject"].endswith(_AGAIN) and "void" not in sample:
                gc = ", GC on" if sample["gc"] else ""
                # Older results have texts only, and no name of the case.
                older = f"{sample['contract']}, {sample['size_bytes']:d} B, {sample['subject']}{gc}"
                case = sample.get("case", older)
                medians.setdefault(case, {})[sample["process"]] = float(sample["median_ns"])
    return [
        metric_of_values(case, "ns", _in_order(values), seed)
        for case, values in sorted(medians.items())
    ]


def _in_order(values: Mapping[int, _T]) -> list[_T]:
    return [values[number] for number in sorted(values)]


def bench_server_metrics(
    document: Mapping[str, Any], samples: Iterable[Mapping[str, Any]], *, seed: int
) -> list[Metric]:
    """Return what each engine did under each load of a ``bench-server``, by round.

    Raises:
        ResultError: A sample is damaged.
    """
    rounds: dict[str, dict[int, _Round]] = {}
    for line, sample in enumerate(samples, start=1):
        with damage(SAMPLES, line):
            engine = _ENGINES.get(sample["role"])
            if engine is not None:
                name = f"{sample['connections']:d} x {sample['in_flight']:d}: {engine}"
                rounds.setdefault(name, {})[sample["number"]] = _round(sample)
    problems = {
        figure.name: f"{figure.verdict}: {figure.reason}"
        for figure in read_figures(document)
        if figure.verdict in {"void", "at least"}
    }
    metrics = []
    for name, by_number in sorted(rounds.items()):
        each = _in_order(by_number)
        times = merge(turn.service for turn in each)
        p99_us = [us_of(turn.service.percentile_ns(99)) for turn in each]
        rate, cpu = f"{name} calls/s", f"{name} server CPU per call"
        rates: list[float | None] = [turn.calls_per_s for turn in each]
        metrics += [
            metric_of_values(rate, "calls/s", rates, seed, problems.get(rate, "")),
            metric_of_values(
                cpu, "µs", [turn.cpu_us for turn in each], seed, problems.get(cpu, "")
            ),
            metric_of_values(f"{name} service p99", "µs", p99_us, seed, tail_problem(times, 99)),
        ]
    return metrics + _in_memory(document, seed)


@dataclass(frozen=True, slots=True)
class _Round:
    calls_per_s: float
    cpu_us: float | None
    service: Histogram


def _round(sample: Mapping[str, Any]) -> _Round:
    result, cpu_s = sample["result"], sample["cpu_s"]
    # Older rounds were weighed with their warm-up, and have `answered` for it.
    calls, answered = result["calls"], result.get("answered", result["calls"])
    service = Histogram.from_json(result["histogram"])
    check_histogram(service)
    cpu_us = None if cpu_s is None or not answered else cpu_s * 1e6 / answered
    return _Round(calls / result["seconds"], cpu_us, service)


def _in_memory(document: Mapping[str, Any], seed: int) -> list[Metric]:
    by_case: dict[str, list[float | None]] = {}
    with damage("run.json"):
        for process in document.get("in_memory_ns", ()):
            for case, value_ns in process.items():
                by_case.setdefault(case, []).append(value_ns / 1000)
    return [
        metric_of_values(f"in memory: {case}", "µs", values, seed)
        for case, values in by_case.items()
    ]

"""The metrics of benchmarks, sweeps and searches, by process, round or probe (no I/O).

A metric has the name of the figure that it is the values of, and its doubts: where that is void, or
a lower bound, so is the metric.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeVar

from capnp_rig.loadtest.bench import locust as bench_locust
from capnp_rig.loadtest.bench import sweep_figures
from capnp_rig.loadtest.bench.peers_figures import (
    GENERATOR,
    OWN_CPU,
    SERVER_CPU,
    PeerSample,
    by_place,
)
from capnp_rig.loadtest.bench.rounds import AGAIN as SECOND_TURN
from capnp_rig.loadtest.bench.rounds import by_role
from capnp_rig.loadtest.bench.server import ENGINES, Load, Round
from capnp_rig.loadtest.bench.stacks_figures import (
    CALLS,
    CPU,
    OPEN,
    PERCENTILES,
    StackSample,
)
from capnp_rig.loadtest.bench.sweep_figures import LITTLE, UNITS, SweepStep, by_flight
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.results.load_samples import SAMPLES, check_histogram, damage, read_figures
from capnp_rig.loadtest.stats.histogram import Histogram, merge, us_of
from capnp_rig.loadtest.stats.messages import AGAIN
from capnp_rig.loadtest.stats.metric import Metric, Range, doubts, metric_of_values, tail_problems
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.rate_search import LOWER_BOUNDS
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode, reasons_of_text

# Of all probes at a rate; a closer look is for runs at that rate.
_PROBED = ("p50", "p99")
# What of the labels of a figure, and of a sample, says under which load it was made.
_STACK_LABELS = ("payload_kind", "payload_bytes", "loop", "stack")
_T = TypeVar("_T")


def _rounds(kind: Callable[..., _T], samples: Iterable[Mapping[str, Any]]) -> list[_T]:
    """Return samples as they were before they were written.

    Raises:
        ResultError: A sample is damaged.
    """
    rounds = []
    for line, sample in enumerate(samples, start=1):
        with damage(SAMPLES, line):
            rounds.append(kind(**sample))
            for part in ("service", "response", "lateness"):
                if sample.get(part) is not None:
                    check_histogram(Histogram.from_json(sample[part]))
    return rounds


def _metrics(
    figures: Iterable[Figure], values: Mapping[str, Sequence[float | None]]
) -> list[Metric]:
    """Return the metrics of those figures that have values, which go by their names."""
    by_name = {figure.name: figure for figure in figures}
    return [
        metric_of_values(name, by_name[name].unit, each, doubts(by_name[name]))
        for name, each in values.items()
    ]


def bench_metrics(
    _document: Mapping[str, Any], samples: Iterable[Mapping[str, Any]]
) -> list[Metric]:
    """Return the time of each case of a ``bench``, by process.

    Raises:
        ResultError: A sample is damaged.
    """
    medians_ns: dict[str, dict[int, float]] = {}
    for line, sample in enumerate(samples, start=1):
        with damage(SAMPLES, line):
            # A second timing of the baseline only serves the A/A rows of a bench.
            if not sample["subject"].endswith(AGAIN) and "void" not in sample:
                by_process = medians_ns.setdefault(sample["case"], {})
                by_process[sample["process"]] = float(sample["median_ns"])
    return [
        metric_of_values(case, "ns", [by_process[at] for at in sorted(by_process)])
        for case, by_process in sorted(medians_ns.items())
    ]


def bench_server_metrics(
    document: Mapping[str, Any], samples: Iterable[Mapping[str, Any]]
) -> list[Metric]:
    """Return what each engine did under each load of a ``bench-server``, by round.

    Raises:
        ResultError: A sample is damaged.
    """
    rounds: dict[str, list[Round]] = {}
    for each in sorted(_rounds(_server_round, samples), key=lambda each: each.number):
        if each.role in ENGINES:
            name = f"{each.connections} x {each.in_flight}: {ENGINES[each.role]}"
            rounds.setdefault(name, []).append(each)
    metrics = []
    figures = read_figures(document)
    for name, measured in sorted(rounds.items()):
        times = [Histogram.from_json(each.result.histogram) for each in measured]
        p99_us = [us_of(each.interpolated_ns(99)) for each in times]
        values = {
            f"{name} calls/s": [each.result.calls_per_s for each in measured],
            f"{name} server CPU per call": [each.cpu_us_per_call for each in measured],
        }
        with damage("run.json"):
            metrics += _metrics(figures, values)
        problems = tail_problems(merge(times), 99)
        metrics.append(metric_of_values(f"{name} service p99", "µs", p99_us, problems))
    return metrics + _in_memory(document)


def _server_round(*, result: Mapping[str, Any], **plain: Any) -> Round:
    check_histogram(Histogram.from_json(result["histogram"]))
    return Round(result=Load(**result), **plain)


def peers_metrics(
    document: Mapping[str, Any], samples: Iterable[Mapping[str, Any]]
) -> list[Metric]:
    """Return the CPU per call in the layout of each peer of a ``bench-peers``, by round.

    Raises:
        ResultError: A sample is damaged.
    """
    with damage("run.json"):
        figures = read_figures(document)
    values: dict[str, Sequence[float | None]] = {}
    for place, subjects in by_place(_rounds(PeerSample, samples)).items():
        for subject, some in subjects.items():
            if subject != SECOND_TURN:
                what = OWN_CPU if subject == GENERATOR else SERVER_CPU
                values[f"{place.name}: {subject} {what}"] = [each.cpu_us_per_call for each in some]
    with damage("run.json"):
        return _metrics(figures, values) + _in_memory(document)


def _in_memory(document: Mapping[str, Any]) -> list[Metric]:
    by_case: dict[str, list[float | None]] = {}
    with damage("run.json"):
        for process in document.get("in_memory_ns", ()):
            for case, value_ns in process.items():
                by_case.setdefault(case, []).append(value_ns / 1000)
    return [
        metric_of_values(f"in memory: {case}", "µs", values) for case, values in by_case.items()
    ]


def sweep_metrics(
    _document: Mapping[str, Any], samples: Iterable[Mapping[str, Any]]
) -> list[Metric]:
    """Return what each number of calls in flight of a ``sweep`` did, by round.

    Raises:
        ResultError: A sample is damaged.
    """
    with damage(SAMPLES):
        metrics = []
        for steps in by_flight(_rounds(SweepStep, samples)).values():
            load = f"{steps[0].connections} x {steps[0].in_flight}"
            seen = [step.values() for step in steps]
            # Little's law is a check of the others.
            shown = [what for what in UNITS if what != LITTLE]
            values = {f"{load}: {what}": [each[what] for each in seen] for what in shown}
            metrics += _metrics(sweep_figures.figures(steps), values)
        return metrics


def stack_metrics(
    document: Mapping[str, Any], samples: Iterable[Mapping[str, Any]]
) -> list[Metric]:
    """Return what each stack of a ``bench-stacks`` did under each load, by round.

    Raises:
        ResultError: A sample or figure is damaged.
    """
    cells: dict[tuple[object, ...], list[StackSample]] = {}
    # The second turn of a stack only serves the floor.
    turns = [each for each in _rounds(StackSample, samples) if not each.again]
    load_of = attrgetter(*_STACK_LABELS)
    with damage(SAMPLES):
        for each in sorted(turns, key=lambda turn: turn.round):
            cells.setdefault(load_of(each), []).append(each)
    metrics = []
    for figure in read_figures(document):
        labels = figure.labels
        if labels.get("baseline") is None:
            with damage(SAMPLES):
                where = tuple(labels.get(name) for name in _STACK_LABELS)
                values = _stack_values(labels.get("figure"), cells.get(where, []))
            if values:
                metrics += _metrics([figure], {figure.name: values})
    return metrics


def _stack_values(what: object, rounds: Sequence[StackSample]) -> list[float | None]:
    """Return a value per round of a figure; none of one that says the same as another."""
    is_open = bool(rounds) and rounds[0].loop == OPEN
    # An open loop has the rate that it was given.
    if what == CALLS and not is_open:
        return [turn.calls_per_s if turn.calls else None for turn in rounds]
    if what == CPU:
        return [turn.cpu_us_per_call() for turn in rounds]
    if isinstance(what, str) and what in PERCENTILES:
        clock = "response" if is_open else "service"
        return [us_of(turn.times(clock).interpolated_ns(PERCENTILES[what])) for turn in rounds]
    return []


def locust_metrics(
    document: Mapping[str, Any], samples: Iterable[Mapping[str, Any]]
) -> list[Metric]:
    """Return the rate and the CPU per call of each user of a ``bench-locust``, by round.

    Raises:
        ResultError: A sample is damaged.
    """
    figures = read_figures(document)
    metrics = []
    with damage(SAMPLES):
        rounds = by_role(_rounds(bench_locust.Round, samples))
        load = f"{document['config']['users']} x 1"
        sides = bench_locust.sides(calls=bool(document["config"].get("calls")))
        for role, side in sides.items():
            name, own = f"{load}: {side.name}", rounds[role]
            values = {
                f"{name} calls/s": [each.requests / each.seconds for each in own],
                f"{name} generator CPU per call": [
                    each.cpu_s * 1e6 / each.requests for each in own
                ],
            }
            metrics += _metrics(figures, values)
    return metrics


def search_metrics(
    document: Mapping[str, Any], _samples: Iterable[Mapping[str, Any]]
) -> list[Metric]:
    """Return the answer of a ``search``, and the response times at each rate, by probe.

    Raises:
        ResultError: It is damaged.
    """
    with damage("run.json"):
        metrics = [_answer(document["found"])]
        by_rate: dict[float, list[Mapping[str, Any]]] = {}
        for probe in document["probes"]:
            by_rate.setdefault(float(probe["rate_hz"]), []).append(probe["summary"])
        notes = {float(point["rate_hz"]): _notes(point) for point in document["curve"]}
        for rate_hz, summaries in sorted(by_rate.items()):
            for name in _PROBED:
                values = [each["response_us"][name] for each in summaries]
                title = f"{rate_hz:,g} calls/s: response {name}"
                metrics.append(metric_of_values(title, "µs", values, notes.get(rate_hz, ())))
    return metrics


def _notes(point: Mapping[str, Any]) -> tuple[Reason, ...]:
    """Return what is to be said of a point of the curve; earlier results have only the words."""
    codes = point.get("reason_codes")
    if codes is None:
        return reasons_of_text(str(point["note"]))
    return tuple(map(Reason.from_json, codes))


def _answer(answer: Mapping[str, Any]) -> Metric:
    """Return the highest rate; it may be anything between the verified and the failing one.

    That range is also how far two searches of the same server may be apart.
    """
    name, unit = "highest verified rate", "calls/s"
    rate_hz, failing_hz, n = answer["rate_hz"], answer["failing_hz"], int(answer["verified"])
    if rate_hz is None:
        return Metric(name, unit, None, n, problems=(Reason.of(ReasonCode.NO_VERIFIED_RATE),))
    rate_hz = float(rate_hz)
    if failing_hz is None:
        highest = Reason.of(ReasonCode.NO_HIGHER_RATE, subject=Verdict.AT_LEAST)
        return Metric(name, unit, rate_hz, n, problems=(highest,))
    code = LOWER_BOUNDS.get(answer["limit"])
    problems = () if code is None else (Reason.of(code, subject=Verdict.AT_LEAST),)
    return Metric(name, unit, rate_hz, n, Range(rate_hz, float(failing_hz)), problems)

"""The metrics of results that were made in rounds or probes, by these (no I/O).

A metric has the name of the figure that it is the values of, and its doubts: where that is void, or
a lower bound, so is the metric.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from capnp_rig.loadtest.bench import locust as bench_locust
from capnp_rig.loadtest.bench import sweep_figures
from capnp_rig.loadtest.bench.rounds import BASELINE, CANDIDATE
from capnp_rig.loadtest.bench.stacks_figures import CALLS, CPU, OPEN, PERCENTILES, StackSample
from capnp_rig.loadtest.bench.sweep_figures import LITTLE, UNITS, SweepStep, by_flight
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.results.load_samples import SAMPLES, check_histogram, damage, read_figures
from capnp_rig.loadtest.stats.histogram import Histogram, us_of
from capnp_rig.loadtest.stats.metric import Metric, metric_of_values
from capnp_rig.loadtest.stats.resampling import RESAMPLES, Resampled

_DOUBTED = {"void", "at least"}
# Of all probes at a rate; a closer look is for runs at that rate.
_PROBED = ("p50", "p99")
_T = TypeVar("_T")


def _rounds(kind: type[_T], samples: Iterable[Mapping[str, Any]]) -> list[_T]:
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


def _metric(figure: Figure, values: Sequence[float | None], seed: int) -> Metric:
    problem = f"{figure.verdict}: {figure.reason}" if figure.verdict in _DOUBTED else ""
    return metric_of_values(figure.name, figure.unit, values, seed, problem)


def sweep_metrics(
    _document: Mapping[str, Any], samples: Iterable[Mapping[str, Any]], *, seed: int
) -> list[Metric]:
    """Return what each number of calls in flight of a ``sweep`` did, by round.

    Raises:
        ResultError: A sample is damaged.
    """
    with damage(SAMPLES):
        steps = by_flight(_rounds(SweepStep, samples))
        figures = {
            (figure.labels["calls_in_flight"], figure.labels["what"]): figure
            for each in steps.values()
            for figure in sweep_figures.figures(each)
        }
        return [
            _metric(figures[in_flight, what], [step.values()[what] for step in each], seed)
            for in_flight, each in steps.items()
            for what in UNITS
            # It is a check of the others.
            if what != LITTLE
        ]


def stack_metrics(
    document: Mapping[str, Any], samples: Iterable[Mapping[str, Any]], *, seed: int
) -> list[Metric]:
    """Return what each stack of a ``bench-stacks`` did under each load, by round.

    Raises:
        ResultError: A sample or figure is damaged.
    """
    cells: dict[tuple[object, ...], list[StackSample]] = {}
    # The second turn of a stack only serves the floor.
    turns = [each for each in _rounds(StackSample, samples) if not each.again]
    with damage(SAMPLES):
        for each in sorted(turns, key=lambda turn: turn.round):
            place = (each.stack, each.payload_kind, each.payload_bytes, each.loop)
            cells.setdefault(place, []).append(each)
    metrics = []
    for figure in read_figures(document):
        labels = figure.labels
        where = (labels.get(name) for name in ("stack", "payload_kind", "payload_bytes", "loop"))
        with damage(SAMPLES):
            rounds = cells.get(tuple(where), [])
            values = _stack_values(labels.get("figure"), rounds)
        if values and labels.get("baseline") is None:
            metrics.append(_metric(figure, values, seed))
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
        return [us_of(turn.times(clock).percentile_ns(PERCENTILES[what])) for turn in rounds]
    return []


def locust_metrics(
    document: Mapping[str, Any], samples: Iterable[Mapping[str, Any]], *, seed: int
) -> list[Metric]:
    """Return the rate and the CPU per call of each user of a ``bench-locust``, by round.

    Raises:
        ResultError: A sample is damaged.
    """
    figures = {figure.name: figure for figure in read_figures(document)}
    metrics = []
    with damage(SAMPLES):
        rounds = sorted(_rounds(bench_locust.Round, samples), key=lambda each: each.number)
        load = f"{document['config']['users']} x 1"
        sides = bench_locust.sides(calls=bool(document["config"].get("calls")))
        for role in (CANDIDATE, BASELINE):
            own = [each for each in rounds if each.role == role]
            values = {
                "calls/s": [each.requests / each.seconds for each in own],
                "generator CPU per call": [each.cpu_s * 1e6 / each.requests for each in own],
            }
            metrics += [
                _metric(figures[f"{load}: {sides[role].name} {what}"], each, seed)
                for what, each in values.items()
            ]
    return metrics


def search_metrics(
    document: Mapping[str, Any], _samples: Iterable[Mapping[str, Any]], *, seed: int
) -> list[Metric]:
    """Return the answer of a ``search``, and the response times at each rate, by probe.

    Raises:
        ResultError: It is damaged.
    """
    with damage("run.json"):
        metrics = [_answer(document["found"], seed)]
        by_rate: dict[float, list[Mapping[str, Any]]] = {}
        for probe in document["probes"]:
            by_rate.setdefault(float(probe["rate_hz"]), []).append(probe["summary"])
        notes = {float(point["rate_hz"]): str(point["note"]) for point in document["curve"]}
        for rate_hz, summaries in sorted(by_rate.items()):
            for name in _PROBED:
                values = [each["response_us"][name] for each in summaries]
                title = f"{rate_hz:,g} calls/s: response {name}"
                metrics.append(metric_of_values(title, "µs", values, seed, notes.get(rate_hz, "")))
    return metrics


def _answer(answer: Mapping[str, Any], seed: int) -> Metric:
    """Return the highest rate; it may be anything between the verified and the failing one.

    That range is also how far two searches of the same server may be apart.
    """
    name, unit = "highest verified rate", "calls/s"
    rate_hz, failing_hz, n = answer["rate_hz"], answer["failing_hz"], int(answer["verified"])
    if rate_hz is None:
        return Metric(name, unit, None, n, problem="no rate was verified")
    rate_hz = float(rate_hz)
    if failing_hz is None:
        return Metric(name, unit, rate_hz, n, problem="at least: no higher rate was allowed")
    problem = "at least: the limit was the generator" if answer["limit"] == "generator" else ""
    rng = random.Random(seed)
    draws = [rng.uniform(rate_hz, float(failing_hz)) for _ in range(RESAMPLES)]
    floor = float(failing_hz) / rate_hz - 1
    return Metric(name, unit, rate_hz, n, Resampled(rate_hz, draws), floor, problem)

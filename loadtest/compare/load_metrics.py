"""The metrics of a load run: rate, percentiles and server CPU per call, by its units (no I/O).

Units are the repeats, or blocks of the seconds of a single run.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from capnp_rig.loadtest.results.load_samples import LoadRun
from capnp_rig.loadtest.stats.histogram import Histogram, us_of
from capnp_rig.loadtest.stats.metric import Metric, metric_of_values, tail_problems
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode
from capnp_rig.loadtest.stats.run_summary import LIMITS, PERCENTILES, Summary
from capnp_rig.loadtest.stats.run_units import RATE, SERVER_CPU, percentile_key
from capnp_rig.loadtest.stats.unit_intervals import LEAST_BLOCKS


class _Figure(NamedTuple):
    """A figure of a run, `key` as its units call it."""

    key: str
    name: str
    unit: str
    value: float | None
    problems: tuple[Reason, ...] = ()


def metrics_by_repeat(load: LoadRun) -> Iterator[Metric]:
    """Yield each metric as the median of what it is in the repeats."""
    # A percentile that jumps from bucket to bucket would differ by 0.8 %, or not at all.
    repeats = [
        _figures(load, load.summary([number]), Histogram.interpolated_ns) for number in load.repeats
    ]
    for at, figure in enumerate(_figures(load, load.summary())):
        values = [each[at].value for each in repeats]
        yield metric_of_values(figure.name, figure.unit, values, figure.problems)


def metrics_by_second(load: LoadRun) -> Iterator[Metric]:
    """Yield each metric of a single run, by blocks of its seconds."""
    units = load.units
    parts = units.added(PERCENTILES)
    seconds = int(sum(repeat.seconds for repeat in load.repeats.values()))
    for figure in _figures(load, load.summary()):
        added, problems = parts.get(figure.key), figure.problems
        if not units.units:
            few = Reason.of(ReasonCode.FEW_SECONDS, count=seconds, least=LEAST_BLOCKS)
            problems = (few,)
        elif added is None:
            is_cpu = figure.key == SERVER_CPU
            code = ReasonCode.CPU_NOT_SAMPLED if is_cpu else ReasonCode.NOT_MEASURED
            problems = problems or (Reason.of(code),)
        elif figure.key == SERVER_CPU and figure.value:
            # That of the whole window, at whose edges no sample was taken.
            added = added.scaled(figure.value / added.value)
        yield Metric(figure.name, figure.unit, figure.value, seconds, added, problems)


def _figures(
    load: LoadRun,
    run: Summary,
    percentile_ns: Callable[[Histogram, float], float | None] = Histogram.percentile_ns,
) -> list[_Figure]:
    listed = [_Figure(RATE, "calls/s", "calls/s", run.calls_per_s)]
    for clock in ("response", "service") if load.is_open_loop else ("service",):
        times: Histogram = getattr(run, clock)
        for percent in PERCENTILES:
            key, value = percentile_key(clock, percent), us_of(percentile_ns(times, percent))
            listed.append(_Figure(key, key, "µs", value, tail_problems(times, percent)))
    cpu_us = run.server_cpu_us_per_call
    return [*listed, _Figure(SERVER_CPU, "server CPU per call", "µs", cpu_us, _cpu_problems(run))]


def _cpu_problems(whole: Summary) -> tuple[Reason, ...]:
    if whole.server_cpu_s is None:
        return (Reason.of(ReasonCode.CPU_NOT_KNOWN),)
    least_s = LIMITS["least_server_cpu_s"]
    is_little = whole.server_cpu_s < least_s
    return (Reason.of(ReasonCode.LITTLE_CPU, least_s=least_s),) if is_little else ()

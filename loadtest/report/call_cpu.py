"""CPU per call, of servers and of generators, and of each worker (no I/O)."""

from collections.abc import Iterator, Sequence

from capnp_rig.loadtest.report.chart import Axis, RowChart, Series, Value
from capnp_rig.loadtest.report.codec_view import grouped as by_labels
from capnp_rig.loadtest.report.document import Part
from capnp_rig.loadtest.report.figures import figure_table, interval_of, row_series
from capnp_rig.loadtest.report.line_styles import ENGINES, look_of
from capnp_rig.loadtest.report.ratios import ratio_row, ratio_table
from capnp_rig.loadtest.report.sources import Source
from capnp_rig.loadtest.report.spectrum import loop_text
from capnp_rig.loadtest.report.units import (
    capitalized,
    count_text,
    cpu_text,
    digits,
    sentence,
    share_text,
)
from capnp_rig.loadtest.results.load_samples import LoadRun
from capnp_rig.loadtest.stats.figure import Figure, FigureKind
from capnp_rig.loadtest.stats.process_use import ProcessUse, add_up, workers_of
from capnp_rig.loadtest.stats.run_summary import LIMITS

_CPU = "server CPU per call"
_OWN_CPU = "generator CPU per call"


def cpu_parts(source: Source) -> Iterator[Part]:
    """Yield CPU per call of a bench-server or bench-locust, and all its figures.

    Of a load run, calls and CPU per call of each worker, where there are several.
    """
    if source.load is not None:
        yield from _worker_parts(source, source.load)
        return
    rows = [ratio_row(pair_ratio_text(figure), figure) for figure in pair_ratios(source.figures)]
    if rows:
        caption = "By connections x calls in flight; above 1 the first named is better"
        yield ratio_table(f"ratios-{source.kind}", caption, rows)
    for what in (_CPU, _OWN_CPU):
        grouped = [
            figure
            for figure in source.figures
            if figure.kind is FigureKind.VALUE and figure.labels.get("what") == what
        ]
        if grouped:
            yield _cpu_chart(source, what, grouped)
    yield figure_table(
        f"figures-{source.kind}", f"All figures of {source.kind}", source.figures, folded=True
    )


def pair_ratios(figures: Sequence[Figure]) -> list[Figure]:
    """Return the ratios of a bench-server or bench-locust."""
    return [
        figure for figure in figures if figure.kind is FigureKind.RATIO and figure.value is not None
    ]


def pair_ratio_text(ratio: Figure) -> str:
    """Return what a ratio of two servers or users compares."""
    labels = ratio.labels
    compared = f"{labels['subject']} over {labels['baseline']}"
    return f"{capitalized(labels['what'])}, {labels['load']}: {compared}"


def _cpu_chart(source: Source, what: str, grouped: Sequence[Figure]) -> RowChart:
    loads = list(dict.fromkeys(str(figure.labels["load"]) for figure in grouped))
    subjects = {str(name): some for (name,), some in by_labels(grouped, "subject").items()}
    noun = "users" if source.kind == "bench-locust" else "connections"
    return RowChart(
        key=f"cpu-{source.kind}",
        title=f"{capitalized(what)}, {' and '.join(subjects)}",
        finding=_cpu_finding(grouped),
        x=Axis(f"CPU µs per call, by {noun} x calls in flight", low=0),
        rows=loads,
        series=row_series(subjects, "load", loads, _cpu_value, ENGINES),
    )


def _worker_parts(source: Source, load: LoadRun) -> Iterator[Part]:
    server = add_up(each.server for each in load.repeats.values())
    workers = workers_of(server)
    calls = [worker.calls for worker in workers if worker.calls is not None]
    if len(workers) < 2 or len(calls) < len(workers) or not sum(calls):
        return
    seconds = sum(each.seconds for each in load.repeats.values())
    rates = [Value(each / seconds, label=count_text(each / seconds)) for each in calls]
    costs = [
        Value(worker.cpu_us_per_call, label=digits(worker.cpu_us_per_call or 0), void=_few(worker))
        for worker in workers
    ]
    title = loop_text(source, load.summary())
    for what, values, unit in (("Calls", rates, "calls/s"), ("CPU", costs, "CPU µs per call")):
        yield RowChart(
            key=f"workers-{what.lower()}-{source.slug}",
            title=f"{what} of each worker, {title[:1].lower()}{title[1:]}",
            finding=_spread_finding(
                what, [worker.value for worker in values if worker.value is not None]
            )
            + "".join(
                dict.fromkeys(f" Grey is void: {value.void}." for value in values if value.void)
            ),
            x=Axis(unit, low=0),
            rows=[worker.name for worker in workers],
            series=[Series(unit, values, look_of(unit, {}, 0))],
        )


def _few(worker: ProcessUse) -> str:
    least_s = LIMITS["least_server_cpu_s"]
    return f"under {least_s:g} s of CPU" if worker.cpu_s < least_s else ""


def _spread_finding(what: str, values: Sequence[float]) -> str:
    if what == "Calls":
        share = max(values) / sum(values)
        said = (
            f"the busiest of {len(values)} workers answered {share_text(share)} of the calls, "
            f"where equal shares are {share_text(1 / len(values))}"
        )
        return sentence(said) + " A worker gets connections, not calls."
    return sentence(f"from {digits(min(values))} to {digits(max(values))} µs")


def _cpu_value(figure: Figure) -> Value:
    value = figure.value or 0.0
    said = f"{figure.labels['subject']}: {interval_of(figure, cpu_text)}"
    return Value(value, figure.low, figure.high, figure.void_text, said, digits(value))


def _cpu_finding(grouped: Sequence[Figure]) -> str:
    good = [figure for figure in grouped if figure.value is not None and not figure.is_void]
    if not good:
        return "All of it is void."
    least = min(good, key=lambda figure: figure.value or 0.0)
    most = max(good, key=lambda figure: figure.value or 0.0)
    ends = [
        f"{digits(figure.value or 0)} µs ({figure.labels['subject']}, {figure.labels['load']})"
        for figure in (least, most)
    ]
    return f"From {ends[0]} to {ends[1]}. Whiskers are 95 % intervals."

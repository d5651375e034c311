"""What the page opens with: six lines at most that answer what this project asks (no I/O).

When does zero-copy pay? What is left of it over RPC? What does a call cost on each stack? Each
question has two lines: where Cap'n Proto gains the most, and where it gains the least or loses.
Lines that are left over go to other ratios, then to loads.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from capnp_rig.loadtest.bench.stacks_figures import RATIO_CPU
from capnp_rig.loadtest.bench.sweep_figures import knee_of
from capnp_rig.loadtest.report.call_cpu import pair_ratio_text, pair_ratios
from capnp_rig.loadtest.report.cells import cell, row
from capnp_rig.loadtest.report.codec_lines import what_of
from capnp_rig.loadtest.report.codec_ratios import ahead_of, headline_curves
from capnp_rig.loadtest.report.codec_trips import telling_trips, trips_of
from capnp_rig.loadtest.report.codec_view import COLUMNS, CodecView
from capnp_rig.loadtest.report.document import Cell, Row, Table, Tone
from capnp_rig.loadtest.report.ratios import ratio_row
from capnp_rig.loadtest.report.run_tables import interval_cell
from capnp_rig.loadtest.report.sources import Source
from capnp_rig.loadtest.report.spectrum import clocks_of, loop_text
from capnp_rig.loadtest.report.stack_ladder import (
    payload_of,
    stack_ratio_text,
    telling_ratios,
)
from capnp_rig.loadtest.report.units import (
    NOTHING,
    capitalized,
    count_text,
    interval_text,
    plural,
    ratio_text,
    time_text,
    us_text,
)
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.contracts import Contract
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.reasons import doubts_of, text_of
from capnp_rig.loadtest.stats.run_summary import Summary
from capnp_rig.loadtest.stats.run_units import percentile_key

_MOST_LINES = 6
_HEADINGS = ("what", "ratio or value", "95 % interval", "A/A floor", "n", "verdict")


def answers(sources: Sequence[Source]) -> Table | None:
    """Return the lines that the page opens with, None if there is nothing to say."""
    rows = [
        row
        for lines in (_codec_lines, _trip_lines, _stack_lines, _pair_lines, _load_lines)
        for source in sources
        for row in lines(source)
    ]
    if not rows:
        return None
    caption = "Above 1 the first named is faster, or costs less"
    return Table("answers", caption, _HEADINGS, rows[:_MOST_LINES])


def _extremes(ratios: Iterable[tuple[str, Figure]]) -> Iterator[Row]:
    """Yield the highest and the lowest of named ratios, those that are not void if there are."""
    named = list(ratios)
    good = [each for each in named if not each[1].is_void] or named
    ordered = sorted(good, key=lambda each: each[1].value or 0.0, reverse=True)
    yield from (ratio_row(*each) for each in [*ordered[:1], *ordered[1:][-1:]])


def _codec_lines(source: Source) -> Iterator[Row]:
    """Yield when zero-copy pays, and where it loses; of columns, where they were measured."""
    if source.kind == "bench":
        view = CodecView(source.figures)
        named = [
            ("; ".join(filter(None, [what_of(ratio), ahead_of(view, curve)])), ratio)
            for curve in headline_curves(view)
            for ratio in curve
            # What is opened only is of no use to anybody.
            if ratio.contract != Contract.OPEN
        ]
        by_rival = [each for each in named if each[1].labels["baseline"] == view.rival]
        columns = [each for each in by_rival if each[1].contract in COLUMNS]
        if columns:
            # Against all: what lays columns out side by side, or copies nothing, is the strongest.
            yield from (*[*_extremes(columns)][:1], *[*_extremes(named)][1:])
        else:
            yield from _extremes(by_rival)


def _trip_lines(source: Source) -> Iterator[Row]:
    """Yield what is left of it over RPC."""
    if source.kind == "bench":
        yield from _extremes(
            (f"{capitalized(trip.title)}, there and back over RPC: {_gain(trip.ratios)}", ratio)
            for trip in telling_trips(trips_of(CodecView(source.figures)))
            if (ratio := trip.ratios.get(Contract.OVER_RPC)) is not None
        )


def _gain(ratios: Mapping[str, Figure]) -> str:
    labels = ratios[Contract.OVER_RPC].labels
    compared = f"{labels['codec']} over {labels['baseline']}"
    memory = ratios.get(Contract.IN_MEMORY)
    return compared if memory is None else f"{compared}; {ratio_text(memory.value)} in memory"


def _stack_lines(source: Source) -> Iterator[Row]:
    """Yield what a call costs the server, against the stacks that cost the most and the least."""
    if source.kind == "bench-stacks":
        ratios = telling_ratios(source.figures)
        costs = [figure for figure in ratios if figure.labels["figure"] == RATIO_CPU] or ratios
        yield from _extremes(
            (stack_ratio_text(figure), figure)
            for figure in costs
            if payload_of(figure) == payload_of(costs[0])
        )


def _pair_lines(source: Source) -> Iterator[Row]:
    if source.kind in {"ab", "bench-server", "bench-peers", "bench-servers", "bench-locust"}:
        yield from (
            ratio_row(pair_ratio_text(figure), figure) for figure in pair_ratios(source.figures)
        )


def _load_lines(source: Source) -> Iterator[Row]:
    if source.kind == "search":
        yield _search_line(source)
    elif source.kind == "sweep":
        yield _sweep_line(source)
    elif source.load is not None:
        yield _run_line(source, source.load.summary())


def _search_line(source: Source) -> Row:
    answer, what = source.document["found"], f"Highest rate that keeps {source.config.get('slo')}"
    rate, failing = answer["rate_hz"], answer["failing_hz"]
    return row(
        what,
        cell(rate, "{:,g} calls/s".format),
        # The truth lies between what was verified and what failed.
        interval_text(rate, failing, count_text) or NOTHING,
        NOTHING,
        answer["verified"],
        f"limit: {answer['limit']}",
        void="no rate was verified" if rate is None else "",
    )


def _sweep_line(source: Source) -> Row:
    knee = knee_of(source.figures)
    if knee is None:
        nothing = [NOTHING] * (len(_HEADINGS) - 1)
        return row("Highest rate of callers that wait", *nothing, void="all of it is void")
    what = f"Highest rate of callers that wait, {plural(knee.in_flight, 'call')} in flight"
    least, verdict = ("≥ ", "at least") if knee.is_least else ("", "ok")
    rate = Cell(f"{least}{count_text(knee.rate_hz)} calls/s", knee.rate_hz)
    return row(what, rate, NOTHING, NOTHING, NOTHING, verdict)


def _run_line(source: Source, summary: Summary) -> Row:
    verdict, reasons = source.judged(summary)
    clock, times = next(iter(clocks_of(summary).items()))
    interval = summary.intervals.get(percentile_key(clock, 99))
    return row(
        f"{loop_text(source, summary)}: {clock} time p99",
        cell(times.percentile_ns(99), time_text),
        interval_cell(interval, us_text),
        NOTHING,
        times.count,
        verdict,
        void=text_of(doubts_of(reasons)),
        tone=Tone.BAD if verdict is Verdict.FAILED else Tone.PLAIN,
    )

"""The tables and sentences of a load run or a search, its times by label and clock (no I/O)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from capnp_rig.loadtest.report.cells import number_cell, row, us_cell
from capnp_rig.loadtest.report.document import Cell, Notes, Paragraph, Part, Table, Tone
from capnp_rig.loadtest.report.units import NOTHING, Text, capitalized, interval_text, plural
from capnp_rig.loadtest.results.load_samples import damage
from capnp_rig.loadtest.results.times_table import PERCENTILES
from capnp_rig.loadtest.results.times_table import Row as Times
from capnp_rig.loadtest.stats import run_summary
from capnp_rig.loadtest.stats.endpoint_summary import Outage
from capnp_rig.loadtest.stats.failures import FailedCall, first_examples
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.pair_statistics import Interval
from capnp_rig.loadtest.stats.process_use import ProcessUse, workers_of
from capnp_rig.loadtest.stats.rate_search import VERIFICATIONS, Answer, Limit
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode, text_of
from capnp_rig.loadtest.stats.run_summary import LIMITS, Summary
from capnp_rig.loadtest.stats.slo import Slo
from capnp_rig.loadtest.stats.unit_intervals import LEAST_BLOCKS, LEAST_REPEATS

CAPTION = f"times in µs; grey has under {LIMITS['least_beyond']:g} calls beyond it"


def summary_parts(summary: Summary, server: Sequence[ProcessUse]) -> Iterator[Part]:
    """Yield the times of a run, in µs, its counts, and its server's workers if there are two."""
    plain = summary.to_json()
    columns = [*(f"p{percent:g}" for percent in run_summary.PERCENTILES), "max"]
    times = {
        name: [plain[f"{name}_us"][column] for column in columns]
        for name in ("response", "service", "lateness")
    }
    walked = [] if plain["walks"] is None else [plain["walks"]]
    yield Table(
        "times",
        "Times in µs",
        ["time", *columns],
        [
            row(name, *map(number_cell, values))
            for name, values in times.items()
            if any(value is not None for value in values)
        ]
        + [row("via", *(number_cell(walks[column]) for column in columns)) for walks in walked],
    )
    yield from spread_parts(summary)
    failures = summary.failures.items()
    rows = [
        row("calls", summary.calls),
        row("calls/s", number_cell(summary.calls_per_s)),
        *([row("open loop", open_loop_text(summary))] if summary.is_open_loop else []),
        *(row(f"failed: {kind}", count, tone=Tone.BAD) for kind, count in failures),
        row("server CPU µs per call", number_cell(summary.server_cpu_us_per_call, 1)),
        row("verdict", beside_verdict(summary.verdict, summary.unchecked)),
    ]
    yield Table("counts", "", ["", ""], rows)
    yield from endpoint_parts(summary)
    if summary.too_short_for:
        yield Paragraph(_short_text(summary.too_short_for))
    yield from example_parts(summary.examples)
    workers = workers_of(server)
    if len(workers) > 1:
        yield _worker_table(workers)


def endpoint_parts(summary: Summary) -> Iterator[Part]:
    """Yield what each of several endpoints did, and when there was no connection to it."""
    endpoints = summary.endpoints
    if not endpoints:
        return
    yield from endpoint_tables(summary)
    outages = [_outage_text(outage) for each in endpoints for outage in each.outages]
    if outages:
        yield Notes("Without a connection", outages)
    if any(each.server_cpu_s is None for each in endpoints):
        yield Paragraph(_NO_ENDPOINT_CPU, quiet=True)


def endpoint_tables(summary: Summary) -> Iterator[Table]:
    """Yield the counts and the times of each endpoint: one table would be too wide."""
    has_cpu = any(each.server_cpu_s is not None for each in summary.endpoints)
    headings = ["endpoint", "calls", "calls/s", "failed", "connections", "ended"]
    rows = [
        row(
            *(each.endpoint, each.calls, number_cell(each.calls_per_s), each.window.failed),
            *(number_cell(each.connections), each.window.ended),
            *([number_cell(each.server_cpu_us_per_call, 1)] if has_cpu else []),
            tone=Tone.BAD if each.outages or each.window.failed else Tone.PLAIN,
        )
        for each in summary.endpoints
    ]
    caption = "Endpoints; connections at the end, and how many ended before"
    cpu = ["CPU µs per call"] if has_cpu else []
    yield Table("endpoints", caption, [*headings, *cpu], rows)
    clock = "response" if summary.is_open_loop else "service"
    percentiles = [f"p{percent:g}" for percent in run_summary.PERCENTILES]
    rows = [
        row(
            each.endpoint,
            *(percentile_cell(each.times, percent) for percent in run_summary.PERCENTILES),
            us_cell(each.times.max_ns),
        )
        for each in summary.endpoints
    ]
    caption = f"Endpoints; {clock} times in µs"
    yield Table("endpoint-times", caption, ["endpoint", *percentiles, "max"], rows)


_NO_ENDPOINT_CPU = (
    "Server CPU per call is left out where it is not known: all endpoints must be on this machine, "
    "each with processes of its own that all lived from the beginning to the end."
)


def _outage_text(outage: Outage) -> str:
    until = "the end" if outage.until_s is None else f"second {outage.until_s:.1f}"
    return f"{outage.endpoint}: from second {outage.from_s:.1f} to {until}"


def _short_text(too_short_for: Mapping[str, float]) -> str:
    """Return which percentiles a run was too short for, and how long it takes for each."""
    told = ", ".join(f"{name} takes {seconds:,.0f} s" for name, seconds in too_short_for.items())
    least = LIMITS["least_beyond"]
    return f"Too short for {least:g} calls beyond every percentile: at this rate {told}."


def beside_verdict(verdict: str, unchecked: Iterable[Reason]) -> str:
    """Return a verdict with what of the replies nobody compared."""
    return text_of([Reason.of(ReasonCode.OTHER, text=verdict), *unchecked])


def check_notes(document: Mapping[str, Any]) -> Iterator[Part]:
    """Yield what of the replies to a search or a sweep nobody compared, and its failed calls.

    In front is how long the calls of its chain took.
    """
    yield from walk_notes(document)
    for text in document.get("checked", {}).get("unchecked", ()):
        yield Paragraph(f"{capitalized(text)}.")
    failed = map(FailedCall.from_json, document.get("failed_calls", ()))
    yield from example_parts(first_examples(failed))


def walk_notes(document: Mapping[str, Any]) -> Iterator[Part]:
    """Yield how long the calls took that led to what a search or a sweep called, if any did."""
    with damage("run.json"):
        walks = document.get("walks")
        if walks is None:
            return
        times = ", ".join(f"{name} {walks[name]:,.0f} µs" for name in ("p50", "p99", "max"))
        count = plural(walks["count"], "connection")
    yield Paragraph(f"The calls of --via led to what was called in {times} ({count}).")


def load_notes(summary: Summary) -> Iterator[Part]:
    """Yield the same of a load run, and how many calls failed."""
    for reason in summary.unchecked:
        yield Paragraph(f"{capitalized(reason.text)}.")
    if summary.errors:
        yield Paragraph(
            f"{plural(summary.errors, 'call')} of {summary.errors + summary.calls:,} failed."
        )
    yield from example_parts(summary.examples)


def example_parts(examples: Iterable[FailedCall]) -> Iterator[Notes]:
    """Yield the first failed calls: the request, what was expected and what came.

    Those of which no more is known than their kind, which is counted, are left out.
    """
    for example in examples:
        if example.lines or example.text != example.kind:
            yield Notes(example.text, example.lines)


def open_loop_text(summary: Summary) -> str:
    """Return in words how many calls an open loop had, and where they are."""
    return (
        f"{summary.offered:,} offered, {summary.sent:,} sent, {summary.held:,} held back "
        f"({summary.unsent:,} to the end), {summary.calls:,} answered"
    )


def interval_basis(summary: Summary) -> str:
    """Return what the intervals of a run rest on, or why there are none."""
    if summary.repeats:
        few = f"no interval: {len(summary.repeats)} repeats, it takes {LEAST_REPEATS}"
        return "intervals over the repeats" if summary.intervals else few
    few = f"no interval: it takes {LEAST_BLOCKS} seconds, or {LEAST_REPEATS} repeats"
    return "intervals over blocks of seconds" if summary.intervals else few


def interval_cell(interval: Interval | None, text: Text = "{:,.2f}".format) -> Cell:
    """Return an interval as a cell, a dash without one."""
    if interval is None:
        return Cell(NOTHING)
    return Cell(interval_text(interval.low, interval.high, text) or NOTHING)


def spread_parts(summary: Summary) -> Iterator[Part]:
    """Yield the intervals of a run's figures, and how they differ over its repeats, as a table."""
    headings, spread = ["figure", "95 % interval"], summary.spread
    if spread:
        headings += ["lowest repeat", "median", "highest"]
    rows = [
        row(key, interval_cell(summary.intervals.get(key)), *map(number_cell, spread.get(key, ())))
        for key in {**spread, **summary.intervals}
    ]
    if rows:
        yield Table("spread", f"calls/s and µs; {interval_basis(summary)}", headings, rows)
    else:
        yield Paragraph(f"{interval_basis(summary)}.", quiet=True)


def _worker_table(workers: Sequence[ProcessUse]) -> Table:
    total = sum(each.calls or 0 for each in workers)
    rows = [
        row(
            each.name,
            each.calls,
            None if each.calls is None or not total else f"{each.calls / total:.0%}",
            number_cell(each.cpu_s, 2),
            number_cell(each.cpu_us_per_call, 1),
            None if each.gc is None else f"{each.gc.count:,}, {each.gc.pause_ns / 1e6:.1f} ms",
        )
        for each in workers
    ]
    headings = ["worker", "calls", "share", "CPU s", "CPU µs per call", "GC pauses"]
    return Table("workers", "Workers", headings, rows)


def answer_notes(slo: Slo, answer: Answer) -> Iterator[Paragraph]:
    """Yield the answer of a search in words."""
    if answer.rate_hz is None:
        yield Paragraph(f"No rate was verified to keep {slo.text}.")
    else:
        kept = f"{answer.verified} of {VERIFICATIONS} verifications"
        yield Paragraph(f"{slo.text} holds up to {answer.rate_hz:,g} calls/s ({kept}).")
    if answer.failing_hz is not None:
        said = f"It fails at {answer.failing_hz:,g} calls/s; the limit was the {answer.limit}."
        yield Paragraph(said)
    elif answer.limit is Limit.SEARCH:
        yield Paragraph("No rate failed up to the highest allowed: --to.")
    else:
        yield Paragraph("No rate had failed yet.")


def times_table(times: Iterable[Times]) -> Table:
    """Return a row per label and clock."""
    percentiles = map("p{:g}".format, PERCENTILES)
    headings = ["label", "clock", "count", "per s", "mean", *percentiles, "max"]
    rows = [
        row(
            label_times.label,
            label_times.clock,
            label_times.count,
            number_cell(label_times.per_s),
            us_cell(label_times.times.mean_ns),
            *(percentile_cell(label_times.times, percent) for percent in PERCENTILES),
            us_cell(label_times.times.max_ns),
        )
        for label_times in times
    ]
    return Table("times-table", CAPTION, headings, rows)


def percentile_cell(times: Histogram, percent: float) -> Cell:
    """Return a percentile, grey if too few calls lie beyond it."""
    is_doubtful = times.beyond(percent) < LIMITS["least_beyond"]
    return us_cell(times.percentile_ns(percent), Tone.QUIET if is_doubtful else Tone.PLAIN)
